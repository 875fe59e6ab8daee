#include "initiator/session/completion_moderator.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kInFlight = 32;

// A target that brings so many answers a receive, without and with gathering.
struct Pace {
  std::uint32_t without = 1;
  std::uint32_t with = 1;
  Duration between_receives = 30us;
  Duration added_by_waiting{};
  std::size_t answer_bytes = 4144;
};

class CompletionModeratorTest : public testing::Test {
 protected:
  // How much of the receives wait, once the policy knows the target.
  double gathered_share(const Pace& pace) {
    constexpr int kReceives = 10000;
    int gathered = 0;
    for (int receive = -200; receive < kReceives; ++receive) {
      const bool gathers = policy.low_water_bytes(kInFlight) > 1;
      gathered += receive >= 0 && gathers ? 1 : 0;
      now += pace.between_receives + (gathers ? pace.added_by_waiting : Duration::zero());
      const std::uint32_t answers = gathers ? pace.with : pace.without;
      policy.received(answers * pace.answer_bytes, answers, kInFlight, now);
    }
    return static_cast<double>(gathered) / kReceives;
  }
  void start_gathering() {
    while (policy.low_water_bytes(kInFlight) == 1) {
      now += 30us;
      policy.received(4144, 1, kInFlight, now);
    }
  }

  CompletionModerator policy;
  TimePoint now{1h};
};

TEST_F(CompletionModeratorTest, GathersWhereAnswersComeOneByOne) {
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
}

TEST_F(CompletionModeratorTest, StaysGatheringHoweverMuchThatBrings) {
  EXPECT_GT(gathered_share({.without = 2, .with = 31}), 0.9);
}

TEST_F(CompletionModeratorTest, LeavesABatchingTargetAlone) {
  EXPECT_EQ(gathered_share({.without = 10, .with = 20}), 0);
}

TEST_F(CompletionModeratorTest, LeavesLargeAnswersAlone) {
  EXPECT_EQ(gathered_share({.without = 1, .with = 3, .answer_bytes = 65584}), 0);
}

TEST_F(CompletionModeratorTest, GivesUpWhereWaitingBringsNothing) {
  EXPECT_LT(gathered_share({.without = 1, .with = 1}), 0.15);
}

TEST_F(CompletionModeratorTest, GivesUpWhereWaitingCostsThroughput) {
  // Twice the answers in four times the time; each try is followed by a longer rest.
  EXPECT_LT(gathered_share({.without = 2, .with = 4, .added_by_waiting = 90us}), 0.02);
  // Twice the answers in twice the time cost nothing.
  EXPECT_GT(gathered_share({.without = 2, .with = 4, .added_by_waiting = 30us}), 0.4);
}

TEST_F(CompletionModeratorTest, NoticesThatTheTargetHasChanged) {
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
  EXPECT_EQ(gathered_share({.without = 12, .with = 16}), 0);
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
}

TEST_F(CompletionModeratorTest, NeverWaitsWithAShallowQueue) {
  for (int receive = 0; receive < 1000; ++receive) {
    EXPECT_EQ(policy.low_water_bytes(CompletionModerator::kDeepQueue - 1), 1U);
    now += 30us;
    policy.received(4144, 1, CompletionModerator::kDeepQueue - 1, now);
  }
  EXPECT_EQ(policy.low_water_bytes(kInFlight), 1U);  // it knows nothing of such a queue yet
  gathered_share({.without = 1, .with = 20});
  EXPECT_EQ(policy.low_water_bytes(CompletionModerator::kDeepQueue - 1), 1U);
}

TEST_F(CompletionModeratorTest, WaitsForTheAnswersToALargePartOfTheQueue) {
  start_gathering();
  EXPECT_EQ(policy.low_water_bytes(32), 20U * 4144);
  EXPECT_EQ(policy.low_water_bytes(63), 20U * 4144);  // in steps
  EXPECT_EQ(policy.low_water_bytes(64), 40U * 4144);
  EXPECT_EQ(policy.low_water_bytes(8), 5U * 4144);
}

TEST_F(CompletionModeratorTest, RestsAfterAWaitInVain) {
  start_gathering();
  policy.waited_in_vain();
  EXPECT_EQ(policy.low_water_bytes(kInFlight), 1U);
  EXPECT_GT(gathered_share({.without = 1, .with = 20}), 0.5);  // and tries again
}

}  // namespace
}  // namespace iscsi_blkback
