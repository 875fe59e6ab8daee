// What the tests with a scripted target share: a session that is logged in to it, and the PDUs that
// a target sends, with the fields that most tests want.
#pragma once

#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {

// split: at most so many bytes arrive with one receive (a random number up to it), so that each test
// sees its PDUs cut anywhere; 0: as they were sent.
class ProtocolScene {
 protected:
  explicit ProtocolScene(std::size_t split, const SessionOptions& options = test_session_options())
      : initiator(reactor, options) {
    reactor.network().set_split(test_address(1), SimDirection::to_client, split);
    initiator.session.start();
    EXPECT_TRUE(target.accept_login());
    EXPECT_TRUE(initiator.up());
  }

  // One command of 4096 bytes at the target; its tag.
  std::uint32_t read() {
    command.submit_read(initiator.session, 0, 8);
    return taken();
  }
  // 131072 bytes: 65536 come without being asked for, the rest by R2T.
  std::uint32_t write() {
    command.submit_write(initiator.session, 0, test_pattern(131072, 1));
    const std::uint32_t tag = taken();
    for (int i = 0; i < 7; ++i) {
      ReceivedPdu data;
      EXPECT_TRUE(target.next(Opcode::data_out, data));
    }
    return tag;
  }
  std::uint32_t taken() {
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
    ++target.exp_cmd_sn;
    ++target.max_cmd_sn;
    return pdu.header.initiator_task_tag;
  }
  DataInPdu data_in(std::uint32_t tag, std::uint32_t offset, std::uint32_t bytes,
                    std::uint32_t data_sn = 0) {
    return {.final = true,
            .acknowledge = false,
            .overflow = false,
            .underflow = false,
            .has_status = false,
            .status = 0,
            .data_bytes = bytes,
            .initiator_task_tag = tag,
            .target_transfer_tag = kReservedTag,
            .numbers = target.numbers(),
            .data_sn = data_sn,
            .buffer_offset = offset,
            .residual_bytes = 0};
  }
  ScsiResponsePdu response(std::uint32_t tag, std::uint8_t status = 0) {
    ScsiResponsePdu pdu;
    pdu.status = status;
    pdu.initiator_task_tag = tag;
    pdu.numbers = target.status_numbers();
    return pdu;
  }
  R2tPdu r2t(std::uint32_t tag, std::uint32_t offset, std::uint32_t bytes) {
    return {.lun = 0,
            .initiator_task_tag = tag,
            .target_transfer_tag = 77,
            .numbers = target.numbers(),
            .r2t_sn = 0,
            .buffer_offset = offset,
            .desired_bytes = bytes};
  }
  // With what the pattern has from its beginning on.
  void send_data(const DataInPdu& pdu) { target.send(pdu, std::span{block}.first(pdu.data_bytes)); }
  // Of a Data-In whose data does not follow, or of a PDU that no target sends.
  void send_header(const DataInPdu& pdu) {
    std::array<std::byte, kBhsBytes> header;
    encode(pdu, BhsBuffer{header});
    target.send_bytes(header);
  }
  void send_header(std::uint8_t opcode, std::uint8_t flags = 0) {
    target.send_bytes(std::array<std::byte, kBhsBytes>{std::byte{opcode}, std::byte{flags}});
  }
  template <class Condition>
  [[nodiscard]] bool runs(Condition condition) {
    return runs_until(reactor, condition);
  }
  void expect_dropped(const char* why) {
    EXPECT_TRUE(runs_until(
        reactor, [&] { return initiator.observer.downs == 1; }, std::chrono::seconds(1)));
    EXPECT_THAT(initiator.observer.reason, ::testing::HasSubstr(why));
    reactor.run_for(std::chrono::milliseconds(20));
    // By us, unless the target had ended the connection itself: nothing of ours may still be on its
    // way.
    EXPECT_THAT(target.close_reason(), ::testing::AnyOf(::testing::HasSubstr("reset"),
                                                        ::testing::HasSubstr("by this side")));
    EXPECT_TRUE(!command.task.linked() && (command.done || command.task.on_complete == nullptr));
    if (command.done) {
      EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
    }
  }

  SimReactor reactor{3};
  ScriptedTarget target{reactor, test_address(1)};
  TestCommand command;
  TestSession initiator;
  const std::vector<std::byte> block = test_pattern(8192, 4);
};

// The parameter is the split.
class ProtocolTest : public ::testing::TestWithParam<std::size_t>, public ProtocolScene {
 protected:
  explicit ProtocolTest(const SessionOptions& options = test_session_options())
      : ProtocolScene(GetParam(), options) {}
};

inline auto every_split() {
  return ::testing::Values<std::size_t>(0, 1, 47);
}

}  // namespace iscsi_blkback
