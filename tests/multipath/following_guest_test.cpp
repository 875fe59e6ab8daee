// The LUN of a guest that is suspended, saved, moved or has its disk opened anew is not another
// guest's, which waits for it.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/multipath/following_disk.h"

namespace iscsi_blkback {
namespace {

// device_ is the guest's first disk; another guest's waits for the LUN by the first path.
class FollowingGuestTest : public FollowingDisk {
 protected:
  static constexpr std::uint64_t kVm = 5;

  void start_guest() {
    start({1, 2});
    device_->set_guest({GuestState::runs, kVm});
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  std::unique_ptr<OtherDisk> let_another_guest_wait(std::size_t session = 0) {
    auto waiting = follow({sessions_[session].get()});
    waiting->device().set_guest({GuestState::runs, kVm + 1});
    reactor_.run_for(seconds(3));
    EXPECT_EQ(waiting->ready_calls(), 0);
    return waiting;
  }
  // The guest's next disk, by the second path.
  std::unique_ptr<OtherDisk> come() {
    auto next = follow({sessions_[1].get()});
    next->device().set_guest({GuestState::runs, kVm});
    return next;
  }
  // The same, before its path is up.
  std::unique_ptr<OtherDisk> come_early() {
    const MultipathOptions options = options_;
    auto next = std::make_unique<OtherDisk>(reactor_, fencing_, options);
    next->device().set_guest({GuestState::runs, kVm});
    EXPECT_TRUE(next->device().add_path(*sessions_[1], 0));
    return next;
  }
  bool is_served(const OtherDisk& disk, Duration within) {
    return reactor_.run_until([&] { return disk.ready_calls() == 1; }, within);
  }
};

// ---- it is suspended, or moved within the host

// "xl save -c", and migrations that fail.
TEST_F(FollowingGuestTest, ThatIsSuspendedKeepsItsLun) {
  start_guest();
  auto waiting = let_another_guest_wait();
  device_->set_guest({GuestState::suspended, kVm});
  reactor_.run_for(seconds(100));
  EXPECT_EQ(waiting->ready_calls(), 0);
  device_->set_guest({GuestState::runs, kVm});
  EXPECT_EQ(answer(write(0, 8, 1), milliseconds(10)), IoStatus::ok);
  device_->set_guest({GuestState::suspended, kVm});
  auto moved = come();
  EXPECT_TRUE(is_served(*moved, seconds(1)));
  EXPECT_EQ(waiting->ready_calls(), 0);
}

// "xl migrate localhost".
TEST_F(FollowingGuestTest, ThatIsMovedIsNotPassed) {
  start_guest();
  auto waiting = let_another_guest_wait();
  device_->set_guest({GuestState::suspended, kVm});
  auto moved = come();
  EXPECT_TRUE(is_served(*moved, seconds(1)));
  device_->set_guest({GuestState::ended, kVm});
  close();
  reactor_.run_for(seconds(3));
  EXPECT_EQ(waiting->ready_calls(), 0);
  EXPECT_EQ(answer(moved->write(0, 2)), IoStatus::ok);
  moved->close();
  EXPECT_TRUE(is_served(*waiting, seconds(1)));
}

// The destination's paths come up after the source has been destroyed.
TEST_F(FollowingGuestTest, ThatIsMovedIsNotPassedBeforeItHasComeToItsLun) {
  start_guest();
  auto waiting = let_another_guest_wait();
  device_->set_guest({GuestState::suspended, kVm});
  device_->set_guest({GuestState::moved, kVm});
  close();
  reactor_.run_for(seconds(20));
  EXPECT_EQ(waiting->ready_calls(), 0);
  auto moved = come_early();
  EXPECT_TRUE(is_served(*moved, seconds(5)));
  EXPECT_EQ(answer(moved->write(0, 2)), IoStatus::ok);
  EXPECT_EQ(waiting->ready_calls(), 0);
}

// ---- it has been moved, and has another disk

class MovedGuestTest : public FollowingGuestTest {
 protected:
  std::unique_ptr<OtherDisk> move() {
    options_.holder_domain = 1;
    start_guest();
    device_->set_guest({GuestState::suspended, kVm});
    options_.holder_domain = 2;
    auto moved = come();
    EXPECT_TRUE(is_served(*moved, seconds(1)));
    EXPECT_EQ(answer(moved->write(0, 2)), IoStatus::ok);
    return moved;
  }
};

// The disk is taken from the guest and given back, or the guest is started anew, before the
// toolstack has destroyed the source.
TEST_F(MovedGuestTest, IsServedAnewWhileItsSourceIsStillThere) {
  move()->close();
  reactor_.run_for(milliseconds(300));
  auto again = come();
  reactor_.run_for(seconds(1));
  device_->set_guest({GuestState::moved, kVm});
  close();
  EXPECT_TRUE(is_served(*again, seconds(5)));
  EXPECT_EQ(answer(again->write(0, 3)), IoStatus::ok);
}

TEST_F(MovedGuestTest, IsServedAnewBeforeItHasSeenTheEndOfItsSource) {
  auto moved = move();
  reactor_.run_for(seconds(2));
  device_->set_guest({GuestState::moved, kVm});
  close();
  moved->close();
  auto again = come();
  EXPECT_TRUE(is_served(*again, seconds(5)));
  EXPECT_EQ(answer(again->write(0, 3)), IoStatus::ok);
}

// ---- its disk is closed, and another one comes

class ClosedInState : public FollowingGuestTest, public testing::WithParamInterface<GuestState> {};

// libxl takes the disks of a guest that it saves away, and destroys the domain then; and the
// suspend may not be known yet.
TEST_P(ClosedInState, TheGuestKeepsItsLun) {
  start_guest();
  auto waiting = let_another_guest_wait();
  device_->set_guest({GetParam(), kVm});
  reactor_.run_for(milliseconds(100));
  close(true);
  reactor_.run_for(seconds(20));
  EXPECT_EQ(waiting->ready_calls(), 0);
  auto restored = come();
  EXPECT_TRUE(is_served(*restored, seconds(2)));
  EXPECT_EQ(waiting->ready_calls(), 0);
  restored->close();
  EXPECT_TRUE(is_served(*waiting, seconds(2)));
}

INSTANTIATE_TEST_SUITE_P(FollowingGuest, ClosedInState,
                         testing::Values(GuestState::suspended, GuestState::in_doubt));

TEST_F(FollowingGuestTest, ThatIsInDoubtKeepsItsLunWhileItsDiskIsBeingClosed) {
  start_guest();
  auto waiting = let_another_guest_wait(1);
  SimFault fault;
  fault.matches = any_io();
  fault.count = 0;
  fault.hold = true;
  fault.execute = true;
  target_->inject(fault);
  read(0, 8);  // it keeps the disk from being closed, and others need not wait for it
  reactor_.run_for(milliseconds(20));
  ASSERT_EQ(target_->held(), 1U);
  device_->set_guest({GuestState::in_doubt, kVm});
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  reactor_.run_for(seconds(1));
  EXPECT_FALSE(closed);
  EXPECT_EQ(waiting->ready_calls(), 0);
  target_->release_held();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(200)));
  reactor_.run_for(seconds(1));
  EXPECT_EQ(waiting->ready_calls(), 0);
  device_.reset();
}

TEST_F(FollowingGuestTest, KeepsItsLunWhileItsDiskIsOpenedAnew) {
  start_guest();
  auto waiting = let_another_guest_wait();
  device_->keep_place();
  close();
  reactor_.run_for(seconds(3));
  EXPECT_EQ(waiting->ready_calls(), 0);
  auto again = come_early();
  EXPECT_TRUE(is_served(*again, seconds(5)));
  EXPECT_EQ(waiting->ready_calls(), 0);
}

TEST_F(FollowingGuestTest, KeepsItsLunForTheNextDiskAlsoWithLostWrites) {
  start_guest();
  auto waiting = let_another_guest_wait(1);
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 2); });
  refuse(0);
  reactor_.run_for(seconds(1));
  device_->keep_place();
  close(false);
  target_->release_held();
  target_->clear_faults();
  reactor_.run_for(milliseconds(500));
  EXPECT_EQ(waiting->ready_calls(), 0);
  auto next = come();
  EXPECT_TRUE(is_served(*next, seconds(200)));
  EXPECT_EQ(waiting->ready_calls(), 0);
}

// Asked to end, a process does not wait for fences for as long as they may take.
TEST_F(FollowingGuestTest, KeepsItsLunThoughItsProcessEndsBeforeItsDiskIsClosed) {
  start_guest();
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 2); });
  refuse(0);
  reactor_.run_for(seconds(1));
  device_->keep_place();
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  reactor_.run_for(seconds(15));
  ASSERT_FALSE(closed);
  // What it leaves behind then: nobody has the locks of these.
  const TemporaryFolder left;
  std::filesystem::copy(folder_.path(), left.path());
  const auto enter = [&](const char* name, std::uint64_t vm) {
    auto barrier = BlockingBarrier::enter(
        left.path(), lun_barrier_key(barrier_name_of(device_->names()), target_options_.name, 0),
        {.name = name, .vm = vm, .quiesce_time = options_.quiesce_time}, reactor_.now());
    EXPECT_TRUE(barrier);
    return std::move(*barrier);
  };
  BlockingBarrier waiting = enter("another guest's", kVm + 1);
  BlockingBarrier next = enter("the guest's next", kVm);
  EXPECT_FALSE(waiting.look(reactor_.now()).may_write());
  EXPECT_FALSE(next.look(reactor_.now()).may_write());
  const TimePoint harmless_at = reactor_.now() + options_.quiesce_time;
  EXPECT_TRUE(next.look(harmless_at).may_write());
  EXPECT_FALSE(waiting.look(harmless_at).may_write());
  target_->release_held();
  target_->clear_faults();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(200)));
  device_.reset();
}

}  // namespace
}  // namespace iscsi_blkback
