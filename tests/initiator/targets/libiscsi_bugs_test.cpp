// Bugs of libiscsi, each with the test that shows that this engine does not have it. Versions are
// those in which the bug was seen.
#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// At what the initiator does by itself.
class LibiscsiBugsTest : public SessionTest {
 protected:
  template <class Condition>
  [[nodiscard]] bool runs(Condition condition) {
    return runs_until(reactor, condition);
  }
};

// At single PDUs.
class LibiscsiProtocolBugsTest : public ProtocolTest {};
INSTANTIATE_TEST_SUITE_P(EverySplit, LibiscsiProtocolBugsTest, every_split());

// All versions: the Response byte of a SCSI Response is ignored, and a status byte of 0 is GOOD.
TEST_P(LibiscsiProtocolBugsTest, TargetFailureIsNotGood) {
  const std::uint32_t tag = read();
  target.send(data_in(tag, 0, 4096), std::span{block}.first(4096));
  ScsiResponsePdu pdu = response(tag);
  pdu.response = 1;
  target.send(pdu);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_FALSE(command.task.succeeded());
}

// All versions: a READ that is answered GOOD without any Data-In is GOOD over an unfilled buffer.
TEST_P(LibiscsiProtocolBugsTest, GoodWithoutDataIsNotGood) {
  target.send(response(read()));
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_FALSE(command.task.succeeded());
}

// 1.19 to master: cancelling a command whose data is half sent frees it in the middle of its PDU,
// and the next PDU's bytes become the rest of the data. Here the target aborts the command while
// its data is on the way: each PDU that was begun goes out whole, and the buffer is its owner's
// again only when the connection has let go of it.
TEST_F(LibiscsiBugsTest, CommandThatEndsWhileItsDataIsBeingSentLeavesTheStreamWhole) {
  constexpr std::uint32_t kBurst = 8 * 1024 * 1024;
  target->options().max_recv_data_segment_length = 262144;
  target->options().first_burst_length = target->options().max_burst_length = kBurst;
  SessionOptions options = test_session_options();
  options.first_burst_length = options.max_burst_length = kBurst;
  options.stall_probe = options.path_timeout = seconds(60);
  TestSession initiator(reactor, options);
  ASSERT_TRUE(initiator.start());
  reactor.network().set_buffers(test_address(1), 8192, 8192);
  reactor.network().set_latency(test_address(1), milliseconds(1));  // some megabytes a second
  TestCommand late;
  late.submit_write(initiator.session, 0, test_pattern(4 * 1024 * 1024, 7));
  reactor.run_for(milliseconds(50));
  TaskManagement abort;
  abort.task = &late.task;
  abort.on_complete = [](TaskManagement&) noexcept {};
  initiator.session.submit(abort);
  ASSERT_TRUE(runs([&] { return late.done && !abort.linked(); }));
  EXPECT_EQ(late.task.outcome, TaskOutcome::aborted);
  EXPECT_EQ(abort.outcome, FunctionOutcome::complete);
  EXPECT_EQ(target->counters.aborts, 1U);
  std::fill(late.data.begin(), late.data.end(), std::byte{0xbb});
  reactor.network().set_latency(test_address(1), milliseconds(0));
  TestCommand after;
  after.submit_write(initiator.session, 0, test_pattern(262144, 8));
  ASSERT_TRUE(runs([&] { return after.done; }));
  EXPECT_TRUE(after.task.succeeded());
  EXPECT_TRUE(std::equal(after.data.begin(), after.data.end(), lun->medium().begin()));
  EXPECT_EQ(lun->counters.writes, 1U);
}

// 1.20.1 and later: of several commands that time out together only one is called back; the timeout
// of a WRITE locks up.
TEST_F(LibiscsiBugsTest, EveryOneOfManyLateCommandsComesBackOnce) {
  SessionOptions options = test_session_options();
  options.command_timeout = milliseconds(500);
  TestSession initiator(reactor, options);
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 0, .answer = false});
  std::deque<TestCommand> commands;
  for (int i = 0; i < 40; ++i) {
    TestCommand& command = commands.emplace_back();
    if (i % 2 == 0) {
      command.submit_write(initiator.session, 0, test_pattern(4096, 1));
    } else {
      command.submit_read(initiator.session, 0, 8);
    }
  }
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  for (const TestCommand& command : commands) {
    EXPECT_TRUE(command.done);  // twice would have failed already
    EXPECT_EQ(command.task.outcome, TaskOutcome::aborted);
  }
}

// 1.20.3: a command that is submitted while the session logs in again is written into the login.
TEST_F(LibiscsiBugsTest, CommandsDuringALoginStayOutOfIt) {
  target->options().command_delay = milliseconds(1);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.network().set_latency(test_address(1), milliseconds(10));
  for (int round = 0; round < 20; ++round) {
    initiator.session.drop({ErrorCode::unavailable, "test"});
    std::deque<TestCommand> commands;
    while (initiator.session.state() != SessionState::logged_in) {
      commands.emplace_back().submit_test_unit_ready(initiator.session);
      reactor.run_for(milliseconds(7));
      ASSERT_LE(commands.size(), 1000U);
    }
    ASSERT_TRUE(runs([&] { return commands.back().done; }));
    for (const TestCommand& command : commands) {
      EXPECT_EQ(command.task.outcome, TaskOutcome::not_sent);
    }
  }
  // The target refuses anything but Login Requests during a login (SessionTest looks at that).
}

// Reconnecting replays every command, writes too, on the new connection.
TEST_F(LibiscsiBugsTest, NothingIsReplayedOnTheNextConnection) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 2, .answer = false});
  TestCommand write;
  TestCommand read;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  read.submit_read(initiator.session, 0, 8);
  reactor.run_for(milliseconds(10));
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs([&] { return initiator.observer.ups == 2; }));
  reactor.run_for(seconds(10));
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  EXPECT_EQ(lun->counters.writes, 0U);
  EXPECT_EQ(initiator.session.statistics().commands, 2U);
}

// Each login has a new random ISID, so that no login reinstates the session before it.
TEST_F(LibiscsiBugsTest, EveryLoginHasTheSameIsid) {
  target->options().linger_delay = seconds(5);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  for (int round = 1; round <= 3; ++round) {
    target->inject({.execute = true, .extra_delay = milliseconds(10)});
    TestCommand write;
    write.submit_write(initiator.session, 0, test_pattern(4096, 1));
    reactor.run_for(milliseconds(5));
    reactor.network().reset_connections(test_address(1));
    ASSERT_TRUE(runs([&] { return initiator.observer.ups == round + 1; }));
    EXPECT_EQ(target->counters.terminated_tasks, static_cast<std::uint64_t>(round));
  }
}

// 1.19: after an asynchronous logout request outstanding commands are never called back.
TEST_P(LibiscsiProtocolBugsTest, LogoutRequestEndsEveryCommand) {
  static_cast<void>(read());
  AsyncMessagePdu event;
  event.event = AsyncEvent::logout_request;
  event.parameter3 = 1;
  event.numbers = target.status_numbers();
  target.send(event);
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
}

// 1.19, 1.20.0: a command that is submitted again from the callback of its own failure loops for
// ever inside the library.
TEST_F(LibiscsiBugsTest, SubmitAgainFromTheCompletionDoesNotLoop) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  struct Again {
    Session& session;
    int completions = 0;
    bool inside_submit = false;
  } again{initiator.session};
  ScsiTask task;
  task.cdb = test_unit_ready_cdb();
  task.owner = &again;
  task.on_complete = [](ScsiTask& completed) noexcept {
    auto& self = *static_cast<Again*>(completed.owner);
    EXPECT_FALSE(self.inside_submit);
    if (++self.completions <= 50) {
      self.inside_submit = true;
      self.session.submit(completed);
      self.inside_submit = false;
    }
  };
  target->inject({.answer = false});
  initiator.session.submit(task);
  reactor.run_for(milliseconds(10));
  initiator.session.drop({ErrorCode::unavailable, "test"});
  ASSERT_TRUE(runs([&] { return again.completions == 51; }));
  EXPECT_EQ(task.outcome, TaskOutcome::not_sent);
  EXPECT_TRUE(initiator.up());
}

// All versions: ExpStatSN stays at 1 for the whole session when the first StatSN is 0x80000000 or
// more; ours follows, and wraps.
TEST_P(LibiscsiProtocolBugsTest, ExpStatSnFollowsAFirstStatSnInTheUpperHalf) {
  target.reset();
  for (const std::uint32_t first : {0x80000000U, 0xfffffffdU}) {
    const int connections = target.connections();
    ASSERT_TRUE(runs([&] { return target.connections() == connections + 1; }));
    ASSERT_TRUE(target.accept_login({}, first));
    ASSERT_TRUE(initiator.up());
    for (int i = 0; i < 5; ++i) {
      TestCommand next;
      next.submit_test_unit_ready(initiator.session);
      ReceivedPdu pdu;
      ASSERT_TRUE(target.next(Opcode::scsi_command, pdu));
      EXPECT_EQ(decode_scsi_command(pdu.bhs()).exp_stat_sn,
                first + 2U + static_cast<std::uint32_t>(i));
      target.send(response(pdu.header.initiator_task_tag));
      ASSERT_TRUE(runs([&] { return next.done; }));
    }
    target.reset();
  }
}

// Without CHAP the login starts in the operational stage, and tgt then skips reinstatement:
// ScriptedTarget::accept_login() refuses a login that does not begin with security negotiation.
TEST_P(LibiscsiProtocolBugsTest, LoginBeginsWithSecurityNegotiation) {
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

// Login variables survive a redirect, so that the next hop starts in the middle.
TEST_F(LibiscsiBugsTest, EveryHopOfARedirectIsALoginOfItsOwn) {
  target->redirect_logins(0, "10.0.0.2:3260,1");
  target->redirect_logins(1, "10.0.0.3:3260,2");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(2), 1U);
  EXPECT_EQ(initiator.session.negotiated().target_portal_group_tag, 2);
  TestCommand read;
  read.submit_read(initiator.session, 0, 8);
  ASSERT_TRUE(runs([&] { return read.done; }));
  EXPECT_TRUE(read.task.succeeded());
}

// 1.19: a command that is cancelled before it was sent leaves a hole in the CmdSN sequence, and the
// session hangs. (The simulated target counts.)
TEST_F(LibiscsiBugsTest, CommandThatIsTakenBackLeavesNoHoleInCmdSn) {
  target->options().window = 1;
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.hold = true});
  std::deque<TestCommand> commands;
  for (int i = 0; i < 3; ++i) {
    commands.emplace_back().submit_test_unit_ready(initiator.session);
  }
  reactor.run_for(milliseconds(10));
  TaskManagement abort;
  abort.task = &commands[1].task;
  abort.on_complete = [](TaskManagement&) noexcept {};
  initiator.session.submit(abort);
  ASSERT_TRUE(runs([&] { return commands[1].done; }));
  EXPECT_EQ(commands[1].task.outcome, TaskOutcome::not_sent);
  target->release_held();
  ASSERT_TRUE(runs([&] { return commands[2].done; }));
  EXPECT_TRUE(commands[0].task.succeeded() && commands[2].task.succeeded());
}

// 1.19: an answer to a ping of the target in front of queued Data-Out drops the session.
TEST_F(LibiscsiBugsTest, PingsOfTheTargetAmongDataOut) {
  target->options().initial_r2t = true;
  target->options().immediate_data = false;
  target->options().max_burst_length = 8192;
  target->options().first_burst_length = 8192;
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.network().set_latency(test_address(1), milliseconds(1));
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(262144, 1));
  while (!write.done) {
    target->ping();
    reactor.run_for(milliseconds(1));
  }
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_GE(target->counters.pings_answered, 10U);
  EXPECT_EQ(initiator.observer.downs, 0);
}

// Pings are not immediate: they use up a CmdSN and wait behind a closed window, where a living
// target looks dead.
TEST_F(LibiscsiBugsTest, PingsPassAClosedWindow) {
  target->options().window = 2;
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 2, .extra_delay = seconds(20)});
  std::deque<TestCommand> commands;
  for (int i = 0; i < 4; ++i) {
    commands.emplace_back().submit_test_unit_ready(initiator.session);
  }
  ASSERT_TRUE(runs([&] { return initiator.session.commands_in_flight() == 0; }));
  for (const TestCommand& command : commands) {
    EXPECT_TRUE(command.task.succeeded());
  }
  EXPECT_EQ(initiator.observer.downs, 0);
}

// The parser of sense data reads past the end of what has arrived (see sense_vpd_test.cpp for every
// length).
TEST_P(LibiscsiProtocolBugsTest, SenseThatIsCutOffIsReadWithinItsBounds) {
  for (std::uint32_t bytes = 0; bytes <= 20; ++bytes) {
    command.done = false;
    const std::uint32_t tag = read();
    std::vector<std::byte> segment = make_sense(SenseKey::medium_error, 0x1100);
    segment.insert(segment.begin(), {std::byte{0}, std::byte{18}});
    segment.resize(bytes);
    ScsiResponsePdu pdu = response(tag, 2);
    pdu.data_bytes = bytes;
    target.send(pdu, segment);
    ASSERT_TRUE(runs([&] { return command.done; }));
    EXPECT_EQ(command.task.sense.valid, bytes >= 5);
    EXPECT_EQ(command.task.sense.code(), bytes >= 15 ? 0x1100 : 0);
  }
}

// A LUN reset cancels the commands of every LUN of the session, locally.
TEST_F(LibiscsiBugsTest, LunResetLeavesOtherLunsAlone) {
  target->add_lun(1, std::make_shared<SimLun>(SimLunOptions{.block_count = 2048}));
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 2, .hold = true});
  TestCommand ours;
  TestCommand other;
  ours.submit_write(initiator.session, 0, test_pattern(4096, 1));
  other.task.lun = encode_lun(1);
  other.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(10));
  TaskManagement reset;
  reset.function = TaskFunction::logical_unit_reset;
  reset.lun = encode_lun(0);
  reset.on_complete = [](TaskManagement&) noexcept {};
  initiator.session.submit(reset);
  ASSERT_TRUE(runs([&] { return ours.done; }));
  EXPECT_EQ(ours.task.outcome, TaskOutcome::aborted);
  target->release_held();
  ASSERT_TRUE(runs([&] { return other.done; }));
  EXPECT_TRUE(other.task.succeeded());
}

}  // namespace
}  // namespace iscsi_blkback
