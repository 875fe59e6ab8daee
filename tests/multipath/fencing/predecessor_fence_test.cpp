// A disk whose process has died: the one that comes after it fences its nexuses, and waits no
// longer than it has to.
#include "multipath/fencing/predecessor_fence.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "initiator/lun/logical_unit.h"
#include "tests/multipath/following_disk.h"

namespace iscsi_blkback {
namespace {

class PredecessorFenceTest : public FollowingDisk {
 protected:
  static constexpr std::uint8_t kOtherGuest = 77;

  // A process of this host has written 1 at sector 0 by the portal, over a session with this ISID,
  // and was killed. The target still has the write, and executes it when it is released. The disk's
  // target and sessions are there, its device is not.
  void leave_a_write(std::size_t portal, std::uint8_t isid,
                     const std::string& initiator_name = "iqn.2026-01.test:host",
                     const std::vector<SocketAddress>& other_addresses = {}) {
    for (std::size_t led_to = 0; led_to < target_options_.portals.size(); ++led_to) {
      hold_writes_at(led_to);
    }
    SessionOptions options = sessions_.at(0)->options();
    options.portal = portal_address(portal);
    options.other_addresses = other_addresses;
    options.portal_name = options.portal.to_string();
    options.isid[5] = isid;
    options.initiator_name = initiator_name;
    Session dead(reactor_, options);
    dead.start();
    ASSERT_TRUE(reactor_.run_until([&] { return dead.state() == SessionState::logged_in; }));
    LogicalUnit unit(reactor_, dead, encode_lun(0));
    BlockRequest request;
    std::vector<std::byte> data(std::size_t{8} * kSectorBytes, std::byte{1});
    request.operation = BlockOperation::write;
    request.sector_count = 8;
    request.data = data.data();
    ScsiTask task;
    bool completed = false;
    for (std::size_t held = target_->held(); target_->held() == held;) {
      unit.prepare_io(task, request);  // the first one meets a unit attention
      task.owner = &completed;
      task.on_complete = [](ScsiTask& ended) noexcept { *static_cast<bool*>(ended.owner) = true; };
      completed = false;
      dead.submit(task);
      ASSERT_TRUE(reactor_.run_until([&] { return completed || target_->held() > held; }));
    }
    BarrierNexus nexus;
    nexus.isid = options.isid;
    nexus.initiator_name = options.initiator_name;
    nexus.target_name = options.target_name;
    nexus.portal = dead.portal_address();
    nexus.login = login_nexus(dead);
    tell(nexus);
    bool stopped = false;
    dead.drop({ErrorCode::unavailable, "killed"});
    dead.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    ASSERT_TRUE(reactor_.run_until([&] { return stopped; }));
    reactor_.run_for(milliseconds(1));  // the target hears of it
    target_->clear_faults();
  }
  // By the second address of a name, whose first one was away and is back.
  void leave_a_write_by_the_second_of(std::size_t first, std::size_t second, std::uint8_t isid) {
    refuse(first);
    leave_a_write(first, isid, "iqn.2026-01.test:host", {portal_address(second)});
    accept(first);
  }
  void tell(const BarrierNexus& nexus, std::uint32_t path = 0) {
    auto barrier = BlockingBarrier::enter(folder_.path(), key_,
                                          {.name = "dead", .quiesce_time = options_.quiesce_time});
    ASSERT_TRUE(barrier);
    barrier->set_nexus(path, nexus);
    barrier->set_outstanding(path, true);
  }

  // The target and sessions, stopped, and the LUN's name.
  void prepare(std::vector<std::uint16_t> portal_groups) {
    start(std::move(portal_groups));
    key_ = lun_barrier_key(barrier_name_of(device_->names()), target_options_.name, 0);
    close();
  }
  void start_again(const std::vector<std::size_t>& portals) {
    device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
    for (const std::size_t portal : portals) {
      ASSERT_TRUE(device_->add_path(*sessions_[portal], 0));
    }
    ASSERT_TRUE(reactor_.run_until([this] { return up() != 0; }, seconds(5)));
  }
  // The device's own write there is answered so much later, and the old one does no harm.
  void expect_written_after(Duration at_least, Duration at_most) {
    GuestRequest& newer = write(0, 8, 2);
    EXPECT_EQ(answer(newer, at_most), IoStatus::ok);
    EXPECT_GE(newer.took(), at_least);
    target_->release_held();
    reactor_.run_for(milliseconds(20));
    EXPECT_EQ(medium(0), 2);
  }

  void stop(Session& session) {
    bool stopped = false;
    session.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
    ASSERT_TRUE(reactor_.run_until([&] { return stopped; }, seconds(30)));
  }
  // Nothing fences the old write before quiesce_time (20 s) is over.
  void expect_to_wait() {
    GuestRequest& newer = write(0, 8, 2);
    reactor_.run_for(seconds(15));
    EXPECT_TRUE(pending(newer));
    target_->release_held();
    EXPECT_EQ(answer(newer, seconds(6)), IoStatus::ok);
    EXPECT_EQ(medium(0), 2);
  }

  std::string key_;
};

TEST_F(PredecessorFenceTest, LogsInWhereADeadProcessHadALoginOfItsOwn) {
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  start_again({0});
  expect_written_after({}, milliseconds(100));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(target_->sessions(), 2U) << "and out again";
}

// A process that is started again for the same guest comes to the same ISIDs.
TEST_F(PredecessorFenceTest, APathsOwnLoginIsTheFenceOfItsIsid) {
  prepare({1, 2});
  const std::uint8_t isid = sessions_[1]->options().isid[5];
  bool stopped = false;
  sessions_[1]->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
  ASSERT_TRUE(reactor_.run_until([&] { return stopped; }));
  leave_a_write(1, isid);
  start_again({0, 1});
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(milliseconds(300));
  EXPECT_TRUE(pending(newer));
  const auto logins = target_->counters.logins;
  sessions_[1]->start();
  EXPECT_EQ(answer(newer, milliseconds(100)), IoStatus::ok);
  EXPECT_EQ(target_->counters.logins, logins + 1) << "no other login was needed";
  target_->release_held();
  reactor_.run_for(milliseconds(20));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(PredecessorFenceTest, APathThatHasLoggedInAlreadyIsAskedWhetherItsLoginIsTheLast) {
  prepare({1, 2});
  const std::uint8_t isid = sessions_[1]->options().isid[5];
  bool stopped = false;
  sessions_[1]->stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
  ASSERT_TRUE(reactor_.run_until([&] { return stopped; }));
  leave_a_write(1, isid);
  sessions_[1]->start();
  ASSERT_TRUE(reactor_.run_until([&] { return sessions_[1]->state() == SessionState::logged_in; }));
  const auto logins = target_->counters.logins;
  start_again({0, 1});
  expect_written_after({}, milliseconds(100));
  EXPECT_EQ(target_->counters.logins, logins);
}

// The path's session was ended by a login of the dead process, and has not heard of it.
TEST_F(PredecessorFenceTest, APathThatOnlyBelievesToBeLoggedInIsNoFence) {
  prepare({1, 1});
  const std::uint8_t isid = sessions_[1]->options().isid[5];
  drop_silently(1);
  leave_a_write(0, isid);
  ASSERT_EQ(sessions_[1]->state(), SessionState::logged_in);
  start_again({0, 1});
  expect_written_after(milliseconds(100), seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  reactor_.network().set_dropping(portal_address(1), false);
}

TEST_F(PredecessorFenceTest, APathThatIsAddedLaterIsTheFenceOfItsIsid) {
  prepare({1, 2});
  stop(*sessions_[1]);
  leave_a_write(1, sessions_[1]->options().isid[5]);
  refuse(1);
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(newer));
  ASSERT_TRUE(device_->add_path(*sessions_[1], 0));
  accept(1);
  const auto logins = target_->counters.logins;
  sessions_[1]->start();
  EXPECT_EQ(answer(newer, seconds(3)), IoStatus::ok);
  EXPECT_EQ(target_->counters.logins, logins + 1) << "no other login was needed";
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

// A guest with two shared disks at the LUN: both have died, and both are back. The login fences for
// both of both.
TEST_F(PredecessorFenceTest, OneLoginIsTheFenceForTwoDisksOfTwoThatHaveDied) {
  options_.shared = true;
  prepare({1, 2});
  stop(*sessions_[1]);
  leave_a_write(1, sessions_[1]->options().isid[5]);
  leave_a_write(1, sessions_[1]->options().isid[5]);
  refuse(1);
  start_again({0, 1});
  OtherDisk other(reactor_, fencing_, options_);
  ASSERT_TRUE(other.device().add_path(*sessions_[0], 0));
  ASSERT_TRUE(other.device().add_path(*sessions_[1], 0));
  GuestRequest& one = write(0, 8, 2);
  GuestRequest& another = other.write(8, 3);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(one));
  EXPECT_TRUE(pending(another));
  accept(1);
  sessions_[1]->start();
  EXPECT_EQ(answer(one, seconds(3)), IoStatus::ok);
  EXPECT_EQ(answer(another, seconds(1)), IoStatus::ok);
}

TEST_F(PredecessorFenceTest, APathThatIsRemovedIsNotWaitedFor) {
  prepare({1, 2});
  stop(*sessions_[1]);
  leave_a_write(1, sessions_[1]->options().isid[5]);
  start_again({0, 1});
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(newer));
  ASSERT_TRUE(device_->remove_path(*sessions_[1], 0));
  EXPECT_EQ(answer(newer, seconds(3)), IoStatus::ok);
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, LogsInAtTheAddressOfAHostNameByWhichADeadProcessHadComeIn) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2, 2});
  leave_a_write_by_the_second_of(1, 2, kOtherGuest);
  start_again({0});
  expect_written_after({}, milliseconds(100));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, GoesThroughASiblingPortalWhereALaterAddressOfAHostNameIsAway) {
  prepare({1, 2, 2, 2});
  leave_a_write_by_the_second_of(1, 2, kOtherGuest);
  refuse(2);
  start_again({3});
  expect_written_after(milliseconds(100), seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, GoesThroughTheAddressByWhichASiblingHasComeIn) {
  prepare({1, 2, 2});
  leave_a_write(1, kOtherGuest);
  stop(*sessions_[2]);
  refuse(0);
  refuse(1);
  Session& sibling = add_session(0, {2});
  sibling.start();
  start_again({3});
  accept(0);
  expect_written_after(milliseconds(100), seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, LeavesTheOtherAddressesOfAnotherPathAlone) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2, 2});
  leave_a_write(1, kOtherGuest);
  refuse(1);
  add_session(0, {2}).start();
  start_again({3});
  const auto logins = target_->counters.logins;
  expect_to_wait();
  EXPECT_EQ(target_->counters.logins, logins);
}

// A process that is started again for the same guest, when the address is back that had been away.
TEST_F(PredecessorFenceTest, APathOfItsIsidInAnotherGroupKeepsItFromNothing) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2});
  stop(*sessions_[1]);
  Session& path = add_session(0, {1});
  leave_a_write_by_the_second_of(0, 1, path.options().isid[5]);
  path.start();
  start_again({2});
  ASSERT_EQ(path.portal_address(), portal_address(0));
  expect_written_after({}, seconds(2));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  EXPECT_EQ(path.statistics().connection_losses, 0U);
}

// Its login would end that path's session. Time decides.
TEST_F(PredecessorFenceTest, APathOfItsIsidInItsGroupIsNotEnded) {
  options_.portal_group_fences.reset();
  options_.quiesce_time = seconds(20);
  prepare({2, 2});
  stop(*sessions_[1]);
  Session& path = add_session(0, {1});
  leave_a_write_by_the_second_of(0, 1, path.options().isid[5]);
  path.start();
  start_again({2});
  expect_to_wait();
  EXPECT_EQ(path.statistics().connection_losses, 0U);
}

// The ISID alone makes no nexus (RFC 7143 4.4.1).
TEST_F(PredecessorFenceTest, APathOfAnotherInitiatorNameIsNoFence) {
  prepare({1, 2});
  leave_a_write(1, sessions_[1]->options().isid[5], "iqn.2026-01.test:former-name");
  start_again({0, 1});
  expect_written_after({}, milliseconds(100));
  EXPECT_GE(target_->counters.terminated_tasks, 1U) << "a session of the former name was";
}

TEST_F(PredecessorFenceTest, APathToAnotherTargetIsNoFence) {
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  SimTargetOptions other_options;
  other_options.name = "iqn.2026-01.test:other";
  other_options.portals = {{SocketAddress::parse("10.0.1.1", 3260).value(), 2}};
  SimTarget other_target(reactor_, other_options);
  other_target.add_lun(0, lun_);
  SessionOptions options = sessions_[0]->options();
  options.target_name = other_options.name;
  options.portal = other_options.portals[0].address;
  options.isid[5] = kOtherGuest;
  Session session(reactor_, options);
  session.start();
  start_again({0});
  ASSERT_TRUE(device_->add_path(session, 0));
  ASSERT_TRUE(wait_for_up(2));
  expect_written_after({}, milliseconds(100));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  close();
  stop(session);
}

TEST_F(PredecessorFenceTest, GoesThroughASiblingPortalWhereTheOldOneIsAway) {
  prepare({1, 1});
  leave_a_write(1, kOtherGuest);
  refuse(1);
  start_again({0});
  expect_written_after(milliseconds(100), seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, GoesThroughNoSiblingPortalOfATargetThatNobodyVouchesFor) {
  options_.portal_group_fences.reset();
  options_.quiesce_time = seconds(20);
  prepare({1, 1});
  leave_a_write(1, kOtherGuest);
  refuse(1);
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(seconds(15));
  EXPECT_TRUE(pending(newer));
  EXPECT_EQ(target_->counters.terminated_tasks, 0U);
  target_->release_held();
  EXPECT_EQ(answer(newer, seconds(6)), IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
}

TEST_F(PredecessorFenceTest, GoesThroughASiblingPortalWhereAPathOfItsIsidIsAway) {
  prepare({1, 1});
  leave_a_write(1, sessions_[1]->options().isid[5]);
  refuse(1);
  start_again({0, 1});
  expect_written_after(milliseconds(100), seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, WaitsForTheQuiesceTimeWhereNoPortalOfTheGroupAnswers) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  refuse(1);
  start_again({0});
  expect_to_wait();
  // Somebody else may have the ISID by now.
  stop(*sessions_[1]);
  const auto logins = target_->counters.logins;
  accept(1);
  reactor_.run_for(seconds(5));
  EXPECT_EQ(target_->counters.logins, logins) << "what is harmless is not fenced any more";
}

// Another server, which has never heard of the old session.
TEST_F(PredecessorFenceTest, ALoginThatIsLedElsewhereIsNoFence) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  target_->redirect_logins(1, portal_address(0).to_string());
  start_again({0});
  expect_to_wait();
  EXPECT_LE(target_->counters.logins, 30U) << "it does not ask without end";
}

// Nor does the number of the portal group tell which server it is.
TEST_F(PredecessorFenceTest, ALoginThatIsLedElsewhereInItsPortalGroupIsNoFence) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2, 2});
  leave_a_write(1, kOtherGuest);
  target_->redirect_logins(1, portal_address(2).to_string());
  start_again({0});
  expect_to_wait();
}

TEST_F(PredecessorFenceTest, ASiblingPortalIsNoFenceOfALoginThatWasLedElsewhere) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2, 2, 2});
  target_->redirect_logins(1, portal_address(2).to_string());
  leave_a_write(1, kOtherGuest);
  target_->redirect_logins(1, "");
  refuse(1);
  refuse(2);
  start_again({3});
  expect_to_wait();
}

TEST_F(PredecessorFenceTest, RedirectedLoginsFenceWhereTheDiskVouchesForThat) {
  options_.redirected_login_fences = true;
  prepare({1, 2, 2, 2});
  target_->redirect_logins(1, portal_address(2).to_string());
  leave_a_write(1, kOtherGuest);
  target_->redirect_logins(1, "");
  refuse(1);
  refuse(2);
  start_again({3});
  expect_written_after({}, seconds(8));
}

TEST_F(PredecessorFenceTest, LogsInWhereARedirectHadLedWhenThatPortalIsAway) {
  options_.quiesce_time = seconds(20);
  prepare({1, 2, 2});
  target_->redirect_logins(1, portal_address(2).to_string());
  leave_a_write(1, kOtherGuest);
  refuse(1);
  start_again({0});
  expect_written_after({}, seconds(5));
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
}

TEST_F(PredecessorFenceTest, ASessionOfAnotherDiskIsNotEnded) {
  options_.quiesce_time = seconds(5);
  prepare({1, 2});
  leave_a_write(1, sessions_[1]->options().isid[5]);
  ASSERT_TRUE(reactor_.run_until([&] { return sessions_[1]->state() == SessionState::logged_in; },
                                 seconds(5)));
  const auto losses = sessions_[1]->statistics().connection_losses;
  lun_options_.serial = "OTHER";
  lun_options_.naa_extension = 9;
  target_->add_lun(1, std::make_shared<SimLun>(lun_options_));
  OtherDisk other(reactor_, fencing_, options_);
  ASSERT_TRUE(other.device().add_path(*sessions_[1], 1));
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  EXPECT_EQ(answer(newer, seconds(6)), IoStatus::ok);
  EXPECT_EQ(sessions_[1]->statistics().connection_losses, losses);
}

TEST_F(PredecessorFenceTest, FencesManyNexusesInTurn) {
  options_.quiesce_time = seconds(60);
  prepare({1, 2});
  for (std::uint8_t each = 0; each < 20; ++each) {
    leave_a_write(1, static_cast<std::uint8_t>(100 + each));
  }
  const std::size_t others = target_->sessions();
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  std::size_t most = 0;
  EXPECT_TRUE(reactor_.run_until(
      [&] {
        most = std::max(most, target_->sessions());
        return !pending(newer);
      },
      seconds(5)));
  EXPECT_GE(target_->counters.terminated_tasks, 20U);
  EXPECT_LE(most, others + PredecessorFence::kMaxSessions);
}

TEST_F(PredecessorFenceTest, FencesInTurnWhereTheProcessHasRoomForOneSessionOnly) {
  options_.quiesce_time = seconds(60);
  prepare({1, 2});
  for (std::uint8_t each = 0; each < 3; ++each) {
    leave_a_write(1, static_cast<std::uint8_t>(100 + each));
  }
  const std::size_t others = target_->sessions();
  std::deque<FenceTurn> taken;
  while (fencing_.budget.taken() + 1 < SessionBudget::kMaxSessions) {
    ASSERT_TRUE(taken.emplace_back(fencing_.budget, nullptr, nullptr).take());
  }
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  std::size_t most = 0;
  EXPECT_TRUE(reactor_.run_until(
      [&] {
        most = std::max(most, target_->sessions());
        return !pending(newer);
      },
      seconds(10)));
  EXPECT_GE(target_->counters.terminated_tasks, 3U);
  EXPECT_LE(most, others + 1);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(fencing_.budget.taken(), taken.size());
}

TEST_F(PredecessorFenceTest, OfADiskThatIsSuspendedMeanwhileGoesOn) {
  options_.quiesce_time = seconds(30);
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  refuse(1);
  start_again({0});
  GuestRequest& newer = write(0, 8, 2);
  reactor_.run_for(seconds(1));
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(100));
  device_->set_guest({GuestState::runs});
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(newer)) << "the wait for a dead process does not end with a suspend";
  accept(1);
  EXPECT_EQ(answer(newer, seconds(5)), IoStatus::ok);
}

TEST_F(PredecessorFenceTest, OfADiskThatIsClosedIsGivenUp) {
  prepare({1, 2});
  leave_a_write(1, kOtherGuest);
  drop_silently(1);
  start_again({0});
  write(0, 8, 2);
  reactor_.run_for(milliseconds(500));
  const TimePoint start = reactor_.now();
  close();
  EXPECT_LE(reactor_.now() - start, seconds(1));
  reactor_.network().set_dropping(portal_address(1), false);
}

}  // namespace
}  // namespace iscsi_blkback
