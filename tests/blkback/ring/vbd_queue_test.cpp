// A VbdQueue that is connected, serves its ring and is closed.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// --- the three ABIs and all ring sizes ---------------------------------------------------------

struct Shape {
  BlkifAbi abi;
  std::uint32_t pages;
  Duration longest_look{};  // of the reactor, before it sleeps
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
                                         Shape{BlkifAbi::x86_32, 16},
                                         Shape{BlkifAbi::x86_64, 1, milliseconds(1)},
                                         Shape{BlkifAbi::x86_64, 16, milliseconds(1)},
                                         Shape{BlkifAbi::x86_32, 4, milliseconds(1)}),
                         [](const auto& shape) {
                           const char* abi = shape.param.abi == BlkifAbi::native   ? "native"
                                             : shape.param.abi == BlkifAbi::x86_32 ? "x86_32"
                                                                                   : "x86_64";
                           return fmt::format(
                               "{}_{}pages{}", abi, shape.param.pages,
                               shape.param.longest_look.count() != 0 ? "_looks" : "");
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
  bench.reactor.set_longest_look(GetParam().longest_look);
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
  bench.reactor.set_longest_look(GetParam().longest_look);
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

// --- a reactor that looks before it sleeps -----------------------------------------------------

TEST(VbdLooks, AGuestThatIsQuickNeedsNoDoorbell) {
  Bench bench;
  bench.reactor.set_longest_look(milliseconds(10));
  bench.memory.set_delay([] { return std::chrono::microseconds(10); });
  ASSERT_TRUE(bench.connect());
  bench.reactor.run_until_idle();
  const auto rung = bench.xen.events().counters(1).notifies;
  const auto unmasked = bench.xen.events().counters(0).unmasks;
  int answered = 0;
  bench.frontend->on_completion([&](const FakeFrontend::Completion& completion) {
    EXPECT_EQ(completion.status, kBlkifOkay);
    if (++answered < 100) {
      ASSERT_TRUE(bench.frontend->read(0, 8));
      bench.frontend->push();
    }
  });
  ASSERT_TRUE(bench.frontend->read(0, 8));
  bench.frontend->push();
  EXPECT_TRUE(bench.reactor.run_until([&] { return answered == 100; }));
  EXPECT_LE(bench.xen.events().counters(1).notifies - rung, 35U);  // where the looks were short
  EXPECT_LE(bench.xen.events().counters(0).unmasks - unmasked, 35U);
}

TEST(VbdLooks, AGuestThatIsSlowRingsEachTime) {
  Bench bench;
  bench.reactor.set_longest_look(std::chrono::microseconds(100));
  ASSERT_TRUE(bench.connect());
  bench.reactor.run_until_idle();
  for (int i = 0; i < 20; ++i) {
    const auto rung = bench.xen.events().counters(1).notifies;
    EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
    EXPECT_EQ(bench.xen.events().counters(1).notifies, rung + 1);
  }
}

TEST(VbdLooks, ARingThatIsBrokenMeanwhileIsNotServed) {
  Bench bench;
  bench.reactor.set_longest_look(milliseconds(10));
  ASSERT_TRUE(bench.connect());
  const auto id = bench.frontend->read(0, 8);
  bench.frontend->push();
  ASSERT_TRUE(bench.reactor.run_until(
      [&] { return bench.frontend->take_completion(*id).has_value(); }, milliseconds(1)));
  bench.frontend->set_request_producer(1000);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.broken.size(), 1U);
}

TEST(VbdLooks, ARingThatIsClosedMeanwhileIsNotLookedAtAnyMore) {
  Bench bench;
  bench.reactor.set_longest_look(milliseconds(10));
  ASSERT_TRUE(bench.connect());
  const auto id = bench.frontend->read(0, 8);
  bench.frontend->push();
  ASSERT_TRUE(bench.reactor.run_until(
      [&] { return bench.frontend->take_completion(*id).has_value(); }, milliseconds(1)));
  bench.close();
  ASSERT_TRUE(bench.frontend->read(0, 8));
  bench.frontend->push();
  ASSERT_TRUE(bench.reactor.run_until([&] { return bench.vbd == nullptr; }, milliseconds(1)));
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->outstanding(), 1U);
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

// --- connecting --------------------------------------------------------------------------------

class VbdConnectTest : public testing::Test {
 protected:
  std::string error_of(const RingParameters& ring) {
    auto opened = VbdQueue::open(bench_.reactor, *bench_.turn, *bench_.events, bench_.memory, ring,
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
  RingParameters ring = ring_parameters(*bench_.frontend);
  ring.ring_references.clear();
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 0 pages"));
}

TEST_F(VbdConnectTest, RejectsThreeRingPages) {
  RingParameters ring = ring_parameters(*bench_.frontend);
  ring.ring_references.push_back(ring.ring_references[0]);
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 3 pages"));
}

TEST_F(VbdConnectTest, RejectsThirtyTwoRingPages) {
  RingParameters ring = ring_parameters(*bench_.frontend);
  ring.ring_references.resize(32, ring.ring_references[0]);
  EXPECT_THAT(error_of(ring), HasSubstr("a ring of 32 pages"));
}

TEST_F(VbdConnectTest, RejectsUnknownRingReference) {
  RingParameters ring = ring_parameters(*bench_.frontend);
  ring.ring_references[1] = 0xfffffff;
  EXPECT_THAT(error_of(ring), HasSubstr("has not granted page 268435455"));
}

TEST_F(VbdConnectTest, RejectsARingGrantedReadOnly) {
  RingParameters ring = ring_parameters(*bench_.frontend);
  ring.ring_references = {bench_.frontend->spare_read_only_reference()};
  EXPECT_THAT(error_of(ring), HasSubstr("has not granted page"));
}

TEST_F(VbdConnectTest, RejectsUnknownEventChannel) {
  RingParameters ring = ring_parameters(*bench_.frontend);
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

// Linux: what had not been mapped was unmapped, and a failure that a guest can cause was taken for a bug.
TEST(VbdFaults, Xsa362EveryFailingCallLeavesEverythingClean) {
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
