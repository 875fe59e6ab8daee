// What a session does with every kind of PDU that a target should not have sent: the connection is
// dropped, the task completes once, nothing outside the buffers is touched. One test for each
// refusal.
#include <fmt/format.h>

#include <tuple>

#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

class SessionProtocolTest : public ProtocolTest {};
INSTANTIATE_TEST_SUITE_P(EverySplit, SessionProtocolTest, every_split());

TEST_P(SessionProtocolTest, EndOfStreamIsALostConnection) {
  static_cast<void>(read());
  target.finish();
  expect_dropped("was lost");
}

TEST_P(SessionProtocolTest, DropsResponseForUnknownTaskByAReset) {
  target.send(response(read() + 1));
  expect_dropped("does not exist");
  EXPECT_THAT(target.close_reason(), ::testing::HasSubstr("reset"));
}
TEST_P(SessionProtocolTest, DropsResponseForEarlierGenerationOfTheSlot) {
  const std::uint32_t tag = read();
  target.send(response(tag, 8));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  command.done = false;
  EXPECT_NE(read(), tag);
  target.send(response(tag, 8));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsDataForUnknownTask) {
  send_data(data_in(read() + 1, 0, 512));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsDataForAWrite) {
  send_data(data_in(write(), 0, 512));
  expect_dropped("reads nothing");
}
TEST_P(SessionProtocolTest, DropsDataBeyondTheBuffer) {
  send_data(data_in(read(), 0, 4100));
  expect_dropped("Data-In of 4100 bytes");
}
// What has arrived before counts: a bound by the whole length would let it run past the buffer.
TEST_P(SessionProtocolTest, DropsALaterDataInThatRunsPastTheBuffer) {
  const std::uint32_t tag = read();
  command.data.insert(command.data.end(), 8192, std::byte{0xee});  // to see it, should it happen
  command.task.data = command.data.data();
  send_data(data_in(tag, 0, 512, 0));
  send_data(data_in(tag, 512, 4096, 1));
  expect_dropped("Data-In of 4096 bytes at offset 512");
  EXPECT_TRUE(std::all_of(command.data.begin() + 4096, command.data.end(),
                          [](std::byte byte) { return byte == std::byte{0xee}; }));
}
TEST_P(SessionProtocolTest, DropsALaterLargeDataInThatRunsPastTheBuffer) {
  command.submit_read(initiator.session, 0, 64);
  const std::uint32_t tag = taken();
  send_data(data_in(tag, 0, 512, 0));
  send_header(data_in(tag, 512, 32768, 1));
  expect_dropped("Data-In of 32768 bytes at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithAGap) {
  send_data(data_in(read(), 512, 512));
  expect_dropped("at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithOffsetThatWraps) {
  send_data(data_in(read(), 0xffffff00, 512));
  expect_dropped("Data-In of 512 bytes");
}
TEST_P(SessionProtocolTest, DropsDataWithWrongDataSn) {
  send_data(data_in(read(), 0, 512, 1));
  expect_dropped("DataSN 1");
}
TEST_P(SessionProtocolTest, DropsLargeDataBeyondTheBufferBeforeItArrives) {
  const std::uint32_t tag = read();
  send_header(data_in(tag, 0, 65536));
  expect_dropped("Data-In of 65536 bytes");
}
TEST_P(SessionProtocolTest, DropsSegmentLongerThanDeclared) {
  const std::uint32_t tag = read();
  send_header(data_in(tag, 0, 0xffffff));
  expect_dropped("MaxRecvDataSegmentLength");
}
TEST_P(SessionProtocolTest, DropsR2tForUnknownTask) {
  target.send(r2t(write() + 1, 65536, 4096));
  expect_dropped("R2T for a task that does not exist");
}
TEST_P(SessionProtocolTest, DropsR2tForARead) {
  target.send(r2t(read(), 0, 4096));
  expect_dropped("writes nothing");
}
TEST_P(SessionProtocolTest, DropsR2tBeyondTheBuffer) {
  target.send(r2t(write(), 65536, 65537));
  expect_dropped("R2T for 65537 bytes");
}
TEST_P(SessionProtocolTest, DropsALaterR2tThatRunsPastTheBuffer) {
  const std::uint32_t tag = write();
  target.send(r2t(tag, 65536, 4096));
  ReceivedPdu data;
  ASSERT_TRUE(target.next(Opcode::data_out, data));
  R2tPdu next = r2t(tag, 65536 + 4096, 65536);
  next.r2t_sn = 1;
  target.send(next);
  expect_dropped("R2T for 65536 bytes at offset 69632");
}
TEST_P(SessionProtocolTest, DropsR2tThatLeavesDataOut) {
  target.send(r2t(write(), 65536 + 512, 4096));
  expect_dropped("R2T for 4096 bytes at offset 66048");
}
TEST_P(SessionProtocolTest, DropsR2tForSentDataThatRunsPastTheBuffer) {
  target.send(r2t(write(), 4096, 131072 - 4096 + 1));
  expect_dropped("R2T for 126977 bytes at offset 4096");
}
TEST_P(SessionProtocolTest, DropsR2tForNothing) {
  target.send(r2t(write(), 65536, 0));
  expect_dropped("R2T for 0 bytes");
}
TEST_P(SessionProtocolTest, DropsR2tOutOfOrder) {
  R2tPdu pdu = r2t(write(), 65536, 4096);
  pdu.r2t_sn = 1;
  target.send(pdu);
  expect_dropped("out of order");
}
TEST_P(SessionProtocolTest, DropsPingAnswerWithATagOfNobody) {
  NopInPdu nop;
  nop.initiator_task_tag = 0xfff5;
  nop.numbers = target.status_numbers();
  target.send(nop);
  expect_dropped("answers no NOP-Out");
}
TEST_P(SessionProtocolTest, DropsLogoutResponseThatNobodyAskedFor) {
  target.send(LogoutResponsePdu{
      .response = 0, .initiator_task_tag = 0xfff2, .numbers = target.status_numbers()});
  expect_dropped("answers no Logout");
}
TEST_P(SessionProtocolTest, DropsUnexpectedAndUnknownOpcodes) {
  send_header(0x3e);
  expect_dropped("opcode 0x3e");
}
TEST_P(SessionProtocolTest, DropsLoginResponseInTheFullFeaturePhase) {
  target.send(LoginResponsePdu{});
  expect_dropped("Login Response");
}

TEST_P(SessionProtocolTest, DropsDataThatOverlapsWhatHasArrived) {
  const std::uint32_t tag = read();
  send_data(data_in(tag, 0, 1024, 0));
  send_data(data_in(tag, 512, 1024, 1));
  expect_dropped("at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithTheSameDataSnTwice) {
  const std::uint32_t tag = read();
  send_data(data_in(tag, 0, 512, 0));
  send_data(data_in(tag, 512, 512, 0));
  expect_dropped("DataSN 0 in place of 1");
}
TEST_P(SessionProtocolTest, DropsDataAfterTheStatus) {
  const std::uint32_t tag = read();
  target.send(response(tag, 8));
  ASSERT_TRUE(runs([&] { return command.done; }));
  command.done = false;
  command.task.on_complete = nullptr;
  send_data(data_in(tag, 0, 4096));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsDataForATestUnitReady) {
  command.submit_test_unit_ready(initiator.session);
  send_data(data_in(taken(), 0, 512));
  expect_dropped("reads nothing");
}
TEST_P(SessionProtocolTest, DropsStatusForACommandTwice) {
  const std::uint32_t tag = read();
  target.send(response(tag, 8));
  ASSERT_TRUE(runs([&] { return command.done; }));
  command.done = false;
  command.task.on_complete = nullptr;
  target.send(response(tag, 8));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsTaskManagementResponseThatNobodyAskedFor) {
  TaskManagementResponsePdu pdu;
  pdu.initiator_task_tag = 0xff00;
  pdu.numbers = target.status_numbers();
  target.send(pdu);
  expect_dropped("answers no request");
}
TEST_P(SessionProtocolTest, DropsTextResponse) {
  send_header(0x24, 0x80);
  expect_dropped("Text Response");
}
TEST_P(SessionProtocolTest, DropsPdusOfAnInitiator) {
  send_header(0x01);
  expect_dropped("SCSI Command");
}
TEST_P(SessionProtocolTest, DropsRejectThatDoesNotSayOfWhat) {
  RejectPdu reject;
  reject.reason = 0x06;
  reject.numbers = target.status_numbers();
  target.send(reject);
  expect_dropped("does not say of what");
}

class SessionOfOneCommandTest : public ProtocolTest {
 protected:
  static SessionOptions one_command() {
    SessionOptions options = test_session_options();
    options.max_commands = 1;
    return options;
  }
  SessionOfOneCommandTest() : ProtocolTest(one_command()) {}
};
INSTANTIATE_TEST_SUITE_P(Whole, SessionOfOneCommandTest, ::testing::Values<std::size_t>(0));

TEST_P(SessionOfOneCommandTest, DropsMoreR2tsThanThereIsRoomFor) {
  R2tPdu pdu = r2t(write(), 65536, 4);
  std::vector<std::byte> flood(100 * kBhsBytes);
  for (std::size_t i = 0; i < 100; ++i) {
    encode(pdu, BhsBuffer{flood.data() + i * kBhsBytes, kBhsBytes});
    ++pdu.r2t_sn;
    pdu.buffer_offset += 4;
  }
  target.send_bytes(flood);
  expect_dropped("far more R2Ts than MaxOutstandingR2T allows");
}

class RejectScene : public ProtocolScene {
 protected:
  // The target below sees nothing but what the test is about, no NOP-Out in between.
  static SessionOptions without_stall_probe() {
    SessionOptions options = test_session_options();
    options.stall_probe = options.path_timeout;
    return options;
  }
  explicit RejectScene(std::size_t split) : ProtocolScene(split, without_stall_probe()) {}

  // Of what begins with these bytes.
  void send_reject(std::uint8_t reason, std::span<const std::byte> of) {
    RejectPdu pdu;
    pdu.reason = reason;
    pdu.data_bytes = kBhsBytes;
    pdu.numbers = target.status_numbers();
    target.send(pdu, of.first(kBhsBytes));
  }
  // Of a command.
  void reject(std::uint8_t reason) {
    command.submit_read(initiator.session, 0, 8);
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
    send_reject(reason, pdu.bytes);
  }
};

// Those that say that a session has gone wrong: all but the ones that session_answers_test.cpp has.
struct RejectReason {
  const char* name;
  std::uint8_t reason;
  const char* words;
};
class SessionRejectReasonTest
    : public ::testing::TestWithParam<std::tuple<RejectReason, std::size_t>>,
      public RejectScene {
 protected:
  SessionRejectReasonTest() : RejectScene(std::get<1>(GetParam())) {}
};
INSTANTIATE_TEST_SUITE_P(
    EverySplit, SessionRejectReasonTest,
    ::testing::Combine(
        ::testing::ValuesIn(std::vector<RejectReason>{
            {"SnackReject", 0x03, "reason 0x03 (SNACK rejected)"},
            {"ProtocolError", 0x04, "reason 0x04 (protocol error)"},
            {"CommandNotSupported", 0x05, "reason 0x05 (command not supported)"},
            {"ImmediateCommandRejectOfSomethingElse", 0x06,
             "reason 0x06 (too many immediate commands)"},
            {"TaskInProgress", 0x07, "reason 0x07 (task in progress)"},
            {"InvalidDataAcknowledgement", 0x08, "reason 0x08 (invalid data acknowledgement)"},
            {"InvalidPduField", 0x09, "reason 0x09 (invalid PDU field)"},
            {"LongOperationReject", 0x0a, "reason 0x0a (out of target transfer tags)"},
            {"NegotiationReset", 0x0b, "reason 0x0b (negotiation reset)"},
            {"AReasonThatDoesNotExist", 0xee, "reason 0xee (unknown reason)"},
        }),
        every_split()),
    [](const auto& test) {
      return fmt::format("{}Split{}", std::get<0>(test.param).name, std::get<1>(test.param));
    });

TEST_P(SessionRejectReasonTest, DropsTheConnection) {
  const RejectReason& row = std::get<0>(GetParam());
  reject(row.reason);
  expect_dropped(row.words);
}

class SessionRejectTest : public ::testing::TestWithParam<std::size_t>, public RejectScene {
 protected:
  SessionRejectTest() : RejectScene(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(EverySplit, SessionRejectTest, every_split());

TEST_P(SessionRejectTest, DropsOnDataDigestErrorOfACommandThatIsNotThere) {
  target.exp_cmd_sn += 1;
  send_reject(0x02, block);
  expect_dropped("reason 0x02 (data digest error)");
}
// As for Asynchronous Message 1: the command that was rejected is not answered any more, so the
// Logout goes after half a second with it outstanding.
TEST_P(SessionRejectTest, WaitingForLogoutIsALogoutRequest) {
  reject(0x0c);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::logout_request, pdu));
  EXPECT_EQ(initiator.session.state(), SessionState::in_logout);
  LogoutResponsePdu answer;
  answer.initiator_task_tag = pdu.header.initiator_task_tag;
  answer.numbers = target.status_numbers();
  target.send(answer);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
}

}  // namespace
}  // namespace iscsi_blkback
