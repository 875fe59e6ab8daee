// Disks whose frontends take more than one queue: all of them are served, they break together, and
// they go together; and large requests on any of them. See guest_backend_fixture.h.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class GuestBackendQueuesTest : public GuestBackendTest {
 protected:
  // The guest's only disk, connected with so many queues at most; the first is the one with the
  // handshake.
  std::vector<FakeFrontend*> serve_queues(std::size_t count, std::uint32_t ring_pages = 1) {
    toolstack_.add(xvda_);
    start();
    std::vector<FakeFrontend*> queues = {&boot(xvda_, BlkifAbi::x86_64, ring_pages)};
    while (queues.size() < count) {
      queues.push_back(&add_queue(*queues[0], xvda_));
    }
    EXPECT_TRUE(connect(*queues[0])) << xen_.store().dump();
    return queues;
  }
  // In flight at the target, one write of each queue.
  void write_and_hold(const std::vector<FakeFrontend*>& queues) {
    hold_writes(true);
    for (std::size_t i = 0; i < queues.size(); ++i) {
      ASSERT_TRUE(queues[i]->write(i * 8, pattern(8, static_cast<int>(i))));
      queues[i]->push();
    }
    run_for(100ms);
  }
  std::optional<RingStatistics> ring_statistics() {
    std::optional<RingStatistics> ring;
    bool answered = false;
    backend_->query([&](const GuestStatus& status) {
      answered = true;
      ring = status.disks.at(0).report ? status.disks.at(0).report->ring : std::nullopt;
    });
    EXPECT_TRUE(run_until([&] { return answered; }));
    return ring;
  }

  const FakeDisk xvda_ = disk();
};

TEST_F(GuestBackendQueuesTest, EveryQueueIsServed) {
  const auto queues = serve_queues(4, 2);
  EXPECT_EQ(queues[0]->queue_count(), 4U);
  for (std::size_t i = 0; i < queues.size(); ++i) {
    ASSERT_NO_FATAL_FAILURE(write(*queues[i], 64 + i * 16, pattern(16, static_cast<int>(i))));
  }
  for (std::size_t i = 0; i < queues.size(); ++i) {
    const std::size_t other = (i + 1) % queues.size();
    ASSERT_NO_FATAL_FAILURE(
        expect_read(*queues[i], 64 + other * 16, pattern(16, static_cast<int>(other))));
    const auto id = queues[i]->flush();
    ASSERT_TRUE(id);
    queues[i]->push();
    ASSERT_NO_FATAL_FAILURE(expect_answer(*queues[i], *id));
  }
}

TEST_F(GuestBackendQueuesTest, TheReportAddsThemUp) {
  const auto queues = serve_queues(3);
  for (FakeFrontend* queue : queues) {
    ASSERT_NO_FATAL_FAILURE(write(*queue, 0, pattern(8, 1)));
  }
  const std::optional<RingStatistics> ring = ring_statistics();
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->write_requests, 3U);
  EXPECT_EQ(ring->written_sectors, 24U);
}

TEST_F(GuestBackendQueuesTest, AFrontendTakesNoMoreThanItIsOffered) {
  configuration_.max_queues = 2;
  const auto queues = serve_queues(4);
  EXPECT_EQ(queues[0]->queue_count(), 2U);
  do_io(*queues[1]);
  EXPECT_FALSE(queues[2]->has_ring());
}

// 128 KiB in one request of the ring, and one at the target, as a default Linux guest sends them.
TEST_F(GuestBackendQueuesTest, LargeRequestsAreIndirectOnEveryQueue) {
  indirect_segments_ = 32;
  const auto queues = serve_queues(2);
  for (FakeFrontend* queue : queues) {
    EXPECT_EQ(queue->max_segments(), 32U);
    ASSERT_NO_FATAL_FAILURE(write(*queue, 64, pattern(256, 3)));
    ASSERT_NO_FATAL_FAILURE(expect_read(*queue, 64, pattern(256, 3)));
  }
  const std::optional<RingStatistics> ring = ring_statistics();
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->write_requests, 2U);
  EXPECT_EQ(ring->written_sectors, 512U);
}

TEST_F(GuestBackendQueuesTest, AFrontendSendsNoLargerRequestsThanItIsOffered) {
  configuration_.max_indirect_segments = 16;
  indirect_segments_ = 32;
  const auto queues = serve_queues(1);
  EXPECT_EQ(toolstack_.backend_value(xvda_, "feature-max-indirect-segments"), "16");
  EXPECT_EQ(queues[0]->max_segments(), 16U);
  ASSERT_NO_FATAL_FAILURE(write(*queues[0], 64, pattern(128, 3)));
}

// Half of four megabytes, of which the largest request that is offered must still fit.
TEST_F(GuestBackendQueuesTest, WhatIsUnderWayIsBoundedAsTheOperatorWantsIt) {
  configuration_.max_buffers_mb = 4;
  indirect_segments_ = 32;
  const auto queues = serve_queues(2);
  hold_writes(true);
  for (FakeFrontend* queue : queues) {
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(queue->write(64, pattern(256, i)));
    }
    queue->push();
  }
  run_for(100ms);
  std::optional<RingStatistics> ring = ring_statistics();
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->in_flight, (512U - 257U) / 33U + 1U);
  target_.clear_faults();
  target_.release_held();
  run_for(100ms);
  ring = ring_statistics();
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->in_flight, 0U);
  EXPECT_EQ(ring->write_requests, 16U);
}

TEST_F(GuestBackendQueuesTest, OneThatBreaksEndsTheDisk) {
  const auto queues = serve_queues(3);
  queues[1]->set_request_producer(queues[1]->request_producer() + 1000);
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_state(xvda_) >= 5; }));
  EXPECT_THAT(error_of(xvda_), testing::HasSubstr("its ring is not served any more"));
  ASSERT_TRUE(run_until([&] { return xen_.grants().mapped_pages() == 0; }));
  EXPECT_EQ(xen_.events().bound_ports(), 0U) << "the other queues have gone as well";
}

// The fixture sees that nothing is left of any queue.
TEST_F(GuestBackendQueuesTest, AGuestEndsWithRequestsOnEveryQueue) {
  const auto queues = serve_queues(4);
  ASSERT_NO_FATAL_FAILURE(write_and_hold(queues));
  halt_guests();
  end_guest(DomainLife::dying);
  EXPECT_TRUE(ends());
}

TEST_F(GuestBackendQueuesTest, ADetachAnswersAllQueuesFirst) {
  const auto queues = serve_queues(4);
  ASSERT_NO_FATAL_FAILURE(write_and_hold(queues));
  toolstack_.request_detach(xvda_);
  run_for(500ms);
  target_.release_held();
  ASSERT_TRUE(reaches_state(xvda_, 6));
  for (FakeFrontend* queue : queues) {
    EXPECT_FALSE(queue->has_ring());
  }
}

TEST_F(GuestBackendQueuesTest, AFrontendComesBackWithItsQueues) {
  const auto queues = serve_queues(3);
  for (int round = 0; round < 3; ++round) {
    for (FakeFrontend* queue : queues) {
      ASSERT_NO_FATAL_FAILURE(do_io(*queue, round));
    }
    queues[0]->restart();
    ASSERT_TRUE(run_until([&] { return !queues[0]->connected(); }));
    ASSERT_TRUE(connect(*queues[0]));
  }
}

}  // namespace
}  // namespace iscsi_blkback
