#include "initiator/gather_policy.h"

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

class GatherPolicyTest : public testing::Test {
 protected:
  // How much of the receives wait, once the policy knows the target.
  double gathered_share(const Pace& pace) {
    constexpr int kReceives = 10000;
    int gathered = 0;
    for (int receive = -200; receive < kReceives; ++receive) {
      const bool gathers = policy.moment(kInFlight) > Duration::zero();
      gathered += receive >= 0 && gathers ? 1 : 0;
      now += pace.between_receives + (gathers ? pace.added_by_waiting : Duration::zero());
      const std::uint32_t answers = gathers ? pace.with : pace.without;
      policy.received(answers * pace.answer_bytes, answers, kInFlight, now);
    }
    return static_cast<double>(gathered) / kReceives;
  }
  // The moment that the policy settles on.
  Duration settled_moment(const Pace& pace) {
    gathered_share(pace);
    Duration moment{};
    for (int receive = 0; receive < 100 && moment == Duration::zero(); ++receive) {
      now += pace.between_receives;
      policy.received(pace.with * pace.answer_bytes, pace.with, kInFlight, now);
      moment = policy.moment(kInFlight);
    }
    return moment;
  }

  GatherPolicy policy;
  TimePoint now{1h};
};

TEST_F(GatherPolicyTest, GathersWhereAnswersComeOneByOne) {
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
}

TEST_F(GatherPolicyTest, StaysGatheringHoweverMuchThatBrings) {
  EXPECT_GT(gathered_share({.without = 2, .with = 31}), 0.9);
}

TEST_F(GatherPolicyTest, LeavesABatchingTargetAlone) {
  EXPECT_EQ(gathered_share({.without = 10, .with = 20}), 0);
}

TEST_F(GatherPolicyTest, LeavesLargeAnswersAlone) {
  EXPECT_EQ(gathered_share({.without = 1, .with = 3, .answer_bytes = 65584}), 0);
}

TEST_F(GatherPolicyTest, GivesUpWhereWaitingBringsNothing) {
  EXPECT_LT(gathered_share({.without = 1, .with = 1}), 0.15);
}

TEST_F(GatherPolicyTest, GivesUpWhereWaitingCostsThroughput) {
  // Twice the answers in four times the time; each try is followed by a longer rest.
  EXPECT_LT(gathered_share({.without = 2, .with = 4, .added_by_waiting = 90us}), 0.02);
  // Twice the answers in twice the time cost nothing.
  EXPECT_GT(gathered_share({.without = 2, .with = 4, .added_by_waiting = 30us}), 0.4);
}

TEST_F(GatherPolicyTest, NoticesThatTheTargetHasChanged) {
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
  EXPECT_EQ(gathered_share({.without = 12, .with = 16}), 0);
  EXPECT_GT(gathered_share({.without = 1, .with = 6}), 0.9);
}

TEST_F(GatherPolicyTest, NeverWaitsWithAShallowQueue) {
  for (int receive = 0; receive < 1000; ++receive) {
    EXPECT_EQ(policy.moment(GatherPolicy::kDeepQueue - 1), Duration::zero());
    now += 30us;
    policy.received(4144, 1, GatherPolicy::kDeepQueue - 1, now);
  }
  EXPECT_EQ(policy.moment(kInFlight), Duration::zero());  // it knows nothing of such a queue yet
}

TEST_F(GatherPolicyTest, WaitsAQuarterOfWhatACommandTakesWithinItsBounds) {
  // Three answers in 15 us, 32 commands: 160 us each.
  const Duration moment = settled_moment({.without = 3, .with = 3, .between_receives = 15us});
  EXPECT_GT(moment, 38us);
  EXPECT_LT(moment, 42us);
  EXPECT_EQ(settled_moment({.without = 3, .with = 3, .between_receives = 5us}),
            GatherPolicy::kShortest);
  EXPECT_EQ(settled_moment({.without = 3, .with = 3, .between_receives = 5ms}),
            GatherPolicy::kLongest);
}

}  // namespace
}  // namespace iscsi_blkback
