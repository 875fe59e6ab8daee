// The command lines of the programs: --help, --version, refusals, and that the man pages say the
// same.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>

#include "base/version.h"
#include "tests/tools/command.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

struct Program {
  std::string name;
  std::string path;
  std::vector<std::string> help_commands;  // arguments
  char section = '8';                      // of the manual
};

const Program kDaemon{"iscsi-blkback", ISCSI_BLKBACK_DAEMON, {"--help"}};
const Program kCtl{"iscsi-blkctl", ISCSI_BLKBACK_CTL, {"--help", "ll --help"}};

const Program kLunex{"lunex",
                     ISCSI_BLKBACK_LUNEX,
                     {"--help", "run --help", "verify --help", "info --help", "discover --help"},
                     '1'};

CommandResult run(const Program& program, const std::string& arguments) {
  return run_command("'" + program.path + "' " + arguments);
}

std::set<std::string> long_options(const std::string& text) {
  static const std::regex kOption("(^|[^-a-z])(--[a-z][-a-z]*)");
  std::set<std::string> options;
  for (std::sregex_iterator at(text.begin(), text.end(), kOption), end; at != end; ++at) {
    options.insert((*at)[2]);
  }
  return options;
}

std::string man_page(const Program& program) {
  const std::string page =
      read_whole(ISCSI_BLKBACK_SOURCE_FOLDER "/tools/man/" + program.name + '.' + program.section);
  EXPECT_NE(page, "") << program.name;
  return std::regex_replace(page, std::regex(R"(\\-)"), "-");
}

class Programs : public testing::TestWithParam<const Program*> {};

INSTANTIATE_TEST_SUITE_P(All, Programs, testing::Values(&kDaemon, &kCtl, &kLunex),
                         [](const auto& program) {
                           return program.param == &kDaemon ? "daemon"
                                  : program.param == &kCtl  ? "ctl"
                                                            : "lunex";
                         });

TEST_P(Programs, HelpAndManPageHaveTheSameOptions) {
  std::set<std::string> of_help;
  for (const std::string& arguments : GetParam()->help_commands) {
    const CommandResult help = run(*GetParam(), arguments);
    EXPECT_EQ(help.exit_code, 0);
    of_help.merge(long_options(help.output));
  }
  EXPECT_GE(of_help.size(), 3U);
  EXPECT_EQ(of_help, long_options(man_page(*GetParam())));
}

TEST_P(Programs, VersionIsThatOfTheProject) {
  const CommandResult result = run(*GetParam(), "--version");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, testing::StartsWith(GetParam()->name + " " + kVersion));
}

TEST_P(Programs, RefusesUnknownOption) {
  const CommandResult result = run(*GetParam(), "--frobnicate");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.output, "");
  EXPECT_NE(result.errors, "");
}

// Where there is no Xen, they are of use too: lunex by itself, and iscsi-blkctl to say that no service runs.
TEST(ProgramLibraries, AreOfXenForTheDaemonOnly) {
  EXPECT_THAT(run_command(std::string("ldd ") + ISCSI_BLKBACK_DAEMON).output, HasSubstr("libxen"));
  for (const Program* program : {&kCtl, &kLunex}) {
    const CommandResult loaded = run_command("ldd '" + program->path + "'");
    EXPECT_EQ(loaded.exit_code, 0) << program->name;
    EXPECT_THAT(loaded.output, testing::Not(HasSubstr("libxen"))) << program->name;
  }
}

class Daemon : public testing::Test {
 protected:
  std::string file(const std::string& text) {
    std::ofstream(folder_ / "c.toml") << text;
    return "--config '" + folder_ / "c.toml" + "' ";
  }
  TemporaryFolder folder_;
};

TEST_F(Daemon, CheckConfigAcceptsARightFile) {
  const CommandResult result =
      run(kDaemon, file("initiator_name = 'iqn.x:host'\n") + "--check-config");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("is right"));
}

TEST_F(Daemon, CheckConfigSaysFileLineAndWhatIsWrong) {
  const CommandResult result =
      run(kDaemon, file("initiator_name = 'iqn.x:host'\nportal = []\n") + "--check-config");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.errors, folder_ / "c.toml" +
                               ":2: portal is not an option of this file; did you mean portals?\n");
}

TEST_F(Daemon, DoesNotStartWithAWrongFile) {
  const CommandResult result = run(kDaemon, file("xyz = 1\n"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("c.toml:1: xyz is not an option of this file"));
}

TEST_F(Daemon, RefusesAFileThatIsNotThere) {
  const CommandResult result = run(kDaemon, "--config '" + folder_ / "none" + "' --check-config");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("No such file"));
}

TEST_F(Daemon, RefusesGuestsThatCannotBe) {
  EXPECT_EQ(run(kDaemon, "--guest 32752 --check-config").exit_code, 2);
  EXPECT_EQ(run(kDaemon, "--guest -1 --check-config").exit_code, 2);
  EXPECT_EQ(run(kDaemon, "--guest five --check-config").exit_code, 2);
}

TEST_F(Daemon, RefusesUnknownLogLevel) {
  const CommandResult result = run(kDaemon, "--log-level loud --check-config");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("error, warning, info or debug"));
}

TEST_F(Daemon, RefusesRelativeRunDirectory) {
  EXPECT_EQ(run(kDaemon, "--run-directory run --check-config").exit_code, 2);
}

TEST(CtlCommandLine, NeedsACommand) {
  EXPECT_EQ(run(kCtl, "").exit_code, 2);
}

TEST(CtlCommandLine, NamesTheSubcommandThatItDoesNotHave) {
  for (const char* words : {"list", "--config /nowhere list", "--config=/nowhere list ll",
                            "-D /run -c /nowhere list --json"}) {
    const CommandResult result = run(kCtl, words);
    EXPECT_EQ(result.exit_code, 2) << words;
    EXPECT_EQ(result.errors,
              "iscsi-blkctl: there is no subcommand \"list\"; there are ll, disablequeueing, "
              "restorequeueing, set, add, del, remove\n")
        << words;
  }
}

class LunexCommandLine : public testing::Test {
 protected:
  // What is wrong is said in one sentence, before anybody is asked.
  void expect_refused(const std::string& arguments, const std::string& sentence) {
    std::ofstream(folder_ / "c.toml") << "initiator_name = 'iqn.x:host'\n";
    const CommandResult result = run(kLunex, arguments + " --config '" + folder_ / "c.toml" + "'");
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_EQ(result.output, "") << arguments;
    EXPECT_THAT(result.errors, testing::StartsWith("lunex: "));
    EXPECT_THAT(result.errors, HasSubstr(sentence)) << arguments;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  }
  static constexpr const char* kUrl = " iscsi://127.0.0.1:1/iqn.x:target/1 ";
  TemporaryFolder folder_;
};

TEST_F(LunexCommandLine, NeedsACommand) {
  EXPECT_EQ(run(kLunex, "").exit_code, 2);
}

TEST_F(LunexCommandLine, NamesTheSubcommandThatItDoesNotHave) {
  expect_refused("discovery 127.0.0.1",
                 "there is no subcommand \"discovery\"; there are run, verify, info, discover");
}

TEST_F(LunexCommandLine, SaysWhereOptionsBelong) {
  for (const char* words :
       {"-i iqn.x:host discover 127.0.0.1", "-iiqn.x:host discover 127.0.0.1"}) {
    expect_refused(words, "-i follows the subcommand, which is one of run, verify, info, discover");
  }
  for (const char* words : {"--json info", "--log-level=info info", "--log-level info info"}) {
    expect_refused(words, "follows the subcommand, which is one of run, verify, info, discover");
  }
  expect_refused("--frobnicate info", "there is no option --frobnicate");
  EXPECT_EQ(run(kLunex, "--help discovery").exit_code, 0);
}

// A remark about the name would look like the reason.
TEST_F(LunexCommandLine, SaysNothingOfTheNameOfTheHostBeforeAUrlIsKnownToBeOne) {
  std::ofstream(folder_ / "c.toml") << "";
  for (const char* words : {"info http://foo", "info iscsi://127.0.0.1:1/IQN_x/1", "discover ''"}) {
    const CommandResult result =
        run(kLunex, std::string(words) + " --config '" + folder_ / "c.toml" + "'");
    EXPECT_EQ(result.exit_code, 2) << words;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  }
}

TEST_F(LunexCommandLine, RefusesWordsThatItDoesNotKnow) {
  expect_refused(std::string("run --rw=trim") + kUrl, "read, write, randread");
  expect_refused(std::string("run --bs=4x") + kUrl, "--bs");
  expect_refused(std::string("run --bs=32m") + kUrl, "at most 16 MiB");
  expect_refused(std::string("run --iodepth=0") + kUrl, "--iodepth");
  expect_refused(std::string("run --iodepth=5000") + kUrl, "--iodepth");
  expect_refused(std::string("run --runtime=soon") + kUrl, "--runtime");
  expect_refused(std::string("run --number_ios=0") + kUrl, "--number_ios");
  expect_refused(std::string("run --rwmixread=101") + kUrl, "--rwmixread");
  expect_refused(std::string("run --sessions=65") + kUrl, "--sessions");
  expect_refused(std::string("run --frobnicate") + kUrl, "--frobnicate");
  expect_refused("run", "URL");
}

TEST_F(LunexCommandLine, RefusesUrlsThatAreNone) {
  expect_refused("run http://127.0.0.1/", "begin with iscsi:");
  expect_refused("run iscsi://127.0.0.1/iqn.x:target", "LUN");
  expect_refused("run iscsi://user%secret@127.0.0.1/iqn.x:target/1", "credentials");
  expect_refused("run iscsi:nobody", "no LUN with the alias nobody");
  expect_refused(std::string("run --initiator-name=me") + kUrl, "--initiator-name");
  expect_refused("discover ''", "portal");
  expect_refused("discover 2001:db8::1:3260", "write [ADDRESS]:PORT");
  expect_refused("discover 192.0.2.1,x", "group tag");
}

// CLI11 takes the brackets for those of a list. Nothing listens there.
TEST_F(LunexCommandLine, APortalKeepsItsBrackets) {
  for (const char* word : {"'[2001:db8::1:1]%lo'", "'[::1%lo]x'"}) {
    expect_refused(std::string("discover ") + word, ":PORT or ,TAG");
  }
  const std::pair<const char*, const char*> portals[] = {
      {"'[::1:1]'", "[::1:1]:3260"},    {"'[::1]:1'", "[::1]:1"},        {"::1,1", "[::1]:3260"},
      {"127.0.0.1:1,1", "127.0.0.1:1"}, {"'[::1%lo]'", "[::1%lo]:3260"},
  };
  for (const auto& [word, name] : portals) {
    const CommandResult result =
        run(kLunex, fmt::format("discover {} --config '{}'", word, folder_ / "c.toml"));
    EXPECT_EQ(result.exit_code, 1) << word;
    EXPECT_THAT(result.errors, HasSubstr(fmt::format("discovery at {} failed", name))) << word;
  }
}

TEST_F(LunexCommandLine, RefusesToWriteWithoutBeingTold) {
  expect_refused(std::string("run --rw=randwrite") + kUrl, "--write-ok");
  expect_refused(std::string("verify") + kUrl, "--write-ok");
}

TEST_F(LunexCommandLine, RefusesAWrongConfiguration) {
  std::ofstream(folder_ / "wrong.toml") << "xyz = 1\n";
  const CommandResult result =
      run(kLunex, std::string("run") + kUrl + "--config '" + folder_ / "wrong.toml" + "'");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("wrong.toml:1: xyz is not an option of this file"));
}

}  // namespace
}  // namespace iscsi_blkback
