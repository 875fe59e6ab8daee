// --help-config and the man page say of each option what the table of options says.
#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/tools/config/config_text.h"
#include "tools/config/config_options.h"

namespace iscsi_blkback {
namespace {

using testing::Contains;
using testing::HasSubstr;
using Kind = ConfigOption::Kind;

struct Described {
  std::string section;  // of the page
  std::string text;     // up to the next heading
};

// What stands behind a .TP, by the options of its heading. Values, which have headings as well, are
// part of their option's.
std::multimap<std::string, Described> man_page() {
  std::ifstream file(ISCSI_BLKBACK_SOURCE_FOLDER "/tools/man/iscsi-blkback.toml.5");
  EXPECT_TRUE(file.good());
  std::multimap<std::string, Described> result;
  std::string section;
  std::vector<std::string> heading;
  std::string text;
  bool heading_follows = false;
  const auto end = [&] {
    for (const std::string& option : heading) {
      result.emplace(option, Described{section, text});
    }
    heading.clear();
    text.clear();
  };
  for (std::string line; std::getline(file, line);) {
    line = std::regex_replace(line, std::regex(R"(\\-)"), "-");
    if (line.starts_with(".SH ")) {
      end();
      section = line.substr(4);
    } else if (line == ".TP" || line == ".TQ") {
      heading_follows = true;
    } else if (heading_follows) {
      heading_follows = false;
      if (line.find("\\(dq") != std::string::npos) {
        continue;
      }
      if (!text.empty()) {  // headings that follow each other have one text
        end();
      }
      std::istringstream words(line.substr(line.find(' ')));
      for (std::string word; words >> word;) {
        if (word != "\"" && word != "\",") {
          heading.push_back(word);
        }
      }
    } else {
      text += line + "\n";
    }
  }
  end();
  return result;
}

std::set<std::string> numbers_in(const std::string& text) {
  static const std::regex kNumber(R"(\d+(\.\d+)?)");
  std::set<std::string> numbers;
  for (std::sregex_iterator at(text.begin(), text.end(), kNumber), end; at != end; ++at) {
    numbers.insert(at->str());
  }
  return numbers;
}

std::string section_of(const ConfigOption& option) {
  return (option.sections & kAtTop) != 0     ? "AT THE TOP"
         : (option.sections & kOfDisks) != 0 ? "IN [defaults], [targets.\\(dqNAME\\(dq] AND "
                                               "[luns.ALIAS]"
                                             : "IN [luns.ALIAS] ONLY";
}

TEST(ConfigManPage, DescribesEachOptionWhereItMayStandWithItsBoundsAndItsDefault) {
  const auto page = man_page();
  std::set<std::pair<std::string, std::string>> known;
  for (const ConfigOption& option : config_options()) {
    if ((option.sections & (kAtTop | kOfDisks | kOfLuns)) == 0) {
      continue;
    }
    const std::string name(option.name);
    SCOPED_TRACE(name);
    known.emplace(name, section_of(option));
    const auto [begin, end] = page.equal_range(name);
    const auto found = std::find_if(
        begin, end, [&](const auto& one) { return one.second.section == section_of(option); });
    ASSERT_NE(found, end);
    if (option.kind == Kind::text || option.least == option.most) {
      continue;
    }
    const std::string& text = found->second.text;
    const auto by_default = option.default_value();
    if (option.kind == Kind::yes_no) {
      EXPECT_THAT(text, testing::ContainsRegex(*by_default != 0 ? "yes|true" : "no|false"));
      continue;
    }
    const auto written = [&](std::int64_t number) {
      return in_seconds(
          std::chrono::milliseconds(option.kind == Kind::seconds ? number : number * 1000));
    };
    const std::set<std::string> numbers = numbers_in(text);
    EXPECT_THAT(numbers, Contains(written(option.most)));
    if (option.least != 0) {
      EXPECT_THAT(numbers, Contains(written(option.least)));
    }
    if (by_default) {
      EXPECT_THAT(numbers, Contains(written(*by_default)));
    }
  }
  for (const auto& [name, described] : page) {
    EXPECT_THAT(known, Contains(std::pair(name, described.section))) << "is no option there";
  }
}

TEST(ConfigManPage, NamesTheOptionsThatADeviceMayHave) {
  std::ifstream file(ISCSI_BLKBACK_SOURCE_FOLDER "/tools/man/iscsi-blkback.toml.5");
  std::ostringstream whole;
  whole << file.rdbuf();
  std::string text = whole.str();
  text.erase(0, text.find(".SH IN [[device]]"));
  text.erase(text.find(".SH", 1));
  static const std::regex kName(R"(\n\.BR? ([a-z_]+)(?= ,\n|\n| "))");
  std::set<std::string> named{"product", "revision"};  // on the line of vendor
  for (std::sregex_iterator at(text.begin(), text.end(), kName), end; at != end; ++at) {
    named.insert((*at)[1]);
  }
  std::set<std::string> known;
  for (const ConfigOption& option : config_options()) {
    if ((option.sections & kOfDevices) != 0) {
      known.emplace(option.name);
    }
  }
  EXPECT_EQ(named, known);
}

TEST(ConfigHelp, ListsEachOptionWithItsBoundsDefaultAndOldName) {
  const std::vector<std::string> lines = configuration_help();
  for (const ConfigOption& option : config_options()) {
    const std::string name(option.name);
    EXPECT_THAT(lines, Contains(testing::MatchesRegex(" [ *] " + name + " +[^ ].*"))) << name;
  }
  EXPECT_THAT(lines, Contains("   login_timeout         0.1 to 3600 seconds, default 15"));
  EXPECT_THAT(lines, Contains(HasSubstr("= node.conn[0].timeo.login_timeout")));
  EXPECT_THAT(lines, Contains(HasSubstr("= node.session.iscsi.ERL")));
  EXPECT_THAT(lines, Contains(" * rr_min_io             1 to 100000"));
  EXPECT_THAT(lines, Contains(" * rr_weight             uniform or priorities"));
  EXPECT_THAT(lines, Contains(" * path_checker          tur, directio, rdac or none"));
  EXPECT_THAT(lines, Contains("   log_level             error, warning, info or debug"));
  EXPECT_THAT(lines, Contains("   ImmediateData         yes or no, default yes"));
  EXPECT_THAT(lines, Contains("   MaxConnections        1"));
  EXPECT_THAT(lines, Contains("   sector_size           512 or 4096, default 512"));
  EXPECT_THAT(lines, Contains("   lun                   0 to 16383, must be given"));
  EXPECT_THAT(
      lines,
      Contains("   target                a target name, or a list of up to 8, must be given"));
  EXPECT_THAT(lines, Contains("   username              1 to 255 characters"));
  EXPECT_THAT(lines, Contains("   password_in           12 to 255 characters"));
  EXPECT_THAT(lines, Contains("   discovery.sendtargets.auth.password 12 to 255 characters"));
  EXPECT_THAT(lines, Contains("   reservation_key       hexadecimal number like \"0x5a00\" of 1 to "
                              "6 digits, not all 0"));
}

// What a row says may be written is taken, and by the disk line as well.
TEST(ConfigHelp, YesAndNoAreTakenInEitherSpelling) {
  for (const auto& [written, value] : std::map<std::string, bool>{{"true", true},
                                                                  {"false", false},
                                                                  {"'Yes'", true},
                                                                  {"'No'", false},
                                                                  {"'yes'", true},
                                                                  {"'no'", false},
                                                                  {"'YES'", true},
                                                                  {"'true'", true},
                                                                  {"'false'", false}}) {
    const Configuration read =
        accepted("[defaults]\nshared = " + written + "\nInitialR2T = " + written +
                 "\nportal_group_fences = " + written + "\n");
    EXPECT_EQ(read.multipath.shared, value) << written;
    EXPECT_EQ(read.session.initial_r2t, value) << written;
    EXPECT_EQ(read.multipath.portal_group_fences,
              value ? PortalGroupFences::yes : PortalGroupFences::no)
        << written;
  }
  EXPECT_EQ(accepted("[defaults]\nportal_group_fences = 'trial'\n").multipath.portal_group_fences,
            PortalGroupFences::trial);
  for (const char* wrong : {"'on'", "'y'", "1", "''", "'Yes '"}) {
    EXPECT_THAT(refusal(std::string("[defaults]\nshared = ") + wrong + "\n"),
                HasSubstr("must be true, false, \"Yes\" or \"No\""))
        << wrong;
    EXPECT_THAT(refusal(std::string("[defaults]\nportal_group_fences = ") + wrong + "\n"),
                HasSubstr("must be true, false, \"Yes\", \"No\" or \"Trial\""))
        << wrong;
  }
}

}  // namespace
}  // namespace iscsi_blkback
