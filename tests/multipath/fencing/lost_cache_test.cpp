// What a target has acknowledged and then lost: it says so once, to whichever command comes first,
// and forgets it (fsync(2), errseq; SPC-4 4.5.7). No flush may say that all is well.
#include "initiator/scsi/cdb.h"
#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {
namespace {

class LostCacheTest : public MultipathTest {
 protected:
  static SimFault flush_fault(SenseKey key, std::uint16_t code) {
    SimFault fault = sense_fault(key, code);
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kSynchronizeCache10 ||
             command.cdb[0] == scsi_operation::kSynchronizeCache16;
    };
    return fault;
  }
  static SimFault deferred(SimFault fault) {
    fault.sense[0] = std::byte{0x71};
    return fault;
  }
  // An acknowledged write that is not on the medium any more.
  void lose_a_write() {
    start({1, 2});
    ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
};

TEST_F(LostCacheTest, AFlushThatMeetsAWriteErrorFails) {
  for (const auto& [key, code] :
       {std::pair<SenseKey, std::uint16_t>{SenseKey::medium_error, 0x0c00},
        {SenseKey::medium_error, 0x1100},  // tgt
        {SenseKey::not_ready, 0x0800},     // LIO, of any error
        {SenseKey::hardware_error, 0x0300},
        {SenseKey::hardware_error, 0x3200}}) {
    SCOPED_TRACE(code);
    if (!device_) {
      lose_a_write();
    }
    target_->inject(flush_fault(key, code));
    EXPECT_EQ(answer(flush()), IoStatus::medium_error);
    EXPECT_EQ(answer(flush()), IoStatus::ok) << "it has been told";
    EXPECT_EQ(up(), 2U);
  }
}

// 04/44/00 and the like say nothing of the data: whoever asks may ask again.
TEST_F(LostCacheTest, AFlushThatTheTargetFailsToCarryOutIsNoLoss) {
  lose_a_write();
  target_->inject(flush_fault(SenseKey::hardware_error, 0x4400));
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

TEST_F(LostCacheTest, ADeferredErrorAtAFlushFailsIt) {
  lose_a_write();
  target_->inject(deferred(flush_fault(SenseKey::medium_error, 0x0c00)));
  EXPECT_EQ(answer(flush()), IoStatus::medium_error);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

TEST_F(LostCacheTest, ADeferredErrorAtAnyCommandFailsTheNextFlush) {
  lose_a_write();
  for (const std::uint8_t operation :
       {scsi_operation::kRead16, scsi_operation::kWrite16, scsi_operation::kTestUnitReady}) {
    SCOPED_TRACE(int{operation});
    SimFault fault = deferred(sense_fault(SenseKey::medium_error, 0x0c00));
    bool seen = false;
    fault.matches = [&](const SimCommand& command) {
      seen = seen || command.cdb[0] == operation;
      return command.cdb[0] == operation;
    };
    target_->inject(fault);
    if (operation == scsi_operation::kRead16) {
      EXPECT_EQ(answer(read(800, 8)), IoStatus::ok) << "it is asked again";
    } else if (operation == scsi_operation::kWrite16) {
      EXPECT_EQ(answer(write(800, 8, 2)), IoStatus::ok);
    } else {
      reactor_.run_for(seconds(60));  // the checker's
    }
    EXPECT_TRUE(seen);
    EXPECT_EQ(answer(flush()), IoStatus::medium_error);
    EXPECT_EQ(answer(flush()), IoStatus::ok);
  }
}

TEST_F(LostCacheTest, ADeferredErrorThatWasRecoveredIsNoLoss) {
  lose_a_write();
  SimFault fault = deferred(sense_fault(SenseKey::recovered_error, 0x0c01));
  target_->inject(fault);
  EXPECT_EQ(answer(read(800, 8)), IoStatus::ok);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

// All that were on their way when it was said; who asks later has been told.
TEST_F(LostCacheTest, EveryFlushThatWasUnderWayFails) {
  lose_a_write();
  SimFault slow = flush_fault(SenseKey::no_sense, 0);
  slow.status = ScsiStatus::good;
  slow.sense.clear();
  slow.count = 2;
  slow.extra_delay = milliseconds(50);
  target_->inject(slow);
  target_->inject(flush_fault(SenseKey::medium_error, 0x0c00));
  const GuestRequest& first = flush();
  const GuestRequest& second = flush();
  const GuestRequest& failing = flush();
  EXPECT_EQ(answer(failing), IoStatus::medium_error);
  EXPECT_EQ(answer(first), IoStatus::medium_error);
  EXPECT_EQ(answer(second), IoStatus::medium_error);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

// The first SYNCHRONIZE CACHE meets the error, at a path that has gone silent; its hedge, executed
// after it, finds a clean cache.
TEST_F(LostCacheTest, TheErrorOfAFlushThatItsHedgeHasAnsweredFailsTheNextOne) {
  lose_a_write();
  SimFault fault = flush_fault(SenseKey::medium_error, 0x0c00);
  fault.extra_delay = milliseconds(1);
  target_->inject(fault);
  GuestRequest& asked = flush();
  reactor_.run_for(std::chrono::microseconds(500));
  const std::size_t at = path(0).in_flight != 0 ? 0 : 1;
  reactor_.network().set_held(portal_address(at), SimDirection::to_client, true);
  EXPECT_EQ(answer(asked), IoStatus::ok) << "nobody can know yet";
  reactor_.network().set_held(portal_address(at), SimDirection::to_client, false);
  reactor_.run_for(milliseconds(100));
  EXPECT_EQ(answer(flush()), IoStatus::medium_error);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

class LostCacheHedgeTest : public LostCacheTest {
 protected:
  // A flush that waits at a path which has gone silent, until its hedge is sent.
  GuestRequest& hedged_flush() {
    lose_a_write();
    GuestRequest& asked = flush();
    reactor_.run_for(std::chrono::microseconds(500));
    silent_ = path(0).in_flight != 0 ? 0 : 1;
    hold(silent_, true);
    return asked;
  }
  void hold(std::size_t at, bool held) {
    reactor_.network().set_held(portal_address(at), SimDirection::to_client, held);
  }
  [[nodiscard]] SimFault at_the_hedge(SimFault fault) const {
    fault.matches = [portal = 1 - silent_](const SimCommand& command) {
      return command.portal == portal && (command.cdb[0] == scsi_operation::kSynchronizeCache10 ||
                                          command.cdb[0] == scsi_operation::kSynchronizeCache16);
    };
    return fault;
  }
  // The target says so at a read.
  void tell_of_a_loss() {
    SimFault fault = deferred(sense_fault(SenseKey::medium_error, 0x0c00));
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] == scsi_operation::kRead16;
    };
    target_->inject(fault);
    ASSERT_EQ(answer(read(800, 8)), IoStatus::ok);
  }

  std::size_t silent_ = 0;
};

TEST_F(LostCacheHedgeTest, ALossThatWasToldBeforeAFlushIsToldByItThoughItsHedgeComesFirst) {
  lose_a_write();
  tell_of_a_loss();
  GuestRequest& asked = flush();
  reactor_.run_for(std::chrono::microseconds(500));
  hold(path(0).in_flight != 0 ? 0 : 1, true);
  EXPECT_EQ(answer(asked), IoStatus::medium_error);
  EXPECT_EQ(device_->snapshot().hedged, 1U);
}

TEST_F(LostCacheHedgeTest, ALossThatIsToldToAHedgeIsToldByTheFlushThatTheGuestWaitsFor) {
  GuestRequest& asked = hedged_flush();
  target_->inject(at_the_hedge(flush_fault(SenseKey::medium_error, 0x0c00)));
  EXPECT_EQ(answer(asked), IoStatus::medium_error);
  EXPECT_EQ(device_->snapshot().hedged, 1U);
  EXPECT_EQ(answer(flush()), IoStatus::ok) << "it has been told";
}

TEST_F(LostCacheHedgeTest, TheErrorOfAHedgeThatNobodyWaitsForFailsTheNextFlush) {
  GuestRequest& asked = hedged_flush();
  SimFault fault = at_the_hedge(flush_fault(SenseKey::medium_error, 0x0c00));
  fault.extra_delay = milliseconds(150);
  target_->inject(fault);
  ASSERT_TRUE(reactor_.run_until([&] { return device_->snapshot().hedged == 1; }, seconds(2)));
  hold(silent_, false);
  EXPECT_EQ(answer(asked), IoStatus::ok);
  reactor_.run_for(milliseconds(600));
  EXPECT_EQ(answer(flush()), IoStatus::medium_error);
}

TEST_F(LostCacheHedgeTest, AHedgeThatNobodyWaitsForDoesNotTakeALossWithIt) {
  GuestRequest& asked = hedged_flush();
  SimFault slow = at_the_hedge(SimFault());
  slow.execute = true;
  slow.extra_delay = milliseconds(190);
  target_->inject(slow);
  ASSERT_TRUE(reactor_.run_until([&] { return device_->snapshot().hedged == 1; }, seconds(2)));
  hold(silent_, false);
  EXPECT_EQ(answer(asked), IoStatus::ok);
  tell_of_a_loss();
  reactor_.run_for(milliseconds(600));
  EXPECT_EQ(answer(flush()), IoStatus::medium_error);
}

// The hedge's own path goes silent, too, and it is hedged in turn.
TEST_F(LostCacheHedgeTest, AHedgeOfAHedgeDoesNotTakeALossWithIt) {
  start({1, 2, 3});
  ASSERT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  tell_of_a_loss();
  GuestRequest& asked = flush();
  reactor_.run_for(std::chrono::microseconds(500));
  for (std::uint64_t hedges = 0; hedges < 2; ++hedges) {
    for (std::uint32_t at = 0; at < 3; ++at) {
      if (path(at).in_flight != 0) {
        hold(at, true);
      }
    }
    ASSERT_TRUE(pending(asked));
    ASSERT_TRUE(
        reactor_.run_until([&] { return device_->snapshot().hedged > hedges; }, seconds(2)));
    reactor_.run_for(std::chrono::microseconds(10));
  }
  EXPECT_EQ(answer(asked), IoStatus::medium_error);
  EXPECT_EQ(answer(flush()), IoStatus::ok);
}

// LIO says 02/08/00 of every error of its backing disk: one block that cannot be read there.
TEST_F(LostCacheTest, ABlockThatLioCannotReadEndsAndDisturbsNobody) {
  start({1, 2});
  SimFault bad = sense_fault(SenseKey::not_ready, 0x0800, 0);
  bad.matches = [](const SimCommand& command) {
    return is_read(command) && command.cdb[9] == 100;  // the block, in READ(16)
  };
  target_->inject(bad);
  GuestRequest& asked = read(100, 8);
  Duration longest{};
  for (int i = 0; i < 60; ++i) {
    const GuestRequest& beside = read(800, 8);
    EXPECT_EQ(answer(beside), IoStatus::ok);
    longest = std::max(longest, beside.took());
    reactor_.run_for(milliseconds(500));
  }
  EXPECT_EQ(answer(asked), IoStatus::target_error);
  EXPECT_LT(longest, milliseconds(100));
}

// The same word of the LUN as a whole: the checker hears it, too.
TEST_F(LostCacheTest, ALunThatTheTargetCannotReachIsWaitedFor) {
  start({1, 2});
  SimFault gone = sense_fault(SenseKey::not_ready, 0x0800, 0);
  gone.matches = {};
  target_->inject(gone);
  GuestRequest& asked = write(0, 8, 1);
  reactor_.run_for(seconds(300));
  EXPECT_TRUE(pending(asked));
  EXPECT_EQ(up(), 0U);
  target_->clear_faults();
  EXPECT_EQ(answer(asked, seconds(10)), IoStatus::ok);
}

}  // namespace
}  // namespace iscsi_blkback
