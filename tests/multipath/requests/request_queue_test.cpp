// Requests of a disk that has no path: where they wait, and how that ends.
#include "multipath/requests/request_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "multipath/groups/ghost_paths.h"
#include "multipath/groups/path_activator.h"
#include "multipath/requests/request_pool.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;

class RequestQueueTest : public testing::Test,
                         private GroupController::Owner,
                         private LunTurn::Owner,
                         private WriteFence::Owner {
 protected:
  RequestQueueTest() { queue_.set_limits(8, {}, false); }
  ~RequestQueueTest() override {
    queue_.close();
    settle();
    (void)fence_.withdraw();
    turn_.leave();
  }

  void submit(BlockOperation operation) {
    BlockRequest& block = blocks_.at(submitted_++);
    block.operation = operation;
    block.sector_count = operation == BlockOperation::flush ? 0 : 8;
    block.owner = this;
    block.on_complete = [](BlockRequest& done, IoStatus status) noexcept {
      static_cast<RequestQueueTest*>(done.owner)->answers_.push_back(status);
    };
    queue_.submit(block);
  }
  void settle() { reactor_.run_for(milliseconds(1)); }

  using Answers = std::vector<IoStatus>;
  SimReactor reactor_{1};
  Answers answers_;

 private:
  [[nodiscard]] PathMask activatable() const override { return 0; }
  void on_activation_wanted() noexcept override {}
  [[nodiscard]] const LunNames& names() const override { return lun_.names; }
  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override {
    return PortalGroupFences::no;
  }
  void on_overtaken() noexcept override {}
  [[nodiscard]] const LogicalUnitIdentity& lun() const override { return lun_; }
  [[nodiscard]] bool waits_for_fence() const override { return queue_.waits_for_fence(); }
  void on_path_released(Path& /*path*/) noexcept override {}
  void on_withdrawn() noexcept override {}

  std::array<BlockRequest, 8> blocks_;
  std::size_t submitted_ = 0;
  LogicalUnitIdentity lun_;
  SharedFencing fencing_{reactor_};
  DiskLog log_{reactor_, "disk"};
  DiskSteps steps_{reactor_,
                   [](void* self) noexcept {
                     DiskSteps& steps = static_cast<RequestQueueTest*>(self)->steps_;
                     while (steps.take_next({})) {
                     }
                   },
                   this};
  PathSet paths_;
  GroupController groups_{reactor_, {}, paths_, steps_, log_, *this};
  GhostPaths ghosts_{paths_};
  PathActivator activator_{reactor_, milliseconds(1), paths_, ghosts_, groups_, steps_, log_};
  LunTurn turn_{reactor_, {}, fencing_, paths_, steps_, log_, *this};
  WriteFence fence_{reactor_,   {},    fencing_, paths_, groups_,
                    activator_, turn_, steps_,   log_,   *this};

 protected:
  RequestQueue queue_{reactor_, {.most_requests = 2}, paths_, groups_, fence_, turn_, steps_, log_};
};

TEST_F(RequestQueueTest, WaitForAPathAndForASlot) {
  submit(BlockOperation::read);
  submit(BlockOperation::write);
  submit(BlockOperation::read);
  settle();
  EXPECT_EQ(queue_.queued(), 2U) << "the third one waits for a slot";
  EXPECT_TRUE(answers_.empty());
  queue_.fail_waiting();
  settle();
  EXPECT_EQ(answers_, (Answers{IoStatus::no_path, IoStatus::no_path}));
  EXPECT_EQ(queue_.queued(), 1U) << "it has one now";
  EXPECT_FALSE(queue_.idle());
}

TEST_F(RequestQueueTest, AFlushIsNotFailedForWantOfAPath) {
  submit(BlockOperation::flush);
  submit(BlockOperation::read);
  queue_.fail_waiting();
  settle();
  EXPECT_EQ(answers_, Answers{IoStatus::no_path});
  EXPECT_EQ(queue_.queued(), 1U);
}

TEST_F(RequestQueueTest, AllAreAbortedAtTheEndAlsoThoseWithoutASlot) {
  submit(BlockOperation::read);
  submit(BlockOperation::flush);
  submit(BlockOperation::write);
  queue_.close();
  EXPECT_TRUE(answers_.empty()) << "not from inside the call";
  settle();
  EXPECT_EQ(answers_, Answers(3, IoStatus::aborted));
  EXPECT_TRUE(queue_.idle());
  submit(BlockOperation::read);
  settle();
  EXPECT_EQ(answers_, Answers(4, IoStatus::aborted));
}

TEST_F(RequestQueueTest, NothingIsWrittenToALunThatIsReadOnly) {
  queue_.set_limits(8, {}, true);
  submit(BlockOperation::write);
  submit(BlockOperation::flush);
  settle();
  EXPECT_EQ(answers_, (Answers{IoStatus::write_protected, IoStatus::ok}));
  EXPECT_TRUE(queue_.idle());
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
