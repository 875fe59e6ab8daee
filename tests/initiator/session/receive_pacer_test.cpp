// ReceivePacer: when a receive waits for more than one byte, and for how long.
#include "initiator/session/receive_pacer.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class ReceivePacerTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kInFlight = 32;

  // One answer a receive, until it lets answers gather.
  [[nodiscard]] bool gathers() {
    for (int receive = 0; receive < 10000; ++receive) {
      pacer.received(4144, 1, kInFlight, now += 30us);
      EXPECT_TRUE(pacer.take_due());
      if (pacer.low_water_bytes(kInFlight, false, reactor.now()) != 1) {
        return true;
      }
    }
    return false;
  }

  SimReactor reactor{1};
  TimePoint now = reactor.now();
  int in_vain = 0;
  ReceivePacer pacer{
      reactor, [](void* self) noexcept { ++static_cast<ReceivePacerTest*>(self)->in_vain; }, this};
};

TEST_F(ReceivePacerTest, AReceiveIsDueOnceAfterAnotherOne) {
  EXPECT_FALSE(pacer.take_due());
  pacer.received(100, 1, kInFlight, now);
  EXPECT_TRUE(pacer.take_due());
  EXPECT_FALSE(pacer.take_due());
}

TEST_F(ReceivePacerTest, AWaitThatIsInVainEnds) {
  ASSERT_TRUE(gathers());
  reactor.run_for(1999us);
  EXPECT_EQ(in_vain, 0);
  reactor.run_for(2us);
  EXPECT_EQ(in_vain, 1);
}

TEST_F(ReceivePacerTest, OneThatIsNotDoesNot) {
  ASSERT_TRUE(gathers());
  pacer.stop_waiting();
  reactor.run_for(1s);
  EXPECT_EQ(in_vain, 0);
}

TEST_F(ReceivePacerTest, BehindAPartOfAnAnswerNothingIsWaitedFor) {
  ASSERT_TRUE(gathers());
  EXPECT_EQ(pacer.low_water_bytes(kInFlight, true, reactor.now()), 1U);
  pacer.received(512, 0, kInFlight, now);
  EXPECT_EQ(pacer.low_water_bytes(kInFlight, false, reactor.now()), 1U);
}

TEST_F(ReceivePacerTest, OfAnotherConnectionNothingIsDue) {
  ASSERT_TRUE(gathers());
  pacer.received(100, 1, kInFlight, now);
  pacer.forget_connection();
  EXPECT_FALSE(pacer.take_due());
  reactor.run_for(1s);
  EXPECT_EQ(in_vain, 0);
}

TEST_F(ReceivePacerTest, APartGrowsWithTheCommandsInFlight) {
  EXPECT_EQ(ReceivePacer::part_bytes(0), 40960U);
  EXPECT_EQ(ReceivePacer::part_bytes(64), 40960U + 32768U);
}

}  // namespace
}  // namespace iscsi_blkback
