#include "blkback/process/host_end.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "blkback/process/process_lock.h"
#include "multipath/attach/configuration.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class HostEndTest : public testing::Test {
 protected:
  // The run folder is in memory.
  void reset_host() {
    std::filesystem::remove_all(folders_.run);
    boot_ += "x";
  }
  bool in_order() { return host_had_ended_in_order(folders_, boot_); }
  void end_in_order(const HostRun& run = {.uptime = 60s}) { mark_end_in_order(folders_, run, 60s); }

  TemporaryFolder folder_;
  const HostEndFolders folders_{folder_.path() + "/run/blkback", folder_.path() + "/lib/blkback"};
  std::string boot_ = "boot ";
};

TEST_F(HostEndTest, WithoutAMarkThereWasNone) {
  EXPECT_FALSE(in_order());
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, AMarkHoldsForTheWholeNextRunOfTheHost) {
  end_in_order();
  reset_host();
  EXPECT_TRUE(in_order());
  EXPECT_TRUE(in_order()) << "another process, or the service that is started again";
}

TEST_F(HostEndTest, AMarkHoldsForOneRunOfTheHost) {
  end_in_order();
  reset_host();
  EXPECT_TRUE(in_order());
  reset_host();
  EXPECT_FALSE(in_order());
}

// On a disk, as an operator may have configured it.
TEST_F(HostEndTest, ARunFolderThatOutlivesTheHostSaysNothingOfItsNextRun) {
  end_in_order();
  EXPECT_TRUE(in_order());
  boot_ += "x";
  EXPECT_FALSE(in_order());
}

// The service ends and is started again, a guest has a disk, the host is reset.
TEST_F(HostEndTest, AMarkThatIsFollowedByAStartIsNone) {
  end_in_order();
  reset_host();
  EXPECT_TRUE(in_order());
  end_in_order();
  EXPECT_TRUE(in_order());
  reset_host();
  EXPECT_FALSE(in_order());
}

// The service is started anew, or the host in order, before anything was served.
TEST_F(HostEndTest, SoonAfterAResetThereIsNoMark) {
  EXPECT_FALSE(in_order());
  end_in_order({.followed_an_end_in_order = false, .uptime = 59s});
  EXPECT_FALSE(in_order());
  end_in_order({.followed_an_end_in_order = true, .uptime = 1s});
  EXPECT_TRUE(in_order());
}

TEST_F(HostEndTest, WithAGuestThatWasStartedMeanwhileThereIsNoMark) {
  const auto guest = ProcessLock::acquire(guest_lock_path(folders_.run, 5), "a guest");
  end_in_order();
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, TheLongestQuiesceTimeIsThatOfAnyDisk) {
  Configuration configuration;
  configuration.multipath.quiesce_time = 60s;
  EXPECT_EQ(longest_quiesce_time(configuration), 60s);
  configuration.luns["a"].multipath.quiesce_time = 70s;
  EXPECT_EQ(longest_quiesce_time(configuration), 70s);
  configuration.targets["b"].multipath.quiesce_time = 80s;
  EXPECT_EQ(longest_quiesce_time(configuration), 80s);
}

TEST_F(HostEndTest, WhereNothingCanBeWrittenThereIsNoMark) {
  std::ofstream(folder_.path() + "/lib") << "in the way";
  end_in_order();
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, AHostWithoutAnIdOfItsRunWaits) {
  end_in_order();
  boot_.clear();
  EXPECT_FALSE(in_order());
}

TEST_F(HostEndTest, TheHostHasStartedBeforeNow) {
  const TimePoint now{std::chrono::hours(10000)};
  const auto started = disorderly_host_start(folders_, now);
  ASSERT_TRUE(started);
  EXPECT_LT(*started, now);
  EXPECT_LE(now - *started, host_uptime());
  end_in_order();
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
