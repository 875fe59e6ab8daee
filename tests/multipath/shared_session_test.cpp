// Two disks of a guest over the same sessions: what is set for one of them holds for that one.
#include "tests/multipath/multipath_fixture.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

class SharedSession : public MultipathTest {
 protected:
  SharedSession() {
    session_options_.command_timeout = seconds(5);
    session_options_.abort_timeout = seconds(2);
    options_.fence_settle_time = seconds(5);
    options_.quiesce_time = seconds(20);
    options_.marginal.double_failed_time = {};
    other_options_ = options_;
    other_options_.alias = "other";
  }

  // What the fixture does, done with the other disk.
  template <class Use>
  decltype(auto) at_other(Use use) {
    struct Exchanged {
      explicit Exchanged(SharedSession& fixture) : test(fixture) { exchange(); }
      ~Exchanged() { exchange(); }
      void exchange() {
        test.device_.swap(test.other_);
        test.requests_.swap(test.other_requests_);
      }
      SharedSession& test;
    };
    const Exchanged exchanged(*this);
    return use();
  }
  void TearDown() override {
    MultipathTest::TearDown();
    at_other([this] { close(); });
  }

  // The disk at LUN 0, and another one at that LUN over the same sessions.
  void start_two(std::uint16_t lun_of_other, std::vector<std::uint16_t> portal_groups = {1}) {
    start_target(std::move(portal_groups));
    target_->add_lun(
        1, std::make_shared<SimLun>(SimLunOptions{.serial = "OTHER", .naa_extension = 2}));
    start_device();
    start_other(lun_of_other);
  }
  // Its options are others, so that the pool has made sessions of its own for it.
  void start_two_over_other_sessions() {
    start_target({1});
    start_device();
    Session& session_of_other = add_session(0);
    session_of_other.start();
    other_ = std::make_unique<MultipathDevice>(reactor_, fencing_, other_options_, *this);
    ASSERT_TRUE(other_->add_path(session_of_other, 0));
    ASSERT_TRUE(reactor_.run_until([this] { return other_->ready(); }, seconds(10)));
  }
  void start_other(std::uint16_t lun_of_other) {
    other_ = std::make_unique<MultipathDevice>(reactor_, fencing_, other_options_, *this);
    for (const std::unique_ptr<Session>& session : sessions_) {
      ASSERT_TRUE(other_->add_path(*session, lun_of_other));
    }
    ASSERT_TRUE(reactor_.run_until(
        [this] { return other_->snapshot().paths_up() == sessions_.size(); }, seconds(10)));
    reactor_.run_for(milliseconds(10));
  }

  GuestRequest& write_other(int fill) {
    return at_other([&]() -> GuestRequest& { return write(0, 8, fill); });
  }

  [[nodiscard]] static std::function<bool(const SimCommand&)> writes_to_lun(std::uint16_t lun) {
    return [lun](const SimCommand& command) { return command.lun == lun && is_write(command); };
  }
  // The next write to the LUN is not answered, nor is an ABORT TASK.
  void let_next_write_get_stuck(std::uint16_t lun) {
    target_->inject({.matches = writes_to_lun(lun), .answer = false});
    target_->fault_functions(TaskFunction::abort_task, SimFunctionFault{.answer = false});
  }
  // What is stuck is over: the connection was dropped, or the LUN was reset.
  void run_until_unstuck(const GuestRequest& stuck) {
    EXPECT_EQ(answer(stuck, seconds(20)), IoStatus::ok);
  }

  // The next write to the LUN by portal 0 stays there, to be executed late.
  void hold_next_write(std::uint16_t lun) {
    target_->inject({.matches =
                         [lun](const SimCommand& command) {
                           return command.portal == 0 && command.lun == lun && is_write(command);
                         },
                     .execute = true,
                     .hold = true});
  }
  // Writes, by that, until one has stayed there.
  template <class Write>
  GuestRequest& write_until_held(Write write_one) {
    const std::size_t held = target_->held();
    while (true) {
      GuestRequest& request = write_one();
      const bool settled = reactor_.run_until(
          [&] { return !pending(request) || target_->held() != held; }, seconds(1));
      if (!settled || target_->held() != held) {
        return request;
      }
    }
  }

  MultipathOptions other_options_;
  std::unique_ptr<MultipathDevice> other_;
  std::vector<std::unique_ptr<GuestRequest>> other_requests_;
};

// --- exclusive_luns

TEST_F(SharedSession, AStuckCommandOfAnExclusiveLunResetsIt) {
  options_.exclusive_luns = true;
  start_two(1);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 1U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
}

TEST_F(SharedSession, AStuckCommandOfALunThatOthersUseDoesNotResetItBesideAnExclusiveOne) {
  options_.exclusive_luns = true;
  start_two(1);
  let_next_write_get_stuck(1);
  run_until_unstuck(write_other(1));
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
}

TEST_F(SharedSession, TheDiskThatComesSecondMayBeTheExclusiveOne) {
  other_options_.exclusive_luns = true;
  start_two(1);
  let_next_write_get_stuck(1);
  run_until_unstuck(write_other(1));
  EXPECT_EQ(target_->counters.resets, 1U);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 1U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
}

TEST_F(SharedSession, OneDiskOfALunIsEnoughToForbidItsReset) {
  options_.exclusive_luns = true;
  start_two(0);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
}

TEST_F(SharedSession, BothDisksOfALunMayAllowItsReset) {
  options_.exclusive_luns = other_options_.exclusive_luns = true;
  start_two(0);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 1U);
}

// Its guest may be another host's by now.
TEST_F(SharedSession, ADiskThatIsSuspendedForbidsTheResetOfItsLun) {
  options_.exclusive_luns = other_options_.exclusive_luns = true;
  start_two(0);
  other_->set_guest({GuestState::suspended});
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
  other_->set_guest({GuestState::runs});
}

TEST_F(SharedSession, ADiskOfTheLunOverOtherSessionsForbidsTheReset) {
  options_.exclusive_luns = true;
  start_two_over_other_sessions();
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
}

// It is known by its identity.
TEST_F(SharedSession, ADiskOfTheLunByAnotherNumberForbidsTheReset) {
  options_.exclusive_luns = true;
  start_target({1});
  target_->add_lun(1, lun_);
  start_device();
  start_other(1);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
}

TEST_F(SharedSession, ADiskOfTheLunByABetterNameForbidsTheReset) {
  const Bytes t10 = designator(kAscii, kT10, text("SIM     volume-4711"));
  const Bytes naa = designator(
      kBinary, kNaa, octets({0x60, 1, 0x40, 0x51, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}));
  options_.exclusive_luns = true;
  lun_options_.pages[0x83] = page(0x83, t10);
  start_target({1});
  target_->add_lun(1, lun_);
  start_device();
  lun_->options.pages[0x83] = page(0x83, joined({t10, naa}));
  start_other(1);
  ASSERT_NE(device_->snapshot().wwid, other_->snapshot().wwid);
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
}

TEST_F(SharedSession, ADiskOverOtherSessionsForbidsTheResetAsLongAsItIsSuspended) {
  options_.exclusive_luns = other_options_.exclusive_luns = true;
  start_two_over_other_sessions();
  other_->set_guest({GuestState::suspended});
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 0U);
  other_->set_guest({GuestState::runs});
  let_next_write_get_stuck(0);
  run_until_unstuck(write(0, 8, 1));
  EXPECT_EQ(target_->counters.resets, 1U);
}

TEST_F(SharedSession, ALostWriteIsFencedByAResetWhereItsLunIsExclusiveOnly) {
  options_.exclusive_luns = true;
  start_two(1, {1, 2});
  hold_next_write(1);
  write_until_held([this]() -> GuestRequest& { return write_other(1); });
  hold_next_write(0);
  write_until_held([this]() -> GuestRequest& { return write(0, 8, 1); });
  refuse(0);
  reactor_.run_for(milliseconds(200));
  GuestRequest& newer = write(0, 8, 2);
  GuestRequest& newer_of_other = write_other(2);
  EXPECT_EQ(answer(newer, seconds(7)), IoStatus::ok) << "fence_settle_time";
  EXPECT_EQ(target_->counters.resets, 1U);
  reactor_.run_for(seconds(8));
  EXPECT_TRUE(pending(newer_of_other));
  EXPECT_EQ(answer(newer_of_other, seconds(8)), IoStatus::ok) << "quiesce_time";
  EXPECT_EQ(target_->counters.resets, 1U);
}

TEST_F(SharedSession, ALostWriteIsNotFencedByAResetThatAnotherDiskOfTheLunForbids) {
  options_.exclusive_luns = true;
  start_two(0, {1, 2});
  hold_next_write(0);
  write_until_held([this]() -> GuestRequest& { return write(0, 8, 1); });
  refuse(0);
  reactor_.run_for(milliseconds(200));
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(seconds(15));
  EXPECT_TRUE(pending(newer));
  EXPECT_EQ(answer(newer, seconds(8)), IoStatus::ok) << "quiesce_time";
  EXPECT_EQ(target_->counters.resets, 0U);
}

// --- portal_group_fences

TEST_F(SharedSession, ASiblingPortalFencesForTheDiskThatVouchesForItsTarget) {
  other_options_.portal_group_fences.reset();
  start_two(1, {1, 1});
  hold_next_write(1);
  write_until_held([this]() -> GuestRequest& { return write_other(1); });
  hold_next_write(0);
  write_until_held([this]() -> GuestRequest& { return write(0, 8, 1); });
  refuse(0);
  reactor_.run_for(milliseconds(50));
  GuestRequest& newer = write(0, 8, 2);
  GuestRequest& newer_of_other = write_other(2);
  EXPECT_EQ(answer(newer, seconds(3)), IoStatus::ok);
  reactor_.run_for(seconds(12));
  EXPECT_TRUE(pending(newer_of_other)) << "nobody vouches for its target";
  EXPECT_EQ(answer(newer_of_other, seconds(8)), IoStatus::ok) << "quiesce_time";
}

// --- redirected_login_fences

class RedirectedForTwo : public SharedSession {
 protected:
  RedirectedForTwo() { options_.redirected_login_fences = true; }

  // Both disks have lost a write at portal 0, and newer ones are waiting.
  void lose_writes() {
    hold_next_write(1);
    write_until_held([this]() -> GuestRequest& { return write_other(1); });
    hold_next_write(0);
    write_until_held([this]() -> GuestRequest& { return write(0, 8, 1); });
    reactor_.network().reset_connections(portal_address(0));
    reactor_.run_for(milliseconds(50));
    newer_ = &write(0, 8, 2);
    newer_of_other_ = &write_other(2);
  }
  void expect_fenced_for_the_first_one() {
    EXPECT_EQ(answer(*newer_, seconds(3)), IoStatus::ok);
    reactor_.run_for(seconds(12));
    EXPECT_TRUE(pending(*newer_of_other_)) << "nobody vouches for its target";
    EXPECT_EQ(answer(*newer_of_other_, seconds(8)), IoStatus::ok) << "quiesce_time";
  }

  GuestRequest* newer_ = nullptr;
  GuestRequest* newer_of_other_ = nullptr;
};

TEST_F(RedirectedForTwo, TheSessionsOwnLoginFencesForTheDiskThatVouchesForItsTarget) {
  start_target({1, 2, 1});
  target_->add_lun(1,
                   std::make_shared<SimLun>(SimLunOptions{.serial = "OTHER", .naa_extension = 2}));
  target_options_.portals.pop_back();  // no path to the third: nobody is the first one's sibling
  start_device();
  start_other(1);
  target_->redirect_logins(0, "10.0.0.3:3260,1");
  lose_writes();
  expect_fenced_for_the_first_one();
}

TEST_F(RedirectedForTwo, AFenceSessionDoesSoForTheDiskThatVouchesForItsTarget) {
  start_target({1, 1, 1});
  target_->add_lun(1,
                   std::make_shared<SimLun>(SimLunOptions{.serial = "OTHER", .naa_extension = 2}));
  target_options_.portals.pop_back();
  target_->redirect_logins(1, "10.0.0.3:3260,1");
  start_device();
  start_other(1);
  reactor_.network().set_refusing(portal_address(0), true);
  lose_writes();
  expect_fenced_for_the_first_one();
}

// The other one's wish is there first, and no portal is good enough for it.
TEST_F(RedirectedForTwo, ADiskThatWaitsInVainDoesNotKeepTheOneThatVouchesFromItsFence) {
  start_target({1, 1, 1});
  target_->add_lun(1,
                   std::make_shared<SimLun>(SimLunOptions{.serial = "OTHER", .naa_extension = 2}));
  target_options_.portals.pop_back();
  target_->redirect_logins(1, "10.0.0.3:3260,1");
  std::swap(options_.redirected_login_fences, other_options_.redirected_login_fences);
  start_device();
  start_other(1);
  reactor_.network().set_refusing(portal_address(0), true);
  lose_writes();
  EXPECT_EQ(answer(*newer_of_other_, seconds(3)), IoStatus::ok);
  reactor_.run_for(seconds(12));
  EXPECT_TRUE(pending(*newer_));
}

// --- what the other session has

TEST_F(SharedSession, AFenceSessionHasTheLostSessionsOwnName) {
  start_target({1, 1});
  for (std::size_t portal = 0; portal < 2; ++portal) {
    SessionOptions options = session_options_;
    options.initiator_name = "iqn.2026-01.test:host" + std::to_string(portal);
    options.target_name = target_options_.name;
    options.portal = portal_address(portal);
    options.portal_name = options.portal.to_string();
    options.isid = {0x80, 0, 0, 1, 0, static_cast<std::uint8_t>(portal)};
    sessions_.push_back(std::make_unique<Session>(reactor_, options));
    sessions_.back()->start();
  }
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (const std::unique_ptr<Session>& session : sessions_) {
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  hold_next_write(0);
  write_until_held([this]() -> GuestRequest& { return write(0, 8, 1); });
  refuse(0);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(answer(write(0, 8, 2), seconds(3)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(seconds(1));
  EXPECT_EQ(target_->counters.executed_after_close, 0U) << "that name's session is terminated";
  EXPECT_EQ(medium(0), 2);
}

// Ten writes of each disk at a target that takes two commands at once.
class UnsentOfTwo : public SharedSession {
 protected:
  void fill_the_window(std::uint16_t lun_of_other) {
    target_options_.window = 2;
    start_two(lun_of_other);
    SimFault hold;
    hold.matches = any_io();
    hold.count = 0;
    hold.hold = true;
    hold.execute = true;
    target_->inject(hold);
    for (std::uint64_t at = 0; at < 10; ++at) {
      write(at * 8, 8, 1);
      at_other([&] { write(100 + at * 8, 8, 2); });
    }
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(target_->held(), 2U);
  }
  void expect_that_the_other_disk_does_not_notice() {
    reactor_.run_for(milliseconds(1));
    EXPECT_EQ(path(0).in_flight, 1U) << "the rest has come back";
    target_->clear_faults();
    target_->release_held();
    for (const auto& request : other_requests_) {
      EXPECT_EQ(answer(*request, milliseconds(100)), IoStatus::ok);
    }
    EXPECT_EQ(other_->snapshot().paths[0].failures, 0U);
    EXPECT_EQ(other_->snapshot().paths[0].requests, 10U);
    device_->set_guest({GuestState::runs});
    for (const auto& request : requests_) {
      EXPECT_EQ(answer(*request, milliseconds(100)), IoStatus::ok);
    }
  }
};

TEST_F(UnsentOfTwo, StayWhereTheyAreWhenTheDiskOfAnotherLunIsSuspended) {
  fill_the_window(1);
  device_->set_guest({GuestState::suspended});
  expect_that_the_other_disk_does_not_notice();
}

TEST_F(UnsentOfTwo, StayWhereTheyAreWhenAnotherDiskOfTheLunIsSuspended) {
  fill_the_window(0);
  device_->set_guest({GuestState::suspended});
  expect_that_the_other_disk_does_not_notice();
}

TEST_F(UnsentOfTwo, StayWhereTheyAreWhenAnotherLunMayHaveChanged) {
  fill_the_window(1);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x3f03);
  expect_that_the_other_disk_does_not_notice();
}

TEST_F(SharedSession, RulesForPortalsKnowThemAsTheirOwnDiskHasThem) {
  const std::vector<std::string> rules{"portal san-a 7"};
  options_.prio = make_prioritizer(PrioritizerKind::weighted, rules).value();
  start_target({1});
  Session& session = add_session(0);
  session.start();
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  other_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  ASSERT_TRUE(device_->add_path(session, 0, "san-b:3260"));
  ASSERT_TRUE(other_->add_path(session, 0, "san-a:3260"));
  ASSERT_TRUE(
      reactor_.run_until([this] { return other_->ready() && device_->ready(); }, seconds(10)));
  EXPECT_EQ(path(0).portal, "san-b:3260");
  EXPECT_EQ(path(0).priority, 0);
  EXPECT_EQ(other_->snapshot().paths[0].portal, "san-a:3260");
  EXPECT_EQ(other_->snapshot().paths[0].priority, 7);
}

}  // namespace
}  // namespace iscsi_blkback
