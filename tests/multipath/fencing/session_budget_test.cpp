// Who may have a session when there are many: fences before everything else, and each in its turn.
#include "multipath/fencing/session_budget.h"

#include <gtest/gtest.h>

#include <deque>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kOthers = SessionBudget::kMaxSessions - SessionBudget::kFenceReserve;

class SessionBudgetTest : public testing::Test {
 protected:
  // One that wants to fence.
  struct Fence {
    explicit Fence(SessionBudget& budget)
        : turn(
              budget, [](void* self) noexcept { static_cast<Fence*>(self)->on_turn(); }, this) {}
    void on_turn() noexcept {
      has_it = !needs_it_no_more;
      if (needs_it_no_more) {
        turn.give_back();
      }
    }
    FenceTurn turn;
    bool has_it = false;
    bool needs_it_no_more = false;
  };

  // Of as many as there are, all have their turn at once.
  void take_turns(std::size_t fences) {
    while (fences-- != 0) {
      ASSERT_TRUE(fences_.emplace_back(budget_).turn.take());
    }
  }

  SessionBudget budget_;
  std::deque<Fence> fences_;
};

TEST_F(SessionBudgetTest, WhatDoesNotFenceLeavesTheReserve) {
  EXPECT_TRUE(budget_.take(kOthers));
  EXPECT_FALSE(budget_.take(1));
  take_turns(SessionBudget::kFenceReserve);
  EXPECT_EQ(budget_.taken(), SessionBudget::kMaxSessions);
  budget_.give_back(kOthers);
  EXPECT_TRUE(budget_.take(kOthers));
  budget_.give_back(kOthers);
}

TEST_F(SessionBudgetTest, AllOrNone) {
  EXPECT_TRUE(budget_.take(kOthers - 1));
  EXPECT_FALSE(budget_.take(2));
  EXPECT_TRUE(budget_.take(1));
  budget_.give_back(kOthers);
}

TEST_F(SessionBudgetTest, FencesMayHaveAllThatIsFree) {
  EXPECT_TRUE(budget_.take(10));
  take_turns(SessionBudget::kMaxSessions - 10);
  EXPECT_FALSE(Fence(budget_).turn.take());
  EXPECT_FALSE(budget_.take(1));
  budget_.give_back(10);
}

TEST_F(SessionBudgetTest, TheLineIsServedInItsOrder) {
  take_turns(SessionBudget::kMaxSessions);
  Fence first(budget_);
  Fence second(budget_);
  EXPECT_FALSE(first.turn.take());
  EXPECT_FALSE(second.turn.take());
  EXPECT_FALSE(first.turn.take()) << "it stands there already";
  fences_.pop_back();
  EXPECT_TRUE(first.has_it);
  EXPECT_FALSE(second.has_it);
  first.turn.give_back();
  EXPECT_TRUE(second.has_it);
  EXPECT_FALSE(first.turn.take()) << "it begins at the end again";
}

TEST_F(SessionBudgetTest, AFenceInTheLineComesBeforeAPath) {
  EXPECT_TRUE(budget_.take(kOthers));
  take_turns(SessionBudget::kFenceReserve);
  Fence waits(budget_);
  Fence behind_it(budget_);
  EXPECT_FALSE(waits.turn.take());
  EXPECT_FALSE(behind_it.turn.take());
  budget_.give_back(1);
  EXPECT_TRUE(waits.has_it);
  EXPECT_FALSE(budget_.take(1));
  budget_.give_back(kOthers - 1);
  EXPECT_TRUE(behind_it.has_it);
  EXPECT_TRUE(budget_.take(1));
  budget_.give_back(1);
}

TEST_F(SessionBudgetTest, WhoHasLeftTheLineIsNotServed) {
  take_turns(SessionBudget::kMaxSessions);
  Fence leaves(budget_);
  Fence stays(budget_);
  {
    Fence goes(budget_);
    EXPECT_FALSE(goes.turn.take());
    EXPECT_FALSE(leaves.turn.take());
    EXPECT_FALSE(stays.turn.take());
  }
  leaves.turn.give_back();
  fences_.pop_back();
  EXPECT_FALSE(leaves.has_it);
  EXPECT_TRUE(stays.has_it);
}

TEST_F(SessionBudgetTest, ATurnThatIsNotNeededIsTheNextOnes) {
  take_turns(SessionBudget::kMaxSessions);
  std::deque<Fence> line;
  for (int each = 0; each < 3; ++each) {
    EXPECT_FALSE(line.emplace_back(budget_).turn.take());
  }
  line[0].needs_it_no_more = line[1].needs_it_no_more = true;
  fences_.pop_back();
  EXPECT_TRUE(line[2].has_it);
  EXPECT_EQ(budget_.taken(), SessionBudget::kMaxSessions);
}

}  // namespace
}  // namespace iscsi_blkback
