// RingTurn with parts that only note what is done with them, on the in-memory grant table.
#include "blkback/ring/ring_turn.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

constexpr DomainId kGuest = 1;
constexpr GrantReference kNotGranted = 4711;

class RingTurnTest : public testing::Test {
 protected:
  class Queue final : public RingTurn::Part::Work {
   public:
    Queue(RingTurnTest& test, std::string name)
        : test_(test), name_(std::move(name)), part(test.turn_, *this) {
      part.make_room(4);
    }
    void begin_turn() noexcept override {
      test_.order_.push_back("begin " + name_);
      if (on_begin) {
        on_begin();
      }
    }
    void end_turn() noexcept override {
      test_.order_.push_back("end " + name_);
      if (on_end) {
        on_end();
      }
    }
    void want(GrantReference reference) {
      first = test_.turn_.copies();
      test_.turn_.add_copy({.direction = GrantCopyDirection::from_guest,
                            .domain = kGuest,
                            .reference = reference,
                            .offset_bytes = 0,
                            .length_bytes = 8,
                            .local = bytes.data()});
    }

   private:
    RingTurnTest& test_;
    std::string name_;

   public:
    RingTurn::Part part;
    std::function<void()> on_begin;
    std::function<void()> on_end;
    std::array<std::byte, 8> bytes{};
    std::uint32_t first = 0;
  };

  [[nodiscard]] std::uint64_t calls() { return xen_.grants().counters().copy_calls; }

  MemXen xen_;
  SimReactor reactor_{1};
  std::unique_ptr<GrantTable> grants_ = xen_.grants().open(0);
  RingTurn turn_{reactor_, *grants_};
  std::vector<std::string> order_;
};

TEST_F(RingTurnTest, OneCallForAllPartsBetweenTheirBeginsAndTheirEnds) {
  Queue a(*this, "a");
  Queue b(*this, "b");
  std::vector<std::uint64_t> calls_at_end;
  for (Queue* queue : {&a, &b}) {
    queue->on_begin = [queue] { queue->want(kNotGranted); };
    queue->on_end = [&] { calls_at_end.push_back(calls()); };
    queue->part.schedule();
  }
  reactor_.run_until_idle();
  EXPECT_EQ(order_, (std::vector<std::string>{"begin a", "begin b", "end a", "end b"}));
  EXPECT_EQ(calls_at_end, (std::vector<std::uint64_t>{1, 1}));
}

TEST_F(RingTurnTest, NothingIsCalledForNoCopies) {
  Queue a(*this, "a");
  a.part.schedule();
  reactor_.run_until_idle();
  EXPECT_EQ(order_, (std::vector<std::string>{"begin a", "end a"}));
  EXPECT_EQ(calls(), 0U);
}

TEST_F(RingTurnTest, EachCopyHasItsOwnResult) {
  GuestMemory memory(1);
  const GrantReference granted = xen_.grants().grant(kGuest, memory, 0, 0, false);
  Queue good(*this, "good");
  Queue bad(*this, "bad");
  good.on_begin = [&] { good.want(granted); };
  bad.on_begin = [&] { bad.want(kNotGranted); };
  bool good_copied = false;
  bool bad_copied = true;
  good.on_end = [&] { good_copied = turn_.copied(good.first, 1); };
  bad.on_end = [&] { bad_copied = turn_.copied(bad.first, 1); };
  good.part.schedule();
  bad.part.schedule();
  reactor_.run_until_idle();
  EXPECT_TRUE(good_copied);
  EXPECT_FALSE(bad_copied);
  EXPECT_EQ(calls(), 1U);
}

// The table says then that all were copied, and that it has failed.
TEST_F(RingTurnTest, ACallThatFailsHasCopiedNothing) {
  Queue a(*this, "a");
  bool copied = true;
  a.on_begin = [&] { a.want(kNotGranted); };
  a.on_end = [&] { copied = turn_.copied(a.first, 1); };
  xen_.faults().fail_nth(1, 1);
  a.part.schedule();
  reactor_.run_until_idle();
  EXPECT_FALSE(copied);
}

TEST_F(RingTurnTest, WhatAnEndAddsIsCopiedInTheSameTurn) {
  Queue a(*this, "a");
  Queue b(*this, "b");
  a.on_end = [&] {
    if (calls() == 0) {
      a.want(kNotGranted);
    }
  };
  a.part.schedule();
  b.part.schedule();
  reactor_.run_until_idle();
  EXPECT_EQ(order_,
            (std::vector<std::string>{"begin a", "begin b", "end a", "end b", "end a", "end b"}));
  EXPECT_EQ(calls(), 1U);
}

TEST_F(RingTurnTest, ScheduledInItsTurnItHasTheNextOne) {
  Queue a(*this, "a");
  int left = 2;
  a.on_begin = a.on_end = [&] {
    if (left > 0) {
      --left;
      a.part.schedule();
    }
  };
  a.part.schedule();
  a.part.schedule();
  reactor_.run_until_idle();
  EXPECT_EQ(order_, (std::vector<std::string>{"begin a", "end a", "begin a", "end a"}));
}

TEST_F(RingTurnTest, APartThatHasGoneHasNoTurn) {
  Queue a(*this, "a");
  {
    Queue b(*this, "b");
    b.part.schedule();
    a.part.schedule();
  }
  reactor_.run_until_idle();
  EXPECT_EQ(order_, (std::vector<std::string>{"begin a", "end a"}));
}

}  // namespace
}  // namespace iscsi_blkback
