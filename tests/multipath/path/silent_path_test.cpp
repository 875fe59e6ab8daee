// A path that goes silent: nobody is told, nothing comes back any more.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class SilentPath : public MultipathTest {
 protected:
  void SetUp() override {
    options_.path_selector = PathSelectorKind::round_robin;  // every other request to each of two
  }

  // A target does not notice that a connection is gone while nothing gets through; the next login
  // tells it.
  void TearDown() override {
    for (std::size_t portal = 0; portal < sessions_.size(); ++portal) {
      reactor_.network().set_dropping(portal_address(portal), false);
      hold_answers(portal, false);
      accept(portal);
    }
    if (device_) {
      EXPECT_TRUE(wait_for_up(sessions_.size()));
      EXPECT_TRUE(reactor_.run_until([this] { return device_->snapshot().in_flight == 0; }));
    }
  }

  GuestRequest& read_at(std::size_t at, std::uint64_t sector, std::uint32_t count) {
    return at_path(at, [&]() -> GuestRequest& { return read(sector, count); });
  }
  // Writes to places of their own, the last of them at the path.
  GuestRequest& write_at(std::size_t at, std::uint64_t& sector, int fill) {
    return at_path(at, [&]() -> GuestRequest& { return write(sector += 8, 8, fill); });
  }
  void hold_answers(std::size_t portal, bool held) {
    reactor_.network().set_held(portal_address(portal), SimDirection::to_client, held);
  }
  [[nodiscard]] bool suspect(std::size_t at) const { return path(at).suspect; }
  static void expect_all(const GuestRequest& request, int fill) {
    EXPECT_EQ(request.data, std::vector<std::byte>(request.data.size(), std::byte(fill)));
  }
};

TEST_F(SilentPath, AReadIsAnsweredByAnotherPath) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 8, 5)), IoStatus::ok);
  drop_silently(0);
  GuestRequest& lost = read_at(0, 0, 8);
  EXPECT_EQ(answer(lost), IoStatus::ok);
  EXPECT_LE(lost.took(), milliseconds(210));
  expect_all(lost, 5);
  EXPECT_TRUE(suspect(0));
  EXPECT_EQ(device_->snapshot().hedged, 1U);
  EXPECT_EQ(path(0).in_flight, 1U) << "the silent path still has it";
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }));
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(path(0).in_flight, 0U);
  EXPECT_FALSE(suspect(0));
}

TEST_F(SilentPath, AWriteWaitsUntilThePathIsGone) {
  start({1, 2});
  drop_silently(0);
  std::uint64_t sector = 0;
  GuestRequest& lost = write_at(0, sector, 5);
  reactor_.run_for(milliseconds(1990));
  EXPECT_TRUE(pending(lost)) << "the path may yet execute it";
  EXPECT_EQ(answer(lost), IoStatus::ok);
  EXPECT_LE(lost.took(), milliseconds(2100));
  EXPECT_EQ(medium(sector), 5);
}

// The target's window lets a few of them through.
TEST_F(SilentPath, WritesThatWereNotSentGoElsewhereAtOnce) {
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  target_options_.window = 4;
  start({1, 2});
  drop_silently(0);
  for (std::uint64_t i = 0; i < 20; ++i) {
    write(i * 8, 8, 5);
  }
  ASSERT_EQ(path(0).in_flight, 20U);
  reactor_.run_for(milliseconds(300));
  std::size_t waiting = 0;
  for (const auto& request : requests_) {
    waiting += pending(*request) ? 1 : 0;
  }
  EXPECT_EQ(waiting, 4U) << "those that were sent";
  for (std::uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(answer(*requests_[i]), IoStatus::ok);
    EXPECT_EQ(medium(i * 8), 5);
    EXPECT_LE(requests_[i]->took(), milliseconds(2100));
  }
}

TEST_F(SilentPath, ReadsThatWereNotSentAreNotAskedForTwice) {
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  target_options_.window = 4;
  start({1, 2});
  drop_silently(0);
  for (std::uint64_t i = 0; i < 20; ++i) {
    read(i * 8, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(250));
  }
  EXPECT_EQ(device_->snapshot().hedged, 4U);
  EXPECT_EQ(path(0).in_flight, 4U);
}

// The other path has an error, and the silent one answers after all.
TEST_F(SilentPath, AnErrorOfTheOtherPathIsNotTheAnswer) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 8, 5)), IoStatus::ok);
  hold_answers(0, true);
  GuestRequest& request = read_at(0, 0, 8);
  SimFault fault = sense_fault(SenseKey::medium_error, 0x1100, 0);
  fault.matches = io_at(1);
  target_->inject(fault);
  reactor_.run_for(milliseconds(500));
  EXPECT_GE(device_->snapshot().hedged, 1U);
  EXPECT_TRUE(pending(request));
  target_->clear_faults();
  hold_answers(0, false);
  EXPECT_EQ(answer(request, seconds(1)), IoStatus::ok);
  expect_all(request, 5);
}

TEST_F(SilentPath, AFlushIsAnsweredByAnotherPath) {
  start({1, 2});
  drop_silently(0);
  GuestRequest& lost = at_path(0, [this]() -> GuestRequest& { return flush(); });
  EXPECT_EQ(answer(lost), IoStatus::ok);
  EXPECT_LE(lost.took(), milliseconds(210));
}

TEST_F(SilentPath, NewRequestsGoElsewhere) {
  start({1, 2});
  drop_silently(0);
  read_at(0, 0, 8);
  ASSERT_TRUE(reactor_.run_until([this] { return suspect(0); }));
  std::uint64_t sector = 0;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(answer(write(sector += 8, 8, i)), IoStatus::ok);
    EXPECT_LE(requests_.back()->took(), milliseconds(10));
  }
  EXPECT_EQ(path(0).state, PathState::up);
  EXPECT_TRUE(suspect(0));
}

TEST_F(SilentPath, AWholeQueueIsReadElsewhere) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 256, 5)), IoStatus::ok);
  drop_silently(0);
  for (std::uint64_t i = 0; i < 100; ++i) {
    read(i, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(250));
    expect_all(*request, 5);
  }
  EXPECT_EQ(device_->snapshot().hedged, 50U);
}

// All that a ring takes waits at the only path that is used; it is more than hedges hold at once.
TEST_F(SilentPath, AFullRingIsReadElsewhere) {
  constexpr std::uint32_t kRing = 512;
  constexpr std::uint32_t kSectors = 88;  // 11 pages
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  options_.max_requests = kRing;
  target_options_.window = 1024;
  start({1, 2});
  ASSERT_EQ(answer(write(0, 1024, 5)), IoStatus::ok);
  drop_silently(0);
  for (std::uint64_t i = 0; i < kRing; ++i) {
    read(i, kSectors);
  }
  ASSERT_EQ(path(0).in_flight, kRing);
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(300));
    expect_all(*request, 5);
  }
  EXPECT_EQ(device_->snapshot().hedged, kRing);
  EXPECT_EQ(path(0).in_flight, kRing) << "the silent path still has them";
  // And so does the next ring full.
  for (std::uint64_t i = 0; i < kRing; ++i) {
    read(i, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request, milliseconds(100)), IoStatus::ok);
  }
}

// More than all hedges together.
TEST_F(SilentPath, LargeReadsAreReadElsewhereOneAfterTheOther) {
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  start({1, 2});
  ASSERT_EQ(answer(write(0, 2048, 5)), IoStatus::ok);
  drop_silently(0);
  for (int i = 0; i < 64; ++i) {
    read(0, 2048);
  }
  ASSERT_TRUE(reactor_.run_until([this] { return device_->snapshot().hedged != 0; }));
  EXPECT_LE(device_->snapshot().hedged, 16U) << "of a MiB each: more memory is not taken";
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(1900)) << "it has not waited for path_timeout";
    expect_all(*request, 5);
  }
}

// The network keeps the answer and delivers it later: the guest's buffer is the guest's by then.
TEST_F(SilentPath, ALateAnswerDoesNotTouchTheGuestsBuffer) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 128, 5)), IoStatus::ok);
  hold_answers(0, true);
  GuestRequest& first = read_at(0, 0, 128);
  ASSERT_EQ(answer(first), IoStatus::ok);
  expect_all(first, 5);
  std::fill(first.data.begin(), first.data.end(), std::byte{9});
  hold_answers(0, false);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).in_flight == 0; }, seconds(1)));
  expect_all(first, 9);
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
}

// Nor does what the kernel still receives into it when the connection has stopped in the middle of
// the data.
TEST_F(SilentPath, AnAnswerThatStopsInTheMiddleIsNotWaitedForLong) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 256, 5)), IoStatus::ok);
  reactor_.network().set_buffers(portal_address(0), 1 << 16, 1 << 13);  // takes round trips
  const std::uint64_t before = sessions_[0]->statistics().bytes_received;
  GuestRequest& first = read_at(0, 0, 256);
  ASSERT_TRUE(reactor_.run_until(
      [&] { return sessions_[0]->statistics().bytes_received > before + 20000; }));
  ASSERT_TRUE(pending(first));
  drop_silently(0);
  std::uint64_t sector = 512;
  GuestRequest& lost = write_at(0, sector, 6);
  ASSERT_EQ(answer(first), IoStatus::ok);
  EXPECT_GT(first.took(), milliseconds(249)) << "a lost packet would have been sent again by then";
  EXPECT_LE(first.took(), milliseconds(300));
  expect_all(first, 5);
  std::fill(first.data.begin(), first.data.end(), std::byte{9});
  EXPECT_EQ(answer(lost, milliseconds(50)), IoStatus::ok) << "with the connection, it is free";
  reactor_.run_for(seconds(5));
  expect_all(first, 9);
}

TEST_F(SilentPath, AnAnswerThatStopsInTheMiddleAndGoesOnIsTaken) {
  start({1, 2});
  ASSERT_EQ(answer(write(0, 256, 5)), IoStatus::ok);
  reactor_.network().set_buffers(portal_address(0), 1 << 16, 1 << 13);
  const std::uint64_t before = sessions_[0]->statistics().bytes_received;
  GuestRequest& first = read_at(0, 0, 256);
  ASSERT_TRUE(reactor_.run_until(
      [&] { return sessions_[0]->statistics().bytes_received > before + 20000; }));
  hold_answers(0, true);
  reactor_.run_for(milliseconds(220));
  EXPECT_TRUE(suspect(0));
  EXPECT_TRUE(pending(first));
  hold_answers(0, false);
  EXPECT_EQ(answer(first, milliseconds(20)), IoStatus::ok);
  expect_all(first, 5);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
  EXPECT_EQ(path(0).in_flight + path(1).in_flight, 0U);
}

// The target answers the NOP-Out: slow, not silent. The read was asked for elsewhere all the same.
TEST_F(SilentPath, APathThatAnswersThePingIsUsedAgain) {
  start({1, 2});
  SimFault slow;
  slow.matches = io_at(0);
  slow.execute = true;
  slow.answer = true;
  slow.extra_delay = seconds(3);
  target_->inject(slow);
  GuestRequest& first = read_at(0, 0, 8);
  EXPECT_EQ(answer(first), IoStatus::ok);
  EXPECT_LE(first.took(), milliseconds(210));
  reactor_.run_for(milliseconds(10));
  EXPECT_FALSE(suspect(0));
  EXPECT_EQ(path(0).in_flight, 1U);
  for (int i = 0; i < 4000; ++i) {
    reactor_.run_for(std::chrono::microseconds(500));
    ASSERT_FALSE(suspect(0)) << "it goes on answering NOP-Outs";
  }
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).in_flight == 0; }, seconds(2)));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
}

// What takes long as a rule does not make a path suspect.
TEST_F(SilentPath, SlowPathsHaveEightTimesTheirUsualLatency) {
  start({1, 2});
  target_->options().command_delay = milliseconds(60);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(answer(read(0, 8)), IoStatus::ok);
  }
  hold_answers(0, true);
  GuestRequest& first = read_at(0, 0, 8);
  reactor_.run_for(milliseconds(400));
  EXPECT_FALSE(suspect(0));
  hold_answers(0, false);
  EXPECT_EQ(answer(first), IoStatus::ok);
  EXPECT_EQ(device_->snapshot().hedged, 0U);
}

TEST_F(SilentPath, SlowPathsHaveHalfOfPathTimeoutAtMost) {
  start({1, 2});
  target_->options().command_delay = milliseconds(200);
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(answer(read(0, 8)), IoStatus::ok);
  }
  hold_answers(0, true);
  GuestRequest& first = read_at(0, 0, 8);
  reactor_.run_for(milliseconds(990));
  EXPECT_FALSE(suspect(0));
  reactor_.run_for(milliseconds(20));
  EXPECT_TRUE(suspect(0)) << "eight times 200 ms would be more";
  hold_answers(0, false);
  EXPECT_EQ(answer(first), IoStatus::ok);
}

TEST_F(SilentPath, TheOnlyPathIsOnlyAsked) {
  start({1});
  hold_answers(0, true);
  GuestRequest& first = read(0, 8);
  reactor_.run_for(milliseconds(300));
  EXPECT_TRUE(suspect(0));
  GuestRequest& second = read(8, 8);
  EXPECT_EQ(path(0).in_flight, 2U) << "where else";
  EXPECT_EQ(device_->snapshot().hedged, 0U);
  reactor_.run_for(milliseconds(700));
  hold_answers(0, false);
  EXPECT_EQ(answer(first, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(second, milliseconds(10)), IoStatus::ok);
  EXPECT_FALSE(suspect(0));
  EXPECT_EQ(sessions_[0]->statistics().connection_losses, 0U);
}

TEST_F(SilentPath, WhenAllAreSilentTheFirstThatIsBackReadsForTheOthers) {
  start({1, 2});
  drop_silently(0);
  drop_silently(1);
  GuestRequest& first = read_at(0, 0, 8);
  GuestRequest& second = read_at(1, 8, 8);
  reactor_.run_for(milliseconds(600));
  EXPECT_TRUE(suspect(0) && suspect(1));
  reactor_.network().set_dropping(portal_address(1), false);
  EXPECT_EQ(answer(first, milliseconds(400)), IoStatus::ok);
  EXPECT_EQ(answer(second, milliseconds(400)), IoStatus::ok);
  EXPECT_TRUE(suspect(0));
  EXPECT_FALSE(suspect(1));
}

// Two paths over the switch that has died, of which only one had anything to do: the write must not
// spend path_timeout at the second when it has left the first.
TEST_F(SilentPath, IdlePathsAreAskedToo) {
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  start({1, 2, 3});
  drop_silently(0);
  drop_silently(1);
  GuestRequest& lost = write(0, 8, 5);
  ASSERT_EQ(path(0).in_flight, 1U);
  reactor_.run_for(milliseconds(450));
  EXPECT_TRUE(suspect(0) && suspect(1));
  EXPECT_FALSE(suspect(2));
  EXPECT_EQ(answer(lost), IoStatus::ok);
  EXPECT_LE(lost.took(), milliseconds(2100));
  EXPECT_EQ(medium(0), 5);
}

// The second try goes to a path that is silent as well; there is a third.
TEST_F(SilentPath, AReadIsAskedForAThirdTime) {
  start({1, 2, 3});
  drop_silently(0);
  drop_silently(1);
  for (std::uint64_t i = 0; i < 9; ++i) {
    read(i, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(450));
  }
}

TEST_F(SilentPath, ARequestInPiecesIsHedged) {
  lun_options_.max_transfer_blocks = 4;
  start({1, 2});
  ASSERT_EQ(answer(write(0, 32, kSectorNumbers)), IoStatus::ok);
  GuestRequest& first = read(0, 32);
  reactor_.run_for(milliseconds(3));  // a few pieces have arrived
  ASSERT_TRUE(pending(first));
  drop_silently(0);
  EXPECT_EQ(answer(first), IoStatus::ok);
  EXPECT_LE(first.took(), milliseconds(300));
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(first.data[i * kSectorBytes], static_cast<std::byte>(i + 1));
  }
}

TEST_F(SilentPath, AGuestWithAFullQueueCanGoOn) {
  options_.max_requests = 2;
  start({1, 2});
  drop_silently(0);
  GuestRequest& first = read_at(0, 0, 8);
  ASSERT_EQ(answer(first), IoStatus::ok);
  const TimePoint began = reactor_.now();
  for (std::uint64_t i = 0; i < 6; ++i) {
    read(i, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  EXPECT_LE(reactor_.now() - began, milliseconds(10));
}

TEST_F(SilentPath, ClosingWhileARequestIsAskedForTwice) {
  start({1, 2});
  drop_silently(0);
  GuestRequest& first = read_at(0, 0, 8);
  SimFault never;
  never.matches = io_at(1);
  never.hold = true;
  target_->inject(never);
  ASSERT_TRUE(reactor_.run_until([this] { return target_->held() == 1; }, milliseconds(300)));
  EXPECT_TRUE(pending(first));
  close();
  EXPECT_EQ(first.completions, 1);
  target_->stop();  // it would keep the session of which it has heard nothing
}

// Both are lost: the request is asked for anew, and answered once.
TEST_F(SilentPath, TheHedgeIsLostToo) {
  start({1, 2});
  drop_silently(0);
  SimFault never;
  never.matches = io_at(1);
  never.hold = true;
  target_->inject(never);
  GuestRequest& first = read_at(0, 0, 8);
  ASSERT_TRUE(reactor_.run_until([this] { return target_->held() != 0; }, milliseconds(300)));
  refuse(1);
  reactor_.run_for(milliseconds(10));
  EXPECT_TRUE(pending(first));
  reactor_.network().set_dropping(portal_address(0), false);
  accept(1);
  EXPECT_EQ(answer(first, seconds(5)), IoStatus::ok);
}

// The silent path is lost first, while the hedge is under way.
TEST_F(SilentPath, TheHedgeAnswersForALostPath) {
  start({1, 2});
  drop_silently(0);
  GuestRequest& first = read_at(0, 0, 8);
  SimFault slow;
  slow.matches = io_at(1);
  slow.execute = true;
  slow.extra_delay = milliseconds(2500);
  target_->inject(slow);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }));
  EXPECT_TRUE(pending(first));
  EXPECT_EQ(answer(first), IoStatus::ok);
  EXPECT_LE(first.took(), milliseconds(2800));
}

// A reset or closed connection is no matter of silence.
TEST_F(SilentPath, AResetIsNotWaitedFor) {
  start({1, 2});
  for (const bool by_reset : {true, false}) {
    target_->options().command_delay = milliseconds(5);
    const std::size_t before = requests_.size();
    for (std::uint64_t i = 0; i < 20; ++i) {
      write(i * 8, 8, 1);
      read(i * 8 + 256, 8);
    }
    reactor_.run_for(milliseconds(2));
    if (by_reset) {
      refuse(0);
    } else {
      cut(0);
    }
    for (std::size_t i = before; i < requests_.size(); ++i) {
      EXPECT_EQ(answer(*requests_[i]), IoStatus::ok);
      EXPECT_LE(requests_[i]->took(), milliseconds(50));
    }
    accept(0);
    restore(0);
    ASSERT_TRUE(wait_for_up(2));
  }
}

}  // namespace
}  // namespace iscsi_blkback
