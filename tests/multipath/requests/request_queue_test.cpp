// Requests of a disk none of whose paths takes one: where they wait, and how that ends.
#include "multipath/requests/request_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/log.h"
#include "multipath/requests/request_pool.h"
#include "tests/multipath/fencing/fenced_disk.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

class RequestQueueTest : public testing::Test {
 protected:
  static constexpr Duration kFenceTime = std::chrono::seconds(60);
  // Of 8 sectors each.
  static constexpr std::uint64_t kLostSector = 104;
  static constexpr std::uint64_t kOverlapping = 100;
  static constexpr std::uint64_t kBeside = 200;

  RequestQueueTest() {
    set_log_level(LogLevel::error);
    make({});
  }
  ~RequestQueueTest() override { end(); }

  void make(const WriteFence::Options& options) {
    end();
    WriteFence::Options with = options;
    with.lun_fence.quiesce_time = kFenceTime;
    disk_.emplace(reactor_, fencing_, with);
    path_ = &disk_->add();
    queue_.emplace(reactor_, RequestQueue::Options{.most_requests = 4}, disk_->paths.set,
                   disk_->groups, disk_->fence, disk_->turn, disk_->steps, disk_->log);
    queue_->set_limits(8, {}, false);
  }
  void submit(BlockOperation operation, std::uint64_t sector = 0) {
    BlockRequest& block = blocks_.at(submitted_++);
    block.operation = operation;
    block.sector = sector;
    block.sector_count = operation == BlockOperation::flush ? 0 : 8;
    block.owner = this;
    block.on_complete = [](BlockRequest& done, IoStatus status) noexcept {
      static_cast<RequestQueueTest*>(done.owner)->answers_.push_back(status);
    };
    queue_->submit(block);
  }
  // The request's number is that of its submit(), from 1 on.
  void lose(std::uint64_t request) {
    disk_->fence.lost(*path_, kLostSector, kLostSector + 8, request);
  }
  void settle(Duration time = milliseconds(1)) {
    reactor_.run_for(time);
    for (const DiskStep step : disk_->take_steps()) {
      if (step == DiskStep::release_held) {
        queue_->release_held();
      }
    }
    reactor_.run_for(Duration::zero());
  }

  using Answers = std::vector<IoStatus>;
  SimReactor reactor_{1};
  SharedFencing fencing_{reactor_};
  std::optional<FencedDisk> disk_;
  Path* path_ = nullptr;
  std::optional<RequestQueue> queue_;
  Answers answers_;

 private:
  void end() {
    if (queue_) {
      queue_->close();
      reactor_.run_for(milliseconds(1));
      queue_.reset();
      disk_.reset();
    }
  }

  std::array<BlockRequest, 8> blocks_;
  std::size_t submitted_ = 0;
};

TEST_F(RequestQueueTest, WaitForAPathAndForASlot) {
  for (int request = 0; request < 4; ++request) {
    submit(request % 2 == 0 ? BlockOperation::read : BlockOperation::write);
  }
  submit(BlockOperation::read);
  settle();
  EXPECT_EQ(queue_->queued(), 4U) << "the fifth one waits for a slot";
  EXPECT_TRUE(answers_.empty());
  queue_->fail_waiting();
  settle();
  EXPECT_EQ(answers_, Answers(4, IoStatus::no_path));
  EXPECT_EQ(queue_->queued(), 1U) << "it has one now";
  EXPECT_FALSE(queue_->idle());
}

TEST_F(RequestQueueTest, AFlushIsNotFailedForWantOfAPath) {
  submit(BlockOperation::flush);
  submit(BlockOperation::read);
  queue_->fail_waiting();
  settle();
  EXPECT_EQ(answers_, Answers{IoStatus::no_path});
  EXPECT_EQ(queue_->queued(), 1U);
}

TEST_F(RequestQueueTest, AllAreAbortedAtTheEndAlsoThoseWithoutASlot) {
  lose(99);
  submit(BlockOperation::read);
  submit(BlockOperation::flush);
  submit(BlockOperation::write, kOverlapping);
  submit(BlockOperation::write);
  submit(BlockOperation::write);
  queue_->close();
  EXPECT_TRUE(answers_.empty()) << "not from inside the call";
  settle();
  EXPECT_EQ(answers_, Answers(5, IoStatus::aborted));
  EXPECT_TRUE(queue_->idle());
  submit(BlockOperation::read);
  settle();
  EXPECT_EQ(answers_, Answers(6, IoStatus::aborted));
}

TEST_F(RequestQueueTest, NothingIsWrittenToALunThatIsReadOnly) {
  queue_->set_limits(8, {}, true);
  submit(BlockOperation::write);
  submit(BlockOperation::flush);
  settle();
  EXPECT_EQ(answers_, (Answers{IoStatus::write_protected, IoStatus::ok}));
  EXPECT_TRUE(queue_->idle());
}

TEST_F(RequestQueueTest, WhatWouldOverlapALostWriteWaitsUntilThatIsFenced) {
  lose(99);
  submit(BlockOperation::write, kOverlapping);
  submit(BlockOperation::discard, kOverlapping);
  submit(BlockOperation::read, kOverlapping);
  submit(BlockOperation::write, kBeside);
  EXPECT_EQ(queue_->held(), 2U);
  EXPECT_EQ(queue_->queued(), 2U);
  EXPECT_TRUE(queue_->waits_for_fence());
  settle(kFenceTime - milliseconds(10));
  queue_->release_held();
  EXPECT_EQ(queue_->held(), 2U) << "it looks for itself";
  settle(milliseconds(10));
  EXPECT_EQ(queue_->held(), 0U);
  EXPECT_EQ(queue_->queued(), 4U);
  EXPECT_FALSE(queue_->waits_for_fence());
}

TEST_F(RequestQueueTest, WhatWaitsForRoomWaitsForTheFenceOfWhatIsLostMeanwhile) {
  submit(BlockOperation::write, kOverlapping);
  submit(BlockOperation::write, kBeside);
  lose(99);
  disk_->paths.set.note_state(path_->index(), {.state = PathState::up});
  (void)disk_->paths.set.note_room(path_->index(), true);
  queue_->pump();
  EXPECT_EQ(queue_->held(), 1U);
  EXPECT_EQ(queue_->queued(), 1U) << "its session has just gone";
}

TEST_F(RequestQueueTest, WhatWaitsForAFenceFailsForWantOfAPathToo) {
  lose(99);
  submit(BlockOperation::write, kOverlapping);
  queue_->fail_waiting();
  settle();
  EXPECT_EQ(answers_, Answers{IoStatus::no_path});
  EXPECT_FALSE(queue_->waits_for_fence());
}

TEST_F(RequestQueueTest, WhereOthersWriteAFailureIsToldWhenTheLostCopyIsFenced) {
  make({.lun_fence = {}, .shared = true, .most_writes = 4});
  submit(BlockOperation::write, kLostSector);
  lose(1);
  queue_->fail_waiting();
  settle();
  EXPECT_TRUE(answers_.empty());
  EXPECT_EQ(queue_->held(), 1U);
  EXPECT_TRUE(queue_->waits_for_fence());
  settle(kFenceTime);
  EXPECT_EQ(answers_, Answers{IoStatus::no_path});
  EXPECT_FALSE(queue_->waits_for_fence());
}

TEST_F(RequestQueueTest, WhereOthersWriteTheEndTellsNoResultOfWhatIsNotFenced) {
  for (const bool withheld : {false, true}) {
    make({.lun_fence = {}, .shared = true, .most_writes = 4});
    answers_.clear();
    submit(BlockOperation::write, kLostSector);
    lose(1);
    queue_->fail_waiting();
    if (withheld) {
      settle();
    }
    queue_->close();
    settle();
    EXPECT_EQ(answers_, Answers{IoStatus::aborted});
    EXPECT_TRUE(queue_->idle());
  }
}

TEST_F(RequestQueueTest, ASlotThatAPathHoldsIsReplacedByASpareOne) {
  RequestPool pool(
      reactor_, 1, [](void*) noexcept {}, nullptr);
  Request* const first = pool.take();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(pool.take(), nullptr);
  ASSERT_TRUE(pool.has_spare());
  pool.make_spare(*first);
  EXPECT_FALSE(pool.has_spare());
  ASSERT_TRUE(pool.has_free());
  Request* const second = pool.take();
  pool.give_back(*first);
  EXPECT_TRUE(pool.has_spare()) << "as a spare one";
  EXPECT_FALSE(pool.has_free());
  EXPECT_FALSE(pool.idle());
  pool.give_back(*second);
  EXPECT_TRUE(pool.has_free());
  EXPECT_TRUE(pool.idle());
}

}  // namespace
}  // namespace iscsi_blkback
