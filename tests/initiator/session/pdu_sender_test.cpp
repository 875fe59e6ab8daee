// PduSender: which PDUs a batch has, and what holds a command or its data back.
#include "initiator/session/pdu_sender.h"

#include <gmock/gmock.h>

#include <array>
#include <cstring>
#include <vector>

#include "initiator/session/session_tags.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PduSenderTest : public testing::Test {
 protected:
  PduSenderTest() {
    negotiated.initial_r2t = false;
    negotiated.immediate_data = true;
    negotiated.max_send_data_segment_length = 8192;
    negotiated.first_burst_length = 16384;
    numbers.cmd_sn = 10;
    numbers.max_cmd_sn = 100;
    numbers.statuses.reset(77);
  }
  static SessionOptions sender_options() {
    SessionOptions result;
    result.max_commands = 4;
    result.max_outstanding_r2t = 1;
    return result;
  }
  ~PduSenderTest() override {
    queue.connection_lost();
    flush.cancel();
  }
  void submit(std::size_t number, DataDirection direction, std::uint32_t bytes) {
    ScsiTask& task = tasks.at(number);
    task.lun = number;
    task.direction = direction;
    task.data = data.data();
    task.data_length_bytes = bytes;
    task.on_complete = [](ScsiTask&) noexcept {};
    queue.submit(task);
  }
  // What the batch has, PDU by PDU: their headers; the data is left out.
  std::vector<std::array<std::byte, kBhsBytes>> headers() {
    sender.batch().seal();
    std::vector<std::byte> wire;
    for (const iovec& part : sender.batch().parts()) {
      const auto* bytes = static_cast<const std::byte*>(part.iov_base);
      wire.insert(wire.end(), bytes, bytes + part.iov_len);
    }
    std::vector<std::array<std::byte, kBhsBytes>> result;
    for (std::size_t at = 0; at < wire.size();) {
      std::memcpy(result.emplace_back().data(), wire.data() + at, kBhsBytes);
      at += decode_header(BhsBytes{result.back()}).total_bytes();
    }
    return result;
  }
  std::vector<Opcode> opcodes() {
    std::vector<Opcode> result;
    for (const auto& header : headers()) {
      result.push_back(decode_header(BhsBytes{header}).opcode);
    }
    return result;
  }
  void stage_all() {
    sender.begin_batch();
    sender.stage_bursts();
    static_cast<void>(sender.stage_commands());
  }

  SimReactor reactor{1};
  Deferred flush{reactor, [](void*) noexcept {}, nullptr};
  Deferred events{reactor, [](void*) noexcept {}, nullptr};
  const SessionOptions options = sender_options();
  NegotiatedParameters negotiated;
  SessionNumbers numbers;
  LogoutSequence logout{reactor, [](void*) noexcept {}, nullptr};
  KeepAlive keep_alive{reactor, options, [](void*) noexcept {}, nullptr};
  CommandWatchdog watchdog{reactor, options, keep_alive, [](void*) noexcept {}, nullptr};
  std::vector<std::byte> data = std::vector<std::byte>(4 << 20);
  std::array<ScsiTask, 6> tasks;
  CommandQueue queue{reactor, 4, logout, flush, events};
  PduSender sender{options, negotiated, numbers, queue, watchdog};
};

TEST_F(PduSenderTest, ACommandHasTheNextCmdSnAndAcknowledges) {
  submit(3, DataDirection::in, 4096);
  stage_all();
  ASSERT_EQ(headers().size(), 1U);
  const ScsiCommandPdu pdu = decode_scsi_command(BhsBytes{headers()[0]});
  EXPECT_EQ(pdu.cmd_sn, 10U);
  EXPECT_EQ(pdu.exp_stat_sn, 77U);
  EXPECT_EQ(pdu.lun, 3U);
  EXPECT_TRUE(pdu.read);
  EXPECT_EQ(pdu.expected_data_bytes, 4096U);
  EXPECT_EQ(numbers.cmd_sn, 11U);
  EXPECT_EQ(queue.find(pdu.initiator_task_tag)->task, &tasks[3]);
  EXPECT_EQ(sender.commands(), 1U);
}

TEST_F(PduSenderTest, TheWindowAndTheSlotsHoldCommandsBack) {
  for (std::size_t i = 0; i < 6; ++i) {
    submit(i, DataDirection::in, 512);
  }
  numbers.max_cmd_sn = 11;
  stage_all();
  EXPECT_EQ(headers().size(), 2U);
  EXPECT_FALSE(sender.has_more());
  numbers.max_cmd_sn = 100;
  EXPECT_TRUE(sender.has_more());
  stage_all();
  EXPECT_EQ(headers().size(), 2U) << "there are four slots";
  EXPECT_FALSE(sender.has_more());
}

TEST_F(PduSenderTest, AWriteHasImmediateAndUnsolicitedData) {
  submit(0, DataDirection::out, 20000);
  stage_all();
  const auto pdus = headers();
  ASSERT_EQ(pdus.size(), 2U);
  const ScsiCommandPdu command = decode_scsi_command(BhsBytes{pdus[0]});
  EXPECT_EQ(command.data_bytes, 8192U);
  EXPECT_FALSE(command.final);
  const DataOutPdu out = decode_data_out(BhsBytes{pdus[1]});
  EXPECT_EQ(out.buffer_offset, 8192U);
  EXPECT_EQ(out.data_bytes, 8192U) << "up to FirstBurstLength";
  EXPECT_TRUE(out.final);
  EXPECT_EQ(out.target_transfer_tag, kReservedTag);
}

TEST_F(PduSenderTest, WithInitialR2tOnlyImmediateDataGoesUnasked) {
  negotiated.initial_r2t = true;
  submit(0, DataDirection::out, 20000);
  stage_all();
  ASSERT_THAT(opcodes(), ElementsAre(Opcode::scsi_command));
  EXPECT_TRUE(decode_scsi_command(BhsBytes{headers()[0]}).final);
}

TEST_F(PduSenderTest, AnR2tIsAnsweredInPiecesThatTheTargetTakes) {
  negotiated.initial_r2t = true;
  submit(0, DataDirection::out, 40000);
  stage_all();
  const std::uint32_t tag = decode_header(BhsBytes{headers()[0]}).initiator_task_tag;
  queue.find(tag)->outstanding_r2ts = 1;
  ASSERT_TRUE(sender.add_burst({.initiator_task_tag = tag,
                                .target_transfer_tag = 5,
                                .offset = 8192,
                                .end = 28192,
                                .data_sn = 0,
                                .asked_for = true}));
  stage_all();
  std::vector<std::uint32_t> offsets;
  for (const auto& header : headers()) {
    const DataOutPdu out = decode_data_out(BhsBytes{header});
    EXPECT_EQ(out.target_transfer_tag, 5U);
    EXPECT_EQ(out.data_sn, offsets.size());
    offsets.push_back(out.buffer_offset);
  }
  EXPECT_THAT(offsets, ElementsAre(8192, 16384, 24576));
  EXPECT_EQ(queue.find(tag)->outstanding_r2ts, 0);
  EXPECT_EQ(queue.find(tag)->staged_bytes, 28192U);
}

TEST_F(PduSenderTest, NoCommandGoesBeforeABurstThatDidNotFit) {
  negotiated.initial_r2t = true;
  negotiated.max_send_data_segment_length = 2 << 20;
  negotiated.first_burst_length = 512;
  submit(0, DataDirection::out, 3 << 20);
  stage_all();
  const std::uint32_t tag = decode_header(BhsBytes{headers()[0]}).initiator_task_tag;
  ASSERT_TRUE(sender.add_burst({.initiator_task_tag = tag,
                                .target_transfer_tag = 5,
                                .offset = 512,
                                .end = 3 << 20,
                                .data_sn = 0,
                                .asked_for = false}));
  submit(1, DataDirection::in, 512);
  stage_all();
  EXPECT_THAT(opcodes(), ElementsAre(Opcode::data_out));
  EXPECT_TRUE(sender.has_more());
  stage_all();
  EXPECT_THAT(opcodes(), ElementsAre(Opcode::data_out, Opcode::scsi_command));
}

TEST_F(PduSenderTest, DataForATaskThatIsAnsweredIsNotSent) {
  ASSERT_TRUE(sender.add_burst({.initiator_task_tag = 0x10000,
                                .target_transfer_tag = 5,
                                .offset = 0,
                                .end = 512,
                                .data_sn = 0,
                                .asked_for = true}));
  stage_all();
  EXPECT_THAT(headers(), IsEmpty());
  EXPECT_FALSE(sender.has_more());
}

TEST_F(PduSenderTest, ThereAreOnlySoManyR2tsAndPings) {
  PduSender::Burst burst{.initiator_task_tag = 0x10000, .end = 512};
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(sender.add_burst(burst)) << "one for each slot, and one";
  }
  EXPECT_FALSE(sender.add_burst(burst));
  for (int i = 0; i < 16; ++i) {
    EXPECT_TRUE(sender.add_ping_reply(0, 1));
  }
  EXPECT_FALSE(sender.add_ping_reply(0, 1));
}

TEST_F(PduSenderTest, PingsAcknowledgeAndUseNoCmdSn) {
  ASSERT_TRUE(sender.add_ping_reply(9, 33));
  sender.begin_batch();
  sender.stage_ping_replies();
  sender.stage_ping();
  const auto pdus = headers();
  ASSERT_EQ(pdus.size(), 2U);
  const NopOutPdu reply = decode_nop_out(BhsBytes{pdus[0]});
  EXPECT_EQ(reply.lun, 9U);
  EXPECT_EQ(reply.target_transfer_tag, 33U);
  EXPECT_EQ(reply.initiator_task_tag, kReservedTag);
  const NopOutPdu ping = decode_nop_out(BhsBytes{pdus[1]});
  EXPECT_EQ(ping.initiator_task_tag, kPingTag);
  EXPECT_EQ(ping.target_transfer_tag, kReservedTag);
  EXPECT_EQ(ping.exp_stat_sn, 77U);
  EXPECT_EQ(numbers.cmd_sn, 10U);
}

TEST_F(PduSenderTest, ABufferIsReferredToUntilTheBatchIsSent) {
  submit(0, DataDirection::out, 8192);
  submit(1, DataDirection::out, 512);  // copied
  stage_all();
  const auto pdus = headers();
  const TaskSlot& large = *queue.find(decode_header(BhsBytes{pdus[0]}).initiator_task_tag);
  const TaskSlot& small = *queue.find(decode_header(BhsBytes{pdus.back()}).initiator_task_tag);
  sender.sends();
  EXPECT_TRUE(sender.refers_to(large));
  EXPECT_FALSE(sender.refers_to(small));
  sender.on_sent();
  EXPECT_FALSE(sender.refers_to(large));
  stage_all();
  sender.sends();
  EXPECT_FALSE(sender.refers_to(large)) << "the next batch";
}

TEST_F(PduSenderTest, ACommandThatWasGivenUpForSilenceBeforeIsTold) {
  submit(0, DataDirection::in, 512);
  sender.begin_batch();
  EXPECT_FALSE(sender.stage_commands());
  tasks[1].silences = 1;
  submit(1, DataDirection::in, 512);
  EXPECT_TRUE(sender.stage_commands());
}

TEST_F(PduSenderTest, NothingOfALostConnectionIsSent) {
  ASSERT_TRUE(sender.add_ping_reply(0, 1));
  ASSERT_TRUE(sender.add_burst({.initiator_task_tag = 0x10000, .end = 512}));
  sender.sends();
  sender.forget_connection();
  EXPECT_FALSE(sender.sending());
  EXPECT_FALSE(sender.has_more());
  sender.begin_batch();
  sender.stage_ping_replies();
  EXPECT_TRUE(sender.batch().empty());
}

}  // namespace
}  // namespace iscsi_blkback
