// What a session makes of answers and messages that a target may send: lengths and residuals,
// sense, windows, pings, asynchronous messages.
#include "base/byte_order.h"
#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class SessionAnswersTest : public ProtocolTest {
 protected:
  void expect_next_command(std::uint32_t cmd_sn, std::uint32_t exp_stat_sn) {
    TestCommand next;
    next.submit_test_unit_ready(initiator.session);
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
    EXPECT_EQ(decode_scsi_command(pdu.bhs()).cmd_sn, cmd_sn);
    EXPECT_EQ(decode_scsi_command(pdu.bhs()).exp_stat_sn, exp_stat_sn);
    ++target.exp_cmd_sn;
    ++target.max_cmd_sn;
    target.send(response(pdu.header.initiator_task_tag));
    ASSERT_TRUE(runs([&] { return next.done; }));
  }
  // The answer to a read whose data, all of it, is there already.
  void answer_read(const std::function<void(ScsiResponsePdu&)>& change) {
    const std::uint32_t tag = read();
    send_data(data_in(tag, 0, 4096));
    ScsiResponsePdu pdu = response(tag);
    change(pdu);
    target.send(pdu);
    ASSERT_TRUE(runs([&] { return command.done; }));
    EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
  }
  void send_event(AsyncEvent event, std::uint16_t parameter2, std::uint16_t parameter3) {
    AsyncMessagePdu pdu;
    pdu.event = event;
    pdu.parameter2 = parameter2;
    pdu.parameter3 = parameter3;
    pdu.numbers = target.status_numbers();
    target.send(pdu);
  }
  void answer_logout(const ReceivedPdu& request, std::uint16_t time2wait = 0) {
    target.send(LogoutResponsePdu{.response = 0,
                                  .initiator_task_tag = request.header.initiator_task_tag,
                                  .numbers = target.status_numbers(),
                                  .time2wait = time2wait,
                                  .time2retain = 0});
  }
};
INSTANTIATE_TEST_SUITE_P(EverySplit, SessionAnswersTest, every_split());

TEST_P(SessionAnswersTest, ReadInPiecesWithSeparateStatus) {
  const std::uint32_t tag = read();
  send_data(data_in(tag, 0, 1000, 0));
  target.send(data_in(tag, 1000, 3096, 1), std::span{block}.subspan(1000, 3096));
  target.send(response(tag));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
  EXPECT_TRUE(std::equal(command.data.begin(), command.data.end(), block.begin()));
}

// libiscsi reports GOOD over a buffer that was never filled.
TEST_P(SessionAnswersTest, GoodReadWithoutDataIsNoSuccess) {
  target.send(response(read()));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::good);
  EXPECT_EQ(command.task.transferred_bytes, 0U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, GoodWriteThatWasNotAskedForIsNoSuccess) {
  target.send(response(write()));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.transferred_bytes, 65536U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, ResidualLargerThanTheCommandIsBounded) {
  const std::uint32_t tag = read();
  ScsiResponsePdu pdu = response(tag);
  pdu.underflow = true;
  pdu.residual_bytes = 0xffffffff;
  target.send(pdu);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.transferred_bytes, 0U);
}

TEST_P(SessionAnswersTest, ResidualLargerThanTheCommandIsNoSuccessAlthoughAllOfTheDataCame) {
  answer_read([](ScsiResponsePdu& pdu) {
    pdu.underflow = true;
    pdu.residual_bytes = 0xffffffff;
  });
  EXPECT_EQ(command.task.transferred_bytes, 0U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, SenseLengthBeyondTheSegmentIsBounded) {
  const std::uint32_t tag = read();
  std::vector<std::byte> segment = make_sense(SenseKey::not_ready, 0x0401);
  segment.insert(segment.begin(), {std::byte{0xff}, std::byte{0xff}});
  ScsiResponsePdu pdu = response(tag, 2);
  pdu.data_bytes = static_cast<std::uint32_t>(segment.size());
  target.send(pdu, segment);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.sense.code(), 0x0401);
}

TEST_P(SessionAnswersTest, CheckConditionWithoutSenseHasNoValidSense) {
  target.send(response(read(), 2));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::check_condition);
  EXPECT_FALSE(command.task.sense.valid);
}

// A pool slot is used again and again.
TEST_P(SessionAnswersTest, NothingOfATasksFormerAnswerStays) {
  const std::uint32_t tag = read();
  std::vector<std::byte> segment = make_sense(SenseKey::not_ready, 0x0401);
  segment.insert(segment.begin(), {std::byte{0}, static_cast<std::byte>(segment.size())});
  ScsiResponsePdu first = response(tag, 2);
  first.response = 1;
  first.overflow = true;
  first.data_bytes = static_cast<std::uint32_t>(segment.size());
  target.send(first, segment);
  ASSERT_TRUE(runs([&] { return command.done; }));
  ASSERT_TRUE(command.task.sense.valid && command.task.overflow);

  command.done = false;
  target.send(response(read(), 2));
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_FALSE(command.task.sense.valid);
  EXPECT_EQ(command.task.response_code, 0);
  EXPECT_EQ(command.task.outcome, TaskOutcome::completed);
  EXPECT_FALSE(command.task.overflow);

  command.task.response_code = 1;
  command.task.sense.valid = command.task.overflow = true;
  command.task.outcome = TaskOutcome::target_failure;
  command.done = false;
  DataInPdu data = data_in(read(), 0, 4096);
  data.has_status = true;
  data.numbers = target.status_numbers();
  target.send(data, std::span{block}.first(4096));
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
  EXPECT_EQ(command.task.response_code, 0);
  EXPECT_FALSE(command.task.sense.valid);
}

TEST_P(SessionAnswersTest, DataOutAfterR2tHasTheRightFields) {
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

TEST_P(SessionAnswersTest, AdditionalHeaderSegmentsArePassedOver) {
  const std::uint32_t tag = read();
  std::array<std::byte, kBhsBytes> header;
  encode(response(tag, 8), BhsBuffer{header});
  header[4] = std::byte{2};  // eight bytes of additional headers
  target.send_bytes(header);
  target.send_bytes(std::vector<std::byte>(8, std::byte{0xaa}));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::busy);
}

TEST_P(SessionAnswersTest, WindowThatMovesBackIsIgnored) {
  const std::uint32_t tag = read();
  target.max_cmd_sn = target.exp_cmd_sn - 1;  // as if no further command might be sent
  target.send(response(tag));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  TestCommand next;
  next.submit_test_unit_ready(initiator.session);
  ReceivedPdu pdu;
  EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
  target.reset();
  ASSERT_TRUE(runs_until(reactor, [&] { return next.done; }));
}

TEST_P(SessionAnswersTest, NopInWithDataIsAnswered) {
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

TEST_P(SessionAnswersTest, PingHasTheRightFields) {
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::nop_out, pdu));
  const NopOutPdu ping = decode_nop_out(pdu.bhs());
  EXPECT_TRUE(ping.immediate);
  EXPECT_EQ(ping.data_bytes, 0U);
  EXPECT_NE(ping.initiator_task_tag, kReservedTag) << "it wants an answer";
  EXPECT_EQ(ping.target_transfer_tag, kReservedTag);
  EXPECT_EQ(ping.cmd_sn, target.exp_cmd_sn);
  EXPECT_EQ(ping.exp_stat_sn, target.stat_sn);
}

TEST_P(SessionAnswersTest, PingsOfALostConnectionAreNotAnsweredAtTheNextOne) {
  reactor.network().set_buffers(test_address(1), 4096, 4096);
  reactor.network().set_held(test_address(1), SimDirection::to_server, true);
  command.submit_write(initiator.session, 0, test_pattern(65536, 1));
  reactor.run_for(milliseconds(10));  // a send is under way, and does not end
  NopInPdu nop;
  nop.target_transfer_tag = 5;
  nop.numbers = target.numbers();
  target.send(nop);
  reactor.run_for(milliseconds(10));
  reactor.network().set_held(test_address(1), SimDirection::to_server, false);
  target.reset();
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
  ASSERT_TRUE(target.accept_login());
  ASSERT_TRUE(initiator.up());
  reactor.run_for(seconds(1));
  EXPECT_TRUE(target.received.empty());
}

TEST_P(SessionAnswersTest, RejectedPingMeansAlive) {
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

TEST_P(SessionAnswersTest, ScsiEventAndVendorEventDemandNothing) {
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

// The target answers while the kernel still holds the data of the write, which lies where the
// submitter has it: that gets its buffer back only afterwards.
class EarlyAnswerTest : public SessionAnswersTest {
 protected:
  // A session that is logged in anew; what is sent from now on stays in the socket.
  void log_in_and_hold(std::vector<std::pair<std::string, std::string>> keys) {
    target.reset();
    // A small send buffer, and segments so large that data is referred to in place.
    reactor.network().set_buffers(test_address(1), 4096, 4096);
    ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
    keys.emplace_back("MaxRecvDataSegmentLength", "262144");
    ASSERT_TRUE(target.accept_login(keys));
    ASSERT_TRUE(initiator.up());
    hold(true);
  }
  void hold(bool held) {
    reactor.network().set_held(test_address(1), SimDirection::to_server, held);
  }
  void expect_answer_to_wait(std::uint32_t tag) {
    target.send(response(tag, 8));
    reactor.run_for(milliseconds(10));
    ASSERT_FALSE(command.done) << "completed while the data was still being sent";
    hold(false);
    ASSERT_TRUE(runs([&] { return command.done; }));
    EXPECT_EQ(command.task.status, ScsiStatus::busy);
  }
};
INSTANTIATE_TEST_SUITE_P(EverySplit, EarlyAnswerTest, every_split());

TEST_P(EarlyAnswerTest, WaitsForTheImmediateDataThatIsBeingSent) {
  log_in_and_hold({});
  command.submit_write(initiator.session, 0, test_pattern(65536, 1));
  reactor.run_for(milliseconds(10));
  // Nothing has reached the target; it answers what it cannot know yet.
  expect_answer_to_wait(std::uint32_t{1} << 16);
}

TEST_P(EarlyAnswerTest, WaitsForTheUnsolicitedDataOutThatIsBeingSent) {
  log_in_and_hold({{"ImmediateData", "No"}});
  command.submit_write(initiator.session, 0, test_pattern(65536, 1));
  reactor.run_for(milliseconds(10));
  expect_answer_to_wait(std::uint32_t{1} << 16);
}

TEST_P(EarlyAnswerTest, WaitsForTheDataOutOfAnR2tThatIsBeingSent) {
  log_in_and_hold({{"ImmediateData", "No"}, {"InitialR2T", "Yes"}});
  hold(false);
  command.submit_write(initiator.session, 0, test_pattern(65536, 1));
  const std::uint32_t tag = taken();
  hold(true);
  target.send(r2t(tag, 0, 65536));
  reactor.run_for(milliseconds(10));
  expect_answer_to_wait(tag);
}

// Data of many commands interleaved piece by piece, status with the last piece or apart from it,
// commands finished in any order, pings and events in between.
TEST_P(SessionAnswersTest, AnswersInAnyOrder) {
  struct Reading {
    TestCommand command;
    std::uint32_t tag = 0;
    std::uint32_t sent = 0;
    std::uint32_t data_sn = 0;
    bool answered = false;
  };
  SimRandom random(GetParam() + 1);
  for (int round = 0; round < 30; ++round) {
    std::deque<Reading> readings(8);
    for (Reading& reading : readings) {
      reading.command.submit_read(initiator.session, 0, 8);
      reading.tag = taken();
    }
    std::size_t open = readings.size();
    while (open != 0) {
      Reading& reading = readings[random.below(readings.size())];
      if (reading.answered) {
        continue;
      }
      if (random.one_in(10)) {
        send_event(static_cast<AsyncEvent>(255), 0, 0);
      }
      if (random.one_in(10)) {
        NopInPdu nop;
        nop.target_transfer_tag = 9;
        nop.numbers = target.numbers();
        target.send(nop);
        reactor.run_for(milliseconds(1));
      }
      if (reading.sent == 4096) {
        target.send(response(reading.tag));
        reading.answered = true;
        --open;
        continue;
      }
      const auto bytes = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(random.between(1, 3000), 4096 - reading.sent));
      DataInPdu pdu = data_in(reading.tag, reading.sent, bytes, reading.data_sn++);
      const auto piece = std::span{block}.subspan(reading.sent, bytes);
      reading.sent += bytes;
      pdu.final = reading.sent == 4096;
      if (pdu.final && random.one_in(2)) {
        pdu.has_status = true;
        pdu.numbers = target.status_numbers();
        reading.answered = true;
        --open;
      }
      target.send(pdu, piece);
    }
    ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
    for (const Reading& reading : readings) {
      ASSERT_TRUE(reading.command.task.succeeded());
      ASSERT_TRUE(
          std::equal(reading.command.data.begin(), reading.command.data.end(), block.begin()));
    }
    target.received.clear();
  }
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

TEST_P(SessionAnswersTest, StatusWithTheLastData) {
  const std::uint32_t tag = read();
  DataInPdu first = data_in(tag, 0, 1000, 0);
  first.final = false;
  target.send(first, std::span{block}.first(1000));
  DataInPdu last = data_in(tag, 1000, 3096, 1);
  last.has_status = true;
  last.numbers = target.status_numbers();
  target.send(last, std::span{block}.subspan(1000, 3096));
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, StatusOtherThanGoodWithTheLastDataIsNoSuccess) {
  DataInPdu pdu = data_in(read(), 0, 4096);
  pdu.has_status = true;
  pdu.status = 2;
  pdu.numbers = target.status_numbers();
  target.send(pdu, std::span{block}.first(4096));
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.status, ScsiStatus::check_condition);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, UnderflowWithAllOfTheDataIsNoSuccess) {
  answer_read([](ScsiResponsePdu& pdu) {
    pdu.underflow = true;
    pdu.residual_bytes = 512;
  });
  EXPECT_EQ(command.task.transferred_bytes, 3584U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, UnderflowOfNothingIsSuccess) {
  answer_read([](ScsiResponsePdu& pdu) { pdu.underflow = true; });
  EXPECT_TRUE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, ResidualWithoutItsBitMeansNothing) {
  answer_read([](ScsiResponsePdu& pdu) { pdu.residual_bytes = 512; });
  EXPECT_TRUE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, OverflowWithAllOfTheDataIsNoSuccess) {
  answer_read([](ScsiResponsePdu& pdu) {
    pdu.overflow = true;
    pdu.residual_bytes = 512;
  });
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, BidirectionalOverflowOfAPlainCommandIsNoSuccess) {
  answer_read([](ScsiResponsePdu& pdu) { pdu.bidirectional_overflow = true; });
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, BidirectionalUnderflowOfAPlainCommandIsNoSuccess) {
  answer_read([](ScsiResponsePdu& pdu) { pdu.bidirectional_underflow = true; });
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, UnderflowOfAWriteIsNoSuccess) {
  const std::uint32_t tag = write();
  target.send(r2t(tag, 65536, 65536));
  ReceivedPdu pdu;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(target.next(Opcode::data_out, pdu));
  }
  ScsiResponsePdu answer = response(tag);
  answer.underflow = true;
  answer.residual_bytes = 512;
  target.send(answer);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.transferred_bytes, 131072U - 512U);
  EXPECT_FALSE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, CountOfDataInThatIsLeftOutIsNoError) {
  answer_read([](ScsiResponsePdu& pdu) { pdu.exp_data_sn = 0; });
  EXPECT_TRUE(command.task.succeeded());
}

TEST_P(SessionAnswersTest, CountOfDataInWithAFailedResponseMeansNothing) {
  answer_read([](ScsiResponsePdu& pdu) {
    pdu.response = 1;
    pdu.exp_data_sn = 77;
  });
  EXPECT_EQ(command.task.outcome, TaskOutcome::target_failure);
}

TEST_P(SessionAnswersTest, EveryResponseCodeButZeroIsATargetFailure) {
  for (int code = 1; code < 256; ++code) {
    command.done = false;
    answer_read([&](ScsiResponsePdu& pdu) { pdu.response = static_cast<std::uint8_t>(code); });
    EXPECT_EQ(command.task.outcome, TaskOutcome::target_failure);
    EXPECT_EQ(command.task.response_code, code);
    EXPECT_FALSE(command.task.succeeded());
  }
}

// RECOVERED ERROR says that the data is right, after some effort: multipath counts it as success.
TEST_P(SessionAnswersTest, RecoveredErrorBringsItsSenseAndItsLength) {
  const std::uint32_t tag = read();
  send_data(data_in(tag, 0, 4096));
  std::vector<std::byte> segment = make_sense(SenseKey::recovered_error, 0x1701);
  segment.insert(segment.begin(), {std::byte{0}, std::byte{18}});
  ScsiResponsePdu pdu = response(tag, 2);
  pdu.data_bytes = static_cast<std::uint32_t>(segment.size());
  target.send(pdu, segment);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.sense.key, SenseKey::recovered_error);
  EXPECT_EQ(command.task.transferred_bytes, 4096U);
}

TEST_P(SessionAnswersTest, StatSnThatIsTooOldIsPassedOver) {
  const std::uint32_t expected = target.stat_sn;
  const std::uint32_t tag = read();
  target.stat_sn -= 5;
  target.send(response(tag, 8));
  ASSERT_TRUE(runs([&] { return command.done; }));
  target.stat_sn = expected;
  expect_next_command(target.exp_cmd_sn, expected);
}

TEST_P(SessionAnswersTest, NumbersThatAreNotCountedByTheirPduAreNotCounted) {
  NopInPdu nop;  // the target's own ping: StatSN is that of the next PDU with a status
  nop.numbers = target.numbers();
  nop.numbers.stat_sn += 100;
  target.send(nop);
  send_data(data_in(read(), 0, 512));
  expect_next_command(target.exp_cmd_sn, target.stat_sn);
  target.reset();
  ASSERT_TRUE(runs([&] { return command.done; }));
}

TEST_P(SessionAnswersTest, MaxCmdSnBelowExpCmdSnLessOneIsIgnored) {
  const std::uint32_t tag = read();
  ScsiResponsePdu pdu = response(tag);
  pdu.numbers.exp_cmd_sn += 200;
  pdu.numbers.max_cmd_sn += 100;  // above ours, and still nonsense
  target.send(pdu);
  ASSERT_TRUE(runs([&] { return command.done; }));
  std::vector<TestCommand> many(100);
  for (TestCommand& next : many) {
    next.submit_test_unit_ready(initiator.session);
  }
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(target.received.size(), 63U) << "more, or less, than the window had";
  target.reset();
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
}

TEST_P(SessionAnswersTest, LogoutRequestDrainsWhatIsThereAndTakesNothingNew) {
  const std::uint32_t tag = read();
  send_event(AsyncEvent::logout_request, 0, 3);
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  EXPECT_THAT(initiator.observer.reason, HasSubstr("asks for a logout"));
  TestCommand late;
  late.submit_test_unit_ready(initiator.session);
  ASSERT_TRUE(runs([&] { return late.done; }));
  EXPECT_EQ(late.task.outcome, TaskOutcome::not_sent);
  send_data(data_in(tag, 0, 4096));
  target.send(response(tag));
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::logout_request, pdu));
  EXPECT_TRUE(command.done);
  EXPECT_TRUE(command.task.succeeded());
  const LogoutRequestPdu logout = decode_logout_request(pdu.bhs());
  EXPECT_EQ(logout.reason, 0) << "close the session";
  EXPECT_EQ(logout.cmd_sn, target.exp_cmd_sn);
  EXPECT_EQ(logout.exp_stat_sn, target.stat_sn);
  answer_logout(pdu, 2);
  const TimePoint start = reactor.now();
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
  EXPECT_GE(reactor.now() - start, seconds(2)) << "Time2Wait";
}

// What does not end by itself ends with the session, a second before the target would drop it.
TEST_P(SessionAnswersTest, LogoutRequestWithACommandThatNeverEnds) {
  static_cast<void>(read());
  const TimePoint start = reactor.now();
  send_event(AsyncEvent::logout_request, 0, 3);
  ReceivedPdu pdu;
  bool logout = false;
  while (!logout) {
    ASSERT_LE(reactor.now() - start, seconds(5));
    ASSERT_TRUE(runs([&] { return !target.received.empty(); }));
    pdu = std::move(target.received.front());
    target.received.pop_front();
    logout = pdu.header.opcode == Opcode::logout_request;
    if (pdu.header.opcode == Opcode::nop_out) {
      NopInPdu pong;
      pong.initiator_task_tag = pdu.header.initiator_task_tag;
      pong.numbers = target.status_numbers();
      target.send(pong);
    }
  }
  EXPECT_GE(reactor.now() - start, milliseconds(1990));
  EXPECT_LE(reactor.now() - start, milliseconds(2200));
  EXPECT_FALSE(command.done);
  answer_logout(pdu);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
}

TEST_P(SessionAnswersTest, NothingFollowsALogout) {
  send_event(AsyncEvent::logout_request, 0, 3);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::logout_request, pdu));
  NopInPdu nop;
  nop.target_transfer_tag = 5;
  nop.numbers = target.numbers();
  target.send(nop);
  reactor.run_for(milliseconds(100));
  EXPECT_TRUE(target.received.empty());
  answer_logout(pdu);
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
}

TEST_P(SessionAnswersTest, LogoutThatIsNotAnsweredIsBounded) {
  send_event(AsyncEvent::logout_request, 0, 600);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::logout_request, pdu));
  const TimePoint start = reactor.now();
  ASSERT_TRUE(runs([&] { return !target.connected(); }));
  EXPECT_LE(reactor.now() - start, milliseconds(5100)) << "logout_timeout";
}

TEST_P(SessionAnswersTest, ATargetThatDiesWhileItDrainsIsNotWaitedFor) {
  static_cast<void>(read());
  send_event(AsyncEvent::logout_request, 0, 600);
  const TimePoint start = reactor.now();
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
  EXPECT_LE(reactor.now() - start, milliseconds(2300)) << "path_timeout";
}

TEST_P(SessionAnswersTest, NegotiationRequestIsAnsweredByALogout) {
  send_event(AsyncEvent::negotiation_request, 0, 3);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::logout_request, pdu));
  EXPECT_THAT(initiator.observer.reason, HasSubstr("asks for new parameters"));
  answer_logout(pdu);
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
}

TEST_P(SessionAnswersTest, DropOfTheConnectionHonoursTime2Wait) {
  static_cast<void>(read());
  const TimePoint start = reactor.now();
  send_event(AsyncEvent::connection_drop, 3, 0);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
  EXPECT_THAT(initiator.observer.reason, HasSubstr("drops the connection"));
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
  EXPECT_GE(reactor.now() - start, seconds(3));
}

TEST_P(SessionAnswersTest, Time2WaitCannotParkUs) {
  const TimePoint start = reactor.now();
  send_event(AsyncEvent::session_drop, 0xffff, 0);
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
  EXPECT_LE(reactor.now() - start, seconds(61));
}

TEST_P(SessionAnswersTest, ScsiEventIsToldToTheObservers) {
  std::vector<std::byte> segment = make_sense(SenseKey::unit_attention, 0x2a09);
  segment.insert(segment.begin(), {std::byte{0xff}, std::byte{0xff}});
  AsyncMessagePdu event;
  event.event = AsyncEvent::scsi_event;
  event.lun = encode_lun(7);
  event.data_bytes = static_cast<std::uint32_t>(segment.size());
  event.numbers = target.status_numbers();
  target.send(event, segment);
  ASSERT_TRUE(runs([&] { return initiator.observer.events == 1; }));
  EXPECT_EQ(initiator.observer.event_lun, encode_lun(7));
  EXPECT_EQ(initiator.observer.event_sense.code(), 0x2a09);
}

TEST_P(SessionAnswersTest, ScsiEventWithoutSenseIsNone) {
  AsyncMessagePdu event;
  event.event = AsyncEvent::scsi_event;
  event.numbers = target.status_numbers();
  target.send(event);
  event.data_bytes = 1;
  event.numbers = target.status_numbers();
  target.send(event, std::span{block}.first(1));
  reactor.run_for(milliseconds(10));
  expect_next_command(target.exp_cmd_sn, target.stat_sn);
  EXPECT_EQ(initiator.observer.events, 0);
}

}  // namespace
}  // namespace iscsi_blkback
