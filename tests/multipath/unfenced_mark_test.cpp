#include "multipath/unfenced_mark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

class UnfencedMarkTest : public testing::Test {
 protected:
  UnfencedMark mark(const std::string& wwid = "36001405aa") {
    auto opened = UnfencedMark::open(folder_.path() + "/run/unfenced", wwid);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  TemporaryFolder folder_;
};

TEST_F(UnfencedMarkTest, IsSeenByOthersOnly) {
  UnfencedMark one = mark();
  UnfencedMark other = mark();
  EXPECT_FALSE(other.others());
  ASSERT_TRUE(one.set());
  EXPECT_TRUE(other.others());
  EXPECT_FALSE(one.others()) << "it is its own";
  ASSERT_TRUE(other.set()) << "there may be several";
  EXPECT_TRUE(one.others());
  one.clear();
  EXPECT_FALSE(other.others());
}

TEST_F(UnfencedMarkTest, IsOfOneLogicalUnit) {
  UnfencedMark one = mark();
  ASSERT_TRUE(one.set());
  EXPECT_FALSE(mark("36001405ab").others());
}

TEST_F(UnfencedMarkTest, GoesWithItsOwner) {
  UnfencedMark other = mark();
  {
    UnfencedMark one = mark();
    ASSERT_TRUE(one.set());
    EXPECT_TRUE(other.others());
  }
  EXPECT_FALSE(other.others());
}

TEST_F(UnfencedMarkTest, GoesWithAProcessThatIsKilled) {
  UnfencedMark other = mark();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    UnfencedMark one = mark();
    const char done = one.set() ? '1' : '0';
    (void)!::write(ready[1], &done, 1);
    ::pause();
    ::_exit(0);
  }
  char done = 0;
  ASSERT_EQ(::read(ready[0], &done, 1), 1);
  EXPECT_EQ(done, '1');
  EXPECT_TRUE(other.others());
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(other.others());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(UnfencedMarkTest, NoIdentityOfATargetLeadsOutOfTheFolder) {
  const std::string folder = folder_.path() + "/run/unfenced";
  for (const std::string& wwid :
       {std::string("../../escaped"), std::string("."), std::string("..\0/x", 5),
        std::string("t10/a b"), std::string(4000, '/')}) {
    EXPECT_TRUE(UnfencedMark::open(folder, wwid));
  }
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
    files += entry.is_regular_file() && entry.path().parent_path() == folder ? 1 : 0;
  }
  EXPECT_EQ(files, 5U);
}

TEST_F(UnfencedMarkTest, AFolderThatCannotBeMadeIsNamed) {
  const auto opened = UnfencedMark::open("/proc/nowhere", "36001405aa");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, testing::HasSubstr("/proc/nowhere/36001405aa"));
}

TEST_F(UnfencedMarkTest, WithoutAFileTellsNobody) {
  UnfencedMark none;
  EXPECT_TRUE(none.set());
  EXPECT_FALSE(none.is_set());
  EXPECT_FALSE(none.others());
}

}  // namespace
}  // namespace iscsi_blkback
