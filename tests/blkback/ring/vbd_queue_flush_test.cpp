// A flush is never answered with an error: what Linux's frontend takes an error for would make
// every later fsync() of the guest a lie.
#include <gmock/gmock.h>

#include "tests/blkback/ring/vbd_queue_bench.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

class VbdFlushTest : public testing::Test {
 protected:
  void SetUp() override {
    auto sink = std::make_unique<MemoryLogSink>();
    log_ = sink.get();
    previous_ = set_log_sink(std::move(sink));
    bench_.disk.set_plan([this](const BlockRequest& request, std::uint64_t) {
      FaultyDisk::Action action;
      if (request.operation == BlockOperation::flush && failures_ != 0) {
        --failures_;
        action.kind = FaultyDisk::Action::Kind::fail;
        action.status = status_;
      } else if (request.operation == BlockOperation::flush && hold_) {
        action.kind = FaultyDisk::Action::Kind::hold;
      }
      return action;
    });
    ASSERT_TRUE(bench_.connect());
  }
  void TearDown() override {
    if (bench_.vbd) {
      bench_.close_and_run();
    }
    set_log_sink(std::move(previous_));
  }

  std::uint64_t start_flush() {
    const auto id = bench_.frontend->flush();
    EXPECT_TRUE(id.has_value());
    bench_.frontend->push();
    return id.value_or(0);
  }
  // What the guest has been told by then.
  std::optional<FakeFrontend::Answer> answer_after(std::uint64_t id, Duration time) {
    bench_.reactor.run_for(time);
    return bench_.frontend->take_completion(id);
  }
  std::size_t lines_with(const char* text) const {
    const auto& lines = log_->lines();
    return static_cast<std::size_t>(std::count_if(
        lines.begin(), lines.end(),
        [text](const std::string& line) { return line.find(text) != std::string::npos; }));
  }

  static constexpr std::uint64_t kAlways = ~std::uint64_t{0};
  Bench bench_;
  std::uint64_t failures_ = 0;  // so many flushes fail
  IoStatus status_ = IoStatus::target_error;
  bool hold_ = false;
  MemoryLogSink* log_ = nullptr;
  std::unique_ptr<LogSink> previous_;
};

TEST_F(VbdFlushTest, OneThatFailsIsTriedAgainUntilItSucceeds) {
  failures_ = 5;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, std::chrono::milliseconds(500)));
  EXPECT_EQ(bench_.vbd->held_flushes(), 1U);
  const auto answer = answer_after(id, seconds(10));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, kBlkifOkay);
  EXPECT_EQ(failures_, 0U);
  EXPECT_EQ(bench_.vbd->held_flushes(), 0U);
  EXPECT_EQ(bench_.vbd->statistics().flushes, 1U);
  EXPECT_EQ(bench_.vbd->statistics().flush_retries, 5U);
  EXPECT_EQ(bench_.vbd->statistics().errors, 0U);
}

TEST_F(VbdFlushTest, NoErrorOfTheDeviceIsToldTheGuest) {
  for (const IoStatus status :
       {IoStatus::target_error, IoStatus::out_of_range, IoStatus::no_space,
        IoStatus::reservation_conflict, IoStatus::no_path, IoStatus::aborted}) {
    status_ = status;
    failures_ = 1;
    EXPECT_EQ(bench_.answer(bench_.frontend->flush()).status, kBlkifOkay) << to_string(status);
  }
}

TEST_F(VbdFlushTest, WhatIsHeldIsSaidOnceAndItsEndToo) {
  failures_ = 40;
  const std::uint64_t first = start_flush();
  const std::uint64_t second = start_flush();
  EXPECT_FALSE(answer_after(first, seconds(20)));
  EXPECT_EQ(bench_.vbd->held_flushes(), 2U);
  EXPECT_EQ(lines_with("a flush failed: target error"), 1U);
  EXPECT_EQ(lines_with("flushes succeed again"), 0U);
  EXPECT_TRUE(answer_after(first, seconds(60)));
  EXPECT_TRUE(answer_after(second, seconds(1)));
  EXPECT_EQ(lines_with("flushes succeed again"), 1U);
  EXPECT_EQ(lines_with("a flush failed"), 1U);
  failures_ = 1;
  EXPECT_TRUE(answer_after(start_flush(), seconds(10)));
  EXPECT_EQ(lines_with("a flush failed"), 2U) << "the next time is another one";
}

TEST_F(VbdFlushTest, ADeviceThatFailsEachIsAskedEveryTwoSeconds) {
  failures_ = kAlways;
  (void)start_flush();
  bench_.reactor.run_for(seconds(10));
  const std::uint64_t before = bench_.vbd->statistics().flush_retries;
  bench_.reactor.run_for(seconds(100));
  EXPECT_EQ(bench_.vbd->statistics().flush_retries, before + 50);
}

TEST_F(VbdFlushTest, ReadsAndWritesGoOnMeanwhile) {
  failures_ = kAlways;
  const std::uint64_t id = start_flush();
  EXPECT_EQ(bench_.answer(bench_.frontend->write(0, pattern(4096, 1))).status, kBlkifOkay);
  EXPECT_EQ(bench_.answer(bench_.frontend->read(0, 8)).status, kBlkifOkay);
  EXPECT_FALSE(bench_.frontend->take_completion(id));
  EXPECT_TRUE(bench_.broken.empty());
}

TEST_F(VbdFlushTest, WhereTheLunRefusesFlushesAsSuchTheDiskIsStopped) {
  status_ = IoStatus::not_supported;
  failures_ = kAlways;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, seconds(10)));
  EXPECT_THAT(bench_.broken, ElementsAre(HasSubstr("refuses SYNCHRONIZE CACHE")));
  EXPECT_THAT(bench_.broken, ElementsAre(HasSubstr("switch the LUN's write cache off")));
  EXPECT_EQ(bench_.vbd->statistics().flush_retries, 0U);
  const auto later = bench_.frontend->write(0, pattern(4096, 1));
  bench_.frontend->push();
  EXPECT_FALSE(answer_after(later.value_or(0), seconds(10))) << "nothing is consumed any more";
}

TEST_F(VbdFlushTest, WhereAWriteProtectedLunRefusesFlushesTheDiskIsStopped) {
  status_ = IoStatus::write_protected;
  failures_ = kAlways;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, seconds(10)));
  EXPECT_THAT(bench_.broken, ElementsAre(HasSubstr("the LUN is write-protected now")));
  EXPECT_EQ(bench_.vbd->statistics().flush_retries, 0U);
}

// Whoever holds the reservation may give it back.
TEST_F(VbdFlushTest, AReservationConflictIsSaidAndAskedPast) {
  status_ = IoStatus::reservation_conflict;
  failures_ = 40;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, seconds(60)));
  EXPECT_EQ(lines_with("a flush failed: reservation conflict; it is tried again"), 1U);
  EXPECT_TRUE(bench_.broken.empty());
  const auto answer = answer_after(id, seconds(60));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, kBlkifOkay);
}

// To try again would be to lie: the target has forgotten what it could not write.
TEST_F(VbdFlushTest, WhereTheTargetHasLostDataTheDiskIsStopped) {
  status_ = IoStatus::medium_error;
  failures_ = 1;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, seconds(10)));
  EXPECT_THAT(bench_.broken, ElementsAre(HasSubstr("has lost data that it had acknowledged")));
  EXPECT_EQ(bench_.vbd->statistics().flush_retries, 0U);
}

TEST_F(VbdFlushTest, ARingThatGoesTakesHeldFlushesAlongUnanswered) {
  failures_ = kAlways;
  const std::uint64_t id = start_flush();
  EXPECT_FALSE(answer_after(id, seconds(3)));
  bench_.close_and_run();
  EXPECT_EQ(bench_.closed, 1);
  EXPECT_FALSE(bench_.frontend->take_completion(id));
}

TEST_F(VbdFlushTest, OneThatFailsWhileItsRingGoesIsNotAnswered) {
  hold_ = true;
  const std::uint64_t id = start_flush();
  bench_.reactor.run_for(seconds(1));
  ASSERT_EQ(bench_.disk.held(), 1U);
  bench_.close();
  bench_.reactor.run_for(seconds(1));
  EXPECT_EQ(bench_.closed, 0);
  bench_.disk.fail_held(IoStatus::aborted);
  bench_.reactor.run_for(seconds(1));
  EXPECT_EQ(bench_.closed, 1);
  EXPECT_FALSE(bench_.frontend->take_completion(id));
}

TEST_F(VbdFlushTest, OneThatSucceedsWhileItsRingGoesIsAnswered) {
  hold_ = true;
  const std::uint64_t id = start_flush();
  bench_.reactor.run_for(seconds(1));
  bench_.close();
  bench_.disk.release();
  bench_.reactor.run_for(seconds(1));
  EXPECT_EQ(bench_.closed, 1);
  const auto answer = bench_.frontend->take_completion(id);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, kBlkifOkay);
}

// Whatever the device says of however many flushes, and whenever the ring goes: the guest is told
// of success or of nothing.
TEST(VbdFlushMoments, NoFlushIsAnsweredWithAnErrorAtAnyMoment) {
  enum class End : std::uint8_t { none, after_the_failure, before_the_failure, abandoned };
  for (const IoStatus status :
       {IoStatus::target_error, IoStatus::out_of_range, IoStatus::no_space,
        IoStatus::reservation_conflict, IoStatus::no_path, IoStatus::aborted,
        IoStatus::not_supported, IoStatus::write_protected, IoStatus::medium_error}) {
    const bool stops = status == IoStatus::not_supported || status == IoStatus::write_protected ||
                       status == IoStatus::medium_error;
    for (const std::size_t count : {1U, 2U, 31U}) {
      for (const End end :
           {End::none, End::after_the_failure, End::before_the_failure, End::abandoned}) {
        SCOPED_TRACE(testing::Message() << to_string(status) << ", " << count << " flushes, end "
                                        << static_cast<int>(end));
        Bench bench;
        const bool holds = end == End::before_the_failure || end == End::abandoned;
        std::size_t tries = 0;
        bench.disk.set_plan([&](const BlockRequest& request, std::uint64_t) {
          FaultyDisk::Action action;
          if (request.operation == BlockOperation::flush && ++tries <= 2 * count) {
            action.kind = holds ? FaultyDisk::Action::Kind::hold : FaultyDisk::Action::Kind::fail;
            action.status = status;
          }
          return action;
        });
        ASSERT_TRUE(bench.connect());
        std::vector<FakeFrontend::RequestId> flushes;
        for (std::size_t i = 0; i < count; ++i) {
          flushes.push_back(bench.frontend->flush().value());
        }
        bench.frontend->push();
        bench.reactor.run_for(std::chrono::milliseconds(10));
        if (end != End::none) {
          bench.close();
          if (end == End::abandoned) {
            bench.vbd->abandon();
          }
          bench.disk.fail_held(status);
        }
        bench.reactor.run_for(seconds(5));
        EXPECT_EQ(bench.closed, end == End::none ? 0 : 1);
        EXPECT_EQ(bench.broken.size(), stops && !holds ? 1U : 0U) << "not behind its end";
        for (const FakeFrontend::RequestId id : flushes) {
          const auto answer = bench.frontend->take_completion(id);
          EXPECT_EQ(answer.has_value(), end == End::none && !stops);
          EXPECT_EQ(answer ? answer->status : kBlkifOkay, kBlkifOkay);
        }
        if (bench.vbd) {
          EXPECT_EQ(bench.vbd->held_flushes(), stops ? count : 0U);
          EXPECT_EQ(bench.vbd->statistics().errors, 0U);
          EXPECT_EQ(bench.vbd->statistics().flush_retries, stops ? 0 : 2 * count);
        }
      }
    }
  }
}

}  // namespace
}  // namespace iscsi_blkback
