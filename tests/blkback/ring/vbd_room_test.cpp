// What the requests of a disk, in all of its queues, take of the process's memory, and who has to wait
// for it.
#include <deque>
#include <fstream>
#include <limits>

#include "blkback/ring/vbd.h"
#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMebibytes = 4;
constexpr std::uint32_t kRequestSegments = 64;
constexpr std::uint32_t kRequestPages = kRequestSegments + 1;  // with what describes it
// Of a request of that size, under way at once in half of the memory.
constexpr std::uint32_t kAtOnce = kMebibytes * 256 / 2 / kRequestPages;

class VbdRoomTest : public testing::Test, private Vbd::Owner {
 protected:
  ~VbdRoomTest() override {
    if (vbd_ != nullptr) {
      pass();
      close();
      EXPECT_TRUE(reactor_.run_until([this] { return vbd_ == nullptr; }, std::chrono::seconds(10)));
    }
    bells_.clear();
    queues_.clear();
  }

  void open(std::size_t queues, std::uint32_t segments = kRequestSegments,
            std::uint32_t mebibytes = kMebibytes) {
    FakeFrontend::Options frontend;
    frontend.ring_pages = 16;
    frontend.indirect_segments = segments;
    std::vector<RingParameters> parameters;
    while (queues_.size() < queues) {
      FakeFrontend& queue = *queues_.emplace_back(std::make_unique<FakeFrontend>(xen_, frontend));
      queue.set_up_ring();
      queue.on_completion([](const FakeFrontend::Completion&) {});
      bells_.push_back(reactor_.watch_readable(
          queue.event_fd(), [](void* self) noexcept { static_cast<FakeFrontend*>(self)->poll(); },
          &queue));
      parameters.push_back(ring_parameters(queue));
    }
    VbdOptions options;
    options.name = "xvda of guest 1";
    options.max_indirect_segments = segments;
    options.max_buffers_mb = mebibytes;
    auto opened = Vbd::open(reactor_, turn_, events_, disk_, parameters, options, *this);
    ASSERT_TRUE(opened);
    vbd_ = std::move(*opened);
  }
  void close() {
    vbd_->close([](void* self) noexcept { static_cast<VbdRoomTest*>(self)->vbd_.reset(); }, this);
  }
  void hold() {
    disk_.set_plan([](const BlockRequest&, std::uint64_t) {
      return FaultyDisk::Action{FaultyDisk::Action::Kind::hold};
    });
  }
  void pass() {
    disk_.set_plan([](const BlockRequest&, std::uint64_t) { return FaultyDisk::Action{}; });
    disk_.release();
  }
  void read(std::size_t queue, std::uint32_t count, std::uint32_t segments = kRequestSegments) {
    for (; count > 0; --count) {
      ASSERT_TRUE(queues_[queue]->read(0, segments * kSectorsPerPage));
    }
    queues_[queue]->push();
    reactor_.run_until_idle();
  }
  // One that is under way is answered.
  void answer_one() {
    disk_.release(1);
    reactor_.run_until_idle();
  }
  std::uint32_t open_requests(std::size_t queue) const { return queues_[queue]->outstanding(); }

  void on_vbd_broken(Vbd& /*vbd*/, const Error& /*error*/) noexcept override {}

  MemXen xen_;
  SimReactor reactor_{1};
  std::unique_ptr<GrantTable> grants_ = xen_.grants().open(0);
  std::unique_ptr<MemEventChannels> channels_ = xen_.events().open(0);
  EventDispatcher events_{reactor_, *channels_};
  RingTurn turn_{reactor_, *grants_};
  MemoryDisk memory_{reactor_, geometry()};
  FaultyDisk disk_{reactor_, memory_};
  std::vector<std::unique_ptr<FakeFrontend>> queues_;
  std::vector<std::unique_ptr<FdWatch>> bells_;
  std::unique_ptr<Vbd> vbd_;
};

TEST_F(VbdRoomTest, AllQueuesOfADiskShareIt) {
  open(4);
  hold();
  for (std::size_t queue = 0; queue < 4; ++queue) {
    read(queue, kAtOnce);
  }
  EXPECT_EQ(vbd_->in_flight(), kAtOnce);
  EXPECT_EQ(disk_.held(), kAtOnce);
  pass();
  reactor_.run_until_idle();
  for (std::size_t queue = 0; queue < 4; ++queue) {
    EXPECT_EQ(open_requests(queue), 0U) << "no request fails, or stays in the ring";
  }
}

// A guest that keeps one queue full does not keep the others from being served.
TEST_F(VbdRoomTest, EachQueueThatWaitsHasItsTurn) {
  open(3);
  hold();
  read(0, kAtOnce + 100);
  read(1, 20);
  read(2, 20);
  for (std::uint32_t answers = 0; answers < 3 * kAtOnce; ++answers) {
    read(0, 1);
    answer_one();
  }
  EXPECT_EQ(vbd_->in_flight(), kAtOnce);
  EXPECT_LE(open_requests(1), 20 - kAtOnce / 2) << "a third of what was answered since";
  EXPECT_LE(open_requests(2), 20 - kAtOnce / 2);
}

// The first that waits has the room, whoever rings.
TEST_F(VbdRoomTest, WhoComesLaterDoesNotGetWhatAnotherWaitsFor) {
  open(3);
  hold();
  read(0, kAtOnce);
  read(1, 1);
  EXPECT_EQ(vbd_->in_flight(), kAtOnce);
  // Both in one turn; that of queue 2 would be looked at before.
  ASSERT_TRUE(queues_[2]->read(0, kRequestSegments * kSectorsPerPage));
  queues_[2]->push();
  answer_one();
  EXPECT_EQ(vbd_->in_flight(), kAtOnce);
  for (std::uint32_t answers = 0; answers < kAtOnce; ++answers) {
    answer_one();
  }
  EXPECT_EQ(open_requests(1), 0U);
  EXPECT_EQ(open_requests(2), 1U);
}

TEST(VbdRoom, TheFirstThatWaitsHasItBeforeAllOthers) {
  RequestRoom room(kMebibytes);
  int told = 0;
  const auto count = [](void* of) noexcept { ++*static_cast<int*>(of); };
  int first_told = 0;
  RequestRoom::Waiter first(10, count, &first_told);
  RequestRoom::Waiter other(10, count, &told);
  room.take(room.most_pages());
  room.wait(first, false);
  room.wait(other, false);
  room.give_back(20);
  EXPECT_EQ(first_told, 1);
  EXPECT_EQ(told, 0);
  EXPECT_TRUE(room.has_room(first));
  EXPECT_FALSE(room.has_room(other));
  room.leave(first);
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(room.has_room(other));
  room.leave(other);
}

TEST_F(VbdRoomTest, ABrokenRingLeavesItToTheOthers) {
  open(3);
  hold();
  read(0, kAtOnce);
  read(1, 1);
  read(2, 1);
  answer_one();  // queue 1 has it, and breaks when it looks for more
  queues_[1]->set_request_producer(queues_[1]->request_producer() + 1000);
  pass();
  reactor_.run_until_idle();
  EXPECT_EQ(open_requests(2), 0U);
}

// When a ring is closed with its disk, the others are closed as well: nobody is told any more.
TEST_F(VbdRoomTest, ADiskIsClosedWhoseQueuesWait) {
  open(3);
  hold();
  for (std::size_t queue = 0; queue < 3; ++queue) {
    read(queue, kAtOnce);
  }
  close();
  pass();
  reactor_.run_until_idle();
  EXPECT_EQ(vbd_, nullptr);
  EXPECT_EQ(open_requests(0), 0U);
  EXPECT_EQ(open_requests(1) + open_requests(2), 2 * kAtOnce) << "what was in the ring stays there";
}

// Requests of a page each: the memory is counted in what they take, not in what they might.
TEST_F(VbdRoomTest, SmallRequestsTakeWhatTheyNeed) {
  open(2);
  hold();
  read(0, 400, 1);
  EXPECT_EQ(vbd_->in_flight(), 400U);
  EXPECT_EQ(vbd_->resident_bytes(), 400 * kXenPageBytes);
}

TEST_F(VbdRoomTest, PartsOfPagesArePages) {
  open(1);
  hold();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(queues_[0]->read(0, 1));
  }
  queues_[0]->push();
  reactor_.run_until_idle();
  EXPECT_EQ(vbd_->resident_bytes(), 3 * kXenPageBytes);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeasures = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kMeasures = false;
#else
constexpr bool kMeasures = true;
#endif
#else
constexpr bool kMeasures = true;
#endif

// Without the guest's pages, which are shared memory here.
std::size_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  std::size_t kibibytes = 0;
  while (status >> word) {
    if (word == "RssAnon:") {
      status >> kibibytes;
      break;
    }
  }
  return kibibytes << 10;
}

// Sixteen queues of the largest rings and requests, filled again and again in a way that each request
// finds buffers that have held nothing large before.
TEST_F(VbdRoomTest, AGuestDoesItsWorstAndTheBoundHolds) {
  constexpr std::size_t kQueues = 16;
  constexpr std::uint32_t kLargest = 256;
  constexpr std::uint32_t kMost = 16;
  constexpr std::size_t kBound = std::size_t{kMost} << 20;
  // Rings, slots and what a turn needs, of all queues; those of the frontends, too.
  constexpr std::size_t kBookkeeping = std::size_t{48} << 20;
  open(kQueues, kLargest, kMost);
  const std::size_t before = anonymous_bytes();
  std::size_t most = 0;
  std::size_t most_measured = 0;
  for (int round = 0; round < 10; ++round) {
    hold();
    for (std::size_t queue = 0; queue < kQueues; ++queue) {
      read(queue, 4, kLargest);
    }
    most = std::max(most, vbd_->resident_bytes());
    most_measured = std::max(most_measured, anonymous_bytes());
    pass();
    reactor_.run_until_idle();
    hold();
    for (std::size_t queue = 0; queue < kQueues; ++queue) {
      read(queue, 3 * static_cast<std::uint32_t>(round), 1);
    }
    for (std::size_t queue = 0; queue < kQueues; ++queue) {
      read(queue, 4, kLargest);
    }
    most = std::max(most, vbd_->resident_bytes());
    most_measured = std::max(most_measured, anonymous_bytes());
    pass();
    reactor_.run_until_idle();
    EXPECT_EQ(vbd_->in_flight(), 0U);
  }
  EXPECT_GT(most, kBound / 2);
  EXPECT_LE(most, kBound);
  EXPECT_LE(vbd_->resident_bytes(), kBound / 2) << "what comes free beyond that is given back";
  if (kMeasures) {
    EXPECT_LE(most_measured - before, kBound + kBookkeeping);
    RecordProperty("measured_kib", static_cast<int>((most_measured - before) >> 10));
  }
}

}  // namespace
}  // namespace iscsi_blkback
