// The thread for the files of the barrier, with a real reactor.
#include "multipath/fencing/barrier_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/uring_reactor.h"
#include "multipath/fencing/lun_write_barrier.h"
#include "tests/support/blocking_barrier.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

struct Job final : BarrierJob {
  Job(std::function<void()> to_work, std::function<void()> to_tell)
      : on_work(std::move(to_work)), on_done(std::move(to_tell)) {}
  void work() override { on_work(); }
  void done() noexcept override { on_done(); }

  const std::function<void()> on_work;
  const std::function<void()> on_done;
};

class BarrierThreadTest : public testing::Test {
 protected:
  BarrierThreadTest() {
    auto made = UringReactor::create();
    EXPECT_TRUE(made);
    reactor_ = std::move(*made);
  }
  template <class Predicate>
  void run_until(Predicate&& predicate) {
    const TimePoint end = reactor_->now() + 60s;
    while (!predicate() && reactor_->now() < end) {
      reactor_->run_once(10ms);
    }
    EXPECT_TRUE(predicate());
  }

  std::unique_ptr<UringReactor> reactor_;
};

TEST_F(BarrierThreadTest, WorksOnAnotherThreadAndTellsOnTheReactors) {
  BarrierThread thread(*reactor_);
  const std::thread::id own = std::this_thread::get_id();
  std::vector<int> told;
  std::vector<int> worked;
  for (int number = 0; number < 100; ++number) {
    thread.run(std::make_unique<Job>(
        [&worked, own, number] {
          EXPECT_NE(std::this_thread::get_id(), own);
          worked.push_back(number);
        },
        [&told, own, number] {
          EXPECT_EQ(std::this_thread::get_id(), own);
          told.push_back(number);
        }));
  }
  run_until([&] { return told.size() == 100; });
  EXPECT_EQ(told, worked);
  for (int number = 0; number < 100; ++number) {
    EXPECT_EQ(told[static_cast<std::size_t>(number)], number);
  }
}

TEST_F(BarrierThreadTest, WhatItDoesIsWaitedForAtItsEnd) {
  std::atomic<bool> working = false;
  std::atomic<bool> ends = false;
  bool worked = false;
  auto thread = std::make_unique<BarrierThread>(*reactor_);
  thread->run(std::make_unique<Job>(
      [&] {
        working = true;
        while (!ends) {
          std::this_thread::yield();
        }
        worked = true;
      },
      [] {}));
  while (!working) {
    std::this_thread::yield();
  }
  std::thread other([&] { ends = true; });
  thread.reset();
  EXPECT_TRUE(worked);
  other.join();
}

// Made for the thread sanitizer: the disk goes on telling while its file is looked for.
TEST_F(BarrierThreadTest, ADiskTellsWhileItsFileIsFollowed) {
  const TemporaryFolder folder;
  const std::string place = folder.path() + "/barrier";
  BarrierThread thread(*reactor_);
  Result<LunWriteBarrier> entered;
  bool back = false;
  thread.run(std::make_unique<Job>(
      [&] {
        entered = LunWriteBarrier::enter(place, "lun", {.name = "disk", .quiesce_time = 60s});
      },
      [&] { back = true; }));
  run_until([&] { return back; });
  ASSERT_TRUE(entered);
  LunWriteBarrier barrier = std::move(*entered);
  for (int round = 0; round < 20; ++round) {
    std::filesystem::remove_all(place);
    BarrierFollow follow = barrier.begin_follow();
    back = false;
    thread.run(std::make_unique<Job>([&] { follow.run(); },
                                     [&] {
                                       EXPECT_TRUE(barrier.end_follow(std::move(follow), {}));
                                       back = true;
                                     }));
    barrier.tell_use(HolderUse::ended, 0, {});
    barrier.set_outstanding(0, true);
    run_until([&] {
      barrier.set_unfenced(2, false, TimePoint(1h));
      (void)barrier.look({});
      return back;
    });
  }
  auto next = BlockingBarrier::enter(place, "lun", {.name = "next", .quiesce_time = 60s});
  ASSERT_TRUE(next);
  EXPECT_FALSE(next->look({}).late_writes_of.empty());
}

TEST_F(BarrierThreadTest, OneThatHasNothingToDoEndsAtOnce) {
  const BarrierThread thread(*reactor_);
}

}  // namespace
}  // namespace iscsi_blkback
