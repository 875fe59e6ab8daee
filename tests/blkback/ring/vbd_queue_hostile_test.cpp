// A guest that breaks the rules of its ring: indices, ids and bits as it likes, memory and grants
// that change while they are looked at. Nothing is read twice, nothing stays held.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <random>
#include <thread>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

TEST(VbdEvil, Xsa39ProducerOverflowBreaksTheRingAndNothingElse) {
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
  auto opened = VbdQueue::open(bench.reactor, *bench.turn, *bench.events, bench.memory, ring,
                               VbdOptions{.name = "xvdb of guest 1"}, bench);
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

TEST(VbdEvil, Xsa155WhatChangesAfterTheCopyIsNotSeen) {
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

TEST(VbdEvil, Xsa332DoorbellsWithoutRequestsAreHarmless) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  for (int i = 0; i < 100; ++i) {
    bench.frontend->ring_doorbell();
    bench.reactor.run_until_idle();
  }
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

TEST(VbdEvil, Xsa332AFloodOfDoorbellsIsHeardOncePerTurn) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  const auto unmasks = bench.xen.events().counters(0).unmasks;
  bench.frontend->ring_doorbell();
  for (int i = 0; i < 1000; ++i) {
    bench.frontend->ring_doorbell();  // the port is masked until the work is done
  }
  bench.reactor.run_until_idle();
  EXPECT_LE(bench.xen.events().counters(0).unmasks, unmasks + 3);
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
}

TEST(VbdEvil, DoorbellsForNothingAreHeardOnceInARest) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  const auto unmasks = [&] { return bench.xen.events().counters(0).unmasks; };
  const auto before = unmasks();
  for (int i = 0; i < 1000; ++i) {
    bench.frontend->ring_doorbell();
    bench.reactor.run_for(Duration(Doorbell::kRest) / 10);
  }
  EXPECT_LE(unmasks() - before, Doorbell::kMostForNothing + 120);
  EXPECT_GE(unmasks() - before, Doorbell::kMostForNothing + 80);
  // What it then has to say is heard at once again, from the second time on.
  EXPECT_EQ(bench.answer(bench.frontend->read(0, 8)).status, kBlkifOkay);
  const auto heard = unmasks();
  bench.frontend->ring_doorbell();
  bench.reactor.run_until_idle();
  EXPECT_EQ(unmasks(), heard + 1);
}

// Its requests are taken as late as its doorbell is heard, and not later.
TEST(VbdEvil, ARequestBehindDoorbellsForNothingWaitsForOneRest) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  for (std::uint32_t i = 0; i < 2 * Doorbell::kMostForNothing; ++i) {
    bench.frontend->ring_doorbell();
    bench.reactor.run_until_idle();
  }
  bench.frontend->ring_doorbell();
  bench.reactor.run_for(Duration(1));
  const auto id = bench.frontend->read(0, 8);
  bench.frontend->push();
  bench.reactor.run_for(Doorbell::kRest);
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->take_completion(*id)->status, kBlkifOkay);
}

// A guest that mixes up its own requests is its own loss: each is answered, with the id that it had.
TEST(VbdEvil, RequestsWithTheSameIdAreAnsweredOnceEach) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  const auto first = bench.frontend->read(0, 8);
  const auto second = bench.frontend->read(8, 8);
  const auto bytes = std::bit_cast<std::array<std::byte, 8>>(*first);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bench.frontend->scribble(kSlotBytes<BlkifX86_64> + offsetof(BlkifX86_64::Request, id) + i,
                             bytes[i]);
  }
  bench.frontend->push();
  bench.reactor.run_until_idle();
  EXPECT_EQ(bench.frontend->take_completion(*first)->status, kBlkifOkay);
  EXPECT_FALSE(bench.frontend->take_completion(*second).has_value());
  EXPECT_EQ(bench.vbd->statistics().reads, 2U);
  EXPECT_EQ(bench.vbd->in_flight(), 0U);
  const auto* header =
      reinterpret_cast<const SharedRingHeader*>(bench.frontend->ring_pages().data());
  EXPECT_EQ(header->response_producer, 2U);
  EXPECT_TRUE(bench.broken.empty());
}

// As Linux has it: what blkif.h does not define is not looked at.
TEST(VbdEvil, ReservedBitsChangeNothing) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  BlkifRequest request = raw_read(0, bench.frontend->spare_reference());
  request.handle = 0xffff;
  request.segments[0].padding = 0xffff;
  request.segments[1] = BlkifSegment{0xffffffffU, 0xff, 0xff, 0xffff};  // beyond the count
  EXPECT_EQ(bench.answer(bench.frontend->raw(request)).status, kBlkifOkay);
}

// Pages of one request that overlap: the last sector written there counts.
TEST(VbdEvil, SegmentsThatOverlapAreReadOneAfterTheOther) {
  Bench bench;
  ASSERT_TRUE(bench.connect());
  ASSERT_EQ(bench.answer(bench.frontend->write(0, pattern(24 * kSectorBytes, 7))).status,
            kBlkifOkay);
  BlkifRequest request = raw_read(0, bench.frontend->spare_reference());
  request.segment_count = 3;
  request.segments[0] = BlkifSegment{bench.frontend->spare_reference(), 0, 7, 0};
  request.segments[1] = BlkifSegment{bench.frontend->spare_reference(), 4, 7, 0};
  request.segments[2] = BlkifSegment{bench.frontend->spare_reference(), 6, 6, 0};
  EXPECT_EQ(bench.answer(bench.frontend->raw(request)).status, kBlkifOkay);
  const std::vector<std::byte> disk = pattern(24 * kSectorBytes, 7);
  const auto sector_of = [](std::span<const std::byte> bytes, std::size_t sector) {
    const auto at = bytes.subspan(sector * kSectorBytes, kSectorBytes);
    return std::vector<std::byte>(at.begin(), at.end());
  };
  const std::span<const std::byte> page = bench.frontend->spare_page();
  EXPECT_EQ(sector_of(page, 3), sector_of(disk, 3));
  EXPECT_EQ(sector_of(page, 5), sector_of(disk, 9));
  EXPECT_EQ(sector_of(page, 6), sector_of(disk, 12));
}

// QEMU: each request whose pages could not be mapped kept what it held, until there was nothing left.
TEST(VbdEvil, Xsa71RequestsThatFailHoldNothing) {
  FakeFrontend::Options frontend_options;
  frontend_options.indirect_segments = 32;
  Bench bench(frontend_options);
  VbdOptions options;
  options.max_indirect_segments = 32;
  ASSERT_TRUE(bench.connect(options));
  const std::uint32_t slots = bench.frontend->slot_count();
  const auto indirect = [&](GrantReference descriptors) {
    BlkifRequest request;
    request.operation = kBlkifIndirect;
    request.indirect_operation = kBlkifWrite;
    request.segment_count = 32;
    request.indirect_references[0] = descriptors;
    return request;
  };
  BlkifRequest unknown_page = raw_read(0, 0xffffffffU);
  BlkifRequest unknown_page_written = unknown_page;
  unknown_page_written.operation = kBlkifWrite;
  BlkifRequest beyond = raw_read(kDiskSectors, bench.frontend->spare_reference());
  std::fill(bench.frontend->spare_page().begin(), bench.frontend->spare_page().end(),
            std::byte{0xff});
  for (const BlkifRequest& bad : {unknown_page, unknown_page_written, beyond, indirect(0xffffffffU),
                                  indirect(bench.frontend->spare_reference())}) {
    for (std::uint32_t i = 0; i < 3 * slots; ++i) {
      if (i % 7 == 0) {
        bench.xen.faults().fail_calls("grant copy", 1);
      }
      EXPECT_EQ(bench.answer(bench.frontend->raw(bad)).status, kBlkifError);
      bench.xen.faults().disarm();
    }
    EXPECT_EQ(bench.vbd->in_flight(), 0U);
  }
  // All that the ring ever had is there: as many large requests at once as it has slots for.
  std::vector<FakeFrontend::RequestId> ids;
  while (const auto id = bench.frontend->read(0, 256)) {
    ids.push_back(*id);
  }
  EXPECT_EQ(ids.size(), slots);
  bench.frontend->push();
  bench.reactor.run_until_idle();
  for (const FakeFrontend::RequestId id : ids) {
    EXPECT_EQ(bench.frontend->take_completion(id)->status, kBlkifOkay);
  }
}

// A page of descriptors that is another one at each look: what was checked is what is used.
TEST(VbdEvil, Xsa155DescriptorsAndDataThatChangeBetweenTwoCopies) {
  FakeFrontend::Options frontend_options;
  frontend_options.indirect_segments = 32;
  Bench bench(frontend_options);
  VbdOptions options;
  options.max_indirect_segments = 32;
  ASSERT_TRUE(bench.connect(options));
  const std::vector<std::byte> before = bench.memory.contents();
  const auto id = bench.frontend->write(64, pattern(256 * kSectorBytes, 5));
  // At the second copy, of the data, the descriptors say something else.
  int copies = 0;
  bench.xen.grants().before_copied_segment([&] {
    if (++copies == 2) {
      const auto page = bench.frontend->descriptor_page(*id);
      std::fill(page.begin(), page.end(), std::byte{0xff});
    }
  });
  EXPECT_EQ(bench.answer(id).status, kBlkifOkay);
  bench.xen.grants().before_copied_segment(nullptr);
  EXPECT_EQ(copies, 33);
  std::vector<std::byte> expected = before;
  const std::vector<std::byte> data = pattern(256 * kSectorBytes, 5);
  std::copy(data.begin(), data.end(), expected.begin() + 64 * kSectorBytes);
  EXPECT_EQ(bench.memory.contents(), expected) << "what was written, and nothing else";
}

// Another processor of the guest writes into the ring, header and slots, while the backend looks at
// it. For ThreadSanitizer, too.
TEST(VbdEvil, AThreadWritesIntoTheRingAllTheTime) {
  constexpr std::size_t kResponseProducer = offsetof(SharedRingHeader, response_producer) / 4;
  std::uint64_t refused = 0;
  for (std::uint32_t seed = 1; seed <= 2; ++seed) {
    Bench bench({}, seed);
    ASSERT_TRUE(bench.connect());
    std::atomic<bool> enough = false;
    std::atomic<std::uint64_t> written = 0;
    std::thread other_processor([&] {
      const std::span<std::byte> ring = bench.frontend->ring_pages();
      auto* words = reinterpret_cast<std::uint32_t*>(ring.data());
      std::minstd_rand random(seed);
      while (!enough.load(std::memory_order_relaxed)) {
        const std::size_t at = random() % (ring.size() / sizeof(std::uint32_t));
        if (at == kResponseProducer) {
          // Of the producer's values one that a guest may have there: a broken ring is soon over.
          const auto answered = std::atomic_ref(words[at]).load(std::memory_order_relaxed);
          const auto more = static_cast<std::uint32_t>(random() % bench.frontend->slot_count());
          std::atomic_ref(words[0]).store(answered + more, std::memory_order_relaxed);
        } else if (at != 0) {
          std::atomic_ref(words[at]).store(static_cast<std::uint32_t>(random()),
                                           std::memory_order_relaxed);
        }
        written.fetch_add(1, std::memory_order_relaxed);
      }
    });
    for (int turn = 0; turn < 50; ++turn) {
      const std::uint64_t more = written + 2000;
      while (written < more) {
        std::this_thread::yield();
      }
      bench.frontend->ring_doorbell();
      bench.reactor.run_for(std::chrono::microseconds(20));
    }
    enough = true;
    other_processor.join();
    bench.reactor.run_until_idle();
    EXPECT_EQ(bench.vbd->in_flight(), 0U);
    EXPECT_LE(bench.broken.size(), 1U);
    refused += bench.vbd->statistics().refused;
    (void)bench.xen.faults().take_violations();  // responses to what was never asked
  }
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace iscsi_blkback
