// docs/: what a document says is shown by a test or a scenario of the lab is shown by one that there is.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

namespace iscsi_blkback {
namespace {

const std::filesystem::path kTree = ISCSI_BLKBACK_SOURCE_FOLDER;

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What the pattern's groups match in the text, with a dot between them.
std::set<std::string> matches(const std::string& text, const char* pattern) {
  std::set<std::string> found;
  const std::regex regex(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) {
    found.insert(at->size() > 2 ? (*at)[1].str() + "." + (*at)[2].str() : (*at)[1].str());
  }
  return found;
}

TEST(Documents, EachTestThatIsNamedIsThere) {
  std::set<std::string> tests;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kTree / "tests")) {
    if (entry.path().extension() == ".cpp") {
      tests.merge(matches(text_of(entry.path()), R"(TEST(?:_[FP])?\((\w+),\s*(\w+)\))"));
    }
  }
  const auto named = matches(text_of(kTree / "docs/blkif.md"), R"(`([A-Z]\w+)\.([A-Z]\w+)`)");
  EXPECT_GT(named.size(), 20U);
  for (const std::string& name : named) {
    EXPECT_EQ(tests.count(name), 1U) << name;
  }
}

TEST(Documents, EachScenarioThatIsNamedIsThere) {
  const auto named = matches(text_of(kTree / "docs/blkif.md"), R"(lab: ([a-z][\w-]*))");
  EXPECT_GT(named.size(), 10U);
  for (const std::string& name : named) {
    EXPECT_TRUE(std::filesystem::exists(kTree / "tools/xen-lab/scenarios" / (name + ".sh")))
        << name;
  }
}

}  // namespace
}  // namespace iscsi_blkback
