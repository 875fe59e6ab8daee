// When a disk's ring is connected, tried again and given up, with an I/O side that does nothing.
#include "blkback/guest/disk_ring.h"

#include "tests/blkback/guest/disk_device_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;

class DiskRingTest : public DiskDeviceTest {
 protected:
  DiskRingTest() { serve(); }

  void on_change() override { ++changes_; }
  void on_error(const std::string& sentence) override {
    DiskDeviceTest::on_error(sentence);
    ++changes_;
  }

  void connect() {
    ring_.connect({});
    EXPECT_EQ(ring_.phase(), RingPhase::connecting);
    plane_.ring_events->on_ring_connected({});
    EXPECT_EQ(ring_.phase(), RingPhase::connected);
    plane_.asked.clear();
  }

  int changes_ = 0;
  DiskRing ring_{reactor_, *this, *device_, "qdisk/5/51712", log_};
};

TEST_F(DiskRingTest, WhatTheGuestSaidWrongIsRefusedUntilItStartsAnew) {
  for (const ErrorCode code : {ErrorCode::invalid_argument, ErrorCode::not_found,
                               ErrorCode::permission_denied, ErrorCode::protocol}) {
    ring_.connect({});
    plane_.ring_events->on_ring_connected(fail(code, "reference 5 is wrong"));
    EXPECT_TRUE(ring_.refused());
    EXPECT_FALSE(ring_.waits());
    EXPECT_EQ(error_, "reference 5 is wrong");
    EXPECT_EQ(ring_.phase(), RingPhase::idle);
    ring_.start_anew();
    EXPECT_FALSE(ring_.refused());
  }
}

TEST_F(DiskRingTest, WhatTheHostLacksIsTriedAgainEverMoreSlowly) {
  auto pause = DiskRing::kRetryMin;
  for (int attempt = 0; attempt < 10; ++attempt) {
    ring_.connect({});
    plane_.ring_events->on_ring_connected(fail(ErrorCode::exhausted, "no event channel is left"));
    EXPECT_EQ(error_, "no event channel is left");
    EXPECT_FALSE(ring_.refused());
    reactor_.run_for(pause - 1ms);
    EXPECT_TRUE(ring_.waits()) << attempt;
    const int before = changes_;
    reactor_.run_for(1ms);
    EXPECT_FALSE(ring_.waits()) << attempt;
    EXPECT_EQ(changes_, before + 1) << "or nothing would try again";
    pause = std::min(pause * 2, DiskRing::kRetryMax);
  }
  connect();
  EXPECT_EQ(error_, "");
}

TEST_F(DiskRingTest, ABrokenRingIsDisconnectedWithItsAnswers) {
  connect();
  plane_.ring_events->on_ring_broken("64 requests in a ring of 32");
  EXPECT_EQ(error_, "64 requests in a ring of 32");
  EXPECT_THAT(plane_.asked, ElementsAre("disconnect_ring"));
  plane_.ring_events->on_ring_disconnected();
  EXPECT_EQ(ring_.phase(), RingPhase::idle);
}

TEST_F(DiskRingTest, RequestsThatDoNotEndAreGivenUpWithTheDevice) {
  connect();
  ring_.disconnect(RingEnd::answer);
  reactor_.run_for(DiskRing::kDrainTimeout - 1ms);
  EXPECT_THAT(plane_.asked, ElementsAre("disconnect_ring"));
  reactor_.run_for(1ms);
  EXPECT_THAT(plane_.asked, ElementsAre("disconnect_ring", "keep_place", "close"));
}

TEST_F(DiskRingTest, RequestsThatEndInTimeLeaveTheDeviceOpen) {
  connect();
  ring_.disconnect(RingEnd::forget);
  reactor_.run_for(DiskRing::kDrainTimeout - 1ms);
  plane_.ring_events->on_ring_disconnected();
  reactor_.run_for(1min);
  EXPECT_THAT(plane_.asked, ElementsAre("disconnect_ring"));
  EXPECT_TRUE(device_->is_open());
}

TEST_F(DiskRingTest, AnAbandonedRingClosesTheDeviceAtOnce) {
  connect();
  ring_.disconnect(RingEnd::abandon);
  EXPECT_TRUE(device_->closing());
  reactor_.run_for(DiskRing::kDrainTimeout);
  EXPECT_THAT(plane_.asked, ElementsAre("abandon_ring"));
}

TEST_F(DiskRingTest, WhatBecomesOfARetiredRingIsOfNoInterest) {
  connect();
  ring_.retire();
  const int before = changes_;
  plane_.ring_events->on_ring_broken("64 requests in a ring of 32");
  plane_.ring_events->on_ring_disconnected();
  plane_.ring_events->on_ring_connected({});
  EXPECT_EQ(changes_, before);
  EXPECT_THAT(plane_.asked, ElementsAre());
}

}  // namespace
}  // namespace iscsi_blkback
