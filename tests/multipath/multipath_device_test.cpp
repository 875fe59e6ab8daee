// MultipathDevice over the real engine: paths, queueing, closing. Errors of the target, the
// identity of LUNs and lost writes have files of their own.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(MultipathTest, ReadsBackWhatWasWritten) {
  start();
  EXPECT_EQ(answer(write(8, 8, 0x5a)), IoStatus::ok);
  const GuestRequest& back = read(0, 24);
  EXPECT_EQ(answer(back), IoStatus::ok);
  EXPECT_EQ(back.data[7 * kSectorBytes], std::byte{0});
  EXPECT_EQ(back.data[8 * kSectorBytes], std::byte{0x5a});
  EXPECT_EQ(back.data[16 * kSectorBytes - 1], std::byte{0x5a});
  EXPECT_EQ(back.data[16 * kSectorBytes], std::byte{0});
  EXPECT_EQ(answer(flush()), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, 1U);
}

TEST_F(MultipathTest, TellsTheGeometryOnceAndTheIdentity) {
  lun_options_.block_count = 4096;
  lun_options_.block_bytes = 4096;
  start();
  EXPECT_EQ(ready_calls_, 1);
  EXPECT_EQ(device_->geometry().sector_count, 4096U * 8);
  EXPECT_EQ(device_->geometry().logical_block_bytes, 4096U);
  EXPECT_FALSE(device_->geometry().read_only);
  const MultipathSnapshot snapshot = device_->snapshot();
  EXPECT_TRUE(snapshot.ready);
  EXPECT_EQ(snapshot.vendor, "SIM");
  EXPECT_NE(snapshot.wwid, "");
  EXPECT_EQ(snapshot.paths.at(1).portal, "10.0.0.2:3260");
  EXPECT_EQ(snapshot.paths.at(1).session_state, SessionState::logged_in);
}

TEST_F(MultipathTest, UsesAllPathsSideBySide) {
  start({1, 1, 1});
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  }
  for (std::size_t index = 0; index < 3; ++index) {
    EXPECT_EQ(path(index).requests, 10U);
  }
}

TEST_F(MultipathTest, FailoverUsesOnePathAndTheNextWhenItIsLost) {
  options_.path_grouping_policy = PathGroupingPolicy::failover;
  start();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  }
  EXPECT_EQ(path(0).requests + path(1).requests, 10U);
  EXPECT_TRUE(path(0).requests == 10 || path(1).requests == 10);
  const std::size_t used = path(0).requests == 10 ? 0 : 1;
  cut(used);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_GE(path(1 - used).requests, 1U);
}

TEST_F(MultipathTest, IsReadyAtTheFirstGoodPathWhileAnotherPortalIsDead) {
  start_target({1, 1, 1, 1});
  drop_silently(2);
  start_device(false);
  EXPECT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, milliseconds(100)));
  const GuestRequest& first = read(0, 8);
  EXPECT_EQ(answer(first, milliseconds(100)), IoStatus::ok);
}

TEST_F(MultipathTest, APortalThatComesUpLaterIsUsed) {
  start_target();
  refuse(1);
  start_device(false);
  ASSERT_TRUE(wait_for_up(1));
  accept(1);
  EXPECT_TRUE(wait_for_up(2, seconds(6)));
}

TEST_F(MultipathTest, AResetPathDelaysNoRequestForMoreThan50Milliseconds) {
  start();
  for (std::uint64_t i = 0; i < 32; ++i) {
    write(i * 8, 8, 1);
    read(1024, 8);
  }
  reactor_.run_for(std::chrono::microseconds(500));
  refuse(0);
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(50));
  }
  EXPECT_EQ(path(0).state, PathState::down);
  EXPECT_NE(path(0).last_error, "");
}

TEST_F(MultipathTest, ASilentlyDroppedPathDelaysNoRequestForMoreThanTwoSeconds) {
  start();
  drop_silently(0);
  for (std::uint64_t i = 0; i < 32; ++i) {
    write(i * 8, 8, 1);
    read(1024, 8);
  }
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
    EXPECT_LE(request->took(), milliseconds(2200));
  }
  EXPECT_EQ(path(0).state, PathState::down);
}

TEST_F(MultipathTest, QueuesForEverWithoutAPathAndResumesWithTheFirst) {
  start();
  refuse(0);
  refuse(1);
  reactor_.run_for(milliseconds(10));
  const GuestRequest& waiting_write = write(0, 8, 7);
  const GuestRequest& waiting_read = read(64, 8);
  const GuestRequest& waiting_flush = flush();
  reactor_.run_for(std::chrono::hours(2));
  EXPECT_TRUE(pending(waiting_write) && pending(waiting_read) && pending(waiting_flush));
  EXPECT_TRUE(device_->snapshot().queueing);
  EXPECT_EQ(device_->snapshot().queued, 3U);

  accept(1);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(waiting_write, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(waiting_read, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(waiting_flush, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
}

TEST_F(MultipathTest, FailsReadsAndWritesAfterNoPathRetryAndLetsFlushWait) {
  options_.no_path_retry = seconds(30);
  start();
  refuse(0);
  refuse(1);
  reactor_.run_for(milliseconds(10));
  const GuestRequest& lost_write = write(0, 8, 7);
  const GuestRequest& lost_read = read(64, 8);
  const GuestRequest& waiting_flush = flush();
  reactor_.run_for(seconds(29));
  EXPECT_TRUE(pending(lost_write) && pending(lost_read));
  EXPECT_EQ(answer(lost_write, seconds(2)), IoStatus::no_path);
  EXPECT_EQ(answer(lost_read, seconds(2)), IoStatus::no_path);

  EXPECT_EQ(answer(read(64, 8), milliseconds(1)), IoStatus::no_path) << "fails fast now";
  EXPECT_FALSE(device_->snapshot().queueing);
  const Duration queued_time = device_->snapshot().queued_time;
  reactor_.run_for(seconds(300));
  EXPECT_EQ(device_->snapshot().queued_time, queued_time) << "nothing is queued any more";
  EXPECT_TRUE(pending(waiting_flush));

  accept(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(waiting_flush, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(answer(read(64, 8), milliseconds(10)), IoStatus::ok);

  refuse(0);
  reactor_.run_for(milliseconds(10));
  const GuestRequest& queued_again = read(64, 8);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(queued_again)) << "no_path_retry starts anew";
}

TEST_F(MultipathTest, NoPathRetryOfZeroFailsAtOnce) {
  options_.no_path_retry = milliseconds(0);
  start();
  const GuestRequest& at_path = read(0, 8);
  refuse(0);
  refuse(1);
  EXPECT_EQ(answer(at_path, milliseconds(50)), IoStatus::no_path);
  EXPECT_EQ(answer(write(0, 8, 1), milliseconds(1)), IoStatus::no_path);
}

TEST_F(MultipathTest, ANewNoPathRetryHoldsForWhatIsQueuedNow) {
  start();
  refuse(0);
  refuse(1);
  reactor_.run_for(seconds(10));
  const GuestRequest& queued = read(0, 8);
  reactor_.run_for(seconds(10));
  device_->set_no_path_retry(seconds(30));
  EXPECT_EQ(device_->snapshot().no_path_retry, "30 sec");
  reactor_.run_for(seconds(9));
  EXPECT_TRUE(pending(queued));
  EXPECT_EQ(answer(queued, seconds(2)), IoStatus::no_path)
      << "30 s after the last path was lost, of which 20 s were over";
  EXPECT_EQ(device_->snapshot().queue_timeouts, 1U);

  EXPECT_EQ(answer(read(0, 8), milliseconds(1)), IoStatus::no_path);
  device_->set_no_path_retry(std::nullopt);
  const GuestRequest& queued_again = read(0, 8);
  reactor_.run_for(std::chrono::hours(1));
  EXPECT_TRUE(pending(queued_again));
  EXPECT_TRUE(device_->snapshot().queueing);

  device_->set_no_path_retry(seconds(30));
  EXPECT_EQ(answer(queued_again, milliseconds(1)), IoStatus::no_path) << "over for long";
  device_->set_no_path_retry(std::nullopt);
  const GuestRequest& queued_to_the_end = read(0, 8);
  reactor_.run_for(seconds(100));
  device_->set_no_path_retry(milliseconds(0));
  EXPECT_EQ(answer(queued_to_the_end, milliseconds(1)), IoStatus::no_path);
  accept(0);
  ASSERT_TRUE(wait_for_up(1));
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  EXPECT_GE(device_->snapshot().queued_time, std::chrono::hours(1) + seconds(130));
  EXPECT_LT(device_->snapshot().queued_time, std::chrono::hours(1) + seconds(135));
}

TEST_F(MultipathTest, NoPathRetryThatIsChangedWhileThereIsAPathHoldsForTheNextOutage) {
  start();
  device_->set_no_path_retry(seconds(5));
  reactor_.run_for(seconds(60));
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
  refuse(0);
  refuse(1);
  const GuestRequest& queued = read(0, 8);
  reactor_.run_for(seconds(4));
  EXPECT_TRUE(pending(queued));
  EXPECT_EQ(answer(queued, seconds(2)), IoStatus::no_path);
}

// Nothing is left of an outage that is over.
TEST_F(MultipathTest, TheNextOutageIsWaitedForAsLongAsIsWantedThen) {
  options_.no_path_retry = seconds(60);
  start({1});
  refuse(0);
  reactor_.run_for(seconds(30));
  accept(0);
  ASSERT_TRUE(wait_for_up(1));
  device_->set_no_path_retry(NoPathRetry());
  refuse(0);
  const GuestRequest& queued = read(0, 8);
  reactor_.run_for(seconds(300));
  EXPECT_TRUE(pending(queued));
  accept(0);
  EXPECT_EQ(answer(queued, seconds(60)), IoStatus::ok);
}

TEST_F(MultipathTest, MoreRequestsThanThePoolHoldsWaitForASlot) {
  options_.max_requests = 4;
  start();
  for (std::uint64_t i = 0; i < 64; ++i) {
    write(i * 8, 8, static_cast<int>(i + 1));
  }
  EXPECT_LE(device_->snapshot().in_flight, 4U);
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  for (std::uint64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(medium(i * 8), static_cast<int>(i + 1));
  }
}

TEST_F(MultipathTest, CloseAbortsWhatWaitsInTheSameTurn) {
  options_.max_requests = 2;
  start();
  refuse(0);
  refuse(1);
  reactor_.run_for(milliseconds(10));
  for (int i = 0; i < 5; ++i) {
    write(0, 8, 1);
  }
  close();
  for (const auto& request : requests_) {
    EXPECT_EQ(request->status, IoStatus::aborted);
    EXPECT_EQ(request->took(), milliseconds(0));
  }
}

TEST_F(MultipathTest, CloseLetsAPathAnswer) {
  start();
  const GuestRequest& at_path = write(0, 8, 6);
  reactor_.run_for(std::chrono::microseconds(50));  // it has been sent
  close();
  EXPECT_EQ(at_path.status, IoStatus::ok);
  EXPECT_EQ(medium(0), 6);
}

TEST_F(MultipathTest, CloseEndsWhenTheSessionsAreStoppedUnderAHungTarget) {
  start();
  target_->set_hung(true);
  const GuestRequest& at_path = write(0, 8, 6);
  reactor_.run_for(milliseconds(10));
  close();
  EXPECT_EQ(at_path.status, IoStatus::aborted);
  stop_sessions();
  target_->stop();
}

TEST_F(MultipathTest, CloseBeforeAnyPathWasUp) {
  start_target();
  refuse(0);
  refuse(1);
  start_device(false);
  reactor_.run_for(milliseconds(500));
  EXPECT_FALSE(device_->ready());
  close();
}

TEST_F(MultipathTest, CloseWhileAPathIsBeingIdentified) {
  start_target();
  target_->options().command_delay = milliseconds(100);
  start_device(false);
  reactor_.run_for(milliseconds(150));
  close();
}

TEST_F(MultipathTest, TwoDisksShareTheirSessions) {
  start();
  auto second_lun = std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2});
  target_->add_lun(300, second_lun);
  MultipathDevice second(reactor_, fencing_, options_, *this);
  second.add_path(*sessions_[0], 300);
  second.add_path(*sessions_[1], 300);
  ASSERT_TRUE(reactor_.run_until([&] { return second.snapshot().paths_up() == 2; }));
  EXPECT_EQ(target_->sessions(), 2U);
  bool closed = false;
  second.close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  EXPECT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
  EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
}

}  // namespace
}  // namespace iscsi_blkback
