// What a session does with every kind of PDU that a target should not have sent: the connection is
// dropped, the task completes once, nothing outside the buffers is touched. One test for each
// refusal.
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

TEST_P(SessionProtocolTest, DropsResponseForUnknownTask) {
  target.send(response(read() + 1));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropIsAReset) {
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
  target.send(data_in(read() + 1, 0, 512), std::span{block}.first(512));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsDataForAWrite) {
  target.send(data_in(write(), 0, 512), std::span{block}.first(512));
  expect_dropped("reads nothing");
}
TEST_P(SessionProtocolTest, DropsDataBeyondTheBuffer) {
  target.send(data_in(read(), 0, 4100), std::span{block}.first(4100));
  expect_dropped("Data-In of 4100 bytes");
}
// What has arrived before counts: a bound by the whole length would let it run past the buffer.
TEST_P(SessionProtocolTest, DropsALaterDataInThatRunsPastTheBuffer) {
  const std::uint32_t tag = read();
  command.data.insert(command.data.end(), 8192, std::byte{0xee});  // to see it, should it happen
  command.task.data = command.data.data();
  target.send(data_in(tag, 0, 512, 0), std::span{block}.first(512));
  target.send(data_in(tag, 512, 4096, 1), std::span{block}.first(4096));
  expect_dropped("Data-In of 4096 bytes at offset 512");
  EXPECT_TRUE(std::all_of(command.data.begin() + 4096, command.data.end(),
                          [](std::byte byte) { return byte == std::byte{0xee}; }));
}
TEST_P(SessionProtocolTest, DropsALaterLargeDataInThatRunsPastTheBuffer) {
  command.submit_read(initiator.session, 0, 64);
  const std::uint32_t tag = taken();
  target.send(data_in(tag, 0, 512, 0), std::span{block}.first(512));
  std::array<std::byte, kBhsBytes> header;
  encode(data_in(tag, 512, 32768, 1), BhsBuffer{header});
  target.send_bytes(header);
  expect_dropped("Data-In of 32768 bytes at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithAGap) {
  target.send(data_in(read(), 512, 512), std::span{block}.first(512));
  expect_dropped("at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithOffsetThatWraps) {
  target.send(data_in(read(), 0xffffff00, 512), std::span{block}.first(512));
  expect_dropped("Data-In of 512 bytes");
}
TEST_P(SessionProtocolTest, DropsDataThatComesTwice) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 512, 0), std::span{block}.first(512));
  target.send(data_in(tag, 0, 512, 1), std::span{block}.first(512));
  expect_dropped("at offset 0");
}
TEST_P(SessionProtocolTest, DropsDataWithWrongDataSn) {
  target.send(data_in(read(), 0, 512, 1), std::span{block}.first(512));
  expect_dropped("DataSN 1");
}
TEST_P(SessionProtocolTest, DropsLargeDataBeyondTheBufferBeforeItArrives) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(data_in(tag, 0, 65536), BhsBuffer{header});
  target.send_bytes(header);
  expect_dropped("Data-In of 65536 bytes");
}
TEST_P(SessionProtocolTest, DropsSegmentLongerThanDeclared) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(data_in(tag, 0, 0xffffff), BhsBuffer{header});
  target.send_bytes(header);
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
TEST_P(SessionProtocolTest, DropsOnReject) {
  RejectPdu reject;
  reject.reason = 0x04;
  reject.data_bytes = kBhsBytes;
  reject.numbers = target.status_numbers();
  target.send(reject, std::span{block}.first(kBhsBytes));
  expect_dropped("with reason 0x04 (protocol error)");
}
TEST_P(SessionProtocolTest, DropsLogoutResponseThatNobodyAskedFor) {
  target.send(LogoutResponsePdu{
      .response = 0, .initiator_task_tag = 0xfff2, .numbers = target.status_numbers()});
  expect_dropped("answers no Logout");
}
TEST_P(SessionProtocolTest, DropsUnexpectedAndUnknownOpcodes) {
  std::array<std::byte, kBhsBytes> header{};
  header[0] = std::byte{0x3e};
  target.send_bytes(header);
  expect_dropped("opcode 0x3e");
}
TEST_P(SessionProtocolTest, DropsLoginResponseInTheFullFeaturePhase) {
  target.send(LoginResponsePdu{});
  expect_dropped("Login Response");
}

TEST_P(SessionProtocolTest, DropsDataThatOverlapsWhatHasArrived) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 1024, 0), std::span{block}.first(1024));
  target.send(data_in(tag, 512, 1024, 1), std::span{block}.first(1024));
  expect_dropped("at offset 512");
}
TEST_P(SessionProtocolTest, DropsDataWithTheSameDataSnTwice) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 512, 0), std::span{block}.first(512));
  target.send(data_in(tag, 512, 512, 0), std::span{block}.first(512));
  expect_dropped("DataSN 0 in place of 1");
}
TEST_P(SessionProtocolTest, DropsDataAfterTheStatus) {
  const std::uint32_t tag = read();
  target.send(response(tag, 8));
  ASSERT_TRUE(runs([&] { return command.done; }));
  command.done = false;
  command.task.on_complete = nullptr;
  target.send(data_in(tag, 0, 4096), std::span{block}.first(4096));
  expect_dropped("does not exist");
}
TEST_P(SessionProtocolTest, DropsDataForATestUnitReady) {
  command.submit_test_unit_ready(initiator.session);
  target.send(data_in(taken(), 0, 512), std::span{block}.first(512));
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
  std::array<std::byte, kBhsBytes> header{};
  header[0] = std::byte{0x24};
  header[1] = std::byte{0x80};
  target.send_bytes(header);
  expect_dropped("Text Response");
}
TEST_P(SessionProtocolTest, DropsPdusOfAnInitiator) {
  std::array<std::byte, kBhsBytes> header{};
  header[0] = std::byte{0x01};
  target.send_bytes(header);
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

class SessionRejectTest : public ProtocolTest {
 protected:
  // The target below sees nothing but what the test is about, no NOP-Out in between.
  static SessionOptions without_stall_probe() {
    SessionOptions options = test_session_options();
    options.stall_probe = options.path_timeout;
    return options;
  }
  SessionRejectTest() : ProtocolTest(without_stall_probe()) {}

  // A Reject of the command that was sent last.
  void reject(std::uint8_t reason) {
    command.submit_read(initiator.session, 0, 8);
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
    RejectPdu answer;
    answer.reason = reason;
    answer.data_bytes = kBhsBytes;
    answer.numbers = target.status_numbers();
    target.send(answer, std::span{pdu.bytes}.first(kBhsBytes));
  }
};
INSTANTIATE_TEST_SUITE_P(EverySplit, SessionRejectTest, every_split());

TEST_P(SessionRejectTest, DropsOnDataDigestErrorOfACommandThatIsNotThere) {
  target.exp_cmd_sn += 1;
  RejectPdu answer;
  answer.reason = 0x02;
  answer.data_bytes = kBhsBytes;
  answer.numbers = target.status_numbers();
  target.send(answer, std::span{block}.first(kBhsBytes));
  expect_dropped("reason 0x02 (data digest error)");
}
TEST_P(SessionRejectTest, DropsOnSnackReject) {
  reject(0x03);
  expect_dropped("reason 0x03 (SNACK rejected)");
}
TEST_P(SessionRejectTest, DropsOnProtocolError) {
  reject(0x04);
  expect_dropped("reason 0x04 (protocol error)");
}
TEST_P(SessionRejectTest, DropsOnCommandNotSupported) {
  reject(0x05);
  expect_dropped("reason 0x05 (command not supported)");
}
TEST_P(SessionRejectTest, DropsOnImmediateCommandRejectOfSomethingElse) {
  reject(0x06);
  expect_dropped("reason 0x06 (too many immediate commands)");
}
TEST_P(SessionRejectTest, DropsOnTaskInProgress) {
  reject(0x07);
  expect_dropped("reason 0x07 (task in progress)");
}
TEST_P(SessionRejectTest, DropsOnInvalidDataAcknowledgement) {
  reject(0x08);
  expect_dropped("reason 0x08 (invalid data acknowledgement)");
}
TEST_P(SessionRejectTest, DropsOnInvalidPduField) {
  reject(0x09);
  expect_dropped("reason 0x09 (invalid PDU field)");
}
TEST_P(SessionRejectTest, DropsOnLongOperationReject) {
  reject(0x0a);
  expect_dropped("reason 0x0a (out of target transfer tags)");
}
TEST_P(SessionRejectTest, DropsOnNegotiationReset) {
  reject(0x0b);
  expect_dropped("reason 0x0b (negotiation reset)");
}
TEST_P(SessionRejectTest, DropsOnAReasonThatDoesNotExist) {
  reject(0xee);
  expect_dropped("reason 0xee (unknown reason)");
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
