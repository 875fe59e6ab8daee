#include "blkback/guest/statistics_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"
#include "tests/support/xentop_reader.h"

namespace iscsi_blkback {
namespace {

namespace fs = std::filesystem;

constexpr pid_t kProcess = 4711;

class StatisticsFolderTest : public testing::Test {
 protected:
  // As a process that was killed leaves it, when it had two disks.
  void leave(const std::string& name, bool with_mark = true) {
    fs::create_directory(shm_ / name);
    ASSERT_EQ(::chmod((shm_ / name).c_str(), 0700), 0);
    std::ofstream(shm_ / (name + "/vbd-5-51712")) << "old";
    std::ofstream(shm_ / (name + "/vbd-5-51728")) << "old";
    if (with_mark) {
      std::ofstream(shm_ / (name + "/iscsi-blkback")).flush();
    }
  }
  mode_t mode_of(const std::string& name) {
    struct stat found {};
    EXPECT_EQ(::stat((shm_ / name).c_str(), &found), 0) << name;
    return found.st_mode & 07777;
  }
  std::string refusal(StatisticsFolder& folder) {
    const auto file = folder.make_file(5, 51712);
    return file ? "" : file.error().message;
  }

  TemporaryFolder shm_;
  const std::string file_ = shm_ / "td3-4711/vbd-5-51712";
};

TEST_F(StatisticsFolderTest, XentopFindsEachNumberInItsPlace) {
  StatisticsFolder folder(shm_.path(), kProcess);
  const auto file = folder.make_file(5, 51712);
  ASSERT_TRUE(file);
  Vbd3Statistics statistics;
  statistics.waits_for_room = 1;
  statistics.reads_submitted = 2;
  statistics.reads_completed = 3;
  statistics.read_sectors = 4;
  statistics.read_microseconds = 5;
  statistics.writes_submitted = 6;
  statistics.writes_completed = 7;
  statistics.written_sectors = 0x123456789abcdef0;
  statistics.write_microseconds = 9;
  statistics.errors = 10;
  (*file)->page()->store(statistics);

  const auto seen = read_as_xentop(file_);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->out_of_requests, 1u);
  EXPECT_EQ(seen->reads, 2u);
  EXPECT_EQ(seen->reads_completed, 3u);
  EXPECT_EQ(seen->read_sectors, 4u);
  EXPECT_EQ(seen->read_microseconds, 5u);
  EXPECT_EQ(seen->writes, 6u);
  EXPECT_EQ(seen->writes_completed, 7u);
  EXPECT_EQ(seen->written_sectors, 0x123456789abcdef0u);
  EXPECT_EQ(seen->write_microseconds, 9u);
  EXPECT_EQ(seen->errors, 10u);
  EXPECT_EQ(seen->flags, 0u);
}

TEST_F(StatisticsFolderTest, ANewFileSaysNothingWasDone) {
  StatisticsFolder folder(shm_.path(), kProcess);
  const auto file = folder.make_file(5, 51712);
  ASSERT_TRUE(file);
  const auto seen = read_as_xentop(file_);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->reads + seen->writes + seen->read_sectors + seen->written_sectors, 0u);
  EXPECT_EQ(fs::file_size(file_), 4096u);
}

TEST_F(StatisticsFolderTest, NobodyElseReadsIt) {
  StatisticsFolder folder(shm_.path(), kProcess);
  const mode_t before = ::umask(0);
  const auto file = folder.make_file(5, 51712);
  ::umask(before);
  ASSERT_TRUE(file);
  EXPECT_EQ(mode_of("td3-4711"), 0700u);
  EXPECT_EQ(mode_of("td3-4711/vbd-5-51712"), 0600u);
}

TEST_F(StatisticsFolderTest, AFileGoesWithItsDiskAndTheFolderWithTheProcess) {
  {
    StatisticsFolder folder(shm_.path(), kProcess);
    EXPECT_FALSE(fs::exists(shm_ / "td3-4711")) << "a process without such disks has none";
    auto first = folder.make_file(5, 51712);
    auto second = folder.make_file(5, 51728);
    ASSERT_TRUE(first && second);
    first->reset();
    EXPECT_FALSE(fs::exists(file_));
    EXPECT_TRUE(read_as_xentop(shm_ / "td3-4711/vbd-5-51728"));
    second->reset();
    EXPECT_TRUE(folder.make_file(5, 51712)) << "the disk comes again";
  }
  EXPECT_FALSE(fs::exists(shm_ / "td3-4711"));
}

TEST_F(StatisticsFolderTest, APageOutlivesItsFile) {
  std::shared_ptr<StatisticsPage> page;
  {
    StatisticsFolder folder(shm_.path(), kProcess);
    const auto file = folder.make_file(5, 51712);
    ASSERT_TRUE(file);
    page = (*file)->page();
  }
  Vbd3Statistics statistics;
  statistics.errors = 3;
  page->store(statistics);
  EXPECT_EQ(page->load().errors, 3u);
}

TEST_F(StatisticsFolderTest, ADiskHasOneFile) {
  StatisticsFolder folder(shm_.path(), kProcess);
  const auto file = folder.make_file(5, 51712);
  ASSERT_TRUE(file);
  const auto again = folder.make_file(5, 51712);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::conflict);
  EXPECT_TRUE(read_as_xentop(file_));
}

TEST_F(StatisticsFolderTest, WhatAProcessOfTheSameNumberHasLeftIsReplaced) {
  leave("td3-4711");
  StatisticsFolder folder(shm_.path(), kProcess);
  const auto file = folder.make_file(5, 51712);
  ASSERT_TRUE(file);
  EXPECT_TRUE(read_as_xentop(file_));
  EXPECT_FALSE(fs::exists(shm_ / "td3-4711/vbd-5-51728"));
}

TEST_F(StatisticsFolderTest, NothingIsPutWhereOthersMayWrite) {
  leave("td3-4711");
  ASSERT_EQ(::chmod((shm_ / "td3-4711").c_str(), 0770), 0);
  StatisticsFolder folder(shm_.path(), kProcess);
  EXPECT_EQ(refusal(folder), shm_ / "td3-4711 is no folder, or another user's");
  EXPECT_TRUE(fs::exists(shm_ / "td3-4711/vbd-5-51728"));

  ASSERT_EQ(::chmod((shm_ / "td3-4711").c_str(), 0700), 0);
  if (::chown((shm_ / "td3-4711").c_str(), 65534, 65534) == 0) {
    EXPECT_EQ(refusal(folder), shm_ / "td3-4711 is no folder, or another user's");
  }
}

// The service is root, and its guests' processes are not.
TEST_F(StatisticsFolderTest, WhatAnotherUsersProcessHasLeftIsRemoved) {
  leave("td3-4711");
  if (::chown((shm_ / "td3-4711").c_str(), 65534, 65534) != 0) {
    GTEST_SKIP() << "only root can give files away";
  }
  remove_statistics_left_by(4711, shm_.path());
  EXPECT_FALSE(fs::exists(shm_ / "td3-4711"));
}

TEST_F(StatisticsFolderTest, ALinkIsNotFollowed) {
  leave("elsewhere");
  fs::create_directory_symlink(shm_ / "elsewhere", shm_ / "td3-4711");
  StatisticsFolder folder(shm_.path(), kProcess);
  EXPECT_EQ(refusal(folder), shm_ / "td3-4711 is no folder, or another user's");
  remove_statistics_left(shm_.path());
  EXPECT_TRUE(fs::exists(shm_ / "elsewhere/vbd-5-51712"));
}

TEST_F(StatisticsFolderTest, AFullFileSystemIsOneSentenceAndLeavesNoFile) {
  // With no more than so much in a file, as little can be had as from a full file system.
  StatisticsFolder folder(shm_.path(), kProcess);
  ASSERT_TRUE(folder.make_file(5, 51728));
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit none = before;
  none.rlim_cur = 0;
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  const std::string why = refusal(folder);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  (void)std::signal(SIGXFSZ, handler);
  EXPECT_EQ(why, file_ + ": a file for statistics: File too large");
  EXPECT_FALSE(fs::exists(file_));
}

// ---- what processes that are no more have left ----

TEST_F(StatisticsFolderTest, WhatAKilledProcessHasLeftIsRemoved) {
  leave("td3-4711");
  leave("td3-4712");
  remove_statistics_left_by(kProcess, shm_.path());
  EXPECT_FALSE(fs::exists(shm_ / "td3-4711"));
  EXPECT_TRUE(fs::exists(shm_ / "td3-4712"));
  remove_statistics_left(shm_.path());
  EXPECT_FALSE(fs::exists(shm_ / "td3-4712"));
}

TEST_F(StatisticsFolderTest, WhatALivingProcessHasStays) {
  StatisticsFolder folder(shm_.path(), kProcess);
  const auto file = folder.make_file(5, 51712);
  ASSERT_TRUE(file);
  remove_statistics_left_by(kProcess, shm_.path());
  remove_statistics_left(shm_.path());
  EXPECT_TRUE(read_as_xentop(file_));
}

TEST_F(StatisticsFolderTest, WhatTapdiskHasLeftStays) {
  leave("td3-4711", false);
  remove_statistics_left_by(kProcess, shm_.path());
  remove_statistics_left(shm_.path());
  EXPECT_TRUE(fs::exists(shm_ / "td3-4711/vbd-5-51712"));
}

TEST_F(StatisticsFolderTest, OfOtherNamesNothingIsRemoved) {
  for (const char* name : {"td3-", "td3-1x", "xtd3-4711", "td3"}) {
    leave(name);
  }
  std::ofstream(shm_ / "td3-4711") << "a file";
  remove_statistics_left(shm_.path());
  for (const char* name : {"td3-", "td3-1x", "xtd3-4711", "td3"}) {
    EXPECT_TRUE(fs::exists(shm_ / (std::string(name) + "/vbd-5-51712"))) << name;
  }
  EXPECT_TRUE(fs::exists(shm_ / "td3-4711"));
}

TEST_F(StatisticsFolderTest, OnlyOwnFilesAreRemoved) {
  leave("td3-4711");
  std::ofstream(shm_ / "td3-4711/somebodys") << "important";
  remove_statistics_left(shm_.path());
  EXPECT_TRUE(fs::exists(shm_ / "td3-4711/somebodys"));
}

}  // namespace
}  // namespace iscsi_blkback
