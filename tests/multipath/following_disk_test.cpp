// A disk that comes after another one at the same LUN of this host must not be overtaken by what
// that one has left behind.
#include "tests/multipath/following_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "multipath/fencing/barrier_folder.h"
#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using FollowingDiskTest = FollowingDisk;

// By which the hotplug script knows what is over by itself.
constexpr const char* kUntil = "the LUN is not served until ";

// ---- the former disk is in use

TEST_F(FollowingDiskTest, IsNotReadyWhileTheFormerOneIsInUse) {
  options_.holder_name = "xvda of guest 5";
  start();
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(seconds(30));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()),
              HasSubstr("in use by xvda of guest 5"));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok) << "that one goes on";
  close();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, milliseconds(300)));
  EXPECT_EQ(unavailable_reason(next->device().snapshot()), "");
  EXPECT_EQ(answer(next->write(0, 2)), IoStatus::ok);
}

TEST_F(FollowingDiskTest, ThatIsSharedIsReadyAtOnceBesideOneThatIs) {
  options_.shared = true;
  start();
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(milliseconds(200));
  EXPECT_EQ(next->ready_calls(), 1);
  EXPECT_EQ(answer(next->write(0, 2)), IoStatus::ok);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

TEST_F(FollowingDiskTest, ThatOnlyReadsIsReadyAtOnce) {
  start();
  options_.read_only = true;
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(milliseconds(200));
  EXPECT_EQ(next->ready_calls(), 1);
}

TEST_F(FollowingDiskTest, DoesNotWaitForOneThatOnlyReads) {
  options_.read_only = true;
  start();
  options_.read_only = false;
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(milliseconds(200));
  EXPECT_EQ(next->ready_calls(), 1);
}

TEST_F(FollowingDiskTest, IsReadyWhenTheFormerOneIsSuspended) {
  start();
  device_->set_guest({GuestState::suspended});
  auto next = follow({sessions_[0].get()});
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, milliseconds(200)));
  // A migration that has failed: the guest goes on where it was, and its disk comes second then.
  device_->set_guest({GuestState::runs});
  GuestRequest& resumed = write(0, 8, 1);
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(resumed));
  next->close();
  EXPECT_EQ(answer(resumed, milliseconds(700)), IoStatus::ok);
  EXPECT_EQ(answer(write(8, 8, 1)), IoStatus::ok);
}

// A guest that its toolstack has let run at two places.
TEST_F(FollowingDiskTest, IsNotOvertakenByWhatTheFormerOneHadHeld) {
  start();
  ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  device_->set_guest({GuestState::suspended});
  GuestRequest& held = write(0, 8, 3);
  auto next = follow({sessions_[0].get()});
  EXPECT_EQ(answer(next->write(0, 2)), IoStatus::ok);
  device_->set_guest({GuestState::runs});
  GuestRequest& read_before = read(0, 8);
  next->close();
  EXPECT_EQ(answer(held), IoStatus::aborted);
  EXPECT_EQ(answer(read_before), IoStatus::aborted);
  EXPECT_EQ(answer(write(0, 8, 4)), IoStatus::aborted);
  EXPECT_EQ(answer(read(0, 8)), IoStatus::aborted);
  EXPECT_EQ(medium(0), 2);
  EXPECT_THAT(unavailable_reason(device_->snapshot()), HasSubstr("another disk of this host"));
}

TEST_F(FollowingDiskTest, IsNotOvertakenByWhatTheFormerOneHadRetried) {
  start();
  SimFault busy;
  busy.status = ScsiStatus::busy;
  target_->inject(busy);
  GuestRequest& retried = write(0, 8, 3);
  reactor_.run_for(milliseconds(5));
  ASSERT_TRUE(pending(retried));
  device_->set_guest({GuestState::suspended});
  auto next = follow({sessions_[0].get()});
  EXPECT_EQ(answer(next->write(0, 2)), IoStatus::ok);
  next->close();
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(retried), IoStatus::aborted);
  EXPECT_EQ(medium(0), 2);
}

// Xen does not answer for a moment, while the guest runs.
TEST_F(FollowingDiskTest, IsNotReadyForADoubtWhetherTheFormerOnesGuestRuns) {
  start();
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(seconds(5));
  device_->set_guest({GuestState::in_doubt});
  GuestRequest& mine = write(0, 8, 1);
  reactor_.run_for(seconds(100));
  EXPECT_TRUE(pending(mine));
  EXPECT_EQ(next->ready_calls(), 0);
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(mine, milliseconds(10)), IoStatus::ok);
  EXPECT_EQ(next->ready_calls(), 0);
  device_->set_guest({GuestState::in_doubt});
  device_->set_guest({GuestState::ended});
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(15)));
}

TEST_F(FollowingDiskTest, StillWaitsWhenTheFolderHasBeenCleaned) {
  start();
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(seconds(3));
  std::filesystem::remove(*std::filesystem::directory_iterator(folder_.path()));
  reactor_.run_for(seconds(3));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
}

// ---- the former disk has ended

// All time-outs have their defaults: the former disk's command is stuck for 30 s, its abort for 10
// s, and the login that would fence it is refused then.
TEST_F(FollowingDiskTest, WaitsAsLongAsTheFormerOnesWriteMayBeExecuted) {
  start({1, 2});
  hold_writes_at(0);
  target_->fault_functions(TaskFunction::abort_task,
                           SimFunctionFault{.answer = false, .execute = false});
  GuestRequest& former = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  auto next = follow({sessions_[1].get()});
  reactor_.schedule(seconds(39), [this] { refuse(0); });
  const TimePoint start = reactor_.now();
  GuestRequest& newer = next->write(0, 2);
  reactor_.run_for(seconds(95));
  EXPECT_TRUE(pending(newer));
  target_->release_held();
  EXPECT_EQ(answer(newer, seconds(60)), IoStatus::ok);
  EXPECT_GE(reactor_.now() - start, options_.quiesce_time + seconds(39));
  EXPECT_EQ(medium(0), 2);
  EXPECT_FALSE(pending(former));
  accept(0);
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(300)));
  device_.reset();
}

TEST_F(FollowingDiskTest, GoesOnAsSoonAsTheFormerOnesWriteIsAnswered) {
  start({1, 2});
  hold_writes_at(0);
  GuestRequest& former = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  auto next = follow({sessions_[1].get()});
  GuestRequest& newer = next->write(0, 2);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(newer));
  EXPECT_EQ(next->device().snapshot().held, 1U);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()), HasSubstr("no write of"))
      << "a disk that is being closed is not in use any more";
  target_->release_held();
  EXPECT_EQ(answer(newer, milliseconds(400)), IoStatus::ok);
  EXPECT_EQ(former.status, IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(10)));
  device_.reset();
}

TEST_F(FollowingDiskTest, WaitsForTheFencesOfASuspendedOne) {
  start({1, 2});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  refuse(0);
  device_->set_guest({GuestState::suspended});
  auto next = follow({sessions_[1].get()});
  GuestRequest& newer = next->write(0, 2);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(newer));
  accept(0);  // the login of the suspended disk's session is the fence
  EXPECT_EQ(answer(newer, seconds(2)), IoStatus::ok);
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
  target_->clear_faults();
  next->close();
  device_->set_guest({GuestState::runs});
}

TEST_F(FollowingDiskTest, FencesWhatOneHasLostThatIsClosedWithoutItsFences) {
  start({1, 2});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  refuse(0);
  reactor_.run_for(milliseconds(20));
  close(false);
  auto next = follow({sessions_[1].get()});
  GuestRequest& newer = next->write(0, 2);
  reactor_.run_for(seconds(3));
  EXPECT_TRUE(pending(newer));
  accept(0);
  EXPECT_EQ(answer(newer, seconds(5)), IoStatus::ok);
  EXPECT_GE(target_->counters.terminated_tasks, 1U);
  target_->release_held();
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(medium(0), 2);
}

// A disk that was there when the former one's guest was suspended: both are shared.
TEST_F(FollowingDiskTest, HoldsItsWritesAlsoWhenItWasThereBefore) {
  options_.shared = true;
  start({1, 2});
  auto other = follow({sessions_[1].get()});
  hold_writes_at(0);
  GuestRequest& former = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  EXPECT_EQ(answer(other->write(800, 2)), IoStatus::ok);
  refuse(0);
  device_->set_guest({GuestState::suspended});
  reactor_.run_for(milliseconds(1));
  GuestRequest& newer = other->write(0, 2);
  reactor_.run_for(seconds(20));
  EXPECT_TRUE(pending(newer));
  accept(0);
  EXPECT_EQ(answer(newer, seconds(2)), IoStatus::ok);
  target_->clear_faults();
  device_->set_guest({GuestState::runs});
  EXPECT_EQ(answer(former), IoStatus::ok);
}

// The disk's process dies when a redirect has led the path to another place than the one that has
// its lost write: whoever logs in where the path leads now fences nothing of that.
TEST_F(FollowingDiskTest, IsNotToldOfAPlaceThatHasNothingOfTheLostWrite) {
  start({1, 2, 3});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  target_->redirect_logins(0, portal_address(1).to_string());
  reactor_.network().reset_connections(portal_address(0));
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 2; }, seconds(1)));
  ASSERT_TRUE(wait_for_up(3));
  const BarrierFile file = barrier_file();
  EXPECT_EQ(file.slot(0).unfenced, barrier_layout::kElsewhere);
  target_->redirect_logins(0, "");
  reactor_.network().reset_connections(portal_address(1));
  EXPECT_TRUE(reactor_.run_until(
      [&] { return (file.slot(0).unfenced & barrier_layout::kElsewhere) == 0; }, seconds(5)))
      << "the path leads there again";
}

TEST_F(FollowingDiskTest, IsToldOfAPathsWritesUntilTheLastIsAnswered) {
  start({1});
  const BarrierFile file = barrier_file();
  SimFault hold;
  hold.matches = any_io();
  hold.count = 2;
  hold.hold = true;
  hold.execute = true;
  target_->inject(hold);
  GuestRequest& asked = read(0, 8);
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(file.slot(0).outstanding, 0U);
  GuestRequest& held = write(0, 8, 1);
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(file.slot(0).outstanding, path_bit(0)) << "behind a read that is there, too";
  EXPECT_EQ(answer(write(100, 8, 1)), IoStatus::ok);
  EXPECT_EQ(file.slot(0).outstanding, path_bit(0)) << "the other write is still there";
  target_->release_held();
  EXPECT_EQ(answer(held), IoStatus::ok);
  EXPECT_EQ(answer(asked), IoStatus::ok);
  EXPECT_EQ(file.slot(0).outstanding, 0U);
}

TEST_F(FollowingDiskTest, IsToldOfALossAsSoonAsItIsNoLongerOutstanding) {
  start({1, 2});
  const BarrierFile file = barrier_file();
  hold_writes_at(0);
  GuestRequest& lost = at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(10));
  refuse(0);
  EXPECT_EQ(answer(lost), IoStatus::ok) << "by the other path";
  EXPECT_EQ(file.slot(0).outstanding, 0U);
  EXPECT_EQ(file.slot(0).unfenced, path_bit(0));
}

// So many losses that the disk keeps the newest as one range, of which nobody knows the paths.
TEST_F(FollowingDiskTest, IsToldThatNoLoginFencesAllThatWasLost) {
  options_.max_requests = 1;
  start({1, 2, 3, 4, 5, 6});
  const BarrierFile file = barrier_file();
  SimFault hold;
  hold.matches = any_io();
  hold.count = 0;
  hold.hold = true;
  target_->inject(hold);
  write(0, 8, 1);
  for (int losses = 1; losses <= 5; ++losses) {
    reactor_.run_for(milliseconds(10));
    EXPECT_EQ(file.slot(0).unfenced & barrier_layout::kElsewhere, 0U);
    const MultipathSnapshot snapshot = device_->snapshot();
    for (std::size_t portal = 0; portal < snapshot.paths.size(); ++portal) {
      if (snapshot.paths[portal].in_flight != 0) {
        refuse(portal);
      }
    }
  }
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(file.slot(0).unfenced & barrier_layout::kElsewhere, barrier_layout::kElsewhere);
}

TEST_F(FollowingDiskTest, IsToldWhereEachPathHasLed) {
  start({1, 2, 3});
  const BarrierFile file = barrier_file();
  const auto told = [&](std::uint32_t path) {
    return file.nexus(0, path).in_use == 0 ? "" : std::string(text_of(file.nexus(0, path).peer));
  };
  for (std::uint32_t path = 0; path < 3; ++path) {
    EXPECT_EQ(told(path), portal_address(path).to_string());
  }
  target_->redirect_logins(0, portal_address(1).to_string());
  reactor_.network().reset_connections(portal_address(0));
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 2; }, seconds(1)));
  ASSERT_TRUE(wait_for_up(3));
  EXPECT_EQ(told(0), portal_address(1).to_string());
  EXPECT_EQ(text_of(file.nexus(0, 0).portal), portal_address(0).to_string());
  ASSERT_TRUE(device_->remove_path(*sessions_[2], 0));
  reactor_.run_for(milliseconds(10));
  EXPECT_EQ(told(2), "");
  ASSERT_TRUE(device_->add_path(*sessions_[2], 0));
  EXPECT_EQ(told(2), portal_address(2).to_string()) << "by a session that is logged in already";
}

TEST_F(FollowingDiskTest, IsToldByWhichAddressOfAHostNameAPathHasComeIn) {
  start_target({1, 2});
  refuse(0);
  add_session(0, {1}).start();
  device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
  ASSERT_TRUE(device_->add_path(*sessions_[0], 0));
  ASSERT_TRUE(wait_for_up(1));
  const BarrierFile file = barrier_file();
  EXPECT_EQ(text_of(file.nexus(0, 0).portal), portal_address(1).to_string());
  EXPECT_EQ(text_of(file.nexus(0, 0).peer), portal_address(1).to_string());
  accept(0);
}

TEST_F(FollowingDiskTest, IsReadyBesideOneThatWasSuspendedBeforeItKnewItsLun) {
  start_target();
  start_device(false);
  device_->set_guest({GuestState::suspended});
  ASSERT_TRUE(wait_for_up(2));
  auto next = follow({sessions_[0].get()});
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, milliseconds(200)));
  next->close();
  device_->set_guest({GuestState::runs});
}

TEST_F(FollowingDiskTest, WaitsForTheWritesOfOneThatIsClosedWhateverBecomesOfItsGuest) {
  start({1, 2});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(10));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  device_->set_guest({GuestState::suspended});
  device_->set_guest({GuestState::runs});
  auto next = follow({sessions_[1].get()});
  EXPECT_THAT(unavailable_reason(next->device().snapshot()), HasSubstr("no write of"));
  EXPECT_FALSE(closed);
  target_->release_held();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, milliseconds(500)));
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(10)));
  device_.reset();
}

// ---- LUNs and their names

TEST_F(FollowingDiskTest, WaitsAtALunWithoutAnyIdentity) {
  lun_options_.serial = "";
  lun_options_.naa_extension = 0;
  start({1, 2});
  ASSERT_EQ(device_->snapshot().wwid, "");
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(5));
  refuse(0);
  reactor_.run_for(milliseconds(50));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  auto next = follow({sessions_[1].get()});
  GuestRequest& newer = next->write(0, 2);
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(newer));
  target_->release_held();
  accept(0);
  EXPECT_EQ(answer(newer, seconds(2)), IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(100)));
  device_.reset();
}

// Two servers that were set up alike: their LUNs have the same serial number, and no other name.
TEST_F(FollowingDiskTest, IsNoneOfADiskAtAnotherTargetThatBearsTheSameName) {
  lun_options_.naa_extension = 0;
  start({1});
  SimTargetOptions other_options;
  other_options.name = "iqn.2026-01.test:other";
  other_options.portals = {{SocketAddress::parse("10.0.1.1", 3260).value(), 1}};
  SimTarget other_target(reactor_, other_options);
  other_target.add_lun(0, std::make_shared<SimLun>(lun_options_));
  SessionOptions session_options = sessions_[0]->options();
  session_options.target_name = other_options.name;
  session_options.portal = other_options.portals[0].address;
  session_options.isid[5] = 99;
  Session session(reactor_, session_options);
  session.start();
  {
    auto other = follow({&session});
    EXPECT_EQ(other->device().snapshot().wwid, device_->snapshot().wwid);
    reactor_.run_for(milliseconds(200));
    EXPECT_EQ(other->ready_calls(), 1);
    EXPECT_EQ(answer(other->write(0, 2)), IoStatus::ok);
  }
  bool stopped = false;
  session.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
  ASSERT_TRUE(reactor_.run_until([&] { return stopped; }, seconds(10)));
}

// ---- what a disk waits for is said, and what its guest reads stays as it is

// Its guest decides by what it reads (fsck, journals, bitmaps): that must not change under it when
// nobody has written.
TEST_F(FollowingDiskTest, IsNotReadyBeforeNothingOfTheFormerOneCanLand) {
  options_.holder_name = "xvda of guest 5";
  start({1, 2});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  refuse(0);
  auto next = follow({sessions_[1].get()});
  reactor_.run_for(seconds(20));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()),
              HasSubstr("no write of xvda of guest 5"));
  target_->release_held();
  accept(0);
  ASSERT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(5)));
  EXPECT_EQ(unavailable_reason(next->device().snapshot()), "");
  const GuestRequest& seen = next->read(0);
  EXPECT_EQ(answer(seen), IoStatus::ok);
  EXPECT_EQ(static_cast<int>(seen.data[0]), medium(0));
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(200)));
  device_.reset();
}

// A cluster's node that replays the journal of the one that has died.
TEST_F(FollowingDiskTest, ThatRunsHoldsItsReadsAsLongAsWritesOfAnotherOneMayLand) {
  options_.shared = true;
  start({1, 2});
  auto other = follow({sessions_[1].get()});
  ASSERT_TRUE(reactor_.run_until([&] { return other->ready_calls() == 1; }, seconds(1)));
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  refuse(0);
  device_->set_guest({GuestState::suspended});
  GuestRequest& read = other->read(0);
  GuestRequest& flush = other->flush();
  EXPECT_EQ(answer(flush), IoStatus::ok) << "it changes nothing, and decides nothing";
  reactor_.run_for(seconds(5));
  EXPECT_TRUE(pending(read));
  EXPECT_EQ(other->device().snapshot().held, 1U);
  accept(0);
  EXPECT_EQ(answer(read, seconds(2)), IoStatus::ok);
  target_->clear_faults();
  other->close();
  device_->set_guest({GuestState::runs});
}

TEST_F(FollowingDiskTest, ThatComesHoldsNoRequestForLongerThanALook) {
  options_.shared = true;
  start();
  BlockingBarrier beside = enter_beside();
  GuestRequest& first = write(0, 8, 1);
  GuestRequest& second = read(8, 8);
  EXPECT_EQ(device_->snapshot().held, 2U);
  EXPECT_EQ(device_->snapshot().waits_because, "");
  reactor_.run_for(milliseconds(0));
  EXPECT_EQ(device_->snapshot().held, 0U);
  EXPECT_EQ(answer(first), IoStatus::ok);
  EXPECT_EQ(answer(second), IoStatus::ok);
  beside.leave();
}

TEST_F(FollowingDiskTest, ThatRunsIsToldOfADeathAlsoWithoutTheService) {
  options_.shared = true;
  start();
  BlockingBarrier dead = enter_beside();
  dead.set_outstanding(0, true);
  dead = BlockingBarrier();  // killed
  reactor_.run_for(milliseconds(1100));
  GuestRequest& held = write(0, 8, 1);
  reactor_.run_for(options_.quiesce_time - seconds(2));
  EXPECT_TRUE(pending(held));
  EXPECT_THAT(unavailable_reason(device_->snapshot()),
              AllOf(StartsWith(kUntil), HasSubstr("a process of this host")));
  EXPECT_EQ(answer(held, seconds(5)), IoStatus::ok);
}

TEST_F(FollowingDiskTest, SeesTheFormerOneAlsoWhenTheFolderHasBeenCleaned) {
  options_.holder_name = "xvda of guest 5";
  start();
  for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
    std::filesystem::remove(file);
  }
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(seconds(5));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()),
              HasSubstr("in use by xvda of guest 5"));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  close();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(1)));
}

TEST_F(FollowingDiskTest, IsSeenAlsoWhenTheFolderIsCleanedWhileItEnds) {
  options_.holder_name = "xvda of guest 5";
  start({1, 2});
  hold_writes_at(0);
  at_path(0, [&]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(20));
  bool closed = false;
  device_->close(
      true, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
    std::filesystem::remove(file);
  }
  auto next = follow({sessions_[1].get()});
  reactor_.run_for(seconds(5));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()),
              HasSubstr("no write of xvda of guest 5"));
  target_->release_held();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(2)));
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(10)));
  device_.reset();
}

// ---- a disk that cannot tell others is not served

TEST_F(FollowingDiskTest, IsNotServedAsLongAsItCannotTellOthers) {
  options_.barrier_directory = folder_.path() + "/barrier";
  std::ofstream(options_.barrier_directory) << "in the way";
  start();
  GuestRequest& held = write(0, 8, 1);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(ready_calls_, 0);
  EXPECT_TRUE(pending(held));
  EXPECT_THAT(unavailable_reason(device_->snapshot()),
              AllOf(HasSubstr("cannot be kept in order"), HasSubstr(options_.barrier_directory)));
  std::filesystem::remove(options_.barrier_directory);
  EXPECT_EQ(answer(held, seconds(2)), IoStatus::ok);
  EXPECT_EQ(ready_calls_, 1);
}

// ---- others are just entering: guests that start together come to the folder together

TEST_F(FollowingDiskTest, WaitsForItsTurnAtTheFolderWithoutAWord) {
  auto turn = std::optional(BarrierFolder::lock(folder_.path()));
  ASSERT_TRUE(*turn);
  start();
  GuestRequest& held = write(0, 8, 1);
  reactor_.run_for(seconds(4));
  EXPECT_EQ(ready_calls_, 0);
  EXPECT_TRUE(pending(held));
  EXPECT_EQ(unavailable_reason(device_->snapshot()), "");
  turn.reset();
  EXPECT_EQ(answer(held, milliseconds(300)), IoStatus::ok);
  EXPECT_EQ(ready_calls_, 1);
}

// A process that is stopped just then must not stop all others without a word.
TEST_F(FollowingDiskTest, SaysSoWhenItsTurnAtTheFolderDoesNotCome) {
  auto turn = std::optional(BarrierFolder::lock(folder_.path()));
  ASSERT_TRUE(*turn);
  start();
  reactor_.run_for(milliseconds(4900));
  const int before = change_calls_;
  reactor_.run_for(milliseconds(1200));
  EXPECT_GT(change_calls_, before);
  EXPECT_THAT(unavailable_reason(device_->snapshot()),
              HasSubstr(folder_.path() + " is locked by another process"));
  turn.reset();
  EXPECT_TRUE(reactor_.run_until([&] { return ready_calls_ == 1; }, seconds(2)));
}

// An operator who starts one guest too many of a cluster wants to hear of it, and no write lost.
TEST_F(FollowingDiskTest, IsNotServedWhereAsManyUseTheLunAsCan) {
  options_.shared = true;
  start();
  std::vector<BlockingBarrier> others;
  while (others.size() + 1 < barrier_layout::kSlots) {
    others.push_back(enter_beside());
  }
  auto next = follow({sessions_[0].get()});
  reactor_.run_for(seconds(10));
  EXPECT_EQ(next->ready_calls(), 0);
  EXPECT_THAT(unavailable_reason(next->device().snapshot()),
              HasSubstr("128 disks of this host use the LUN"));
  others.back().leave();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(2)));
  for (BlockingBarrier& other : others) {
    other.leave();
  }
}

// ---- the host was reset

TEST_F(FollowingDiskTest, WaitsForTheQuiesceTimeAfterAHostThatDidNotEndInOrder) {
  options_.host_started_at = reactor_.now() - seconds(20);
  const TimePoint start_time = reactor_.now();
  start();
  GuestRequest& first = write(0, 8, 1);
  reactor_.run_for(seconds(30));
  EXPECT_EQ(ready_calls_, 0);
  EXPECT_TRUE(pending(first));
  EXPECT_THAT(unavailable_reason(device_->snapshot()),
              AllOf(StartsWith(kUntil), HasSubstr("had not ended in order")));
  EXPECT_EQ(answer(first, seconds(20)), IoStatus::ok);
  EXPECT_EQ(ready_calls_, 1);
  EXPECT_GE(reactor_.now() - start_time, options_.quiesce_time - seconds(20));
}

TEST_F(FollowingDiskTest, DoesNotWaitOnAHostThatRunsForLong) {
  options_.host_started_at = reactor_.now() - options_.quiesce_time;
  start();
  EXPECT_EQ(answer(write(0, 8, 1), seconds(1)), IoStatus::ok);
}

}  // namespace
}  // namespace iscsi_blkback
