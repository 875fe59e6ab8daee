// Another LUN comes to be where the disk's was, while requests are under way there: what has not
// been sent yet does not go there, and what that LUN answers is not told to the guest.
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class ChangedLun : public MultipathTest {
 protected:
  static constexpr std::uint16_t kReportedLunsChanged = 0x3f0e;

  ChangedLun() {
    other_ = std::make_shared<SimLun>(
        SimLunOptions{.block_count = 1024, .serial = "OTHER", .naa_extension = 2});
    options_.path_grouping_policy = PathGroupingPolicy::failover;
  }
  // Path 1 is the next one, by a target of its own, where the LUN stays what it is.
  void start_with_another_path() {
    start_target({1});
    SimTargetOptions second;
    second.portals = {{portal_address(1), 2}};
    second.command_delay = milliseconds(1);
    second_ = std::make_unique<SimTarget>(reactor_, second);
    second_->add_lun(0, lun_);
    device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
    for (const std::size_t portal : {0U, 1U}) {
      Session& session = add_session(portal);
      session.start();
      ASSERT_TRUE(device_->add_path(session, 0));
    }
    ASSERT_TRUE(wait_for_up(2));
    reactor_.run_for(milliseconds(10));
  }
  // What comes stays in the target, which executes it when it releases it, by the LUN of that time.
  void hold_io(std::function<bool(const SimCommand&)> which = any_io()) {
    SimFault hold;
    hold.matches = [this, which = std::move(which)](const SimCommand& command) {
      arrived_ += which(command) ? 1 : 0;
      return which(command);
    };
    hold.count = 0;
    hold.hold = true;
    hold.execute = true;
    target_->inject(hold);
  }
  // Whatever asks the LUN who it is waits, too.
  void hold_identification() {
    hold_io([](const SimCommand& command) { return command.cdb[0] == scsi_operation::kInquiry; });
  }
  void map(const std::shared_ptr<SimLun>& lun) {
    target_->remove_lun(0);
    target_->add_lun(0, lun);
  }
  void tell(std::uint16_t code = kReportedLunsChanged) {
    target_->send_scsi_event(0, SenseKey::unit_attention, code);
    reactor_.run_for(std::chrono::microseconds(500));
  }
  // The disk's LUN is there again.
  void mend() {
    target_->clear_faults();
    target_->release_held();
    map(lun_);
    tell();
  }
  // A request at path 0, which another LUN answers while it is being asked who it is.
  template <class Ask>
  GuestRequest& answered_by_another_lun(Ask ask) {
    hold_io();
    GuestRequest& request = ask();
    reactor_.run_for(milliseconds(5));
    EXPECT_EQ(path(0).in_flight, 1U);
    map(other_);
    tell();
    EXPECT_EQ(path(0).state, PathState::pending);
    target_->release_held();
    EXPECT_TRUE(reactor_.run_until([this] { return path(0).in_flight == 0; }, milliseconds(3)));
    EXPECT_EQ(path(0).state, PathState::pending) << "it has answered, but not who it is";
    EXPECT_TRUE(pending(request));
    return request;
  }
  GuestRequest& written_to_another_lun() {
    return answered_by_another_lun([this]() -> GuestRequest& { return write(0, 8, 7); });
  }
  void end() {
    close();
    stop_sessions();
    second_.reset();
  }

  std::shared_ptr<SimLun> other_;
  std::unique_ptr<SimTarget> second_;
  std::size_t arrived_ = 0;
};

// --- what has not been sent

// Ten requests at a target that takes two at once.
class UnsentRequests : public ChangedLun, public testing::WithParamInterface<std::uint16_t> {
 protected:
  void fill_the_window() {
    target_options_.window = 2;
    start({1});
    hold_io();
    for (std::uint64_t at = 0; at < 10; ++at) {
      at % 3 == 2 ? read(at * 8, 8) : write(at * 8, 8, 7);
    }
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(arrived_, 2U);
  }
  void expect_that_nothing_more_is_sent() {
    for (int round = 0; round < 10; ++round) {
      target_->release_held();
      reactor_.run_for(milliseconds(2));
    }
    EXPECT_EQ(arrived_, 2U);
    mend();
    for (const auto& request : requests_) {
      EXPECT_EQ(answer(*request), IoStatus::ok);
      EXPECT_TRUE(request->block.operation == BlockOperation::read ||
                  medium(request->block.sector) == 7);
    }
  }
};

TEST_P(UnsentRequests, DoNotGoToALunThatMayBeAnotherAfterAnEvent) {
  fill_the_window();
  map(other_);
  tell(GetParam());
  expect_that_nothing_more_is_sent();
}

TEST_P(UnsentRequests, DoNotGoToALunThatMayBeAnotherAfterAUnitAttention) {
  fill_the_window();
  map(other_);
  target_->add_unit_attention(GetParam());
  expect_that_nothing_more_is_sent();
}

// NOT READY TO READY, POWER ON, CAPACITY DATA, INQUIRY DATA and REPORTED LUNS DATA HAS CHANGED.
INSTANTIATE_TEST_SUITE_P(OfEachCode, UnsentRequests,
                         testing::Values(0x2800, 0x2900, 0x2a09, 0x3f03, 0x3f0e));

// Ten writes at the first of two paths, whose target takes two at once.
class UnsentWrites : public ChangedLun {
 protected:
  void start_with_a_full_window() {
    target_options_.window = 2;
    start_with_another_path();
    hold_io();
    for (std::uint64_t at = 0; at < 10; ++at) {
      write(at * 8, 8, 7);
    }
    reactor_.run_for(milliseconds(10));
    ASSERT_EQ(arrived_, 2U);
  }
};

// A path that is down, though its session is not.
TEST_F(UnsentWrites, GoElsewhereWhenThePathIsDown) {
  start_with_a_full_window();
  target_->clear_faults();
  target_->remove_lun(0);
  target_->release_held();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request, milliseconds(100)), IoStatus::ok);
    EXPECT_EQ(medium(request->block.sector), 7);
  }
  EXPECT_EQ(path(0).state, PathState::down);
  EXPECT_EQ(path(0).requests, 10U);
  EXPECT_EQ(path(1).requests, 10U);
  end();
}

TEST_F(UnsentWrites, GoElsewhereWhenThePathIsRemoved) {
  start_with_a_full_window();
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(lun_->counters.writes, 8U);
  EXPECT_EQ(arrived_, 2U);
  target_->release_held();
  for (const auto& request : requests_) {
    EXPECT_EQ(answer(*request), IoStatus::ok);
  }
  end();
}

// --- what has been answered

TEST_F(ChangedLun, AWriteThatAnotherLunHasExecutedIsNotAcknowledged) {
  start({1});
  GuestRequest& written = written_to_another_lun();
  reactor_.run_for(seconds(5));
  EXPECT_EQ(path(0).state, PathState::quarantined);
  EXPECT_EQ(other_->counters.writes, 1U);
  EXPECT_TRUE(pending(written));
  mend();
  EXPECT_EQ(answer(written), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
}

TEST_F(ChangedLun, AWriteThatAnotherLunHasExecutedGoesByAnotherPathAtOnce) {
  start_with_another_path();
  GuestRequest& written = written_to_another_lun();
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(path(0).state, PathState::quarantined);
  EXPECT_EQ(medium(0), 7);
  end();
}

TEST_F(ChangedLun, WhatAnotherLunHasReadIsNotTold) {
  start_with_another_path();
  ASSERT_EQ(answer(write(0, 8, 7)), IoStatus::ok);
  GuestRequest& asked = answered_by_another_lun([this]() -> GuestRequest& { return read(0, 8); });
  EXPECT_EQ(answer(asked, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(asked.data[0], std::byte{7});
  end();
}

TEST_F(ChangedLun, AnErrorOfAnotherLunIsNotTold) {
  start_with_another_path();
  GuestRequest& behind_its_end =
      answered_by_another_lun([this]() -> GuestRequest& { return write(1024, 8, 7); });
  EXPECT_EQ(answer(behind_its_end, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(medium(1024), 7);
  end();
}

TEST_F(ChangedLun, AFlushOfAnotherLunIsNone) {
  start_with_another_path();
  const auto flushes = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kSynchronizeCache10 ||
           command.cdb[0] == scsi_operation::kSynchronizeCache16;
  };
  hold_io(flushes);
  const std::uint64_t before = lun_->counters.flushes;
  GuestRequest& flushed = flush();
  reactor_.run_for(milliseconds(5));
  map(other_);
  tell();
  target_->release_held();
  EXPECT_EQ(answer(flushed, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.flushes, before + 1);
  end();
}

// The answer comes when another LUN has been found already.
TEST_F(ChangedLun, AnAnswerOfAQuarantinedPathIsNotTold) {
  start_with_another_path();
  hold_io();
  GuestRequest& written = write(0, 8, 7);
  reactor_.run_for(milliseconds(5));
  map(other_);
  tell();
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::quarantined; },
                                 milliseconds(50)));
  EXPECT_TRUE(pending(written));
  target_->release_held();
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
  end();
}

// The target says no more than that there is no such LUN, and then another one is there.
TEST_F(ChangedLun, AnAnswerAfterTheLunWasMissingIsNotTold) {
  start_with_another_path();
  hold_io(writes_at(0));
  GuestRequest& written = write(0, 8, 7);
  reactor_.run_for(milliseconds(5));
  target_->remove_lun(0);
  EXPECT_EQ(answer(read(100, 8), milliseconds(50)), IoStatus::ok) << "by the other path";
  EXPECT_EQ(path(0).state, PathState::down);
  target_->add_lun(0, other_);
  target_->release_held();
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(other_->counters.writes, 1U);
  EXPECT_EQ(medium(0), 7);
  end();
}

TEST_F(ChangedLun, WhatTheSameLunHasAnsweredIsToldWhenItIsKnown) {
  start({1});
  hold_io();
  GuestRequest& written = write(0, 8, 7);
  GuestRequest& asked = read(8, 8);
  reactor_.run_for(milliseconds(5));
  target_->clear_faults();
  tell();
  target_->release_held();
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(answer(asked, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 1U) << "not executed twice";
  EXPECT_EQ(lun_->counters.reads, 1U);
}

// Until the array serves it here again, which may take long, the path is pending all the same.
TEST_F(ChangedLun, WhatTheSameLunHasAnsweredIsToldThoughItsAccessStateChanges) {
  lun_options_.tpgs = 1;
  lun_options_.port_groups = {{.tag = 1, .state = AccessState::active_optimized, .ports = {1}}};
  start({1});
  hold_io();
  GuestRequest& written = write(0, 8, 7);
  reactor_.run_for(milliseconds(5));
  tell();
  target_->release_held();
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).in_flight == 0; }, milliseconds(3)));
  lun_->options.port_groups[0].state = AccessState::transitioning;
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(path(0).state, PathState::pending);
  lun_->options.port_groups[0].state = AccessState::active_optimized;
  target_->clear_faults();
}

TEST_F(ChangedLun, APieceThatAnotherLunHasExecutedIsSentAgain) {
  lun_options_.max_transfer_blocks = 16;
  start_with_another_path();
  GuestRequest& large =
      answered_by_another_lun([this]() -> GuestRequest& { return write(0, 64, kSectorNumbers); });
  EXPECT_EQ(answer(large, milliseconds(50)), IoStatus::ok);
  for (std::uint64_t sector = 0; sector < 64; ++sector) {
    EXPECT_EQ(medium(sector), static_cast<int>(sector + 1));
  }
  end();
}

// Ours, another one and ours again: what was answered in between is not of the last one.
TEST_F(ChangedLun, AnAnswerBeforeTheNextChangeIsNotTold) {
  start({1});
  hold_identification();
  GuestRequest& written = written_to_another_lun();
  mend();
  EXPECT_EQ(answer(written), IoStatus::ok);
  EXPECT_EQ(other_->counters.writes, 1U);
  EXPECT_EQ(medium(0), 7);
}

// --- the answer to who it is does not come

TEST_F(ChangedLun, AnAnswerInDoubtIsNotWaitedForWhenThePathIsGone) {
  start_with_another_path();
  hold_identification();
  GuestRequest& written = written_to_another_lun();
  refuse(0);
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
  end();
}

TEST_F(ChangedLun, AnAnswerInDoubtIsWaitedForNoLongerThanTheChecksTimeout) {
  start_with_another_path();
  hold_identification();
  GuestRequest& written = written_to_another_lun();
  reactor_.run_for(options_.checker_timeout - milliseconds(20));
  EXPECT_TRUE(pending(written));
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(path(0).state, PathState::down);
  EXPECT_EQ(medium(0), 7);
  end();
}

TEST_F(ChangedLun, AnAnswerInDoubtIsNotWaitedForWhenThePathIsRemoved) {
  start_with_another_path();
  hold_identification();
  GuestRequest& written = written_to_another_lun();
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(medium(0), 7);
  end();
}

// It hears of the change when nobody asks there any more.
TEST_F(ChangedLun, AnAnswerOfAPathThatLeavesIsNotToldAfterAChange) {
  start_with_another_path();
  hold_io();
  GuestRequest& written = write(0, 8, 7);
  reactor_.run_for(milliseconds(5));
  ASSERT_TRUE(device_->remove_path(*sessions_[0], 0));
  map(other_);
  tell();
  target_->release_held();
  EXPECT_EQ(answer(written, milliseconds(50)), IoStatus::ok);
  EXPECT_EQ(other_->counters.writes, 1U);
  EXPECT_EQ(medium(0), 7);
  end();
}

TEST_F(ChangedLun, ACloseEndsAnAnswerInDoubt) {
  start({1});
  hold_identification();
  GuestRequest& written = written_to_another_lun();
  close();
  EXPECT_EQ(written.status, IoStatus::aborted);
}

TEST_F(ChangedLun, AnAnswerOfADiskThatIsBeingClosedIsNotToldAfterAChange) {
  start({1});
  hold_io();
  GuestRequest& written = write(0, 8, 7);
  reactor_.run_for(milliseconds(5));
  bool closed = false;
  device_->close(
      false, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &closed);
  map(other_);
  tell();
  target_->release_held();
  ASSERT_TRUE(reactor_.run_until([&] { return closed; }, seconds(1)));
  device_.reset();
  EXPECT_EQ(written.status, IoStatus::aborted);
}

// The guest has its answer from the other path.
TEST_F(ChangedLun, AReadThatIsAskedForOnceMoreElsewhereIsLeftToThat) {
  start_with_another_path();
  ASSERT_EQ(answer(write(0, 8, 7)), IoStatus::ok);
  reactor_.network().set_held(portal_address(0), SimDirection::to_client, true);
  hold_io();
  SimFault slow;
  slow.matches = any_io();
  slow.execute = true;
  slow.extra_delay = milliseconds(500);
  second_->inject(slow);
  GuestRequest& asked = read(0, 8);
  ASSERT_TRUE(reactor_.run_until([this] { return device_->snapshot().hedged == 1; }, seconds(2)));
  map(other_);
  tell();
  target_->release_held();
  reactor_.run_for(milliseconds(5));
  reactor_.network().set_held(portal_address(0), SimDirection::to_client, false);
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(path(0).in_flight, 0U);
  EXPECT_TRUE(pending(asked));
  EXPECT_EQ(answer(asked, seconds(1)), IoStatus::ok);
  EXPECT_EQ(asked.data[0], std::byte{7});
  EXPECT_EQ(path(1).requests, 1U) << "not for a third time";
  end();
}

}  // namespace
}  // namespace iscsi_blkback
