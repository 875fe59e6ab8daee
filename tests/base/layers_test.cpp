// The floors of the house: what each folder of the product may include. CMake links the folders in
// the same order; this test also sees what the linker does not: headers without a source file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
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
      {"multipath", {"multipath/fencing"}},
      {"multipath/attach", {"multipath", "initiator/discovery"}},
      {"blkback/xen", {"base"}},
      {"blkback/ring", {"blkback/xen"}},
      {"blkback/guest", {"blkback/ring", "multipath/attach"}},
      {"blkback/process", {"blkback/guest"}},
      {"tools/program", {"base"}},
      {"tools/config", {"multipath/attach"}},
      {"tools/lunex", {"tools/config", "tools/program"}},  // nothing of Xen
      {"tools/ctl", {"tools/config", "tools/program", "blkback/process"}},
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

TEST(Layers, EachFileIncludesOnlyWhatItsFolderStandsOn) {
  const std::filesystem::path root = ISCSI_BLKBACK_SOURCE_FOLDER;
  std::size_t includes = 0;
  for (const char* top : {"base", "initiator", "multipath", "blkback", "tools"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / top)) {
      const auto extension = entry.path().extension();
      if (extension != ".cpp" && extension != ".h") {
        continue;
      }
      const std::string file = std::filesystem::relative(entry.path(), root).string();
      const std::string folder = folder_of(file);
      ASSERT_EQ(floors().count(folder), 1U) << file << ": its folder has no place in the table";
      Folders allowed = {folder};
      add_below(folder, allowed);
      std::ifstream source(entry.path());
      for (std::string line; std::getline(source, line);) {
        const std::string included = included_by(line);
        if (!included.empty()) {
          ++includes;
          EXPECT_THAT(allowed, testing::Contains(folder_of(included)))
              << file << " includes " << included;
        }
      }
    }
  }
  EXPECT_GT(includes, 500U);
}

}  // namespace
}  // namespace iscsi_blkback
