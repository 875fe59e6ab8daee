// The floors of the house: what each folder of the product may include. CMake links the folders in
// the same order; this test also sees what the linker does not: headers without a source file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace iscsi_blkback {
namespace {

using Folders = std::set<std::string>;

// Each folder stands on those in its list and on all that these stand on.
const std::map<std::string, Folders>& floors() {
  static const std::map<std::string, Folders> table = {
      {"base", {}},
      {"initiator/pdu", {"base"}},
      {"initiator/login", {"initiator/pdu"}},
      {"initiator/discovery", {"initiator/login"}},
      {"initiator/scsi", {"base"}},
      {"initiator/session", {"initiator/login", "initiator/scsi"}},
      {"initiator/lun", {"initiator/session"}},
      {"multipath/path", {"initiator/lun"}},
      {"multipath/groups", {"multipath/path"}},
      {"multipath/fencing", {"multipath/groups"}},
      {"multipath/requests", {"multipath/fencing"}},
      {"multipath", {"multipath/requests"}},
      {"multipath/attach", {"multipath", "initiator/discovery"}},
      {"blkback/xen", {"base"}},
      {"blkback/ring", {"blkback/xen"}},
      {"blkback/nbd", {"base"}},
      {"blkback/guest", {"blkback/ring", "blkback/nbd", "multipath/attach"}},
      {"blkback/control", {"base"}},
      {"blkback/process", {"blkback/control", "blkback/guest"}},
      {"tools/program", {"base"}},
      {"tools/config", {"multipath/attach"}},
      {"tools/lunex", {"tools/config", "tools/program"}},                   // nothing of Xen
      {"tools/ctl", {"tools/config", "tools/program", "blkback/control"}},  // nor here
      {"tools", {"tools/config", "tools/program", "blkback/process"}},
  };
  return table;
}

void add_below(const std::string& folder, Folders& below) {
  for (const std::string& next : floors().at(folder)) {
    if (below.insert(next).second) {
      add_below(next, below);
    }
  }
}

std::string folder_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// "initiator/pdu/pdu.h" of `#include "initiator/pdu/pdu.h"`; empty: another line.
std::string included_by(const std::string& line) {
  static const std::string kBegin = "#include \"";
  if (line.rfind(kBegin, 0) != 0) {
    return {};
  }
  return line.substr(kBegin.size(), line.rfind('"') - kBegin.size());
}

TEST(Layers, NoFolderStandsOnItself) {
  for (const auto& [folder, direct] : floors()) {
    Folders below;
    add_below(folder, below);
    EXPECT_EQ(below.count(folder), 0U) << folder;
  }
}

// The product's sources by their paths, each with its text.
std::map<std::string, std::string> sources() {
  const std::filesystem::path root = ISCSI_BLKBACK_SOURCE_FOLDER;
  std::map<std::string, std::string> files;
  for (const char* top : {"base", "initiator", "multipath", "blkback", "tools"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / top)) {
      const auto extension = entry.path().extension();
      if (extension == ".cpp" || extension == ".h") {
        std::ostringstream text;
        text << std::ifstream(entry.path()).rdbuf();
        files[std::filesystem::relative(entry.path(), root).string()] = text.str();
      }
    }
  }
  return files;
}

TEST(Layers, EachFileIncludesOnlyWhatItsFolderStandsOn) {
  std::size_t includes = 0;
  for (const auto& [file, text] : sources()) {
    const std::string folder = folder_of(file);
    ASSERT_EQ(floors().count(folder), 1U) << file << ": its folder has no place in the table";
    Folders allowed = {folder};
    add_below(folder, allowed);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const std::string included = included_by(line);
      if (!included.empty()) {
        ++includes;
        EXPECT_THAT(allowed, testing::Contains(folder_of(included)))
            << file << " includes " << included;
      }
    }
  }
  EXPECT_GT(includes, 500U);
}

// Which thread, or none in particular: what is pure or a value may be used by any.
TEST(Headers, SayTheirThreadBeforeAnythingElse) {
  const std::regex thread("thread|[Pp]ure\\b|[Vv]alues?\\b|constant\\b");
  std::size_t headers = 0;
  for (const auto& [file, text] : sources()) {
    if (file.ends_with(".h")) {
      ++headers;
      const std::string opening = text.substr(0, text.find("#pragma once"));
      EXPECT_TRUE(opening.starts_with("// ")) << file << " does not open with what it is";
      EXPECT_TRUE(std::regex_search(opening, thread)) << file << " does not say its thread";
    }
  }
  EXPECT_GT(headers, 100U);
}

}  // namespace
}  // namespace iscsi_blkback
