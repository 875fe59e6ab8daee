// What a target may do wrong without harm to data: the session goes on, the command ends as the
// bytes and the status say, and the log says it once. A test for each rule of
// initiator/session/tolerated.h; what becomes of a target that goes on with what ends the
// connection is at the end.
#include "base/log.h"
#include "initiator/scsi/error_class.h"
#include "initiator/session/repeated_ends.h"
#include "initiator/session/status_sequence.h"
#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(StatusSequence, AcknowledgesNothingThatHasNotCome) {
  StatusSequence statuses;
  statuses.reset(10);
  EXPECT_EQ(statuses.take(10), StatusSequence::Arrival::in_order);
  EXPECT_EQ(statuses.take(12), StatusSequence::Arrival::early);
  EXPECT_EQ(statuses.take(14), StatusSequence::Arrival::early);
  EXPECT_EQ(statuses.expected(), 11U);
  EXPECT_EQ(statuses.take(11), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 13U);
  EXPECT_TRUE(statuses.has_gap());
  EXPECT_EQ(statuses.take(13), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 15U);
  EXPECT_FALSE(statuses.has_gap());
  EXPECT_EQ(statuses.take(15), StatusSequence::Arrival::in_order);
}

TEST(StatusSequence, FollowsTheWrapOfTheNumbers) {
  StatusSequence statuses;
  statuses.reset(0xfffffffe);
  EXPECT_EQ(statuses.take(1), StatusSequence::Arrival::early);
  EXPECT_EQ(statuses.take(0), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.take(0xffffffff), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 0xfffffffeU);
  EXPECT_EQ(statuses.take(0xfffffffe), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 2U);
}

TEST(StatusSequence, ANumberThatHasComeSaysNothingTheSecondTime) {
  StatusSequence statuses;
  statuses.reset(5);
  EXPECT_EQ(statuses.take(4), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.take(7), StatusSequence::Arrival::early);
  EXPECT_EQ(statuses.take(7), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 5U);
}

TEST(StatusSequence, WaitsForAWholeWindowAndNoLonger) {
  StatusSequence statuses;
  statuses.reset(0);
  for (std::uint32_t number = 1; number < StatusSequence::kWindow; ++number) {
    ASSERT_EQ(statuses.take(number), StatusSequence::Arrival::early);
  }
  EXPECT_EQ(statuses.expected(), 0U);
  EXPECT_EQ(statuses.take(StatusSequence::kWindow), StatusSequence::Arrival::renumbered);
  EXPECT_EQ(statuses.expected(), StatusSequence::kWindow + 1);
  EXPECT_EQ(statuses.take(StatusSequence::kWindow + 2), StatusSequence::Arrival::early)
      << "nothing of before counts as arrived";
  EXPECT_EQ(statuses.expected(), StatusSequence::kWindow + 1);
}

TEST(StatusSequence, WhatHasArrivedHasNotArrivedAWindowLater) {
  StatusSequence statuses;
  statuses.reset(0);
  EXPECT_EQ(statuses.take(1), StatusSequence::Arrival::early);
  for (std::uint32_t number = 0; number < StatusSequence::kWindow; ++number) {
    statuses.take(number);
  }
  EXPECT_EQ(statuses.take(StatusSequence::kWindow + 2), StatusSequence::Arrival::early);
  EXPECT_EQ(statuses.take(StatusSequence::kWindow), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), StatusSequence::kWindow + 1);
}

TEST(StatusSequence, FillsAWholeWindowAtOnce) {
  StatusSequence statuses;
  statuses.reset(3);
  for (std::uint32_t number = 4; number < 3 + StatusSequence::kWindow; ++number) {
    ASSERT_EQ(statuses.take(number), StatusSequence::Arrival::early);
  }
  EXPECT_EQ(statuses.take(3), StatusSequence::Arrival::late);
  EXPECT_EQ(statuses.expected(), 3 + StatusSequence::kWindow);
  EXPECT_EQ(statuses.take(3 + StatusSequence::kWindow), StatusSequence::Arrival::in_order);
}

class ToleranceTest : public ProtocolTest {
 protected:
  ToleranceTest() : ToleranceTest(test_session_options()) {}
  explicit ToleranceTest(const SessionOptions& options) : ProtocolTest(options) {
    auto sink = std::make_unique<MemoryLogSink>();
    sink_ = sink.get();
    before_ = set_log_sink(std::move(sink));
  }
  ~ToleranceTest() override { static_cast<void>(set_log_sink(std::move(before_))); }

  [[nodiscard]] int logged(std::string_view text) const {
    return static_cast<int>(std::count_if(
        sink_->lines().begin(), sink_->lines().end(),
        [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }
  [[nodiscard]] bool done() {
    return runs_until(
        reactor, [this] { return command.done; }, seconds(10));
  }
  // A command that the target answers in its own way, twice.
  template <class Act>
  void succeeds_and_is_said_once(const char* said, Act act) {
    for (int round = 0; round < 2; ++round) {
      command.done = false;
      act();
      ASSERT_FALSE(HasFatalFailure());
      ASSERT_TRUE(done());
      EXPECT_TRUE(command.task.succeeded());
      EXPECT_EQ(command.task.transferred_bytes, command.task.data_length_bytes);
      EXPECT_EQ(initiator.observer.downs, 0) << initiator.observer.reason;
      EXPECT_EQ(logged(said), 1);
    }
  }
  // The data of one R2T, and that they are what is to be written.
  void expect_data(std::uint32_t offset, std::uint32_t bytes) {
    const std::uint32_t end = offset + bytes;
    while (offset != end) {
      ReceivedPdu data;
      ASSERT_TRUE(target.next(Opcode::data_out, data));
      const DataOutPdu pdu = decode_data_out(data.bhs());
      ASSERT_EQ(pdu.buffer_offset, offset);
      EXPECT_TRUE(
          std::equal(data.data().begin(), data.data().end(), command.data.begin() + offset));
      offset += pdu.data_bytes;
      EXPECT_EQ(pdu.final, offset == end);
    }
  }
  void all_at_once() { reactor.network().set_split(test_address(1), SimDirection::to_client, 0); }
  std::uint32_t small_write() {
    command.submit_write(initiator.session, 0, test_pattern(4096, 1));
    return taken();
  }
  DataInPdu with_status(DataInPdu pdu) {
    pdu.has_status = true;
    pdu.numbers = target.status_numbers();
    return pdu;
  }
  void send(const DataInPdu& pdu) { target.send(pdu, std::span{block}.first(pdu.data_bytes)); }
  void reject(const ReceivedPdu& pdu, std::uint8_t reason) {
    RejectPdu answer;
    answer.reason = reason;
    answer.data_bytes = kBhsBytes;
    answer.numbers = target.status_numbers();
    target.send(answer, std::span{pdu.bytes}.first(kBhsBytes));
  }
  [[nodiscard]] std::uint32_t exp_stat_sn_of_the_next_command() {
    TestCommand next;
    next.submit_test_unit_ready(initiator.session);
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
    ++target.exp_cmd_sn;
    ++target.max_cmd_sn;
    target.send(response(pdu.header.initiator_task_tag));
    EXPECT_TRUE(runs([&] { return next.done; }));
    return decode_scsi_command(pdu.bhs()).exp_stat_sn;
  }

  MemoryLogSink* sink_ = nullptr;

 private:
  std::unique_ptr<LogSink> before_;
};
INSTANTIATE_TEST_SUITE_P(EverySplit, ToleranceTest, every_split());

TEST(SessionWindowTest, NumbersOfALoginThatMakeNoSenseLetOneCommandThrough) {
  SimReactor reactor{3};
  ScriptedTarget target{reactor, test_address(1)};
  TestCommand first;
  TestCommand second;
  TestSession initiator{reactor, test_session_options()};
  initiator.session.start();
  ASSERT_TRUE(target.accept_login({}, 1, 0xffffff00));
  ASSERT_TRUE(initiator.up());
  first.submit_test_unit_ready(initiator.session);
  second.submit_test_unit_ready(initiator.session);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
  reactor.run_for(milliseconds(10));
  EXPECT_TRUE(target.received.empty()) << "one, until the target has told its window";
  ++target.exp_cmd_sn;
  target.max_cmd_sn = target.exp_cmd_sn;
  ScsiResponsePdu answer;
  answer.initiator_task_tag = pdu.header.initiator_task_tag;
  answer.numbers = target.status_numbers();
  target.send(answer);
  EXPECT_TRUE(runs_until(reactor, [&] { return first.done; }));
  EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
}

// What istgt does: the answer to the ping has a lower number than that which was sent before it.
TEST_P(ToleranceTest, AnAnswerThatComesBeforeOneWithALowerNumber) {
  succeeds_and_is_said_once("in another order than that of their StatSN", [this] {
    const std::uint32_t tag = read();
    ReceivedPdu ping;  // the stall probe
    ASSERT_TRUE(target.next(Opcode::nop_out, ping));
    NopInPdu answer;
    answer.initiator_task_tag = ping.header.initiator_task_tag;
    answer.numbers = target.status_numbers();
    const std::uint32_t missing = answer.numbers.stat_sn;
    send(with_status(data_in(tag, 0, 4096)));
    ASSERT_TRUE(done());
    EXPECT_EQ(exp_stat_sn_of_the_next_command(), missing);
    target.send(answer);
    reactor.run_for(milliseconds(10));
    const std::uint32_t acknowledged = exp_stat_sn_of_the_next_command();
    EXPECT_EQ(acknowledged, target.stat_sn - 1);
  });
}
TEST_P(ToleranceTest, AnAnswerEarlyInEveryPduThatHasANumber) {
  AsyncMessagePdu event;
  event.event = static_cast<AsyncEvent>(255);
  event.numbers = target.status_numbers();
  ++event.numbers.stat_sn;
  target.send(event);
  const std::uint32_t tag = read();
  ScsiResponsePdu answer = response(tag, 8);
  answer.numbers.stat_sn += 2;
  target.send(answer);
  ASSERT_TRUE(done());
  EXPECT_EQ(initiator.observer.downs, 0);
}
TEST_P(ToleranceTest, ANumberThatNeverComesIsAcknowledgedWhenNothingIsOutstanding) {
  const std::uint32_t tag = read();
  const std::uint32_t missing = target.stat_sn++;
  send(with_status(data_in(tag, 0, 4096)));
  ASSERT_TRUE(done());
  EXPECT_EQ(exp_stat_sn_of_the_next_command(), missing);
  ReceivedPdu ping;  // noop_out_interval
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));
  NopInPdu answer;
  answer.initiator_task_tag = ping.header.initiator_task_tag;
  answer.numbers = target.status_numbers();
  target.send(answer);
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));
  EXPECT_EQ(decode_nop_out(ping.bhs()).exp_stat_sn, target.stat_sn);
  EXPECT_EQ(initiator.observer.downs, 0);
}
TEST_P(ToleranceTest, ANumberThatIsMissingIsNotAcknowledgedWhileACommandMayHaveIt) {
  const std::uint32_t tag = read();
  const std::uint32_t missing = target.stat_sn++;
  EXPECT_EQ(exp_stat_sn_of_the_next_command(), missing);
  ReceivedPdu ping;
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));
  EXPECT_EQ(decode_nop_out(ping.bhs()).exp_stat_sn, missing);
  send(with_status(data_in(tag, 0, 4096)));
  EXPECT_TRUE(done());
}
TEST_P(ToleranceTest, NumbersThatAreLeftOut) {
  succeeds_and_is_said_once("leaves out StatSN", [this] {
    const std::uint32_t tag = read();
    target.stat_sn += StatusSequence::kWindow;
    send(with_status(data_in(tag, 0, 4096)));
  });
}
TEST_P(ToleranceTest, AnR2tForMoreThanMaxBurstLength) {
  succeeds_and_is_said_once("more data than MaxBurstLength", [this] {
    constexpr std::uint32_t kBytes = 262144 + 4096;  // 65536 more come unasked
    command.submit_write(initiator.session, 0, test_pattern(65536 + kBytes, 1));
    const std::uint32_t tag = taken();
    expect_data(8192, 65536 - 8192);
    target.send(r2t(tag, 65536, kBytes));
    expect_data(65536, kBytes);
    target.send(response(tag));
  });
}
TEST_P(ToleranceTest, MoreR2tsThanMaxOutstandingR2t) {
  all_at_once();
  succeeds_and_is_said_once("more R2Ts outstanding", [this] {
    const std::uint32_t tag = write();
    std::array<std::byte, 2 * kBhsBytes> both;
    encode(r2t(tag, 65536, 32768), BhsBuffer{both.data(), kBhsBytes});
    R2tPdu second = r2t(tag, 98304, 32768);
    second.r2t_sn = 1;
    encode(second, BhsBuffer{both.data() + kBhsBytes, kBhsBytes});
    target.send_bytes(both);
    expect_data(65536, 32768);
    expect_data(98304, 32768);
    target.send(response(tag));
  });
}
TEST_P(ToleranceTest, AnR2tWithoutTransferTag) {
  succeeds_and_is_said_once("a reserved transfer tag", [this] {
    const std::uint32_t tag = write();
    R2tPdu pdu = r2t(tag, 65536, 65536);
    pdu.target_transfer_tag = kReservedTag;
    target.send(pdu);
    expect_data(65536, 65536);
    target.send(response(tag));
  });
}
TEST_P(ToleranceTest, AnR2tForDataThatWasSent) {
  succeeds_and_is_said_once("data that it was sent before", [this] {
    const std::uint32_t tag = write();
    target.send(r2t(tag, 8192, 131072 - 8192));
    expect_data(8192, 131072 - 8192);
    target.send(response(tag));
  });
}
TEST_P(ToleranceTest, AnR2tForThePlaceUpToWhichDataWereAskedForBeforeThat) {
  succeeds_and_is_said_once("data that it was sent before", [this] {
    const std::uint32_t tag = write();
    target.send(r2t(tag, 0, 4096));
    expect_data(0, 4096);
    R2tPdu rest = r2t(tag, 65536, 65536);
    rest.r2t_sn = 1;
    target.send(rest);
    expect_data(65536, 65536);
    target.send(response(tag));
  });
}
// The same bytes twice are not the double amount.
TEST_P(ToleranceTest, DataThatWasSentTwiceDoesNotCountTwice) {
  const std::uint32_t tag = write();
  target.send(r2t(tag, 0, 65536));
  expect_data(0, 65536);
  target.send(response(tag));
  ASSERT_TRUE(done());
  EXPECT_EQ(command.task.transferred_bytes, 65536U);
  EXPECT_EQ(classify(command.task), ErrorClass::short_transfer);
}
TEST_P(ToleranceTest, StatusInAnEmptyDataInThatIsNotCounted) {
  succeeds_and_is_said_once("Data-Ins without data out of order", [this] {
    const std::uint32_t tag = read();
    send(data_in(tag, 0, 4096));
    send(with_status(data_in(tag, 0, 0, 0)));
  });
}
TEST_P(ToleranceTest, StatusOfAWriteInAnEmptyDataIn) {
  succeeds_and_is_said_once("Data-Ins without data out of order",
                            [this] { send(with_status(data_in(small_write(), 0, 0, 0))); });
}
TEST_P(ToleranceTest, StatusOfACommandWithoutDataInAnEmptyDataIn) {
  succeeds_and_is_said_once("Data-Ins without data out of order", [this] {
    command.data.clear();
    command.submit_test_unit_ready(initiator.session);
    send(with_status(data_in(taken(), 0, 0, 0)));
  });
}
TEST_P(ToleranceTest, StatusInADataInWithoutTheFinalBit) {
  succeeds_and_is_said_once("flags that contradict each other", [this] {
    DataInPdu pdu = with_status(data_in(read(), 0, 4096));
    pdu.final = false;
    send(pdu);
  });
}
TEST_P(ToleranceTest, DataThatAsksForAcknowledgement) {
  succeeds_and_is_said_once("flags that contradict each other", [this] {
    DataInPdu pdu = with_status(data_in(read(), 0, 4096));
    pdu.acknowledge = true;
    send(pdu);
  });
}
TEST_P(ToleranceTest, ResidualInADataInWithoutStatus) {
  succeeds_and_is_said_once("flags that contradict each other", [this] {
    const std::uint32_t tag = read();
    DataInPdu pdu = data_in(tag, 0, 4096);
    pdu.underflow = true;
    pdu.residual_bytes = 4096;
    send(pdu);
    target.send(response(tag));
  });
}
TEST_P(ToleranceTest, ACountOfDataInsThatIsTooHigh) {
  succeeds_and_is_said_once("more Data-Ins or R2Ts than it sends", [this] {
    const std::uint32_t tag = read();
    send(data_in(tag, 0, 4096));
    ScsiResponsePdu pdu = response(tag);
    pdu.exp_data_sn = 2;
    target.send(pdu);
  });
}
TEST_P(ToleranceTest, ACountOfR2tsThatIsTooHigh) {
  succeeds_and_is_said_once("more Data-Ins or R2Ts than it sends", [this] {
    ScsiResponsePdu pdu = response(small_write());
    pdu.exp_data_sn = 1;
    target.send(pdu);
  });
}
// Whatever it counts: what has not arrived is missing.
TEST_P(ToleranceTest, ReadWhoseDataAreMissingIsShortWhateverTheCountSays) {
  for (const std::uint32_t count : {0U, 1U, 2U, 77U}) {
    command.done = false;
    const std::uint32_t tag = read();
    send(data_in(tag, 0, 2048));
    ScsiResponsePdu pdu = response(tag);
    pdu.exp_data_sn = count;
    target.send(pdu);
    ASSERT_TRUE(done());
    EXPECT_EQ(classify(command.task), ErrorClass::short_transfer);
  }
  EXPECT_EQ(initiator.observer.downs, 0);
}
TEST_P(ToleranceTest, WriteWhoseDataWereNotAskedForIsShort) {
  target.send(response(write()));
  ASSERT_TRUE(done());
  EXPECT_EQ(classify(command.task), ErrorClass::short_transfer);
}
TEST_P(ToleranceTest, OverflowAndUnderflowAtOnceFailTheCommand) {
  for (int round = 0; round < 2; ++round) {
    command.done = false;
    const std::uint32_t tag = read();
    send(data_in(tag, 0, 4096));
    ScsiResponsePdu pdu = response(tag);
    pdu.underflow = pdu.overflow = true;
    target.send(pdu);
    ASSERT_TRUE(done());
    EXPECT_EQ(classify(command.task), ErrorClass::short_transfer);
    command.done = false;
    DataInPdu data = with_status(data_in(read(), 0, 4096));
    data.underflow = data.overflow = true;
    send(data);
    ASSERT_TRUE(done());
    EXPECT_EQ(classify(command.task), ErrorClass::short_transfer);
  }
  EXPECT_EQ(initiator.observer.downs, 0);
  EXPECT_EQ(logged("both residual overflow and underflow"), 1);
}
TEST_P(ToleranceTest, AnAnswerToAPingThatIsNotOutstanding) {
  succeeds_and_is_said_once("answers NOP-Outs twice", [this] {
    const std::uint32_t tag = read();
    NopInPdu nop;
    nop.initiator_task_tag = 0xfff1;
    nop.numbers = target.status_numbers();
    target.send(nop);
    send(with_status(data_in(tag, 0, 4096)));
  });
}
TEST_P(ToleranceTest, AFloodOfPings) {
  all_at_once();
  succeeds_and_is_said_once("more NOP-Ins at once", [this] {
    NopInPdu nop;
    nop.target_transfer_tag = 5;
    nop.numbers = target.numbers();
    std::vector<std::byte> flood(400 * kBhsBytes);
    for (std::size_t i = 0; i < 400; ++i) {
      encode(nop, BhsBuffer{flood.data() + i * kBhsBytes, kBhsBytes});
    }
    target.send_bytes(flood);
    ReceivedPdu answer;
    ASSERT_TRUE(target.next(Opcode::nop_out, answer));
    reactor.run_for(milliseconds(10));
    EXPECT_LE(target.received.size(), 100U) << "bounded";
    target.received.clear();
    send(with_status(data_in(read(), 0, 4096)));
  });
}
// A target that does not know NOP-Out lives all the same.
TEST_P(ToleranceTest, APingThatIsRejectedForWhateverReason) {
  for (const std::uint8_t reason : std::array<std::uint8_t, 4>{0x04, 0x05, 0x09, 0x0a}) {
    command.done = false;
    const std::uint32_t tag = read();
    for (int probe = 0; probe < 3; ++probe) {
      ReceivedPdu ping;
      ASSERT_TRUE(target.next(Opcode::nop_out, ping));
      reject(ping, reason);
    }
    send(with_status(data_in(tag, 0, 4096)));
    ASSERT_TRUE(done());
    EXPECT_TRUE(command.task.succeeded());
  }
  EXPECT_EQ(initiator.observer.downs, 0);
  EXPECT_EQ(logged("rejects NOP-Outs"), 1);
}
TEST_P(ToleranceTest, ARejectThatDoesNotSayOfWhatIsOneOfThePingWhereThereIsNothingElse) {
  RejectPdu rejection;
  rejection.reason = 0x05;
  const auto reject_something = [&] {
    rejection.numbers = target.status_numbers();
    target.send(rejection);
  };
  for (int probe = 0; probe < 3; ++probe) {
    initiator.session.ping();
    ReceivedPdu ping;
    ASSERT_TRUE(target.next(Opcode::nop_out, ping));
    reject_something();
    reactor.run_for(milliseconds(50));
  }
  EXPECT_EQ(initiator.observer.downs, 0) << initiator.observer.reason;
  EXPECT_EQ(logged("rejects NOP-Outs"), 1);
  // It may as well be of a command.
  static_cast<void>(read());
  initiator.session.ping();
  reject_something();
  EXPECT_TRUE(runs([this] { return initiator.observer.downs == 1; }));
  EXPECT_THAT(initiator.observer.reason, ::testing::HasSubstr("does not say of what"));
}
TEST_P(ToleranceTest, ATaskManagementFunctionThatIsRejectedIsRefused) {
  static_cast<void>(read());
  TaskManagement function;
  function.function = TaskFunction::abort_task;
  function.task = &command.task;
  bool answered = false;
  function.owner = &answered;
  function.on_complete = [](TaskManagement& completed) noexcept {
    *static_cast<bool*>(completed.owner) = true;
  };
  initiator.session.submit(function);
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::task_management_request, pdu));
  reject(pdu, 0x09);
  ASSERT_TRUE(runs([&] { return answered; }));
  EXPECT_EQ(function.outcome, FunctionOutcome::refused);
  EXPECT_EQ(initiator.observer.downs, 0);
  EXPECT_FALSE(command.done) << "the target has not said that it is gone";
  target.send(response(decode_task_management_request(pdu.bhs()).referenced_task_tag, 8));
  ASSERT_TRUE(done());
}
// 7.8: the command's own answer says that the transfer was damaged.
TEST_P(ToleranceTest, ARejectOfDamagedDataWaitsForTheCommandsAnswer) {
  succeeds_and_is_said_once("got damaged data", [this] {
    command.submit_write(initiator.session, 0, test_pattern(4096, 1));
    ReceivedPdu pdu;
    ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
    ++target.exp_cmd_sn;
    ++target.max_cmd_sn;
    reject(pdu, 0x02);
    target.send(response(pdu.header.initiator_task_tag));
  });
}
TEST_P(ToleranceTest, AfterARejectOfDamagedDataTheCommandIsNotWaitedForForLong) {
  command.submit_write(initiator.session, 0, test_pattern(4096, 1));
  ReceivedPdu pdu;
  ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
  ++target.exp_cmd_sn;
  reject(pdu, 0x02);
  const TimePoint start = reactor.now();
  while (target.next(Opcode::nop_out, pdu)) {
    NopInPdu answer;
    answer.initiator_task_tag = pdu.header.initiator_task_tag;
    answer.numbers = target.status_numbers();
    target.send(answer);
  }
  EXPECT_EQ(pdu.header.opcode, Opcode::task_management_request);
  EXPECT_LE(reactor.now() - start, seconds(8)) << "of 30 s command_timeout";
  target.reset();
  ASSERT_TRUE(done());
}

// What ends the connection each time, with an end to it.
class RepeatedEndTest : public ToleranceTest {
 protected:
  // The session logs in, and the target does what it always does. How long it took until then.
  template <class Act>
  Duration once(Act act) {
    const TimePoint lost = reactor.now();
    const int connections = target.connections();
    EXPECT_TRUE(runs_until(
        reactor, [&] { return target.connections() > connections; }, minutes(5)));
    const Duration waited = reactor.now() - lost;
    EXPECT_TRUE(target.accept_login());
    EXPECT_TRUE(initiator.up());
    const int downs = initiator.observer.downs;
    act();
    EXPECT_TRUE(runs([&] { return initiator.observer.downs > downs; }));
    return waited;
  }
  void end_session() { target.finish(); }
  void break_rule() { target.send(response(0x77)); }
};
INSTANTIATE_TEST_SUITE_P(Whole, RepeatedEndTest, ::testing::Values<std::size_t>(0));

TEST_P(RepeatedEndTest, ATargetThatBreaksTheSameRuleIsTriedEverMoreSeldom) {
  break_rule();
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  EXPECT_FALSE(initiator.session.keeps_ending());
  EXPECT_LE(once([this] { break_rule(); }), milliseconds(150)) << "as after any failure";
  EXPECT_LE(once([this] { break_rule(); }), milliseconds(250));
  EXPECT_TRUE(initiator.session.keeps_ending());
  EXPECT_THAT(initiator.session.last_error().message, ::testing::HasSubstr("3 times in a row"));
  Duration last{};
  for (int round = 0; round < 9; ++round) {
    last = once([this] { break_rule(); });
  }
  EXPECT_GE(last, seconds(15));
  EXPECT_LE(last, seconds(31));
  EXPECT_THAT(initiator.session.last_error().message,
              ::testing::AllOf(::testing::HasSubstr("broke the iSCSI protocol"),
                               ::testing::HasSubstr("tried only every 30 s")));
}

TEST_P(RepeatedEndTest, AConnectionThatLastsEndsTheSuspicion) {
  break_rule();
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  for (int round = 0; round < 5; ++round) {
    static_cast<void>(once([this] { break_rule(); }));
  }
  static_cast<void>(once([this] {
    const TimePoint up = reactor.now();
    EXPECT_TRUE(initiator.session.keeps_ending());
    while (reactor.now() - up < RepeatedEnds::kLasted) {
      ReceivedPdu ping;
      ASSERT_TRUE(target.next(Opcode::nop_out, ping));
      NopInPdu answer;
      answer.initiator_task_tag = ping.header.initiator_task_tag;
      answer.numbers = target.status_numbers();
      target.send(answer);
    }
    reactor.run_for(milliseconds(1));
    EXPECT_FALSE(initiator.session.keeps_ending());
    break_rule();
  }));
  EXPECT_FALSE(initiator.session.keeps_ending());
  EXPECT_LE(once([this] { break_rule(); }), milliseconds(150));
}

TEST_P(RepeatedEndTest, AnotherHostWithTheSameNameIsNamedAndNotFoughtAtFullSpeed) {
  end_session();
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  for (int round = 0; round < 3; ++round) {
    static_cast<void>(once([this] { end_session(); }));
    EXPECT_EQ(logged("another host"), 0);
  }
  static_cast<void>(once([this] { end_session(); }));
  EXPECT_TRUE(initiator.session.keeps_ending());
  EXPECT_THAT(initiator.session.last_error().message,
              ::testing::AllOf(::testing::HasSubstr("another host"),
                               ::testing::HasSubstr("iqn.2026-01.test:initiator"),
                               ::testing::HasSubstr("800102030001")));
  EXPECT_EQ(logged("another host"), 1);
  Duration last{};
  for (int round = 0; round < 9; ++round) {
    last = once([this] { end_session(); });
  }
  EXPECT_GE(last, seconds(15));
}

TEST_P(RepeatedEndTest, ATargetThatSaysThatItDropsTheSessionCountsLikeOneThatCloses) {
  const auto drop = [this] {
    AsyncMessagePdu event;
    event.event = AsyncEvent::session_drop;
    event.numbers = target.status_numbers();
    target.send(event);
  };
  drop();
  ASSERT_TRUE(runs([&] { return initiator.observer.downs == 1; }));
  for (int round = 0; round < 4; ++round) {
    static_cast<void>(once(drop));
  }
  EXPECT_EQ(logged("another host"), 1);
}

TEST(RepeatedEnds, SessionsThatLiveForAWhileAreNoPattern) {
  RepeatedEnds ends;
  for (int i = 0; i < 100; ++i) {
    ends.on_end(RepeatedEnds::Cause::ended_by_target, seconds(4));
  }
  EXPECT_FALSE(ends.recognised());
}
TEST(RepeatedEnds, ATargetThatIsNotThereInBetweenIsNoPattern) {
  RepeatedEnds ends;
  for (int i = 0; i < 100; ++i) {
    ends.on_end(RepeatedEnds::Cause::ended_by_target, milliseconds(100));
    ends.on_end(RepeatedEnds::Cause::other, Duration::zero());
  }
  EXPECT_FALSE(ends.recognised());
}
// Both hosts wait longer each time, so that each one's session lasts as long as the other one
// waits.
TEST(RepeatedEnds, AFightThatHasBecomeSlowIsStillOne) {
  RepeatedEnds ends;
  Duration other_waits = milliseconds(500);
  for (int i = 0; i < 30; ++i) {
    ends.on_end(RepeatedEnds::Cause::ended_by_target, other_waits);
    other_waits = std::max<Duration>(ends.wait(), milliseconds(500));
  }
  EXPECT_TRUE(ends.recognised());
  EXPECT_EQ(ends.wait(), Duration{RepeatedEnds::kLongestWait});
}
// A host of ours whose back-off is long, or DefaultTime2Wait.
TEST(RepeatedEnds, AFightIsKnownByHowLongTheOtherHostMayWait) {
  for (const seconds pause : {seconds(2), seconds(5), seconds(20), seconds(100)}) {
    for (const int times_as_long : {1, 2, 3}) {
      RepeatedEnds ends;
      const Duration up_for = std::max<Duration>(times_as_long * pause, seconds(4));
      for (int i = 0; i < 5; ++i) {
        EXPECT_FALSE(ends.recognised());
        ends.on_end(RepeatedEnds::Cause::ended_by_target, up_for, pause);
      }
      EXPECT_EQ(ends.recognised(), up_for <= 2 * pause) << pause.count() << " " << times_as_long;
    }
  }
}
TEST(RepeatedEnds, SessionsThatEndWithinAMinuteAreNamedThoughNotWaitedFor) {
  for (const seconds up_for : {seconds(4), seconds(30), seconds(60), seconds(61), seconds(299)}) {
    RepeatedEnds ends;
    for (int i = 0; i < 5; ++i) {
      EXPECT_FALSE(ends.by_another_host());
      ends.on_end(RepeatedEnds::Cause::ended_by_target, up_for);
    }
    EXPECT_EQ(ends.by_another_host(), up_for <= seconds(60)) << up_for.count();
    EXPECT_EQ(ends.wait(), Duration::zero());
  }
}
TEST(RepeatedEnds, WhatExplainsTheEndsIsNoOtherHost) {
  const auto named_with = [](RepeatedEnds::Cause between, Duration up_for) {
    RepeatedEnds ends;
    bool named = false;
    for (int i = 0; i < 20; ++i) {
      ends.on_end(RepeatedEnds::Cause::ended_by_target, seconds(10));
      named = named || ends.by_another_host();
      if (i % 4 == 3) {
        ends.on_end(between, up_for);
        named = named || ends.by_another_host();
      }
    }
    return named;
  };
  EXPECT_FALSE(named_with(RepeatedEnds::Cause::other, Duration::zero())) << "it is not there";
  EXPECT_FALSE(named_with(RepeatedEnds::Cause::broken_rule, seconds(10)));
  EXPECT_FALSE(named_with(RepeatedEnds::Cause::ended_by_target, minutes(2)));
}

TEST(RepeatedEnds, ALoginThatBreaksTheProtocolCountsToo) {
  RepeatedEnds ends;
  for (int i = 0; i < 3; ++i) {
    ends.on_end(RepeatedEnds::Cause::broken_rule, Duration::zero());
  }
  EXPECT_TRUE(ends.recognised());
  EXPECT_EQ(ends.wait(), Duration{seconds(1)});
}

}  // namespace
}  // namespace iscsi_blkback
