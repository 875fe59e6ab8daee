// What waits at a silent path is asked for once more, and whose answer the guest gets.
#include "multipath/requests/hedger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "tests/multipath/unconnected_paths.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kSilent = 0;  // the path
constexpr std::byte kOld{0x11};
constexpr std::byte kNew{0x5a};

// Two paths, of which one is silent: what is sent there stays there until the reactor runs. What is
// asked for once more is the test's to answer.
class HedgerTest : public testing::Test, private Hedger::Owner {
 protected:
  HedgerTest() {
    set_log_level(LogLevel::error);
    paths_.add();
    paths_.add();
    for (const Path* path : paths_.set) {
      paths_.set.note_state(path->index(), {.state = PathState::up});
    }
    set_suspect(kSilent, true);
  }
  ~HedgerTest() override {
    for (Request* second : std::exchange(started_, {})) {
      end(*second, IoStatus::aborted);
    }
    reactor_.run_for(Duration::zero());
  }

  struct Guest {
    explicit Guest(Reactor& reactor) : request(reactor, nothing, nullptr, true) {}
    static void nothing(void* /*request*/) noexcept {}
    [[nodiscard]] std::vector<std::byte> sectors(std::uint32_t count) const {
      return {data.begin(), data.begin() + std::ptrdiff_t{count} * kSectorBytes};
    }

    BlockRequest block;
    std::vector<std::byte> data;
    std::optional<IoStatus> status;
    Request request;
  };

  void set_suspect(std::uint32_t index, bool suspect) {
    paths_.set.note_suspect(paths_.set[index], suspect);
  }
  // A request of the guest's that is at the silent path.
  Guest& submit(BlockOperation operation, std::uint32_t sectors = 8) {
    Guest& guest = guests_.emplace_back(reactor_);
    guest.block.operation = operation;
    guest.block.sector = 1000;
    guest.block.sector_count = operation == BlockOperation::flush ? 0 : sectors;
    guest.data.assign(guest.block.length_bytes(), kOld);
    guest.block.data = guest.data.empty() ? nullptr : guest.data.data();
    guest.block.owner = &guest;
    guest.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
      static_cast<Guest*>(block.owner)->status = status;
    };
    guest.request.block = &guest.block;
    guest.request.discard_form = DiscardForm::unmap;
    guest.request.place = Request::Place::at_path;
    guest.request.on_done = [](PathCommand& /*command*/, ErrorClass /*error*/) noexcept {};
    paths_.set[kSilent].submit(guest.request, guest.block);
    return guest;
  }
  void end(Request& second, IoStatus status) {
    std::erase(started_, &second);
    ++spares_;
    BlockRequest& block = *std::exchange(second.block, nullptr);
    if (status == IoStatus::ok && block.data != nullptr) {
      std::fill_n(block.data, block.length_bytes(), kNew);
    }
    block.on_complete(block, status);
  }
  [[nodiscard]] bool hedge_is_due() {
    steps_done_.clear();
    reactor_.run_for(Duration::zero());
    return std::find(steps_done_.begin(), steps_done_.end(), DiskStep::hedge) != steps_done_.end();
  }

  SimReactor reactor_{1};
  std::uint32_t spares_ = 4;
  std::vector<Request*> started_;  // and not ended
  std::vector<const Request*> taken_out_;
  bool receiving_ = false;            // the silent path's connection, into the guest's buffer
  std::vector<const Path*> dropped_;  // if their silence goes on

 private:
  [[nodiscard]] bool has_spare() const override { return spares_ != 0; }
  [[nodiscard]] Request& take_spare() override {
    --spares_;
    return seconds_.emplace_back(reactor_, Guest::nothing, nullptr, false);
  }
  void start(Request& second, BlockRequest& block) override {
    second.block = &block;
    started_.push_back(&second);
  }
  void complete(Request& request, IoStatus status) override {
    if (request.hedge != nullptr) {
      hedger_.leave(request);
    }
    request.place = Request::Place::free;
    request.block->on_complete(*request.block, status);
  }
  void take_out(Request& request) override { taken_out_.push_back(&request); }
  void answer_early(Request& request) override {
    request.place = Request::Place::answered;
    hedger_.leave(request);
    request.block->on_complete(*request.block, IoStatus::ok);
  }
  [[nodiscard]] bool take_buffer(Request& request) override {
    return !receiving_ && request.path->session().detach_buffer(request.task);
  }
  void drop_if_silent(Path& path) override { dropped_.push_back(&path); }

  std::vector<DiskStep> steps_done_;
  DiskLog log_{reactor_, "disk"};
  DiskSteps steps_{reactor_,
                   [](void* self) noexcept {
                     auto& test = *static_cast<HedgerTest*>(self);
                     while (const auto step = test.steps_.take_next({})) {
                       test.steps_done_.push_back(*step);
                     }
                   },
                   this};
  std::deque<Guest> guests_;
  std::deque<Request> seconds_;

 protected:
  UnconnectedPaths paths_{reactor_, log_};
  Hedger hedger_{4, paths_.set, steps_, *this};
};

TEST_F(HedgerTest, ReadsAndFlushesAtASilentPathAreAskedForOnceMore) {
  const Guest& read = submit(BlockOperation::read);
  submit(BlockOperation::write);
  submit(BlockOperation::discard);
  const Guest& flush = submit(BlockOperation::flush);
  hedger_.look();
  ASSERT_EQ(started_.size(), 2U);
  EXPECT_EQ(started_[0]->block->operation, BlockOperation::read);
  EXPECT_EQ(started_[0]->block->sector, 1000U);
  EXPECT_NE(started_[0]->block->data, read.data.data()) << "that is the first one's still";
  EXPECT_EQ(started_[1]->block->operation, BlockOperation::flush);
  hedger_.look();
  EXPECT_EQ(started_.size(), 2U) << "once";
  EXPECT_EQ(hedger_.hedged(), 2U);
  EXPECT_FALSE(read.status || flush.status);
}

TEST_F(HedgerTest, NothingIsAskedForTwiceWithoutABetterPath) {
  submit(BlockOperation::read);
  set_suspect(1, true);
  hedger_.look();
  EXPECT_TRUE(started_.empty()) << "all are silent";
  set_suspect(1, false);
  hedger_.pause();
  hedger_.look();
  EXPECT_TRUE(started_.empty());
  hedger_.resume();
  set_suspect(kSilent, false);
  hedger_.look();
  EXPECT_TRUE(started_.empty()) << "it answers";
  set_suspect(kSilent, true);
  hedger_.look();
  EXPECT_EQ(started_.size(), 1U);
}

TEST_F(HedgerTest, TheGuestGetsTheAnswerThatComesFirst) {
  Guest& read = submit(BlockOperation::read);
  hedger_.look();
  ASSERT_EQ(started_.size(), 1U);
  ASSERT_NE(read.request.task.data, nullptr);
  end(*started_[0], IoStatus::ok);
  EXPECT_EQ(read.status, IoStatus::ok);
  EXPECT_EQ(read.data, std::vector<std::byte>(read.data.size(), kNew));
  EXPECT_EQ(read.request.task.data, nullptr) << "a late answer is thrown away";
}

TEST_F(HedgerTest, OnlyWhatIsMissingIsAskedForAndPutInItsPlace) {
  Guest& read = submit(BlockOperation::read, 8);
  read.request.done_sectors = 3;
  hedger_.look();
  ASSERT_EQ(started_.size(), 1U);
  EXPECT_EQ(started_[0]->block->sector, 1003U);
  EXPECT_EQ(started_[0]->block->sector_count, 5U);
  end(*started_[0], IoStatus::ok);
  EXPECT_EQ(read.sectors(3), std::vector<std::byte>(3 * kSectorBytes, kOld));
  EXPECT_EQ(std::count(read.data.begin(), read.data.end(), kNew), 5 * kSectorBytes);
}

TEST_F(HedgerTest, AnErrorElsewhereLeavesTheRequestToItsPath) {
  const Guest& read = submit(BlockOperation::read);
  hedger_.look();
  end(*started_[0], IoStatus::medium_error);
  EXPECT_FALSE(read.status);
  EXPECT_EQ(read.request.place, Request::Place::at_path);
  EXPECT_EQ(read.request.hedge, nullptr);
}

TEST_F(HedgerTest, WhatItsPathHasLostIsAnsweredByItsHedge) {
  for (const IoStatus status : {IoStatus::ok, IoStatus::medium_error}) {
    Guest& read = submit(BlockOperation::read);
    hedger_.look();
    ASSERT_EQ(started_.size(), 1U);
    hedger_.leave_to_hedge(read.request);
    EXPECT_EQ(read.request.place, Request::Place::hedged);
    EXPECT_FALSE(read.status);
    end(*started_[0], status);
    EXPECT_EQ(read.status, status);
    EXPECT_EQ(read.data[0], status == IoStatus::ok ? kNew : kOld);
  }
}

TEST_F(HedgerTest, TheGuestsBufferIsWaitedForWhileItIsReceivedInto) {
  Guest& read = submit(BlockOperation::read);
  hedger_.look();
  receiving_ = true;
  end(*started_[0], IoStatus::ok);
  EXPECT_FALSE(read.status);
  EXPECT_EQ(read.data[0], kOld);
  EXPECT_TRUE(Hedger::has_succeeded(read.request));
  hedger_.look();
  EXPECT_TRUE(started_.empty()) << "it is there already";
  hedger_.leave_to_hedge(read.request);
  EXPECT_EQ(read.status, IoStatus::ok) << "the path has lost the command, and with it the buffer";
  EXPECT_EQ(read.data, std::vector<std::byte>(read.data.size(), kNew));
}

TEST_F(HedgerTest, APathThatStopsInTheMiddleOfAnAnswerThatIsThereIsDropped) {
  Path& silent = paths_.set[kSilent];
  submit(BlockOperation::read);
  Guest& read = submit(BlockOperation::read);
  hedger_.look();
  ASSERT_EQ(started_.size(), 2U);
  hedger_.drop_if_stuck(silent);
  EXPECT_TRUE(dropped_.empty()) << "nothing is there";
  receiving_ = true;
  end(*started_[1], IoStatus::ok);
  EXPECT_EQ(dropped_, std::vector<const Path*>{&silent}) << "its silence may have gone on before";
  dropped_.clear();
  hedger_.drop_if_stuck(paths_.set[1]);
  EXPECT_TRUE(dropped_.empty()) << "the other one";
  hedger_.drop_if_stuck(silent);
  EXPECT_EQ(dropped_, std::vector<const Path*>{&silent});
  dropped_.clear();
  hedger_.leave(read.request);
  hedger_.drop_if_stuck(silent);
  EXPECT_TRUE(dropped_.empty()) << "the path has answered";
}

TEST_F(HedgerTest, WhatWaitsForItsRetryIsAnsweredByItsHedge) {
  Guest& read = submit(BlockOperation::read);
  hedger_.look();
  read.request.place = Request::Place::delayed;
  end(*started_[0], IoStatus::ok);
  EXPECT_EQ(taken_out_, std::vector<const Request*>{&read.request});
  EXPECT_EQ(read.status, IoStatus::ok);
}

TEST_F(HedgerTest, AnAnswerOfThePathMakesTheHedgeUseless) {
  Guest& read = submit(BlockOperation::read);
  hedger_.look();
  hedger_.leave(read.request);
  end(*started_[0], IoStatus::ok);
  EXPECT_FALSE(read.status) << "that is its path's to say";
  EXPECT_EQ(read.data[0], kOld);
}

TEST_F(HedgerTest, TheBytesOfAllHedgesAreBounded) {
  constexpr std::uint32_t kNineMegabytes = (9 << 20) / kSectorBytes;
  submit(BlockOperation::read, kNineMegabytes);
  submit(BlockOperation::read, kNineMegabytes);
  hedger_.look();
  ASSERT_EQ(started_.size(), 1U);
  EXPECT_FALSE(hedge_is_due());
  end(*started_[0], IoStatus::aborted);
  EXPECT_TRUE(hedge_is_due()) << "there is room for the other one";
}

TEST_F(HedgerTest, WithoutASpareSlotTheNextOneWaits) {
  spares_ = 1;
  submit(BlockOperation::read);
  submit(BlockOperation::read);
  hedger_.look();
  ASSERT_EQ(started_.size(), 1U);
  hedger_.on_spare_free();
  EXPECT_TRUE(hedge_is_due());
}

}  // namespace
}  // namespace iscsi_blkback
