// Text leaves the programs by the doors of base/printable_text.h only: nobody else writes to a
// terminal, makes JSON text or writes to xenstore. A look at the source, because a test can send
// hostile text only where it knows that there is a way out.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace iscsi_blkback {
namespace {

struct Door {
  const char* what;
  const char* pattern;           // what writes there
  std::set<std::string> places;  // where that may stand
};

const std::vector<Door>& doors() {
  static const std::vector<Door> all = {
      {"JSON text", R"(\.dump\()", {"base/json_text.cpp"}},
      {"a stream of the terminal",
       R"(\b(f?printf|v?dprintf|fputs?|puts|putchar|fputc|putc|fwrite|fmt::v?print|perror|syslog)\s*\(|std::(cout|cerr|clog)\b)",
       {"tools/program/terminal.cpp",
        "base/uring_reactor.cpp",  // the words of the C library, before it ends
        "base/result.h"}},         // assertions, in words of their own
      {"a descriptor of the terminal",
       R"(\bwrite\(\s*STD(OUT|ERR)_FILENO)",
       {"base/log.cpp", "tools/program/terminal.cpp"}},
      {"a value in xenstore",
       R"(\b(store|access)(\.|->)write\(|\bxs_write\()",
       {"blkback/guest/xenbus_node.cpp", "blkback/xen/libxen_xenstore.cpp"}},
  };
  return all;
}

// Without comments, which may speak of it.
std::string code_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string code;
  for (std::string line; std::getline(file, line);) {
    code += line.substr(0, line.find("//")) + '\n';
  }
  return code;
}

class OneDoor : public testing::TestWithParam<Door> {};

TEST_P(OneDoor, LeadsOut) {
  const Door& door = GetParam();
  const std::filesystem::path root = ISCSI_BLKBACK_SOURCE_FOLDER;
  const std::regex pattern(door.pattern);
  std::set<std::string> found;
  std::size_t files = 0;
  for (const char* folder : {"base", "initiator", "multipath", "blkback", "tools"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const auto extension = entry.path().extension();
      if (extension != ".cpp" && extension != ".h") {
        continue;
      }
      ++files;
      if (std::regex_search(code_of(entry.path()), pattern)) {
        found.insert(std::filesystem::relative(entry.path(), root).string());
      }
    }
  }
  EXPECT_GT(files, 150U);
  EXPECT_EQ(found, door.places) << "text may leave only there: see base/printable_text.h";
}

INSTANTIATE_TEST_SUITE_P(All, OneDoor, testing::ValuesIn(doors()), [](const auto& test) {
  std::string name = test.param.what;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

}  // namespace
}  // namespace iscsi_blkback
