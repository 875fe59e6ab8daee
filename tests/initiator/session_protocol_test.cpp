// What a session does with every kind of PDU that a target should not have sent: the connection is
// dropped, the task completes once, nothing outside the buffers is touched. One test for each
// refusal.
#include <gmock/gmock.h>

#include "base/byte_order.h"
#include "tests/initiator/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class SessionProtocolTest : public ::testing::Test {
 protected:
  SessionProtocolTest() {
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
  void expect_dropped(const char* why) {
    EXPECT_TRUE(runs_until(
        reactor, [&] { return initiator.observer.downs == 1; }, seconds(1)));
    EXPECT_THAT(initiator.observer.reason, HasSubstr(why));
    reactor.run_for(milliseconds(20));
    EXPECT_TRUE(!command.task.linked() && (command.done || command.task.on_complete == nullptr));
    if (command.done) {
      EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
    }
  }

  SimReactor reactor{3};
  ScriptedTarget target{reactor, test_address(1)};
  TestCommand command;
  TestSession initiator{reactor, test_session_options()};
  const std::vector<std::byte> block = test_pattern(8192, 4);
};

TEST_F(SessionProtocolTest, ReadInPiecesWithSeparateStatus) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 1000, 0), std::span{block}.first(1000));
  target.send(data_in(tag, 1000, 3096, 1), std::span{block}.subspan(1000, 3096));
  target.send(response(tag));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
  EXPECT_TRUE(std::equal(command.data.begin(), command.data.end(), block.begin()));
}

// libiscsi reports GOOD over a buffer that was never filled.
TEST_F(SessionProtocolTest, GoodReadWithoutDataIsNoSuccess) {
  target.send(response(read()));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::good);
  EXPECT_EQ(command.task.transferred_bytes, 0U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_F(SessionProtocolTest, GoodWriteThatWasNotAskedForIsNoSuccess) {
  target.send(response(write()));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.transferred_bytes, 65536U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_F(SessionProtocolTest, ResidualLargerThanTheCommandIsBounded) {
  const std::uint32_t tag = read();
  ScsiResponsePdu pdu = response(tag);
  pdu.underflow = true;
  pdu.residual_bytes = 0xffffffff;
  target.send(pdu);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.transferred_bytes, 0U);
}

TEST_F(SessionProtocolTest, SenseLengthBeyondTheSegmentIsBounded) {
  const std::uint32_t tag = read();
  std::vector<std::byte> segment = make_sense(SenseKey::not_ready, 0x0401);
  segment.insert(segment.begin(), {std::byte{0xff}, std::byte{0xff}});
  ScsiResponsePdu pdu = response(tag, 2);
  pdu.data_bytes = static_cast<std::uint32_t>(segment.size());
  target.send(pdu, segment);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.sense.code(), 0x0401);
}

TEST_F(SessionProtocolTest, CheckConditionWithoutSenseHasNoValidSense) {
  target.send(response(read(), 2));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::check_condition);
  EXPECT_FALSE(command.task.sense.valid);
}

TEST_F(SessionProtocolTest, DataOutAfterR2tHasTheRightFields) {
  const std::uint32_t tag = write();
  target.send(r2t(tag, 65536, 65536));
  std::uint32_t offset = 65536;
  for (std::uint32_t data_sn = 0; offset < 131072; ++data_sn) {
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::data_out, pdu));
    const DataOutPdu data = decode_data_out(pdu.bhs());
    EXPECT_EQ(data.target_transfer_tag, 77U);
    EXPECT_EQ(data.initiator_task_tag, tag);
    EXPECT_EQ(data.buffer_offset, offset);
    EXPECT_EQ(data.data_sn, data_sn);
    EXPECT_EQ(data.data_bytes, 8192U);
    EXPECT_TRUE(std::equal(pdu.data().begin(), pdu.data().end(),
                           command.data.begin() + static_cast<std::ptrdiff_t>(offset)));
    offset += data.data_bytes;
    EXPECT_EQ(data.final, offset == 131072);
  }
  target.send(response(tag));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
}

TEST_F(SessionProtocolTest, AdditionalHeaderSegmentsArePassedOver) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(response(tag, 8), BhsBuffer{header});
  header[4] = std::byte{2};  // eight bytes of additional headers
  target.send_bytes(header);
  target.send_bytes(std::vector<std::byte>(8, std::byte{0xaa}));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::busy);
}

TEST_F(SessionProtocolTest, ExpStatSnFollowsTheTarget) {
  target.stat_sn = 0x7ffffffe;  // far ahead of what it was: taken as it comes
  target.send(response(read()));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  TestCommand next;
  next.submit_test_unit_ready(initiator.session);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
  EXPECT_EQ(decode_scsi_command(pdu.bhs()).exp_stat_sn, 0x7fffffffU);
  target.reset();
  ASSERT_TRUE(runs_until(reactor, [&] { return next.done; }));
}

TEST_F(SessionProtocolTest, WindowThatMovesBackIsIgnored) {
  const std::uint32_t tag = read();
  target.max_cmd_sn -= 40;
  target.send(response(tag));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  TestCommand next;
  next.submit_test_unit_ready(initiator.session);
  ReceivedPdu pdu;
  EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
  target.reset();
  ASSERT_TRUE(runs_until(reactor, [&] { return next.done; }));
}

TEST_F(SessionProtocolTest, NopInWithDataIsAnswered) {
  NopInPdu nop;
  nop.target_transfer_tag = 5;
  nop.lun = 0x0001000000000000;
  nop.data_bytes = 13;
  nop.numbers = target.numbers();
  target.send(nop, std::span{block}.first(13));
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::nop_out, pdu));
  const NopOutPdu answer = decode_nop_out(pdu.bhs());
  EXPECT_TRUE(answer.immediate);
  EXPECT_EQ(answer.target_transfer_tag, 5U);
  EXPECT_EQ(answer.initiator_task_tag, kReservedTag);
  EXPECT_EQ(answer.lun, nop.lun);
}

TEST_F(SessionProtocolTest, RejectedPingMeansAlive) {
  ReceivedPdu ping;
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));
  RejectPdu reject;
  reject.reason = 0x06;
  reject.data_bytes = kBhsBytes;
  reject.numbers = target.status_numbers();
  target.send(reject, std::span{ping.bytes}.first(kBhsBytes));
  reactor.run_for(seconds(4));
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

TEST_F(SessionProtocolTest, ScsiEventAndVendorEventDemandNothing) {
  std::vector<std::byte> segment = make_sense(SenseKey::unit_attention, 0x3f0e);
  segment.insert(segment.begin(), {std::byte{0}, std::byte{18}});
  AsyncMessagePdu event;
  event.event = AsyncEvent::scsi_event;
  event.data_bytes = static_cast<std::uint32_t>(segment.size());
  event.numbers = target.status_numbers();
  target.send(event, segment);
  event.event = static_cast<AsyncEvent>(255);
  event.data_bytes = 0;
  event.numbers = target.status_numbers();
  target.send(event);
  reactor.run_for(milliseconds(100));
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

TEST_F(SessionProtocolTest, EndOfStreamIsALostConnection) {
  static_cast<void>(read());
  target.finish();
  expect_dropped("was lost");
}

TEST_F(SessionProtocolTest, DropsResponseForUnknownTask) {
  target.send(response(read() + 1));
  expect_dropped("does not exist");
}
TEST_F(SessionProtocolTest, DropsResponseForEarlierGenerationOfTheSlot) {
  const std::uint32_t tag = read();
  target.send(response(tag, 8));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  command.done = false;
  EXPECT_NE(read(), tag);
  target.send(response(tag, 8));
  expect_dropped("does not exist");
}
TEST_F(SessionProtocolTest, DropsDataForUnknownTask) {
  target.send(data_in(read() + 1, 0, 512), std::span{block}.first(512));
  expect_dropped("does not exist");
}
TEST_F(SessionProtocolTest, DropsDataForAWrite) {
  target.send(data_in(write(), 0, 512), std::span{block}.first(512));
  expect_dropped("reads nothing");
}
TEST_F(SessionProtocolTest, DropsDataBeyondTheBuffer) {
  target.send(data_in(read(), 0, 4100), std::span{block}.first(4100));
  expect_dropped("Data-In of 4100 bytes");
}
TEST_F(SessionProtocolTest, DropsDataWithAGap) {
  target.send(data_in(read(), 512, 512), std::span{block}.first(512));
  expect_dropped("at offset 512");
}
TEST_F(SessionProtocolTest, DropsDataWithOffsetThatWraps) {
  target.send(data_in(read(), 0xffffff00, 512), std::span{block}.first(512));
  expect_dropped("Data-In of 512 bytes");
}
TEST_F(SessionProtocolTest, DropsDataThatComesTwice) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 512, 0), std::span{block}.first(512));
  target.send(data_in(tag, 0, 512, 1), std::span{block}.first(512));
  expect_dropped("at offset 0");
}
TEST_F(SessionProtocolTest, DropsDataWithWrongDataSn) {
  target.send(data_in(read(), 0, 512, 1), std::span{block}.first(512));
  expect_dropped("DataSN 1");
}
TEST_F(SessionProtocolTest, DropsLargeDataBeyondTheBufferBeforeItArrives) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(data_in(tag, 0, 65536), BhsBuffer{header});
  target.send_bytes(header);
  expect_dropped("Data-In of 65536 bytes");
}
TEST_F(SessionProtocolTest, DropsSegmentLongerThanDeclared) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(data_in(tag, 0, 0xffffff), BhsBuffer{header});
  target.send_bytes(header);
  expect_dropped("MaxRecvDataSegmentLength");
}
TEST_F(SessionProtocolTest, DropsR2tForUnknownTask) {
  target.send(r2t(write() + 1, 65536, 4096));
  expect_dropped("R2T for a task that does not exist");
}
TEST_F(SessionProtocolTest, DropsR2tForARead) {
  target.send(r2t(read(), 0, 4096));
  expect_dropped("writes nothing");
}
TEST_F(SessionProtocolTest, DropsR2tBeyondTheBuffer) {
  target.send(r2t(write(), 65536, 65537));
  expect_dropped("R2T for 65537 bytes");
}
TEST_F(SessionProtocolTest, DropsR2tForDataThatWasSent) {
  target.send(r2t(write(), 0, 4096));
  expect_dropped("R2T for 4096 bytes at offset 0");
}
TEST_F(SessionProtocolTest, DropsR2tForNothing) {
  target.send(r2t(write(), 65536, 0));
  expect_dropped("R2T for 0 bytes");
}
TEST_F(SessionProtocolTest, DropsR2tOutOfOrder) {
  R2tPdu pdu = r2t(write(), 65536, 4096);
  pdu.r2t_sn = 1;
  target.send(pdu);
  expect_dropped("out of order");
}
TEST_F(SessionProtocolTest, DropsR2tWithoutTransferTag) {
  R2tPdu pdu = r2t(write(), 65536, 4096);
  pdu.target_transfer_tag = kReservedTag;
  target.send(pdu);
  expect_dropped("without a transfer tag");
}
TEST_F(SessionProtocolTest, DropsMoreR2tsThanNegotiated) {
  const std::uint32_t tag = write();
  R2tPdu pdu = r2t(tag, 65536, 4096);
  std::array<std::byte, 2 * kBhsBytes> both;
  encode(pdu, BhsBuffer{both.data(), kBhsBytes});
  pdu.r2t_sn = 1;
  pdu.buffer_offset += 4096;
  encode(pdu, BhsBuffer{both.data() + kBhsBytes, kBhsBytes});
  target.send_bytes(both);
  expect_dropped("MaxOutstandingR2T");
}
TEST_F(SessionProtocolTest, DropsPingAnswerThatNobodyAskedFor) {
  NopInPdu nop;
  nop.initiator_task_tag = 0xfff1;
  nop.numbers = target.status_numbers();
  target.send(nop);
  expect_dropped("answers no NOP-Out");
}
TEST_F(SessionProtocolTest, DropsFloodOfPings) {
  NopInPdu nop;
  nop.target_transfer_tag = 5;
  nop.numbers = target.numbers();
  std::vector<std::byte> flood(1000 * kBhsBytes);
  for (std::size_t i = 0; i < 1000; ++i) {
    encode(nop, BhsBuffer{flood.data() + i * kBhsBytes, kBhsBytes});
  }
  target.send_bytes(flood);
  expect_dropped("NOP-Ins");
}
TEST_F(SessionProtocolTest, DropsOnReject) {
  RejectPdu reject;
  reject.reason = 0x04;
  reject.data_bytes = kBhsBytes;
  reject.numbers = target.status_numbers();
  target.send(reject, std::span{block}.first(kBhsBytes));
  expect_dropped("Reject with reason 0x04");
}
TEST_F(SessionProtocolTest, DropsLogoutResponseThatNobodyAskedFor) {
  target.send(LogoutResponsePdu{
      .response = 0, .initiator_task_tag = 0xfff2, .numbers = target.status_numbers()});
  expect_dropped("answers no Logout");
}
TEST_F(SessionProtocolTest, DropsUnexpectedAndUnknownOpcodes) {
  std::array<std::byte, kBhsBytes> header{};
  header[0] = std::byte{0x3e};
  target.send_bytes(header);
  expect_dropped("opcode 0x3e");
}
TEST_F(SessionProtocolTest, DropsLoginResponseInTheFullFeaturePhase) {
  target.send(LoginResponsePdu{});
  expect_dropped("Login Response");
}

// The target answers while the kernel still holds the data of the write: the submitter gets its
// buffer back only afterwards.
TEST_F(SessionProtocolTest, EarlyAnswerWaitsForTheDataThatIsBeingSent) {
  ASSERT_TRUE(initiator.session.state() == SessionState::logged_in);
  target.reset();
  // A larger segment, so that data is referred to in place, and a small send buffer.
  reactor.network().set_buffers(test_address(1), 4096, 4096);
  ASSERT_TRUE(runs_until(reactor, [&] { return target.connections() == 2; }));
  ASSERT_TRUE(target.accept_login({{"MaxRecvDataSegmentLength", "262144"}}));
  ASSERT_TRUE(initiator.up());
  reactor.network().set_held(test_address(1), SimDirection::to_server, true);
  command.submit_write(initiator.session, 0, test_pattern(65536, 1));
  reactor.run_for(milliseconds(10));
  // Nothing has reached the target; it answers what it cannot know yet.
  target.send(response(std::uint32_t{1} << 16, 8));
  reactor.run_for(milliseconds(10));
  if (!command.done) {
    reactor.network().set_held(test_address(1), SimDirection::to_server, false);
    ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
    EXPECT_EQ(command.task.status, ScsiStatus::busy);
    EXPECT_EQ(initiator.session.statistics().sends >= 1, true);
  } else {
    ADD_FAILURE() << "completed while the data was still being sent";
  }
}

}  // namespace
}  // namespace iscsi_blkback
