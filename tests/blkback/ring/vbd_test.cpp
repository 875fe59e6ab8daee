// A disk with several queues: opened all or none, broken once, closed when the last one is.
#include "blkback/ring/vbd.h"

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

class VbdTest : public testing::Test, private Vbd::Owner {
 protected:
  VbdTest() {
    for (int i = 0; i < 3; ++i) {
      queues_.push_back(std::make_unique<FakeFrontend>(xen_, FakeFrontend::Options{}));
      queues_.back()->set_up_ring();
    }
  }
  ~VbdTest() override {
    if (vbd_ != nullptr) {
      close_and_run();
    }
    queues_.clear();
  }

  std::vector<RingParameters> parameters() const {
    std::vector<RingParameters> all;
    for (const auto& queue : queues_) {
      all.push_back(ring_parameters(*queue));
    }
    return all;
  }
  Result<void> open(const std::vector<RingParameters>& queues) {
    VbdOptions options;
    options.name = "xvda of guest 1";
    auto opened = Vbd::open(reactor_, turn_, events_, disk_, queues, options, *this);
    if (!opened) {
      return tl::unexpected(opened.error());
    }
    vbd_ = std::move(*opened);
    return {};
  }
  void close() {
    vbd_->close(
        [](void* self) noexcept {
          auto& test = *static_cast<VbdTest*>(self);
          ++test.closed_;
          test.vbd_.reset();
        },
        this);
  }
  void close_and_run() {
    close();
    disk_.release();
    ASSERT_TRUE(reactor_.run_until([this] { return vbd_ == nullptr; }, std::chrono::seconds(10)));
  }
  void poll() {
    reactor_.run_until_idle();
    for (const auto& queue : queues_) {
      queue->poll();
    }
  }
  void hold() {
    disk_.set_plan([](const BlockRequest&, std::uint64_t) {
      return FaultyDisk::Action{FaultyDisk::Action::Kind::hold};
    });
  }
  FakeFrontend::RequestId write(std::size_t queue) {
    const auto id = queues_[queue]->write(queue * 8, pattern(4096, 1));
    queues_[queue]->push();
    return id.value();
  }

  void on_vbd_broken(Vbd& /*vbd*/, const Error& error) noexcept override {
    broken_.push_back(error.message);
  }

  MemXen xen_;
  SimReactor reactor_{1};
  std::unique_ptr<GrantTable> grants_ = xen_.grants().open(0);
  std::unique_ptr<MemEventChannels> channels_ = xen_.events().open(0);
  EventDispatcher events_{reactor_, *channels_};
  RingTurn turn_{reactor_, *grants_};
  MemoryDisk memory_{reactor_, geometry()};
  FaultyDisk disk_{reactor_, memory_};
  std::vector<std::unique_ptr<FakeFrontend>> queues_;
  std::unique_ptr<Vbd> vbd_;
  std::vector<std::string> broken_;
  int closed_ = 0;
};

TEST_F(VbdTest, AnswersOnTheQueueOfTheRequest) {
  ASSERT_TRUE(open(parameters()));
  const auto first = write(0);
  const auto last = write(2);
  poll();
  EXPECT_TRUE(queues_[0]->take_completion(first));
  EXPECT_TRUE(queues_[2]->take_completion(last));
  EXPECT_EQ(vbd_->statistics().writes, 2U);
  EXPECT_EQ(vbd_->statistics().write_latency.count(), 2U);
  EXPECT_EQ(vbd_->in_flight(), 0U);
}

// What comes in on one queue and what is answered on another: one grant copy.
TEST_F(VbdTest, TheQueuesOfATurnCopyTogether) {
  ASSERT_TRUE(open(parameters()));
  hold();
  (void)queues_[0]->read(0, 8);
  (void)queues_[1]->read(8, 8);
  queues_[0]->push();
  queues_[1]->push();
  reactor_.run_until_idle();
  EXPECT_EQ(xen_.grants().counters().copy_calls, 0U);
  (void)write(2);
  disk_.release();
  reactor_.run_until_idle();
  EXPECT_EQ(xen_.grants().counters().copied_segments, 3U);
  EXPECT_EQ(xen_.grants().counters().copy_calls, 1U);
}

TEST_F(VbdTest, OpensAllQueuesOrNone) {
  auto queues = parameters();
  queues[2].event_port += 1000;
  const auto opened = open(queues);
  ASSERT_FALSE(opened);
  EXPECT_EQ(xen_.grants().mapped_pages(), 0U);
  EXPECT_EQ(xen_.events().bound_ports(), 0U);
  EXPECT_TRUE(open(parameters())) << "nothing stands in the way of the right ones";
}

TEST_F(VbdTest, IsClosedWhenTheLastOfItsQueuesIs) {
  ASSERT_TRUE(open(parameters()));
  hold();
  write(1);
  reactor_.run_until_idle();
  EXPECT_EQ(vbd_->in_flight(), 1U);
  close();
  reactor_.run_until_idle();
  EXPECT_EQ(closed_, 0) << "one request is not answered yet";
  disk_.release();
  poll();
  EXPECT_EQ(closed_, 1);
  EXPECT_EQ(xen_.grants().mapped_pages(), 0U);
}

// Queues that are closed already are abandoned with the others.
TEST_F(VbdTest, IsAbandonedWithARequestOnOneQueue) {
  ASSERT_TRUE(open(parameters()));
  hold();
  write(1);
  reactor_.run_until_idle();
  close();
  reactor_.run_until_idle();
  vbd_->abandon();
  EXPECT_EQ(xen_.grants().mapped_pages(), 0U);
  EXPECT_EQ(xen_.events().bound_ports(), 0U);
  disk_.release();
  reactor_.run_until_idle();
  EXPECT_EQ(closed_, 1);
}

TEST_F(VbdTest, SaysOnceThatItIsBroken) {
  ASSERT_TRUE(open(parameters()));
  for (const std::size_t queue : {std::size_t{2}, std::size_t{0}}) {
    queues_[queue]->set_request_producer(queues_[queue]->request_producer() + 1000);
    reactor_.run_until_idle();
  }
  ASSERT_EQ(broken_.size(), 1U);
  const auto id = write(1);
  poll();
  EXPECT_TRUE(queues_[1]->take_completion(id)) << "the others are served until close()";
}

TEST_F(VbdTest, AFlushThatFailsIsHeldOnItsQueueOnly) {
  ASSERT_TRUE(open(parameters()));
  disk_.set_plan([](const BlockRequest& request, std::uint64_t) {
    return FaultyDisk::Action{request.operation == BlockOperation::flush
                                  ? FaultyDisk::Action::Kind::fail
                                  : FaultyDisk::Action::Kind::pass};
  });
  (void)queues_[0]->flush();
  queues_[0]->push();
  reactor_.run_for(std::chrono::milliseconds(1));
  EXPECT_EQ(vbd_->held_flushes(), 1U);
  const auto id = write(1);
  reactor_.run_for(std::chrono::milliseconds(1));
  queues_[1]->poll();
  EXPECT_TRUE(queues_[1]->take_completion(id));
}

}  // namespace
}  // namespace iscsi_blkback
