#include "blkback/ring/back_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

extern "C" {
#include <xen/grant_table.h>
#include <xen/io/blkif.h>
}

namespace iscsi_blkback {
namespace {

// Our own layouts against Xen's header, where that can express them: native on a 64-bit host.
static_assert(sizeof(blkif_request_t) == sizeof(BlkifX86_64::Request));
static_assert(sizeof(blkif_response_t) == sizeof(BlkifX86_64::Response));
static_assert(offsetof(blkif_request_t, id) == offsetof(BlkifX86_64::Request, id));
static_assert(offsetof(blkif_request_t, sector_number) == offsetof(BlkifX86_64::Request, sector));
static_assert(offsetof(blkif_request_t, seg) == offsetof(BlkifX86_64::Request, segments));
static_assert(offsetof(blkif_response_t, status) == offsetof(BlkifX86_64::Response, status));
static_assert(offsetof(blkif_sring, ring) == sizeof(SharedRingHeader));
static_assert(offsetof(blkif_sring, req_prod) == offsetof(SharedRingHeader, request_producer));
static_assert(offsetof(blkif_sring, req_event) == offsetof(SharedRingHeader, request_event));
static_assert(offsetof(blkif_sring, rsp_prod) == offsetof(SharedRingHeader, response_producer));
static_assert(offsetof(blkif_sring, rsp_event) == offsetof(SharedRingHeader, response_event));
static_assert(BLKIF_OP_READ == kBlkifRead && BLKIF_OP_WRITE == kBlkifWrite &&
              BLKIF_OP_FLUSH_DISKCACHE == kBlkifFlush && BLKIF_OP_DISCARD == kBlkifDiscard &&
              BLKIF_OP_INDIRECT == kBlkifIndirect && BLKIF_OP_WRITE_BARRIER == kBlkifWriteBarrier);
static_assert(BLKIF_RSP_OKAY == kBlkifOkay && BLKIF_RSP_ERROR == kBlkifError &&
              BLKIF_RSP_EOPNOTSUPP == kBlkifNotSupported);
static_assert(BLKIF_MAX_SEGMENTS_PER_REQUEST == kMaxDirectSegments);
static_assert(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST == kMaxIndirectPages);
using Indirect = BlkifX86_64::IndirectRequest;
static_assert(sizeof(blkif_request_indirect_t) == sizeof(Indirect));
static_assert(offsetof(blkif_request_indirect_t, indirect_op) ==
              offsetof(Indirect, indirect_operation));
static_assert(offsetof(blkif_request_indirect_t, nr_segments) == offsetof(Indirect, segment_count));
static_assert(offsetof(blkif_request_indirect_t, id) == offsetof(Indirect, id));
static_assert(offsetof(blkif_request_indirect_t, sector_number) == offsetof(Indirect, sector));
static_assert(offsetof(blkif_request_indirect_t, handle) == offsetof(Indirect, handle));
static_assert(offsetof(blkif_request_indirect_t, indirect_grefs) == offsetof(Indirect, references));

template <class Abi>
class BackRingTest : public testing::Test {
 protected:
  // A page, 64-byte aligned as a page would be.
  struct alignas(4096) Page {
    std::array<std::byte, 4096> bytes{};
  };

  SharedRingHeader& header() { return *reinterpret_cast<SharedRingHeader*>(page_.bytes.data()); }
  std::byte* slot(std::uint32_t index) {
    return page_.bytes.data() + sizeof(SharedRingHeader) + (index % 32) * kSlotBytes<Abi>;
  }
  void put_request(std::uint32_t index, std::uint64_t id) {
    typename Abi::Request request{};
    request.operation = kBlkifWrite;
    request.segment_count = 2;
    request.id = id;
    request.sector = id * 10;
    request.segments[1].reference = 55;
    store_once(slot(index), request);
  }
  typename Abi::Response response(std::uint32_t index) {
    return copy_once<typename Abi::Response>(slot(index));
  }
  void start_at(std::uint32_t index) {
    header().request_producer = header().response_producer = index;
    header().request_event = header().response_event = index + 1;
  }

  Page page_;
};

using Abis = testing::Types<BlkifX86_64, BlkifX86_32>;
TYPED_TEST_SUITE(BackRingTest, Abis);

TYPED_TEST(BackRingTest, ConsumesAndAnswers) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  EXPECT_EQ(ring.poll(), 0U);
  this->put_request(0, 0x1234567890abcdefULL);
  this->header().request_producer = 1;
  ASSERT_EQ(ring.poll(), 1U);
  const BlkifRequest request = ring.consume();
  EXPECT_EQ(request.operation, kBlkifWrite);
  EXPECT_EQ(request.segment_count, 2);
  EXPECT_EQ(request.id, 0x1234567890abcdefULL);
  EXPECT_EQ(request.sector, 0x1234567890abcdefULL * 10);
  EXPECT_EQ(request.segments[1].reference, 55U);
  EXPECT_EQ(ring.poll(), 0U);

  std::memset(this->slot(0), 0xff, kSlotBytes<TypeParam>);
  ring.put_response(request.id, request.operation, kBlkifError);
  EXPECT_EQ(this->header().response_producer, 0U) << "seen before publish()";
  EXPECT_TRUE(ring.publish());
  EXPECT_EQ(this->header().response_producer, 1U);
  const auto response = this->response(0);
  EXPECT_EQ(response.id, request.id);
  EXPECT_EQ(response.operation, kBlkifWrite);
  EXPECT_EQ(response.status, kBlkifError);
}

TYPED_TEST(BackRingTest, Xsa216AResponseCarriesNothingElseOfOurs) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  this->put_request(0, 7);
  this->header().request_producer = 1;
  ASSERT_EQ(ring.poll(), 1U);
  (void)ring.consume();
  std::memset(this->slot(0), 0xff, kSlotBytes<TypeParam>);
  ring.put_response(7, kBlkifWrite, kBlkifError);
  typename TypeParam::Response expected;
  std::memset(&expected, 0, sizeof(expected));
  expected.id = 7;
  expected.operation = kBlkifWrite;
  expected.status = kBlkifError;
  EXPECT_EQ(std::memcmp(this->slot(0), &expected, sizeof(expected)), 0);
}

TYPED_TEST(BackRingTest, ConsumesAnIndirectRequest) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  constexpr std::uint64_t kId = 0x1234567890abcdefULL;
  constexpr std::uint64_t kSector = 0xfedcba0987654321ULL;
  constexpr std::array<std::uint32_t, kMaxIndirectPages> kPages = {11, 12, 13, 14, 15, 16, 17, 18};
  typename TypeParam::IndirectRequest written{};
  written.operation = kBlkifIndirect;
  written.indirect_operation = kBlkifWrite;
  written.segment_count = 300;
  written.id = kId;
  written.sector = kSector;
  written.handle = 51712;
  written.references = kPages;
  store_once(this->slot(0), written);
  this->header().request_producer = 1;
  ASSERT_EQ(ring.poll(), 1U);
  const BlkifRequest request = ring.consume();
  EXPECT_EQ(request.operation, kBlkifIndirect);
  EXPECT_EQ(request.indirect_operation, kBlkifWrite);
  EXPECT_EQ(request.segment_count, 300);
  EXPECT_EQ(request.id, kId);
  EXPECT_EQ(request.sector, kSector);
  EXPECT_EQ(request.handle, 51712);
  EXPECT_EQ(request.indirect_references, kPages);
}

TYPED_TEST(BackRingTest, RejectsProducerOverflow) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  this->header().request_producer = 33;
  EXPECT_EQ(ring.poll(), 0U);
  EXPECT_TRUE(ring.broken());
  this->header().request_producer = 1;
  EXPECT_EQ(ring.poll(), 0U) << "a broken ring stays broken";
  EXPECT_FALSE(ring.final_check());
}

TYPED_TEST(BackRingTest, RejectsProducerThatGoesBack) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  this->header().request_producer = 3;
  ASSERT_EQ(ring.poll(), 3U);
  for (int i = 0; i < 3; ++i) {
    (void)ring.consume();
  }
  this->header().request_producer = 2;
  EXPECT_EQ(ring.poll(), 0U);
  EXPECT_TRUE(ring.broken());
}

TYPED_TEST(BackRingTest, RejectsMoreThanTheUnansweredLeaveRoomFor) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  this->header().request_producer = 32;
  ASSERT_EQ(ring.poll(), 32U);
  for (int i = 0; i < 32; ++i) {
    (void)ring.consume();
  }
  ring.put_response(0, 0, 0);
  this->header().request_producer = 33;
  EXPECT_EQ(ring.poll(), 1U);
  this->header().request_producer = 34;
  EXPECT_EQ(ring.poll(), 0U);
  EXPECT_TRUE(ring.broken());
}

// Every place in the ring at which the indices can wrap.
TYPED_TEST(BackRingTest, IndicesWrapAt32Bits) {
  for (std::uint32_t before = 0; before <= 40; ++before) {
    const std::uint32_t start = 0U - before;
    this->start_at(start);
    BackRing<TypeParam> ring(this->page_.bytes, start);
    for (std::uint32_t i = 0; i < 32; ++i) {
      this->put_request(start + i, i);
    }
    this->header().request_producer = start + 32;
    ASSERT_EQ(ring.poll(), 32U) << before;
    for (std::uint32_t i = 0; i < 32; ++i) {
      ASSERT_EQ(ring.consume().id, i);
    }
    EXPECT_FALSE(ring.final_check());
    EXPECT_EQ(this->header().request_event, start + 33);
    for (std::uint32_t i = 0; i < 32; ++i) {
      ring.put_response(31 - i, kBlkifWrite, 0);
    }
    EXPECT_TRUE(ring.publish());
    for (std::uint32_t i = 0; i < 32; ++i) {
      ASSERT_EQ(this->response(start + i).id, 31 - i);
    }
    EXPECT_EQ(this->header().response_producer, start + 32);
    this->header().request_producer = start + 65;
    EXPECT_EQ(ring.poll(), 0U);
    EXPECT_TRUE(ring.broken()) << before;
  }
}

TYPED_TEST(BackRingTest, Xsa391NotifiesOnlyWhenTheGuestAskedForIt) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  this->header().request_producer = 8;
  ASSERT_EQ(ring.poll(), 8U);
  for (int i = 0; i < 8; ++i) {
    (void)ring.consume();
  }
  this->header().response_event = 3;
  ring.put_response(0, 0, 0);
  ring.put_response(1, 0, 0);
  EXPECT_FALSE(ring.publish()) << "up to 2, asked for 3";
  ring.put_response(2, 0, 0);
  EXPECT_TRUE(ring.publish());
  ring.put_response(3, 0, 0);
  EXPECT_FALSE(ring.publish()) << "3 has been passed already";
  this->header().response_event = 6;
  for (int i = 0; i < 4; ++i) {
    ring.put_response(4, 0, 0);
  }
  EXPECT_TRUE(ring.publish()) << "8 passes 6";
  EXPECT_FALSE(ring.publish()) << "nothing new";
}

TYPED_TEST(BackRingTest, FinalCheckSeesWhatCameWithoutADoorbell) {
  this->start_at(0);
  BackRing<TypeParam> ring(this->page_.bytes);
  EXPECT_FALSE(ring.final_check());
  EXPECT_EQ(this->header().request_event, 1U);
  this->header().request_producer = 1;
  EXPECT_TRUE(ring.final_check());
}

// Guest and backend on two threads, each sleeping until its doorbell rings: a lost wake-up hangs, a
// bad memory order shows as wrong data or (under ThreadSanitizer) as a race.
TYPED_TEST(BackRingTest, TwoThreadsLoseNoWakeUp) {
  constexpr std::uint64_t kRequests = 20000;
  this->start_at(0xfffffff0U);
  std::atomic<bool> backend_bell{false};
  std::atomic<bool> guest_bell{false};
  const auto wait = [](std::atomic<bool>& bell) {
    bell.wait(false);
    bell.store(false);
  };
  const auto ring_bell = [](std::atomic<bool>& bell) {
    bell.store(true);
    bell.notify_one();
  };

  std::thread backend([&] {
    BackRing<TypeParam> ring(this->page_.bytes, 0xfffffff0U);
    for (std::uint64_t done = 0; done < kRequests;) {
      const std::uint32_t waiting = ring.poll();
      ASSERT_FALSE(ring.broken());
      if (waiting == 0) {
        if (!ring.final_check()) {
          wait(backend_bell);
        }
        continue;
      }
      for (std::uint32_t i = 0; i < waiting; ++i, ++done) {
        const BlkifRequest request = ring.consume();
        ASSERT_EQ(request.id, done);
        ASSERT_EQ(request.sector, done * 10);
        ring.put_response(request.id, request.operation, 0);
      }
      if (ring.publish()) {
        ring_bell(guest_bell);
      }
    }
  });

  std::atomic_ref producer(this->header().request_producer);
  std::atomic_ref request_event(this->header().request_event);
  std::atomic_ref response_producer(this->header().response_producer);
  std::atomic_ref response_event(this->header().response_event);
  std::uint32_t produced = 0xfffffff0U;
  std::uint32_t consumed = produced;
  std::uint64_t sent = 0;
  for (std::uint64_t received = 0; received < kRequests;) {
    const std::uint32_t previous = produced;
    // Batches of changing size.
    for (std::uint64_t batch = sent % 7 + 1;
         batch > 0 && sent < kRequests && produced - consumed < 32; --batch) {
      this->put_request(produced, sent);
      ++produced;
      ++sent;
    }
    producer.store(produced);
    if (produced - request_event.load() < produced - previous) {
      ring_bell(backend_bell);
    }
    if (produced - consumed < 32 && sent < kRequests) {
      continue;
    }
    while (response_producer.load(std::memory_order_acquire) == consumed) {
      response_event.store(consumed + 1);
      if (response_producer.load() != consumed) {
        break;
      }
      wait(guest_bell);
    }
    const std::uint32_t available = response_producer.load(std::memory_order_acquire);
    for (; consumed != available; ++consumed, ++received) {
      ASSERT_EQ(this->response(consumed).id, received);
    }
  }
  backend.join();
}

}  // namespace
}  // namespace iscsi_blkback
