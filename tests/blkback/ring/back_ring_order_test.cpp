// The order in which the backend stores one index of the shared ring and loads the other, which
// decides whether both sides can go to sleep while each waits for the other. A guest that acts at
// the worst moment, just before the store: the page is write-protected, so that the store stops
// there, and the signal's handler is the guest.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <csignal>

#include "blkback/ring/back_ring.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kPageBytes = 4096;

class RingOrderTest : public testing::Test {
 protected:
  void SetUp() override {
    page_ = static_cast<std::byte*>(
        mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(page_, MAP_FAILED);
    header().request_event = header().response_event = 1;
    struct sigaction action {};
    action.sa_handler = &RingOrderTest::on_store;
    ASSERT_EQ(sigaction(SIGSEGV, &action, &former_), 0);
  }
  void TearDown() override {
    sigaction(SIGSEGV, &former_, nullptr);
    munmap(page_, kPageBytes);
  }

  static SharedRingHeader& header() { return *reinterpret_cast<SharedRingHeader*>(page_); }
  // From now on the guest does this when the backend next stores something.
  static void at_the_next_store(void (*act)()) {
    act_ = act;
    mprotect(page_, kPageBytes, PROT_READ);
  }
  static void on_store(int) {
    mprotect(page_, kPageBytes, PROT_READ | PROT_WRITE);
    if (act_ == nullptr) {
      std::_Exit(99);  // not the store that was meant: without this it would come for ever
    }
    std::exchange(act_, nullptr)();
  }

  static inline std::byte* page_ = nullptr;
  static inline void (*act_)() = nullptr;
  struct sigaction former_ {};
};

// The guest sees that nobody wants a doorbell yet, and rings none.
TEST_F(RingOrderTest, ARequestThatComesJustBeforeTheDoorbellIsAskedForIsSeen) {
  BackRing<BlkifX86_64> ring({page_, kPageBytes});
  EXPECT_EQ(ring.poll(), 0U);
  at_the_next_store([] { header().request_producer = 1; });
  EXPECT_TRUE(ring.final_check());
  EXPECT_EQ(ring.poll(), 1U);
}

// The guest has seen no response yet, and goes to sleep until the doorbell rings.
TEST_F(RingOrderTest, AGuestThatGoesToSleepJustBeforeAResponseIsShownIsWoken) {
  BackRing<BlkifX86_64> ring({page_, kPageBytes});
  header().response_event = 10;  // it is awake, and wants no doorbell for long
  header().request_producer = 1;
  ASSERT_EQ(ring.poll(), 1U);
  const BlkifRequest request = ring.consume();
  ring.put_response(request.id, request.operation, kBlkifOkay);
  at_the_next_store([] { header().response_event = header().response_producer + 1; });
  EXPECT_TRUE(ring.publish());
}

}  // namespace
}  // namespace iscsi_blkback
