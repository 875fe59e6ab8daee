#include "blkback/host_end.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "blkback/process_lock.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

class HostEndTest : public testing::Test {
 protected:
  // The run folder is in memory.
  void reset_host() {
    std::filesystem::remove_all(folders_.run);
    boot_ += "x";
  }
  bool in_order() { return host_had_ended_in_order(folders_, boot_); }

  TemporaryFolder folder_;
  const HostEndFolders folders_{folder_.path() + "/run/blkback", folder_.path() + "/lib/blkback"};
  std::string boot_ = "boot ";
};

TEST_F(HostEndTest, WithoutAMarkThereWasNone) {
  EXPECT_FALSE(in_order());
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, AMarkHoldsForTheWholeNextRunOfTheHost) {
  mark_end_in_order(folders_);
  reset_host();
  EXPECT_TRUE(in_order());
  EXPECT_TRUE(in_order()) << "another process, or the service that is started again";
}

TEST_F(HostEndTest, AMarkHoldsForOneRunOfTheHost) {
  mark_end_in_order(folders_);
  reset_host();
  EXPECT_TRUE(in_order());
  reset_host();
  EXPECT_FALSE(in_order());
}

// On a disk, as an operator may have configured it.
TEST_F(HostEndTest, ARunFolderThatOutlivesTheHostSaysNothingOfItsNextRun) {
  mark_end_in_order(folders_);
  EXPECT_TRUE(in_order());
  boot_ += "x";
  EXPECT_FALSE(in_order());
}

// The service ends and is started again, a guest has a disk, the host is reset.
TEST_F(HostEndTest, AMarkThatIsFollowedByAStartIsNone) {
  mark_end_in_order(folders_);
  reset_host();
  EXPECT_TRUE(in_order());
  mark_end_in_order(folders_);
  EXPECT_TRUE(in_order());
  reset_host();
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, WhereNothingCanBeWrittenThereIsNoMark) {
  std::ofstream(folder_.path() + "/lib") << "in the way";
  mark_end_in_order(folders_);
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, AHostWithoutAnIdOfItsRunWaits) {
  mark_end_in_order(folders_);
  boot_.clear();
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, TheHostHasStartedBeforeNow) {
  const TimePoint now{std::chrono::hours(10000)};
  const auto started = disorderly_host_start(folders_, now);
  ASSERT_TRUE(started);
  EXPECT_LT(*started, now);
  EXPECT_LE(now - *started, host_uptime());
  mark_end_in_order(folders_);
  EXPECT_FALSE(disorderly_host_start(folders_, now));
  EXPECT_NE(host_boot_id(), "");
}

TEST_F(HostEndTest, AGuestIsServedAsLongAsItsProcessHasItsLock) {
  EXPECT_FALSE(any_guest_is_served(folders_.run));
  {
    const auto service = ProcessLock::acquire(service_lock_path(folders_.run), "the service");
    EXPECT_FALSE(any_guest_is_served(folders_.run));
    const auto guest = ProcessLock::acquire(guest_lock_path(folders_.run, 5), "a guest");
    EXPECT_TRUE(any_guest_is_served(folders_.run));
  }
  std::ofstream(guest_lock_path(folders_.run, 6)) << "7";
  EXPECT_FALSE(any_guest_is_served(folders_.run)) << "its process was killed";
}

}  // namespace
}  // namespace iscsi_blkback
