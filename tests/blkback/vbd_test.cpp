#include "blkback/vbd.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "tests/support/fake_frontend.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/mem_xen.h"
#include "tests/support/memory_disk.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr std::uint64_t kDiskSectors = 4096;

std::vector<std::byte> pattern(std::size_t bytes, std::uint32_t seed) {
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>((i * 7 + i / 512 * 13 + seed) & 0xff);
  }
  return data;
}

Geometry geometry() {
  Geometry geometry;
  geometry.sector_count = kDiskSectors;
  return geometry;
}

// One guest with one disk, on one simulated reactor.
class Bench final : public Vbd::Owner {
 public:
  explicit Bench(FakeFrontend::Options options = {}, std::uint64_t seed = 1)
      : options_(options),
        reactor(seed),
        grants(xen.grants().open(options.backend)),
        channels(xen.events().open(options.backend)),
        events(std::in_place, reactor, *channels),
        memory(reactor, geometry()),
        disk(reactor, memory),
        frontend(std::in_place, xen, options) {
    frontend->set_up_ring();
    guest_bell_ = reactor.watch_readable(
        frontend->event_fd(),
        [](void* owner) noexcept { static_cast<Bench*>(owner)->frontend->poll(); }, this);
  }

  ~Bench() {
    if (vbd != nullptr) {
      close_and_run();
    }
    guest_bell_.reset();
    frontend.reset();
  }

  Result<void> connect(VbdOptions options = {}) {
    options.name = "xvda of guest 1";
    Result<std::unique_ptr<Vbd>> opened =
        Vbd::open(reactor, *grants, *events, disk, ring_parameters(), options, *this);
    if (!opened) {
      return tl::unexpected(opened.error());
    }
    vbd = std::move(*opened);
    return {};
  }

  RingParameters ring_parameters() const {
    RingParameters ring;
    ring.domain = options_.domain;
    ring.abi = options_.abi;
    ring.ring_references = frontend->ring_references();
    ring.event_port = frontend->event_port();
    ring.start_index = options_.start_index;
    return ring;
  }

  void close() {
    vbd->close(
        [](void* owner) noexcept {
          Bench& bench = *static_cast<Bench*>(owner);
          ++bench.closed;
          bench.vbd.reset();
        },
        this);
  }

  void close_and_run() {
    close();
    disk.release();
    ASSERT_TRUE(reactor.run_until([this] { return vbd == nullptr; }, std::chrono::seconds(10)));
    reactor.run_until_idle();
  }

  // Pushes, runs until everything is quiet, and takes the answer to one request.
  FakeFrontend::Answer answer(std::optional<FakeFrontend::RequestId> id) {
    EXPECT_TRUE(id.has_value());
    frontend->push();
    std::optional<FakeFrontend::Answer> answer;
    (void)reactor.run_until(
        [&] {
          answer = frontend->take_completion(id.value_or(0));
          return answer.has_value();
        },
        std::chrono::seconds(10));
    reactor.run_until_idle();
    EXPECT_TRUE(answer.has_value()) << "no answer";
    return answer.value_or(FakeFrontend::Answer{99, 99, {}});
  }

  void on_vbd_broken(Vbd& /*vbd*/, const Error& error) noexcept override {
    broken.push_back(error.message);
  }

  MemXen xen;
  FakeFrontend::Options options_;
  SimReactor reactor;
  std::unique_ptr<GrantTable> grants;
  std::unique_ptr<MemEventChannels> channels;
  std::optional<EventDispatcher> events;
  MemoryDisk memory;
  FaultyDisk disk;
  std::optional<FakeFrontend> frontend;
  std::unique_ptr<Vbd> vbd;
  std::vector<std::string> broken;
  int closed = 0;

 private:
  std::unique_ptr<FdWatch> guest_bell_;
};

BlkifRequest raw_read(std::uint64_t sector, GrantReference reference) {
  BlkifRequest request{};
  request.operation = kBlkifRead;
  request.segment_count = 1;
  request.sector = sector;
  request.segments[0] = BlkifSegment{reference, 0, 7, 0};
  return request;
}

// --- the three ABIs and all ring sizes ---------------------------------------------------------

struct Shape {
  BlkifAbi abi;
  std::uint32_t pages;
};

class VbdShapeTest : public testing::TestWithParam<Shape> {
 protected:
  static FakeFrontend::Options options() {
    FakeFrontend::Options options;
    options.abi = GetParam().abi;
    options.ring_pages = GetParam().pages;
    options.start_index = 0xffffff00U;  // the indices wrap during the test
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(All, VbdShapeTest,
                         testing::Values(Shape{BlkifAbi::native, 1}, Shape{BlkifAbi::x86_64, 1},
                                         Shape{BlkifAbi::x86_64, 2}, Shape{BlkifAbi::x86_64, 4},
                                         Shape{BlkifAbi::x86_64, 8}, Shape{BlkifAbi::x86_64, 16},
                                         Shape{BlkifAbi::x86_32, 1}, Shape{BlkifAbi::x86_32, 4},
                                         Shape{BlkifAbi::x86_32, 16}),
                         [](const auto& shape) {
                           const char* abi = shape.param.abi == BlkifAbi::native   ? "native"
                                             : shape.param.abi == BlkifAbi::x86_32 ? "x86_32"
                                                                                   : "x86_64";
                           return fmt::format("{}_{}pages", abi, shape.param.pages);
                         });

TEST_P(VbdShapeTest, WritesAndReadsBack) {
  Bench bench(options());
  ASSERT_TRUE(bench.connect());
  const std::vector<std::byte> data = pattern(44 * 1024, 5);
  EXPECT_EQ(bench.answer(bench.frontend->write(100, data)).status, kBlkifOkay);
  const FakeFrontend::Answer read = bench.answer(bench.frontend->read(100, 88));
  EXPECT_EQ(read.status, kBlkifOkay);
  EXPECT_EQ(read.data, data);
  EXPECT_EQ(bench.answer(bench.frontend->flush()).status, kBlkifOkay);
  EXPECT_EQ(bench.vbd->statistics().reads, 1U);
  EXPECT_EQ(bench.vbd->statistics().writes, 1U);
  EXPECT_EQ(bench.vbd->statistics().flushes, 1U);
  EXPECT_EQ(bench.vbd->statistics().read_sectors, 88U);
  EXPECT_EQ(bench.vbd->statistics().written_sectors, 88U);
}

// Random requests with random delays, the ring mostly full, against a model of the disk's contents.
TEST_P(VbdShapeTest, ManyRequestsEachAnsweredOnceWithTheRightData) {
  Bench bench(options());
  ASSERT_TRUE(bench.connect());
  SimRandom random(42);
  bench.memory.set_delay([&] { return std::chrono::microseconds(random.next() % 1000); });
  // A region is one request's at a time, so that the order of completion does not matter.
  constexpr std::uint32_t kRegionSectors = 88;
  const std::uint64_t regions = kDiskSectors / kRegionSectors;
  std::map<std::uint64_t, std::vector<std::byte>> expected;
  std::set<std::uint64_t> busy;
  struct Issued {
    std::uint64_t region;
    std::uint32_t sectors;
    bool is_write;
  };
  std::map<std::uint64_t, Issued> issued;
  std::uint64_t answered = 0;
  bench.frontend->on_completion([&](const FakeFrontend::Completion& completion) {
    const Issued request = issued.at(completion.tag);
    issued.erase(completion.tag);
    busy.erase(request.region);
    ++answered;
    ASSERT_EQ(completion.status, kBlkifOkay);
    if (!request.is_write) {
      std::vector<std::byte> want(kRegionSectors * kSectorBytes);
      if (expected.contains(request.region)) {
        want = expected[request.region];
      }
      ASSERT_TRUE(std::equal(completion.data.begin(), completion.data.end(), want.begin()));
    }
  });
  constexpr std::uint64_t kRequests = 2000;
  std::uint64_t made = 0;
  while (answered < kRequests) {
    while (made < kRequests) {
      const std::uint64_t region = random.next() % regions;
      if (busy.contains(region) || busy.size() > regions / 2) {
        break;
      }
      FakeFrontend::Layout layout;
      layout.first_sector = static_cast<std::uint8_t>(random.next() % 4);
      layout.sectors_per_segment = static_cast<std::uint8_t>(1 + random.next() % 4);
      const auto sectors = static_cast<std::uint32_t>(
          1 + random.next() % (layout.sectors_per_segment * kMaxDirectSegments));
      const bool is_write = random.next() % 2 == 0;
      std::optional<FakeFrontend::RequestId> id;
      if (is_write) {
        const std::vector<std::byte> data =
            pattern(sectors * kSectorBytes, static_cast<std::uint32_t>(made));
        id = bench.frontend->write(region * kRegionSectors, data, layout, made);
        if (id) {
          auto& whole = expected[region];
          whole.resize(kRegionSectors * kSectorBytes);
          std::copy(data.begin(), data.end(), whole.begin());
        }
      } else {
        id = bench.frontend->read(region * kRegionSectors, sectors, layout, made);
      }
      if (!id) {
        break;
      }
      issued[made] = Issued{region, sectors, is_write};
      busy.insert(region);
      ++made;
    }
    bench.frontend->push();
    bench.reactor.run_for(std::chrono::microseconds(random.next() % 300));
  }
  EXPECT_EQ(bench.frontend->outstanding(), 0U);
  EXPECT_EQ(bench.vbd->in_flight(), 0U);
  EXPECT_EQ(bench.vbd->statistics().errors, 0U);
}

TEST_P(VbdShapeTest, AFullRingIsServed) {
  Bench bench(options());
  ASSERT_TRUE(bench.connect());
  for (int round = 0; round < 3; ++round) {
    std::uint32_t answered = 0;
    bench.frontend->on_completion([&](const FakeFrontend::Completion& completion) {
      EXPECT_EQ(completion.status, kBlkifOkay);
      ++answered;
    });
    while (bench.frontend->read(0, 8)) {
    }
    EXPECT_EQ(bench.frontend->free_slots(), 0U);
    bench.frontend->push();
    bench.reactor.run_until_idle();
    EXPECT_EQ(answered, bench.frontend->slot_count());
  }
}

// --- batching ----------------------------------------------------------------------------------

TEST(VbdBatching, OneGrantCopyForAllWritesOfATurnAndOneDoorbell) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.reactor.run_until_idle();
  const auto before = bench.xen.grants().counters();
  const auto notifies = bench.xen.events().counters(0).notifies;
  for (std::uint32_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(bench.frontend->write(i * 16, pattern(8192, i)));
  }
  bench.frontend->push();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->outstanding(), 0U);
  EXPECT_EQ(bench.xen.grants().counters().copy_calls - before.copy_calls, 1U);
  EXPECT_EQ(bench.xen.grants().counters().copied_segments - before.copied_segments, 40U);
  EXPECT_EQ(bench.xen.events().counters(0).notifies - notifies, 1U);
}

TEST(VbdBatching, OneGrantCopyForAllReadsOfATurnAndOneDoorbell) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.reactor.run_until_idle();
  const auto before = bench.xen.grants().counters();
  const auto notifies = bench.xen.events().counters(0).notifies;
  for (std::uint32_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(bench.frontend->read(i * 16, 16));
  }
  bench.frontend->push();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->outstanding(), 0U);
  EXPECT_EQ(bench.xen.grants().counters().copy_calls - before.copy_calls, 1U);
  EXPECT_EQ(bench.xen.grants().counters().copied_segments - before.copied_segments, 40U);
  EXPECT_EQ(bench.xen.events().counters(0).notifies - notifies, 1U);
}

TEST(VbdBatching, FlushesAndRefusalsCostNoGrantCopy) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  EXPECT_EQ(bench.answer(bench.frontend->flush()).status, kBlkifOkay);
  EXPECT_EQ(bench.answer(bench.frontend->read(kDiskSectors, 8)).status, kBlkifError);
  EXPECT_EQ(bench.xen.grants().counters().copy_calls, 0U);
}

TEST(VbdFairness, OneTurnTakesNoMoreThanTheDisksShare) {
  FakeFrontend::Options options;
  options.ring_pages = 16;
  Bench bench(options);
  VbdOptions vbd_options;
  vbd_options.max_requests_per_turn = 10;
  ASSERT_TRUE(bench.connect(vbd_options));
  bench.reactor.run_until_idle();
  std::uint32_t most = 0;
  std::uint64_t before = 0;
  bench.disk.set_plan([&](const BlockRequest&, std::uint64_t) {
    // All writes of a turn come after one grant copy.
    const std::uint64_t copies = bench.xen.grants().counters().copied_segments;
    most = std::max(most, static_cast<std::uint32_t>(copies - before));
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  for (std::uint32_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(bench.frontend->write(i * 8, pattern(4096, i)));
  }
  bench.frontend->push();
  bool done = false;
  while (!done) {
    before = bench.xen.grants().counters().copied_segments;
    const std::size_t held = bench.disk.held();
    EXPECT_TRUE(bench.reactor.run_until([&] { return bench.disk.held() > held; }));
    EXPECT_LE(bench.disk.held() - held, 10U);
    done = bench.disk.held() == 100;
  }
  EXPECT_LE(most, 10U);
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->outstanding(), 0U);
}

TEST(VbdStatisticsTest, LatencyRunsFromTheRingToTheAnswer) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.memory.set_delay([] { return milliseconds(7); });
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(512, 1))).status, kBlkifOkay);
  EXPECT_EQ(bench.answer(bench.frontend->read(kDiskSectors, 8)).status, kBlkifError);
  const VbdStatistics& statistics = bench.vbd->statistics();
  EXPECT_EQ(statistics.read_latency.count(), 1U) << "a refused request has no latency";
  EXPECT_EQ(statistics.read_latency.max(), milliseconds(7));
  EXPECT_EQ(statistics.write_latency.max(), milliseconds(7));
  EXPECT_EQ(statistics.flush_latency.count(), 0U);
}

// --- refusals: only the bad request suffers ----------------------------------------------------

class VbdRefusalTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.connect()); }

  // The bad one between two good ones.
  std::int16_t answer_to(const BlkifRequest& request) {
    const auto before = bench_.frontend->read(0, 8);
    const auto bad = bench_.frontend->raw(request);
    const auto after = bench_.frontend->write(8, pattern(4096, 1));
    const FakeFrontend::Answer answer = bench_.answer(bad);
    EXPECT_EQ(answer.operation, request.operation);
    EXPECT_EQ(bench_.answer(before).status, kBlkifOkay);
    EXPECT_EQ(bench_.answer(after).status, kBlkifOkay);
    EXPECT_TRUE(bench_.broken.empty());
    return answer.status;
  }
  BlkifRequest good() { return raw_read(0, bench_.frontend->spare_reference()); }

  Bench bench_;
};

TEST_F(VbdRefusalTest, AGoodRawRequestIsNotRefused) {
  EXPECT_EQ(answer_to(good()), kBlkifOkay);
  EXPECT_EQ(bench_.vbd->statistics().refused, 0U);
}

TEST_F(VbdRefusalTest, RejectsUnknownOperation) {
  BlkifRequest request = good();
  request.operation = 200;
  EXPECT_EQ(answer_to(request), kBlkifNotSupported);
}

TEST_F(VbdRefusalTest, RejectsBarrierDiscardAndIndirect) {
  for (const std::uint8_t operation : {kBlkifWriteBarrier, kBlkifDiscard, kBlkifIndirect}) {
    BlkifRequest request = good();
    request.operation = operation;
    EXPECT_EQ(answer_to(request), kBlkifNotSupported) << int{operation};
  }
}

TEST_F(VbdRefusalTest, RejectsNoSegments) {
  BlkifRequest request = good();
  request.segment_count = 0;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsTooManySegments) {
  BlkifRequest request = good();
  request.segment_count = 12;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsSectorsBeyondThePage) {
  BlkifRequest request = good();
  request.segments[0].last_sector = 8;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsBeyondEndOfDisk) {
  BlkifRequest request = good();
  request.sector = kDiskSectors - 7;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsSectorOverflow) {
  BlkifRequest request = good();
  request.sector = ~0ULL;
  EXPECT_EQ(answer_to(request), kBlkifError);
}

TEST_F(VbdRefusalTest, RejectsUnknownGrantOnRead) {
  BlkifRequest request = good();
  request.segments[0].reference = 0xffffffffU;
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.vbd->statistics().errors, 1U);
}

TEST_F(VbdRefusalTest, RejectsUnknownGrantOnWrite) {
  BlkifRequest request = good();
  request.operation = kBlkifWrite;
  request.segment_count = 2;
  request.segments[1] = BlkifSegment{0xffffffffU, 0, 7, 0};
  const std::uint64_t submitted = bench_.memory.submitted();
  EXPECT_EQ(answer_to(request), kBlkifError);
  EXPECT_EQ(bench_.memory.submitted(), submitted + 2) << "the bad write must not reach the disk";
}

TEST_F(VbdRefusalTest, RejectsReadIntoAPageGrantedReadOnly) {
  EXPECT_EQ(answer_to(raw_read(0, bench_.frontend->spare_read_only_reference())), kBlkifError);
}

TEST_F(VbdRefusalTest, AcceptsWriteFromAPageGrantedReadOnly) {
  BlkifRequest request = raw_read(0, bench_.frontend->spare_read_only_reference());
  request.operation = kBlkifWrite;
  EXPECT_EQ(answer_to(request), kBlkifOkay);
}

TEST(VbdReadOnly, NoWriteReachesTheDevice) {
  Bench bench;
  VbdOptions options;
  options.read_only = true;
  ASSERT_TRUE(bench.connect(options));
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.memory.submitted(), 0U);
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

TEST(VbdReadOnly, TheDevicesOwnReadOnlyCounts) {
  Bench bench;
  Geometry read_only = geometry();
  read_only.read_only = true;
  bench.memory.set_geometry(read_only);
  ASSERT_TRUE(bench.connect());
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(4096, 1))).status, kBlkifError);
  EXPECT_EQ(bench.memory.submitted(), 0U);
}

TEST(VbdLogicalBlocks, RejectsRequestsThatAreNotWholeBlocks) {
  Bench bench;
  Geometry blocks = geometry();
  blocks.logical_block_bytes = 4096;
  bench.memory.set_geometry(blocks);
  ASSERT_TRUE(bench.connect());
  EXPECT_EQ(bench.answer(bench.frontend->read(8, 8)).status, kBlkifOkay);
  EXPECT_EQ(bench.answer(bench.frontend->read(4, 8)).status, kBlkifError);
  EXPECT_EQ(bench.answer(bench.frontend->read(8, 4)).status, kBlkifError);
}

TEST(VbdLog, AGuestCannotFillTheLog) {
  struct Restore {
    std::unique_ptr<LogSink> previous;
    ~Restore() { set_log_sink(std::move(previous)); }
  };
  auto sink = std::make_unique<MemoryLogSink>();
  const MemoryLogSink& lines = *sink;
  Restore restore{set_log_sink(std::move(sink))};
  Bench bench;
  ASSERT_TRUE(bench.connect());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(bench.answer(bench.frontend->read(kDiskSectors, 8)).status, kBlkifError);
  }
  EXPECT_EQ(bench.vbd->statistics().refused, 1000U);
  EXPECT_TRUE(lines.contains("beyond the end of the disk"));
  EXPECT_LT(lines.lines().size(), 50U);
}

// --- errors of the device ----------------------------------------------------------------------

TEST(VbdDeviceErrors, AreAnsweredAsErrors) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  IoStatus status = IoStatus::ok;
  bench.disk.set_plan([&](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::fail, status};
  });
  for (const IoStatus failure :
       {IoStatus::medium_error, IoStatus::target_error, IoStatus::out_of_range,
        IoStatus::write_protected, IoStatus::no_space, IoStatus::reservation_conflict,
        IoStatus::no_path, IoStatus::aborted}) {
    status = failure;
    EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifError) << to_string(failure);
  }
  status = IoStatus::not_supported;
  EXPECT_EQ(bench.answer(bench.frontend->flush()).status, kBlkifNotSupported);
  EXPECT_EQ(bench.vbd->statistics().errors, 9U);
}

TEST(VbdDeviceErrors, AFailedReadLeavesTheGuestsPagesAlone) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::fail, IoStatus::medium_error};
  });
  std::fill(bench.frontend->spare_page().begin(), bench.frontend->spare_page().end(),
            std::byte{0x5a});
  const auto id = bench.frontend->raw(raw_read(0, bench.frontend->spare_reference()));
  EXPECT_EQ(bench.answer(id).status, kBlkifError);
  EXPECT_EQ(bench.frontend->spare_page()[100], std::byte{0x5a});
}

// --- a guest that breaks the rules -------------------------------------------------------------

TEST(VbdEvil, ProducerOverflowBreaksTheRingAndNothingElse) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const auto good = bench.frontend->read(0, 8);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  bench.frontend->set_request_producer(bench.frontend->request_producer() + 1000);
  bench.reactor.run_until_idle();
  ASSERT_EQ(bench.broken.size(), 1U);
  EXPECT_THAT(bench.broken[0], HasSubstr("not served any more"));
  EXPECT_EQ(bench.memory.submitted(), 0U);
  bench.frontend->ring_doorbell();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.broken.size(), 1U) << "reported once";
  // What was consumed before is still answered.
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_TRUE(bench.frontend->take_completion(*good).has_value());
}

TEST(VbdEvil, TwoDisksOnOneDispatcherAreIndependent) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  FakeFrontend::Options other_options;
  other_options.domain = 1;
  FakeFrontend other(bench.xen, other_options);
  other.set_up_ring();
  RingParameters ring;
  ring.domain = 1;
  ring.ring_references = other.ring_references();
  ring.event_port = other.event_port();
  auto opened = Vbd::open(bench.reactor, *bench.grants, *bench.events, bench.memory, ring,
                          VbdOptions{"xvdb of guest 1", false, 128}, bench);
  ASSERT_TRUE(opened);
  bench.frontend->set_request_producer(1000);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.broken.size(), 1U);
  const auto read = other.read(0, 8);
  other.push();
  bench.reactor.run_until_idle();
  other.poll();
  EXPECT_EQ(other.take_completion(*read)->status, kBlkifOkay);
  static bool closed;
  closed = false;
  (*opened)->close([](void*) noexcept { closed = true; }, nullptr);
  bench.reactor.run_until_idle();
  EXPECT_TRUE(closed);
}

TEST(VbdEvil, WhatChangesAfterTheCopyIsNotSeen) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const auto id = bench.frontend->read(0, 8);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  ASSERT_EQ(bench.disk.held(), 1U);
  // The whole slot, while the request is at the disk.
  for (std::size_t offset = 0; offset < kSlotBytes<BlkifX86_64>; ++offset) {
    bench.frontend->scribble(offset, std::byte{0xff});
  }
  bench.disk.release();
  bench.reactor.run_until_idle();
  const auto answer = bench.frontend->take_completion(*id);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status, kBlkifOkay);
}

TEST(VbdEvil, GrantsTakenBackBeforeTheAnswer) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const auto id = bench.frontend->read(0, 16);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  bench.frontend->revoke_data(*id);
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->take_completion(*id)->status, kBlkifError);
}

TEST(VbdEvil, DoorbellsWithoutRequestsAreHarmless) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  for (int i = 0; i < 100; ++i) {
    bench.frontend->ring_doorbell();
    bench.reactor.run_until_idle();
  }
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

// --- connecting --------------------------------------------------------------------------------

class VbdConnectTest : public testing::Test {
 protected:
  std::string error_of(const RingParameters& ring) {
    auto opened = Vbd::open(bench_.reactor, *bench_.grants, *bench_.events, bench_.memory, ring,
                            VbdOptions{}, bench_);
    EXPECT_FALSE(opened.has_value());
    EXPECT_EQ(bench_.xen.grants().mapped_pages(), 0U);
    EXPECT_EQ(bench_.xen.events().bound_ports(), 0U);
    return opened ? "" : opened.error().message;
  }
  static FakeFrontend::Options two_pages() {
    FakeFrontend::Options options;
    options.ring_pages = 2;
    return options;
  }
  Bench bench_{two_pages()};
};

TEST_F(VbdConnectTest, RejectsNoRingPages) {
  RingParameters ring = bench_.ring_parameters();
  ring.ring_references.clear();
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 0 pages"));
}

TEST_F(VbdConnectTest, RejectsThreeRingPages) {
  RingParameters ring = bench_.ring_parameters();
  ring.ring_references.push_back(ring.ring_references[0]);
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 3 pages"));
}

TEST_F(VbdConnectTest, RejectsThirtyTwoRingPages) {
  RingParameters ring = bench_.ring_parameters();
  ring.ring_references.resize(32, ring.ring_references[0]);
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 32 pages"));
}

TEST_F(VbdConnectTest, RejectsUnknownRingReference) {
  RingParameters ring = bench_.ring_parameters();
  ring.ring_references[1] = 0xfffffff;
  EXPECT_THAT(error_of(ring), HasSubstr("has not granted page 268435455"));
}

TEST_F(VbdConnectTest, RejectsARingGrantedReadOnly) {
  RingParameters ring = bench_.ring_parameters();
  ring.ring_references = {bench_.frontend->spare_read_only_reference()};
  EXPECT_THAT(error_of(ring), HasSubstr("has not granted page"));
}

TEST_F(VbdConnectTest, RejectsUnknownEventChannel) {
  RingParameters ring = bench_.ring_parameters();
  ring.event_port = 77;
  EXPECT_THAT(error_of(ring), HasSubstr("does not offer event channel 77"));
}

TEST_F(VbdConnectTest, RequestsFromBeforeTheConnectAreServed) {
  const auto id = bench_.frontend->read(0, 8);
  bench_.frontend->push();
  ASSERT_TRUE(bench_.connect());
  bench_.reactor.run_until_idle();
  EXPECT_TRUE(bench_.frontend->take_completion(*id).has_value());
}

TEST_F(VbdConnectTest, CanBeConnectedAgainAndAgain) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(bench_.connect());
    EXPECT_EQ(bench_.xen.grants().mapped_pages(), 2U);
    bench_.close_and_run();
    EXPECT_EQ(bench_.xen.grants().mapped_pages(), 0U);
    EXPECT_EQ(bench_.xen.events().bound_ports(), 0U);
  }
  EXPECT_EQ(bench_.closed, 50);
}

// --- closing -----------------------------------------------------------------------------------

TEST(VbdClose, WithRequestsInFlightAnswersThemFirst) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  const auto read = bench.frontend->read(0, 8);
  const auto write = bench.frontend->write(8, pattern(4096, 1));
  bench.frontend->push();
  bench.reactor.run_until_idle();
  bench.close();
  EXPECT_EQ(bench.closed, 0) << "on_closed from inside close()";
  const auto late = bench.frontend->read(0, 8);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.closed, 0);
  EXPECT_EQ(bench.xen.grants().mapped_pages(), 1U);
  bench.disk.release(1);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.closed, 0);
  EXPECT_TRUE(bench.frontend->take_completion(*read).has_value());
  bench.disk.release();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.closed, 1);
  EXPECT_TRUE(bench.frontend->take_completion(*write).has_value());
  EXPECT_FALSE(bench.frontend->take_completion(*late).has_value()) << "consumed while closing";
  EXPECT_EQ(bench.xen.grants().mapped_pages(), 0U);
  EXPECT_EQ(bench.xen.events().bound_ports(), 0U);
}

TEST(VbdClose, AbandonLetsGoOfTheGuestAtOnce) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.disk.set_plan([](const BlockRequest&, std::uint64_t) {
    return FaultyDisk::Action{FaultyDisk::Action::Kind::hold, IoStatus::ok};
  });
  ASSERT_TRUE(bench.frontend->read(0, 8));
  bench.frontend->push();
  bench.reactor.run_until_idle();
  const auto copies = bench.xen.grants().counters().copy_calls;
  bench.close();
  bench.vbd->abandon();
  EXPECT_EQ(bench.xen.grants().mapped_pages(), 0U);
  EXPECT_EQ(bench.xen.events().bound_ports(), 0U);
  EXPECT_EQ(bench.frontend->tear_down_ring(), 1U);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.closed, 0);
  bench.disk.fail_held(IoStatus::aborted);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.closed, 1);
  EXPECT_EQ(bench.xen.grants().counters().copy_calls, copies);
  bench.frontend->set_up_ring();
}

TEST(VbdClose, OfABrokenRing) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.frontend->set_request_producer(5000);
  bench.reactor.run_until_idle();
  bench.close_and_run();
  EXPECT_EQ(bench.closed, 1);
}

TEST(VbdClose, InTheTurnInWhichTheRingBreaksReportsNothing) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.frontend->set_request_producer(5000);
  bench.close_and_run();
  EXPECT_TRUE(bench.broken.empty());
}

// --- every call to Xen fails once --------------------------------------------------------------

TEST(VbdFaults, EveryFailingCallLeavesEverythingClean) {
  std::uint64_t n = 1;
  for (std::string fired = "first"; !fired.empty(); ++n) {
    ASSERT_LT(n, 1000U);
    Bench bench;
    bench.xen.faults().fail_nth(n);
    const Result<void> connected = bench.connect();
    bool notify_failed = false;
    if (connected) {
      for (std::uint32_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(bench.frontend->write(i * 16, pattern(8192, i)));
        ASSERT_TRUE(bench.frontend->read(i * 16, 16));
      }
      ASSERT_TRUE(bench.frontend->flush());
      bench.frontend->push();
      bench.reactor.run_until_idle();
      notify_failed = bench.xen.faults().fired() == "event channel notify";
      // A lost doorbell is made up for by the next one.
      bench.frontend->ring_doorbell();
      bench.reactor.run_until_idle();
      if (notify_failed && bench.frontend->outstanding() > 0) {
        ASSERT_TRUE(bench.frontend->flush());
        bench.frontend->push();
        bench.frontend->ring_doorbell();
        bench.reactor.run_until_idle();
        (void)bench.channels;
      }
      if (!notify_failed) {
        EXPECT_EQ(bench.frontend->outstanding(), 0U) << n << " " << bench.xen.faults().fired();
      }
      EXPECT_EQ(bench.vbd->in_flight(), 0U);
      bench.close_and_run();
    }
    fired = bench.xen.faults().fired();
    bench.xen.faults().disarm();
    EXPECT_EQ(bench.xen.grants().mapped_pages(), 0U) << fired;
    EXPECT_EQ(bench.xen.events().bound_ports(), 0U) << fired;
  }
  EXPECT_GT(n, 15U) << "hardly any call was made to fail";
}

TEST(VbdFaults, AFailedGrantCopyFailsItsRequestsOnly) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  bench.reactor.run_until_idle();
  bench.frontend->ring_doorbell();
  bench.reactor.run_until_idle();
  const auto write = bench.frontend->write(0, pattern(4096, 9));
  bench.frontend->push();
  bench.xen.faults().fail_nth(1);
  bench.reactor.run_until_idle();
  ASSERT_EQ(bench.xen.faults().fired(), "grant copy");
  EXPECT_EQ(bench.frontend->take_completion(*write)->status, kBlkifError);
  EXPECT_EQ(bench.memory.submitted(), 0U);
  EXPECT_EQ(bench.answer(bench.frontend->write(0, pattern(4096, 9))).status, kBlkifOkay);
}

}  // namespace
}  // namespace iscsi_blkback
