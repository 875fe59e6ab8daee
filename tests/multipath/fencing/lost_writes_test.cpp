// Writes that a lost connection leaves behind: nothing newer may be overwritten by them.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class LostWrites : public MultipathTest {
 protected:
  // Submits a write until it is the one that portal holds.
  GuestRequest& write_held_at(std::size_t portal, std::uint64_t sector, std::uint32_t count,
                              int fill) {
    hold_next_write_at(portal);
    while (true) {
      const std::size_t before = target_->held();
      GuestRequest& request = write(sector, count, fill);
      if (!reactor_.run_until([&] { return target_->held() > before || !pending(request); },
                              seconds(1))) {
        ADD_FAILURE() << "neither held nor answered";
        return request;
      }
      if (pending(request)) {
        return request;
      }
    }
  }
};

// The hazard itself: W1 is lost at portal 0, retried at portal 1 and answered; W2 must not overtake
// the old W1.
TEST_F(LostWrites, ANewerOverlappingWriteWaitsUntilTheSessionIsBack) {
  start({1, 2});  // portal groups of their own: nobody else can fence
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok) << "retried elsewhere at once";
  GuestRequest& second = write(4, 8, 2);
  GuestRequest& beside = write(8, 8, 3);
  EXPECT_EQ(answer(beside, milliseconds(50)), IoStatus::ok) << "does not overlap";
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(device_->snapshot().held, 1U);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok) << "reads never wait";

  target_->release_held();  // the old W1 strikes
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(target_->counters.executed_after_close, 1U);
  accept(0);
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok);
  EXPECT_EQ(medium(0), 1);
  EXPECT_EQ(medium(4), 2);
  EXPECT_EQ(medium(8), 2);
  EXPECT_EQ(medium(12), 3);
}

TEST_F(LostWrites, ASiblingPortalFencesAtOnce) {
  start();
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  EXPECT_EQ(answer(second, milliseconds(50)), IoStatus::ok);
  EXPECT_GE(target_->counters.terminated_tasks, 1U);

  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(target_->counters.executed_after_close, 0U);
  EXPECT_EQ(medium(0), 2);
  EXPECT_EQ(target_->sessions(), 1U) << "the fence session has logged out";
}

TEST_F(LostWrites, AFenceHasRoomHoweverManyPathsThereAre) {
  start();
  constexpr std::size_t kOthers = SessionBudget::kMaxSessions - SessionBudget::kFenceReserve;
  ASSERT_TRUE(fencing_.budget.take(kOthers));
  ASSERT_FALSE(fencing_.budget.take(1));
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(fencing_.budget.taken(), kOthers) << "it is given back";
  fencing_.budget.give_back(kOthers);
}

class FencesInALine : public LostWrites {
 protected:
  // A write waits for a fence, for which there is no room.
  GuestRequest& let_a_fence_wait() {
    options_.quiesce_time = seconds(60);
    start();
    while (fencing_.budget.taken() < SessionBudget::kMaxSessions) {
      EXPECT_TRUE(taken_.emplace_back(fencing_.budget, nullptr, nullptr).take());
    }
    GuestRequest& first = write_held_at(0, 0, 8, 1);
    refuse(0);
    EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
    GuestRequest& second = write(0, 8, 2);
    reactor_.run_for(seconds(20));
    EXPECT_TRUE(pending(second));
    return second;
  }

  std::deque<FenceTurn> taken_;
};

TEST_F(FencesInALine, AFenceBeginsWhenAnotherOneHasEnded) {
  const GuestRequest& second = let_a_fence_wait();
  taken_.pop_back();
  EXPECT_EQ(answer(second, milliseconds(50)), IoStatus::ok);
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(fencing_.budget.taken(), taken_.size()) << "it is given back";
}

TEST_F(FencesInALine, AFenceThatHasNoSiblingAnyMoreLeavesItsTurnToOthers) {
  const GuestRequest& second = let_a_fence_wait();
  refuse(1);
  reactor_.run_for(milliseconds(10));
  taken_.pop_back();
  EXPECT_EQ(fencing_.budget.taken(), taken_.size());
  accept(1);
  EXPECT_EQ(answer(second, seconds(5)), IoStatus::ok) << "it is there again";
}

TEST_F(FencesInALine, ASessionThatComesBackNeedsNone) {
  const GuestRequest& second = let_a_fence_wait();
  accept(0);
  EXPECT_EQ(answer(second, seconds(35)), IoStatus::ok);
  taken_.pop_back();
  EXPECT_EQ(fencing_.budget.taken(), taken_.size());
}

TEST_F(FencesInALine, ADiskThatIsClosedLeavesTheLine) {
  (void)let_a_fence_wait();
  close();
  taken_.pop_back();
  EXPECT_EQ(fencing_.budget.taken(), taken_.size());
}

TEST_F(LostWrites, ASiblingThatHasComeInByALaterAddressOfItsNameFencesThere) {
  start_target({1, 2, 1});
  refuse(1);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (Session* session : {&add_session(0), &add_session(1, {2})}) {
    session->start();
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  accept(1);
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LostWrites, AFenceIsNotTriedAtTheOtherAddressesOfTheLostPath) {
  start_target({1, 1, 2});
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  for (Session* session : {&add_session(0, {2}), &add_session(1)}) {
    session->start();
    ASSERT_TRUE(device_->add_path(*session, 0));
  }
  ASSERT_TRUE(wait_for_up(2));
  const auto logins = target_->counters.logins;
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  reactor_.network().set_refusing(portal_address(1), true);  // the fence is refused there
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  reactor_.run_for(seconds(5));
  EXPECT_EQ(sessions_[0]->portal_address(), portal_address(2));
  EXPECT_EQ(target_->counters.logins, logins + 1) << "its own";
}

TEST_F(LostWrites, ASiblingPortalIsNoFenceForADiskThatDoesNotVouchForItsTarget) {
  options_.portal_group_fences.reset();
  start();
  const std::uint64_t logins = target_->counters.logins;
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(target_->counters.logins, logins);
  accept(0);
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok) << "its own portal is one";
}

// Two nodes serve the disk under one target name, and each numbers its only portal group 1.
TEST_F(LostWrites, NodesThatNumberTheirPortalGroupsAlikeDoNotFenceForEachOther) {
  options_.portal_group_fences.reset();
  start_target({1});
  SimTargetOptions other_options = target_options_;
  other_options.portals = {{portal_address(1), 1}};
  SimTarget other(reactor_, other_options);
  other.add_lun(0, lun_);
  target_options_.portals.push_back({portal_address(1), 1});  // for sessions
  start_device();
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(second));
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  accept(0);
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
  close();
  stop_sessions();
}

TEST_F(LostWrites, ASiblingInAnotherPortalGroupIsNoFence) {
  start({1, 2});
  const std::uint64_t logins = target_->counters.logins;
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  reactor_.run_for(seconds(20));
  EXPECT_EQ(target_->counters.logins, logins);
}

TEST_F(LostWrites, AfterTheQuiesceTimeTheTargetHasGivenUp) {
  options_.quiesce_time = seconds(20);
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(19));
  EXPECT_TRUE(pending(second));
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok);
}

TEST_F(LostWrites, AWriteThatWasNotSentHoldsNothing) {
  target_options_.window = 1;
  start({1, 2});
  hold_next_write_at(0);
  // Alternating paths: the first and the third are for one portal, whose window takes one.
  for (std::uint64_t i = 0; i < 4; ++i) {
    write(i * 8, 8, 1);
  }
  reactor_.run_for(milliseconds(20));
  refuse(0);
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request, milliseconds(50)), IoStatus::ok);
  }
  int held = 0;
  for (std::uint64_t i = 0; i < 4; ++i) {
    const GuestRequest& newer = write(i * 8, 8, 2);
    reactor_.run_for(milliseconds(50));
    held += pending(newer) ? 1 : 0;
  }
  EXPECT_EQ(held, 1) << "only what was sent and not answered";
}

// W2 is under way at portal 1 when W1, which overlaps, is lost at portal 0: W1 waits for W2, so
// that what is on the medium after both is newer than any ghost, and stays.
TEST_F(LostWrites, ALostWriteWaitsForAnOverlappingOneThatIsUnderWay) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  GuestRequest& second = write_held_at(1, 0, 8, 2);
  ASSERT_TRUE(pending(first) && pending(second));
  refuse(0);
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(first)) << "not past the one that is under way";
  target_->release_held();
  EXPECT_EQ(answer(second, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(medium(0), 1);
}

TEST_F(LostWrites, TwoOverlappingLostWritesWaitForTheFenceOfEachOther) {
  start({1, 2, 3});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  GuestRequest& second = write_held_at(1, 0, 8, 2);
  refuse(0);
  reactor_.run_for(milliseconds(50));
  refuse(1);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(first) && pending(second));
  accept(0);
  accept(1);
  EXPECT_EQ(answer(first, seconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok);
  const int settled = medium(0);
  target_->release_held();
  reactor_.run_for(seconds(1));
  EXPECT_EQ(medium(0), settled);
}

TEST_F(LostWrites, ARetryThatIsLostTooGoesToAThirdPathAndBothAreFenced) {
  start({1, 2, 3});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  hold_next_write_at(1);
  hold_next_write_at(2);
  refuse(0);
  ASSERT_TRUE(reactor_.run_until([&] { return target_->held() == 2; }, seconds(1)));
  const std::size_t next = path(1).in_flight != 0 ? 1 : 2;
  target_->clear_faults();
  refuse(next);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  accept(0);
  ASSERT_TRUE(wait_for_up(2, seconds(10)));
  reactor_.run_for(milliseconds(100));
  EXPECT_TRUE(pending(second)) << "one of the two is fenced";
  accept(next);
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LostWrites, ALoginThatLeadsToAnotherPortalGroupIsNoFence) {
  start({1, 2, 3});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  target_->redirect_logins(0, "10.0.0.3:3260");
  reactor_.network().reset_connections(portal_address(0));
  EXPECT_EQ(answer(first), IoStatus::ok);
  ASSERT_TRUE(wait_for_up(3));
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(1));
  EXPECT_TRUE(pending(second));
  target_->redirect_logins(0, "");
  reactor_.network().reset_connections(portal_address(2));
  EXPECT_EQ(answer(second, seconds(10)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LostWrites, FailedForWantOfAPathTheyAreStillFencedBeforeNewerData) {
  options_.no_path_retry = seconds(1);
  start({1});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first, seconds(2)), IoStatus::no_path);
  accept(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(write(0, 8, 2)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(medium(0), 2);
}

TEST_F(LostWrites, HeldWritesFailWhenNoPathRetryIsOver) {
  options_.no_path_retry = seconds(1);
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  GuestRequest& second = write(0, 8, 2);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(second));
  refuse(1);
  EXPECT_EQ(answer(second, seconds(2)), IoStatus::no_path);
}

// The lost portal answers again at once: the session's own login and the fence session must not end
// each other for ever.
TEST_F(LostWrites, TheFenceDoesNotFightWithTheSessionsOwnLogin) {
  options_.marginal.double_failed_time = {};  // it is lost again and again, and used again
  start();
  for (int round = 0; round < 20; ++round) {
    GuestRequest& first = write_held_at(0, 0, 8, 1);
    reactor_.network().reset_connections(portal_address(0));
    EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
    GuestRequest& second = write(0, 8, 2);
    EXPECT_EQ(answer(second, seconds(2)), IoStatus::ok);
    ASSERT_TRUE(wait_for_up(2, seconds(7)));
    target_->release_held();
    reactor_.run_for(milliseconds(100));
    EXPECT_EQ(medium(0), 2);
    reactor_.run_for(seconds(4));  // it is no session that always ends shortly after its login
  }
  EXPECT_LE(sessions_[0]->statistics().connection_losses, 25U);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(target_->sessions(), 2U);
}

TEST_F(LostWrites, TwoDisksOfOneSessionShareItsFence) {
  start();
  auto second_lun = std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2});
  target_->add_lun(1, second_lun);
  std::unique_ptr<MultipathDevice> first_device = std::move(device_);
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  device_->add_path(*sessions_[0], 1);
  device_->add_path(*sessions_[1], 1);
  ASSERT_TRUE(wait_for_up(2));
  std::swap(first_device, device_);

  GuestRequest& first = write_held_at(0, 0, 8, 1);
  std::swap(first_device, device_);
  GuestRequest& other = write_held_at(0, 0, 8, 3);
  std::swap(first_device, device_);
  const std::uint64_t logins = target_->counters.logins;
  refuse(0);
  EXPECT_EQ(answer(first, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(other, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, 8, 2), milliseconds(50)), IoStatus::ok);
  std::swap(first_device, device_);
  EXPECT_EQ(answer(write(0, 8, 4), milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(target_->counters.logins, logins + 1) << "one fence session for both";

  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
  device_ = std::move(first_device);
}

TEST_F(LostWrites, CloseWaitsForTheFenceWhenAsked) {
  options_.quiesce_time = seconds(20);
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  GuestRequest& held = write(0, 8, 2);
  const TimePoint start = reactor_.now();
  close(true);
  EXPECT_EQ(held.status, IoStatus::aborted);
  EXPECT_GE(reactor_.now() - start, seconds(19));
  EXPECT_LE(reactor_.now() - start, seconds(21));
}

TEST_F(LostWrites, CloseDoesNotWaitForTheFenceUnlessAsked) {
  start({1, 2});
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  const TimePoint start = reactor_.now();
  close(false);
  EXPECT_LE(reactor_.now() - start, milliseconds(10));
}

TEST_F(LostWrites, CloseWhileAFenceSessionIsLoggingIn) {
  start();
  GuestRequest& first = write_held_at(0, 0, 8, 1);
  refuse(0);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }));
  reactor_.run_for(std::chrono::microseconds(150));
  EXPECT_TRUE(pending(first));
  close(false);
  EXPECT_TRUE(first.status.has_value());
}

// All of the queue is lost at once, and everything is written again.
TEST_F(LostWrites, AFullQueueIsLostAndRewritten) {
  start();
  SimFault hold;
  hold.matches = writes_at(0);
  hold.count = 0;
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  for (std::uint64_t i = 0; i < 100; ++i) {
    write(i * 8, 8, 1);
  }
  reactor_.run_for(milliseconds(50));
  ASSERT_GE(target_->held(), 40U);
  target_->clear_faults();
  refuse(0);
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  for (std::uint64_t i = 0; i < 100; ++i) {
    write(i * 8, 8, 2);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  target_->release_held();
  reactor_.run_for(seconds(1));
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(medium(i * 8), 2);
  }
}

}  // namespace
}  // namespace iscsi_blkback
