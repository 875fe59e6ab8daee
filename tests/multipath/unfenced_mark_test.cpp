#include "multipath/unfenced_mark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <utility>

#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

constexpr TimePoint kNow{std::chrono::hours(100)};
constexpr TimePoint kUntil = kNow + std::chrono::seconds(60);

class UnfencedMarkTest : public testing::Test {
 protected:
  UnfencedMark mark(const std::string& wwid = "36001405aa") {
    auto opened = UnfencedMark::open(folder_.path() + "/run/unfenced", wwid);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  void die_marked(std::initializer_list<TimePoint> untils);
  TemporaryFolder folder_;
};

TEST_F(UnfencedMarkTest, IsSeenByOthersOnly) {
  UnfencedMark one = mark();
  UnfencedMark other = mark();
  EXPECT_FALSE(other.others(kNow));
  ASSERT_TRUE(one.set(kUntil));
  EXPECT_TRUE(other.others(kNow));
  EXPECT_FALSE(one.others(kNow)) << "it is its own";
  ASSERT_TRUE(other.set(kUntil)) << "there may be several";
  EXPECT_TRUE(one.others(kNow));
  one.clear();
  EXPECT_FALSE(other.others(kNow));
}

TEST_F(UnfencedMarkTest, IsOfOneLogicalUnit) {
  UnfencedMark one = mark();
  ASSERT_TRUE(one.set(kUntil));
  EXPECT_FALSE(mark("36001405ab").others(kNow));
}

TEST_F(UnfencedMarkTest, GoesWithItsOwner) {
  UnfencedMark other = mark();
  {
    UnfencedMark one = mark();
    ASSERT_TRUE(one.set(kUntil));
    EXPECT_TRUE(other.others(kNow));
  }
  EXPECT_FALSE(other.others(kNow));
}

// A process that dies with a mark that it has set so.
void UnfencedMarkTest::die_marked(std::initializer_list<TimePoint> untils) {
  const pid_t child = ::fork();
  if (child == 0) {
    UnfencedMark one = mark();
    for (const TimePoint until : untils) {
      if (!one.set(until)) {
        ::_exit(1);
      }
    }
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(UnfencedMarkTest, OfAProcessThatIsKilledLastsAsLongAsItSaid) {
  UnfencedMark other = mark();
  die_marked({kUntil});
  EXPECT_TRUE(other.others(kNow));
  EXPECT_TRUE(mark().others(kUntil));
  EXPECT_FALSE(other.others(kUntil + std::chrono::seconds(1)));
}

TEST_F(UnfencedMarkTest, OfAProcessThatIsKilledOutlivesThoseOfTheLiving) {
  die_marked({kUntil});
  UnfencedMark one = mark();
  ASSERT_TRUE(one.set(kNow));
  one.clear();
  EXPECT_TRUE(one.others(kNow));
  EXPECT_FALSE(one.others(kUntil + std::chrono::seconds(1)));
}

TEST_F(UnfencedMarkTest, MayLastLongerThanItSaidFirst) {
  die_marked({kNow, kUntil});
  EXPECT_TRUE(mark().others(kUntil));
}

TEST_F(UnfencedMarkTest, OneThatIsClearedLeavesNothing) {
  UnfencedMark one = mark();
  UnfencedMark other = mark();
  ASSERT_TRUE(one.set(kUntil));
  ASSERT_TRUE(other.set(kUntil));
  one.clear();
  other.clear();
  EXPECT_FALSE(mark().others(kNow));
}

TEST_F(UnfencedMarkTest, AFileWithOtherThingsSaysNothing) {
  UnfencedMark one = mark();
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/run/unfenced")) {
    std::ofstream(entry.path()) << "what is this? what is this?";
  }
  EXPECT_FALSE(one.others(kNow));
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
  EXPECT_TRUE(none.set(kUntil));
  EXPECT_FALSE(none.is_set());
  EXPECT_FALSE(none.others(kNow));
}

}  // namespace
}  // namespace iscsi_blkback
