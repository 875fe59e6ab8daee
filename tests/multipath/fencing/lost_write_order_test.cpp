// Writes that pass a lost one, or wait for one, by ways that are easily forgotten: out of the
// queue, after a suspension, from in front of it; and fence sessions that fence nothing.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class LostWriteOrder : public MultipathTest {
 protected:
  // A write that is on its way over the path, and that the target keeps.
  GuestRequest& write_held_at(std::size_t portal, std::uint64_t sector, std::uint32_t count,
                              int fill) {
    hold_next_write_at(portal);
    const std::size_t before = target_->held();
    GuestRequest& request =
        at_path(portal, [&]() -> GuestRequest& { return write(sector, count, fill); });
    EXPECT_TRUE(reactor_.run_until([&] { return target_->held() > before; }, seconds(1)));
    return request;
  }
};

// The second write waits in the disk's queue when the first one is lost. Let out of it, it must not
// go before the first one is fenced.
TEST_F(LostWriteOrder, AQueuedWriteDoesNotPassALostOneThatItOverlaps) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  device_->set_guest({GuestState::suspended});
  GuestRequest& second = write(4, 8, 2);
  GuestRequest& beside = write(64, 8, 3);
  refuse(0);
  reactor_.run_for(milliseconds(100));
  ASSERT_TRUE(pending(first) && pending(second) && pending(beside));
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok) << "retried elsewhere";
  EXPECT_EQ(answer(beside, milliseconds(100)), IoStatus::ok);
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(second));
  target_->release_held();  // the old one strikes
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->counters.executed_after_close, 1U);
  accept(0);
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok);
  EXPECT_EQ(medium(3), 1);
  EXPECT_EQ(medium(4), 2);
  EXPECT_EQ(medium(11), 2);
}

TEST_F(LostWriteOrder, ALostWriteOfASuspendedDiskIsNotSentElsewhere) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  const std::uint64_t requests = path(1).requests;
  device_->set_guest({GuestState::suspended});
  refuse(0);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(first));
  EXPECT_EQ(path(1).requests, requests);
  EXPECT_EQ(lun_->counters.writes, 0U);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
}

// However the two overlap: the lost one begins before the other, behind its begin, or lies in it.
class OverlappingWrites : public LostWriteOrder,
                          public testing::WithParamInterface<std::pair<int, int>> {};
INSTANTIATE_TEST_SUITE_P(SectorAndCount, OverlappingWrites,
                         testing::Values(std::pair{100, 8}, std::pair{96, 8}, std::pair{104, 8},
                                         std::pair{102, 2}, std::pair{90, 40}, std::pair{93, 8},
                                         std::pair{107, 8}));

TEST_P(OverlappingWrites, ALostOneWaitsForOneThatIsUnderWay) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 100, 8, 1);
  GuestRequest& second = write_held_at(1, static_cast<std::uint64_t>(GetParam().first),
                                       static_cast<std::uint32_t>(GetParam().second), 2);
  ASSERT_TRUE(pending(first) && pending(second));
  refuse(0);
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(first)) << "not past the one that is under way";
  target_->release_held();
  EXPECT_EQ(answer(second, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
}

class WritesSideBySide : public OverlappingWrites {};
INSTANTIATE_TEST_SUITE_P(SectorAndCount, WritesSideBySide,
                         testing::Values(std::pair{92, 8}, std::pair{108, 8}));

TEST_P(WritesSideBySide, ALostOneDoesNotWaitForOneThatIsUnderWay) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 100, 8, 1);
  GuestRequest& second = write_held_at(1, static_cast<std::uint64_t>(GetParam().first),
                                       static_cast<std::uint32_t>(GetParam().second), 2);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
  EXPECT_TRUE(pending(second));
  target_->release_held();
}

// The portal was in the lost one's group when it was chosen for the fence; the target has been set
// up anew since, and the login leads to another group, which knows nothing of the lost session.
TEST_F(LostWriteOrder, AFenceSessionInAnotherPortalGroupFencesNothing) {
  options_.quiesce_time = seconds(20);
  start({1, 1});
  target_->options().portals[1].group_tag = 2;
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(15));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.terminated_tasks, 0U);
  target_->release_held();
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok) << "quiesce_time";
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LostWriteOrder, AFenceThatFindsNoSiblingIsTriedWhenOneComesUp) {
  start({1, 1, 2});
  refuse(1);
  reactor_.run_for(milliseconds(500));
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(second));
  accept(1);
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok);
  EXPECT_EQ(target_->counters.terminated_tasks, 1U);
}

TEST_F(LostWriteOrder, AFenceThatWasRefusedIsTriedAgain) {
  start({1, 1});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  target_->refuse_logins(1, 0x0302);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(8));
  EXPECT_TRUE(pending(second));
  target_->refuse_logins(1, 0);
  EXPECT_EQ(answer(second, seconds(8)), IoStatus::ok);
  EXPECT_EQ(target_->counters.terminated_tasks, 1U);
}

// The lost session is back while the fence session still logs in: that would end it once more.
TEST_F(LostWriteOrder, AFenceSessionStopsWhenTheLostSessionIsBack) {
  start({1, 1});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  reactor_.network().set_latency(portal_address(1), milliseconds(200));
  reactor_.network().reset_connections(portal_address(0));
  GuestRequest& second = write(0, 8, 2);
  ASSERT_TRUE(wait_for_up(2, seconds(1)));
  EXPECT_EQ(answer(first, seconds(1)), IoStatus::ok);
  EXPECT_EQ(answer(second, seconds(1)), IoStatus::ok);
  reactor_.run_for(seconds(10));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 1U);
  EXPECT_EQ(target_->sessions(), 2U) << "the fence session has gone";
}

// Two sessions through one portal, as sessions_per_portal makes them: the fence of the one says
// nothing of what the other has lost.
TEST_F(LostWriteOrder, AFenceOfASessionLeavesWhatAnotherOneOfThePortalHasLost) {
  start_target({1, 1});
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (const std::size_t portal : {0U, 1U, 0U}) {
    Session& session = add_session(portal);
    session.start();
    ASSERT_TRUE(device_->add_path(session, 0));
  }
  ASSERT_TRUE(wait_for_up(3));
  const auto write_kept_of = [&](std::size_t path, std::uint64_t sector) -> GuestRequest& {
    SimFault hold;
    hold.matches = [isid = sessions_[path]->options().isid](const SimCommand& command) {
      return is_write(command) && command.isid == isid;
    };
    hold.hold = hold.execute = true;
    target_->inject(hold);
    const std::size_t before = target_->held();
    GuestRequest& request = at_path(path, [&]() -> GuestRequest& { return write(sector, 8, 1); });
    EXPECT_TRUE(reactor_.run_until([&] { return target_->held() > before; }, seconds(1)));
    return request;
  };
  GuestRequest& first = write_kept_of(0, 0);
  GuestRequest& second = write_kept_of(2, 100);
  reactor_.network().set_latency(portal_address(1), milliseconds(50));
  reactor_.network().set_refusing(portal_address(0), true);
  sessions_[0]->drop(Error{ErrorCode::unavailable, "test"});
  reactor_.run_for(milliseconds(150));  // the fence session of the first one is on its way
  sessions_[2]->drop(Error{ErrorCode::unavailable, "test"});
  const TimePoint lost = reactor_.now();
  ASSERT_TRUE(reactor_.run_until([&] { return !pending(first) && !pending(second); }, seconds(1)));
  GuestRequest& third = write(0, 8, 2);
  GuestRequest& fourth = write(100, 8, 2);
  EXPECT_EQ(answer(third, seconds(1)), IoStatus::ok);
  EXPECT_EQ(answer(fourth, seconds(1)), IoStatus::ok);
  EXPECT_GE(fourth.completed_at - lost, milliseconds(300)) << "a login of its own";
  EXPECT_EQ(target_->counters.terminated_tasks, 2U);
}

// Another array serves the same disk: its portal group of the same number is no sibling.
TEST_F(LostWriteOrder, APortalOfAnotherTargetIsNoSibling) {
  options_.quiesce_time = seconds(20);
  start_target({1});
  SimTargetOptions other_options = target_options_;
  other_options.name = "iqn.2026-01.test:other";
  other_options.portals = {{portal_address(8), 1}};
  SimTarget other(reactor_, other_options);
  other.add_lun(0, lun_);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  Session& session = add_session(0);
  SessionOptions elsewhere = session.options();
  elsewhere.target_name = other_options.name;
  elsewhere.portal = portal_address(8);
  elsewhere.isid[5] = 99;
  sessions_.push_back(std::make_unique<Session>(reactor_, elsewhere));
  for (const auto& each : sessions_) {
    each->start();
    ASSERT_TRUE(device_->add_path(*each, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(15));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(other.counters.logins, 1U);
  target_->release_held();
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok) << "quiesce_time";
  EXPECT_EQ(medium(0), 2);
  close();
  stop_sessions();
}

TEST_F(LostWriteOrder, ADiskIsNotClosedWhileAPathHasARequest) {
  start({1, 2});
  GuestRequest& request = write_held_at(0, 0, 8, 1);
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  reactor_.run_for(milliseconds(100));
  EXPECT_FALSE(closed);
  target_->release_held();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
  EXPECT_EQ(request.status, IoStatus::ok);
  device_.reset();
}

// The time without a path counts anew with each outage.
TEST_F(LostWriteOrder, AnOutageThatIsOverDoesNotCountForTheNextOne) {
  options_.no_path_retry = seconds(10);
  start({1});
  refuse(0);
  reactor_.run_for(seconds(5));
  accept(0);
  ASSERT_TRUE(wait_for_up(1));
  reactor_.run_for(seconds(10));
  refuse(0);
  GuestRequest& request = read(0, 8);
  reactor_.run_for(seconds(9));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(answer(request, seconds(2)), IoStatus::no_path);
  EXPECT_EQ(device_->snapshot().queue_timeouts, 1U);
}

}  // namespace
}  // namespace iscsi_blkback
