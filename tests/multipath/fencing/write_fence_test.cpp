// Writes that a disk has lost: until when they are, and what its owner may do meanwhile.
#include "multipath/fencing/write_fence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "base/log.h"
#include "tests/multipath/fencing/fenced_disk.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::IsSupersetOf;

constexpr Duration kQuiesceTime = seconds(60);

class WriteFenceTest : public testing::Test {
 protected:
  WriteFenceTest() { set_log_level(LogLevel::error); }

  static WriteFence::Options options() {
    return {.lun_fence = {.settle_time = seconds(1), .quiesce_time = kQuiesceTime},
            .most_writes = 16};
  }
  static WriteFence::Options exclusive() {
    WriteFence::Options result = options();
    result.exclusive = true;
    return result;
  }

  SimReactor reactor_{1};
  SharedFencing fencing_{reactor_};
};

TEST_F(WriteFenceTest, ALostWriteEndangersWhatOverlapsUntilItsTargetHasGivenItUp) {
  FencedDisk disk(reactor_, fencing_, options());
  const Path& path = disk.add();
  EXPECT_TRUE(disk.fence.empty());
  disk.fence.lost(path, 8, 16, 1);
  EXPECT_TRUE(disk.fence.has_lost(path));
  EXPECT_TRUE(disk.fence.writes().endangers(15, 20, 2));
  EXPECT_FALSE(disk.fence.writes().endangers(16, 20, 2));
  EXPECT_FALSE(disk.fence.writes().endangers(8, 16, 1)) << "it is the same data";
  reactor_.run_for(kQuiesceTime - seconds(1));
  EXPECT_FALSE(disk.fence.empty());
  (void)disk.take_steps();
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(disk.fence.empty());
  EXPECT_THAT(disk.take_steps(), IsSupersetOf({DiskStep::release_held, DiskStep::finish_removals}));
}

TEST_F(WriteFenceTest, EachLossHasItsOwnTime) {
  FencedDisk disk(reactor_, fencing_, options());
  const Path& one = disk.add();
  const Path& other = disk.add();
  disk.fence.lost(one, 0, 8, 1);
  reactor_.run_for(seconds(20));
  disk.fence.lost(other, 8, 16, 2);
  reactor_.run_for(kQuiesceTime - seconds(20));
  EXPECT_FALSE(disk.fence.has_lost(one));
  EXPECT_TRUE(disk.fence.has_lost(other));
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(disk.fence.empty());
}

// (A session that has not logged in yet is one whose loss any login is later than.)
TEST_F(WriteFenceTest, ALoginFencesWhatItsOwnPathHasLost) {
  FencedDisk disk(reactor_, fencing_, options());
  Path& path = disk.add();
  const Path& other = disk.add();
  disk.fence.lost(path, 0, 8, 1);
  disk.fence.lost(other, 8, 16, 2);
  (void)disk.take_steps();
  disk.fence.on_session_up(path);
  EXPECT_FALSE(disk.fence.has_lost(path));
  EXPECT_TRUE(disk.fence.has_lost(other));
  reactor_.run_for(Duration::zero());
  EXPECT_THAT(disk.take_steps(), IsSupersetOf({DiskStep::release_held}));
}

TEST_F(WriteFenceTest, AFenceSessionFencesWhatAllPathsOfItsSessionHaveLost) {
  FencedDisk disk(reactor_, fencing_, options());
  Session& session = disk.add_session();
  const Path& first = disk.add(session, 0);
  Path& leaving = disk.add(session, 1);
  const Path& other = disk.add();
  disk.paths.set.retire(leaving);
  disk.fence.lost(leaving, 0, 8, 1);
  disk.fence.lost(first, 8, 16, 2);
  disk.fence.lost(other, 16, 24, 3);
  (void)disk.take_steps();
  const LoginNexus nexus = login_nexus(session);
  LoginNexus elsewhere = nexus;
  elsewhere.portal = SocketAddress::parse("10.0.9.9", 3260).value();
  disk.fence.on_fenced(session, elsewhere, session.login_epoch());
  reactor_.run_for(Duration::zero());
  EXPECT_TRUE(disk.fence.has_lost(first)) << "nothing was lost there";
  EXPECT_TRUE(disk.take_steps().empty());
  disk.fence.on_fenced(session, nexus, session.login_epoch());
  EXPECT_FALSE(disk.fence.has_lost(leaving));
  EXPECT_FALSE(disk.fence.has_lost(first));
  EXPECT_TRUE(disk.fence.has_lost(other)) << "by another session";
  reactor_.run_for(Duration::zero());
  EXPECT_THAT(disk.take_steps(), IsSupersetOf({DiskStep::release_held, DiskStep::finish_removals}));
  disk.fence.lost(first, 8, 16, 2);
  disk.fence.on_fenced(session, nexus, session.login_epoch());
  reactor_.run_for(Duration::zero());
  EXPECT_THAT(disk.take_steps(), IsSupersetOf({DiskStep::release_held})) << "one path is enough";
}

TEST_F(WriteFenceTest, OnlyWhereOthersWriteAnAnswerWaitsForTheLostCopy) {
  for (const bool shared : {false, true}) {
    WriteFence::Options row = options();
    row.shared = shared;
    FencedDisk disk(reactor_, fencing_, row);
    EXPECT_FALSE(disk.fence.withholds(0, 8, 1)) << "nothing is lost";
    disk.fence.lost(disk.add(), 0, 8, 1);
    EXPECT_EQ(disk.fence.withholds(0, 8, 1), shared);
    EXPECT_FALSE(disk.fence.withholds(0, 8, 2)) << "of another request";
  }
}

TEST_F(WriteFenceTest, TheOperatorSaysWhetherAPortalGroupFences) {
  using Fences = PortalGroupFences;
  struct Row {
    std::optional<Fences> set;
    bool redirected_login_fences;
    Fences expected;
  };
  const Row rows[] = {
      {Fences::no, false, Fences::no},
      {Fences::trial, false, Fences::trial},
      {Fences::yes, false, Fences::yes},
      {Fences::no, true, Fences::yes},  // it vouches for all of the target
  };
  for (const Row& row : rows) {
    WriteFence::Options with = options();
    with.redirected_login_fences = row.redirected_login_fences;
    PathPolicySettings settings;
    settings.portal_group_fences = row.set;
    const FencedDisk disk(reactor_, fencing_, with, settings);
    EXPECT_EQ(disk.fence.portal_group_fences(), row.expected);
  }
}

TEST_F(WriteFenceTest, ALunIsResetOnlyWhileItIsOneRunningGuestsAlone) {
  FencedDisk exclusive_disk(reactor_, fencing_, exclusive());
  exclusive_disk.add();
  EXPECT_TRUE(exclusive_disk.fence.may_reset());
  exclusive_disk.fence.suspend();
  EXPECT_FALSE(exclusive_disk.fence.may_reset()) << "perhaps another host has it now";
  exclusive_disk.fence.resume();
  EXPECT_TRUE(exclusive_disk.fence.may_reset());
  FencedDisk disk(reactor_, fencing_, options());
  disk.add();
  EXPECT_FALSE(disk.fence.may_reset());
}

TEST_F(WriteFenceTest, ALunIsResetOnlyWhereEachOfItsDisksAllowsIt) {
  struct Row {
    const char* what;
    bool allows;
    bool suspended;
    const char* target;
    std::uint16_t lun;
    const char* wwid;
    bool reset;
  };
  const Row rows[] = {
      {"another LUN", false, false, "iqn.a", 1, "w1", true},
      {"the LUN", false, false, "iqn.a", 0, "w0", false},
      {"the LUN, not identified yet", false, false, "iqn.a", 0, "", false},
      {"the LUN by another target", false, false, "iqn.b", 5, "w0", false},
      {"another LUN of that number", false, false, "iqn.b", 0, "w1", true},
      {"the LUN, allowed there, too", true, false, "iqn.a", 0, "w0", true},
      {"the LUN, allowed there, suspended", true, true, "iqn.a", 0, "w0", false},
  };
  for (const Row& row : rows) {
    FencedDisk disk(reactor_, fencing_, exclusive());
    disk.set_wwid("w0");
    disk.add(disk.add_session("iqn.a"));
    FencedDisk other(reactor_, fencing_, row.allows ? exclusive() : options());
    other.set_wwid(row.wwid);
    other.add(other.add_session(row.target), row.lun);
    if (row.suspended) {
      other.fence.suspend();
    }
    EXPECT_EQ(disk.fence.may_reset(), row.reset) << row.what;
  }
}

TEST_F(WriteFenceTest, ADiskThatPreemptsNeedsItsKeysUntilTheyAreTakenBack) {
  struct Nobody final : RegistrationTable::Client {
    [[nodiscard]] bool needs_key(const Session& /*session*/,
                                 std::uint16_t /*lun*/) const noexcept override {
      return false;
    }
    void on_key_taken_back(const Session& /*session*/, std::uint16_t /*lun*/) noexcept override {}
  } const nobody{};
  for (const bool preempts : {false, true}) {
    WriteFence::Options row = options();
    row.lun_fence.preempts = preempts;
    FencedDisk disk(reactor_, fencing_, row);
    Path& path = disk.add();
    const auto needed = [&](std::uint16_t lun) {
      return fencing_.registrations.other_needs_key(path.session(), lun, nobody);
    };
    EXPECT_EQ(needed(0), preempts);
    EXPECT_FALSE(needed(1));
    EXPECT_TRUE(disk.fence.key_unregistered(path)) << "none was registered";
    EXPECT_FALSE(needed(0));
  }
}

TEST_F(WriteFenceTest, WhatWasLostIsForgottenAtTheEnd) {
  FencedDisk disk(reactor_, fencing_, options());
  const Path& path = disk.add();
  disk.fence.lost(path, 0, 8, 1);
  EXPECT_TRUE(disk.fence.withdraw());
  EXPECT_TRUE(disk.fence.empty());
  EXPECT_TRUE(disk.fence.has_done_with(path));
  (void)disk.take_steps();
  reactor_.run_for(kQuiesceTime * 2);
  EXPECT_TRUE(disk.take_steps().empty());
}

}  // namespace
}  // namespace iscsi_blkback
