// CommandAnswers: what each PDU of the target does to its command, and which of them no command
// survives.
#include "initiator/session/command_answers.h"

#include <gmock/gmock.h>

#include <array>
#include <vector>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CommandAnswersTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kBytes = 4096;

  CommandAnswersTest() {
    options.max_commands = 4;
    negotiated.max_burst_length = 65536;
    negotiated.max_outstanding_r2t = 1;
    numbers.cmd_sn = 10;
    numbers.max_cmd_sn = 100;
    numbers.statuses.reset(7);
    for (ScsiTask& task : tasks) {
      task.owner = this;
      task.data = data.data();
      task.data_length_bytes = kBytes;
      task.on_complete = [](ScsiTask& completed) noexcept {
        static_cast<CommandAnswersTest*>(completed.owner)->done.push_back(&completed);
      };
    }
  }
  ~CommandAnswersTest() override {
    queue.connection_lost();
    flush.cancel();
  }
  // Its tag.
  std::uint32_t sent(std::size_t number, DataDirection direction) {
    tasks.at(number).direction = direction;
    queue.submit(tasks.at(number));
    const std::uint32_t tag = queue.take_next();
    queue.find(tag)->staged_bytes = direction == DataDirection::out ? kBytes : 0;
    return tag;
  }
  static DataInPdu data_in(std::uint32_t tag, std::uint32_t offset, std::uint32_t bytes,
                           std::uint32_t data_sn) {
    DataInPdu pdu;
    pdu.initiator_task_tag = tag;
    pdu.buffer_offset = offset;
    pdu.data_bytes = bytes;
    pdu.data_sn = data_sn;
    return pdu;
  }
  static DataInPdu with_status(DataInPdu pdu, std::uint32_t stat_sn) {
    pdu.final = pdu.has_status = true;
    pdu.numbers.stat_sn = stat_sn;
    return pdu;
  }
  static ScsiResponsePdu response(std::uint32_t tag, std::uint32_t stat_sn) {
    ScsiResponsePdu pdu;
    pdu.initiator_task_tag = tag;
    pdu.numbers.stat_sn = stat_sn;
    return pdu;
  }
  static R2tPdu r2t(std::uint32_t tag, std::uint32_t offset, std::uint32_t bytes,
                    std::uint32_t sn) {
    R2tPdu pdu;
    pdu.initiator_task_tag = tag;
    pdu.target_transfer_tag = 1;
    pdu.buffer_offset = offset;
    pdu.desired_bytes = bytes;
    pdu.r2t_sn = sn;
    return pdu;
  }
  template <class T>
  static std::string broken(const Result<T>& taken) {
    return taken ? "" : taken.error().message;
  }

  SimReactor reactor{1};
  Deferred flush{reactor, [](void*) noexcept {}, nullptr};
  Deferred events{reactor, [](void*) noexcept {}, nullptr};
  SessionOptions options;
  NegotiatedParameters negotiated;
  SessionNumbers numbers;
  LogoutSequence logout{reactor, [](void*) noexcept {}, nullptr};
  KeepAlive keep_alive{reactor, options, [](void*) noexcept {}, nullptr};
  CommandWatchdog watchdog{reactor, options, keep_alive, [](void*) noexcept {}, nullptr};
  std::vector<Tolerated> noted;
  ToleratedRules tolerated{[](void* self, Tolerated rule, std::string_view) noexcept {
                             static_cast<CommandAnswersTest*>(self)->noted.push_back(rule);
                           },
                           this};
  std::vector<std::byte> data = std::vector<std::byte>(kBytes, std::byte{0xee});
  std::vector<std::byte> arriving = std::vector<std::byte>(kBytes, std::byte{0x55});
  std::array<ScsiTask, 4> tasks;
  std::vector<const ScsiTask*> done;
  CommandQueue queue{reactor, 4, logout, flush, events};
  PduSender sender{options, negotiated, numbers, queue, watchdog};
  CommandAnswers answers{queue, sender, numbers, watchdog, negotiated, tolerated, flush};
};

TEST_F(CommandAnswersTest, DataWithStatusCompletesARead) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  ASSERT_TRUE(answers.take_data_in(with_status(data_in(tag, 0, kBytes, 0), 7), arriving.data()));
  ASSERT_THAT(done, ElementsAre(&tasks[0]));
  EXPECT_TRUE(tasks[0].succeeded());
  EXPECT_EQ(data, arriving);
  EXPECT_EQ(numbers.exp_stat_sn(), 8U);
  EXPECT_EQ(answers.finished(), 1U);
  EXPECT_THAT(noted, IsEmpty());
}

TEST_F(CommandAnswersTest, DataComesInOrderAndWithoutGap) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  ASSERT_TRUE(answers.take_data_in(data_in(tag, 0, 512, 0), arriving.data()));
  EXPECT_THAT(broken(answers.take_data_in(data_in(tag, 512, 512, 2), arriving.data())),
              HasSubstr("DataSN 2 in place of 1"));
  EXPECT_THAT(broken(answers.take_data_in(data_in(tag, 1024, 512, 1), arriving.data())),
              HasSubstr("at offset 1024 in place of 512"));
  EXPECT_THAT(broken(answers.take_data_in(data_in(tag, 512, kBytes - 511, 1), arriving.data())),
              HasSubstr("of 3585 bytes at offset 512"));
  EXPECT_EQ(data[512], std::byte{0xee});
  EXPECT_TRUE(answers.take_data_in(data_in(tag, 512, kBytes - 512, 1), arriving.data()));
}

TEST_F(CommandAnswersTest, DataForAWriteOrForNobodyIsRefused) {
  const std::uint32_t tag = sent(0, DataDirection::out);
  EXPECT_THAT(broken(answers.take_data_in(data_in(tag, 0, 512, 0), arriving.data())),
              HasSubstr("reads nothing"));
  EXPECT_THAT(broken(answers.take_data_in(data_in(tag + 0x10000, 0, 512, 0), arriving.data())),
              HasSubstr("does not exist"));
  EXPECT_EQ(data[0], std::byte{0xee});
}

TEST_F(CommandAnswersTest, StatusBeforeAllDataHasArrivedIsNoSuccess) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  ASSERT_TRUE(answers.take_data_in(with_status(data_in(tag, 0, 512, 0), 7), arriving.data()));
  EXPECT_FALSE(tasks[0].succeeded());
  EXPECT_EQ(tasks[0].transferred_bytes, 512U);
}

TEST_F(CommandAnswersTest, LargeDataGoesToItsPlaceInTheBuffer) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  ASSERT_TRUE(answers.take_data_in(data_in(tag, 0, 512, 0), arriving.data()));
  const DataInPdu rest = with_status(data_in(tag, 512, kBytes - 512, 1), 7);
  const Result<std::byte*> place = answers.begin_data_in(rest);
  ASSERT_TRUE(place);
  EXPECT_EQ(*place, data.data() + 512);
  EXPECT_THAT(done, IsEmpty());
  answers.finish_data_in(rest);
  EXPECT_TRUE(tasks[0].succeeded());
}

TEST_F(CommandAnswersTest, DataThatNobodyWantsIsCountedAndThrownAway) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  tasks[0].data = nullptr;
  const DataInPdu pdu = with_status(data_in(tag, 0, kBytes, 0), 7);
  EXPECT_EQ(answers.begin_data_in(pdu).value(), nullptr);
  ASSERT_TRUE(answers.take_data_in(pdu, arriving.data()));
  EXPECT_TRUE(tasks[0].succeeded());
}

TEST_F(CommandAnswersTest, AResponseTellsTheOutcomeBeforeTheCommandCompletes) {
  const std::uint32_t tag = sent(0, DataDirection::out);
  ScsiResponsePdu pdu = response(tag, 7);
  pdu.underflow = true;
  pdu.residual_bytes = 96;
  const Result<TaskSlot*> slot = answers.take_response(pdu, nullptr);
  ASSERT_TRUE(slot);
  EXPECT_THAT(done, IsEmpty());
  answers.finish(**slot);
  EXPECT_EQ(tasks[0].outcome, TaskOutcome::completed);
  EXPECT_EQ(tasks[0].transferred_bytes, 4000U);
  EXPECT_FALSE(tasks[0].succeeded());
}

TEST_F(CommandAnswersTest, AnotherResponseCodeIsATargetFailure) {
  ScsiResponsePdu pdu = response(sent(0, DataDirection::out), 7);
  pdu.response = 1;
  answers.finish(*answers.take_response(pdu, nullptr).value());
  EXPECT_EQ(tasks[0].outcome, TaskOutcome::target_failure);
  EXPECT_EQ(tasks[0].response_code, 1);
}

TEST_F(CommandAnswersTest, AResidualOfBothWaysIsOneOfAnotherCommand) {
  ScsiResponsePdu pdu = response(sent(0, DataDirection::out), 7);
  pdu.bidirectional_underflow = true;
  answers.finish(*answers.take_response(pdu, nullptr).value());
  EXPECT_FALSE(tasks[0].succeeded());
}

TEST_F(CommandAnswersTest, AnR2tHasItsDataSentAndMaySkipNothing) {
  const std::uint32_t tag = sent(0, DataDirection::out);
  EXPECT_THAT(broken(answers.take_r2t(r2t(tag, 1, 512, 0))), HasSubstr("at offset 1"));
  EXPECT_THAT(broken(answers.take_r2t(r2t(tag, 0, 0, 0))), HasSubstr("for 0 bytes"));
  EXPECT_THAT(broken(answers.take_r2t(r2t(tag, 0, kBytes + 1, 0))), HasSubstr("for 4097 bytes"));
  EXPECT_THAT(broken(answers.take_r2t(r2t(tag, 0, 512, 1))), HasSubstr("out of order"));
  ASSERT_TRUE(answers.take_r2t(r2t(tag, 0, 512, 0)));
  EXPECT_EQ(queue.find(tag)->requested_bytes, 512U);
  EXPECT_TRUE(sender.has_more());
  EXPECT_TRUE(flush.scheduled());
}

TEST_F(CommandAnswersTest, AnR2tForAReadIsRefused) {
  EXPECT_THAT(broken(answers.take_r2t(r2t(sent(0, DataDirection::in), 0, 512, 0))),
              HasSubstr("writes nothing"));
}

TEST_F(CommandAnswersTest, WhatIsHarmlessIsNotedOnce) {
  const std::uint32_t tag = sent(0, DataDirection::out);
  ASSERT_TRUE(answers.take_r2t(r2t(tag, 0, 512, 0)));
  ASSERT_TRUE(answers.take_r2t(r2t(tag, 0, 1024, 1)));
  ASSERT_TRUE(answers.take_r2t(r2t(tag, 0, 2048, 2)));
  EXPECT_THAT(noted, ElementsAre(Tolerated::r2t_for_sent_data, Tolerated::many_r2ts));
}

TEST_F(CommandAnswersTest, AMovedWindowLetsWaitingCommandsGo) {
  flush.cancel();
  TargetNumbers told{.stat_sn = 0, .exp_cmd_sn = 10, .max_cmd_sn = 200};
  answers.take_window(told);
  EXPECT_FALSE(flush.scheduled()) << "nothing waits";
  queue.submit(tasks[0]);
  flush.cancel();
  told.max_cmd_sn = 300;
  answers.take_window(told);
  EXPECT_TRUE(flush.scheduled());
}

TEST_F(CommandAnswersTest, ProgressIsNoted) {
  const std::uint32_t tag = sent(0, DataDirection::in);
  watchdog.begin_scan();
  ASSERT_TRUE(answers.take_data_in(data_in(tag, 0, 512, 0), arriving.data()));
  EXPECT_EQ(queue.find(tag)->last_progress, watchdog.scan());
}

}  // namespace
}  // namespace iscsi_blkback
