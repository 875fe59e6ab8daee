// Commands on a healthy session: every way that data can take, windows, sequence numbers.
#include <tuple>

#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(SessionTest, LogsInAndOut) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.observer.ups, 1);
  EXPECT_EQ(target->sessions(), 1U);
  EXPECT_EQ(initiator.session.login_epoch(), 1U);
  EXPECT_TRUE(initiator.session.negotiated().target_portal_group_tag_known);
  initiator.stop();
  EXPECT_EQ(initiator.observer.downs, 1);
  EXPECT_EQ(target->counters.logouts, 1U);
  reactor.run_for(seconds(1));
  EXPECT_EQ(target->sessions(), 0U);
}

TEST_F(SessionTest, MayBeStartedAgainAfterStop) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  initiator.stop();
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.login_epoch(), 2U);
  EXPECT_EQ(initiator.observer.ups, 2);
}

TEST_F(SessionTest, StopLetsOutstandingCommandsFinish) {
  target->options().command_delay = milliseconds(50);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  initiator.stop();
  EXPECT_TRUE(write.done);
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_EQ(target->counters.logouts, 1U);
}

TEST_F(SessionTest, SubmitWhileNotLoggedInCompletesWithNotSent) {
  TestSession initiator(reactor, test_session_options());
  TestCommand before;
  before.submit_test_unit_ready(initiator.session);
  EXPECT_FALSE(before.done);
  ASSERT_TRUE(runs_until(reactor, [&] { return before.done; }));
  EXPECT_EQ(before.task.outcome, TaskOutcome::not_sent);
}

TEST_F(SessionTest, CheckConditionBringsItsSense) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  TestCommand read;
  read.submit_read(initiator.session, 16384, 1);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_EQ(read.task.outcome, TaskOutcome::completed);
  EXPECT_EQ(read.task.status, ScsiStatus::check_condition);
  EXPECT_TRUE(read.task.sense.valid);
  EXPECT_EQ(read.task.sense.key, SenseKey::illegal_request);
  EXPECT_EQ(read.task.sense.code(), 0x2100);
  EXPECT_FALSE(read.task.succeeded());
}

TEST_F(SessionTest, OtherStatusesAreReportedAsTheyAre) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  for (const ScsiStatus status : {ScsiStatus::busy, ScsiStatus::task_set_full,
                                  ScsiStatus::reservation_conflict, ScsiStatus::task_aborted}) {
    target->inject({.status = status});
    TestCommand write;
    write.submit_write(initiator.session, 0, test_pattern(65536, 1));
    ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
    EXPECT_EQ(write.task.status, status);
    EXPECT_FALSE(write.task.succeeded());
  }
}

// libiscsi ignores the iSCSI response code and reports GOOD for a command that failed.
TEST_F(SessionTest, ResponseCodeOtherThanZeroIsNeverSuccess) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.response_code = 1});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  EXPECT_EQ(write.task.outcome, TaskOutcome::target_failure);
  EXPECT_EQ(write.task.response_code, 1);
  EXPECT_FALSE(write.task.succeeded());
}

TEST_F(SessionTest, ShortReadIsNoSuccessAndSaysHowMuchArrived) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  for (const bool with_data : {true, false}) {
    target->options().status_with_data = with_data;
    target->inject({.cut_bytes = 1024});
    TestCommand read;
    read.submit_read(initiator.session, 0, 8);
    ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
    EXPECT_EQ(read.task.status, ScsiStatus::good);
    EXPECT_EQ(read.task.transferred_bytes, 3072U);
    EXPECT_FALSE(read.task.succeeded());
  }
}

TEST_F(SessionTest, TargetThatTransfersMoreThanAskedIsNoSuccess) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  TestCommand read;
  read.data.assign(512, std::byte{0});
  read.task.cdb = read16_cdb(0, 8);  // 4096 bytes, but only 512 expected
  read.task.direction = DataDirection::in;
  read.submit(initiator.session);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_TRUE(read.task.overflow);
  EXPECT_FALSE(read.task.succeeded());
}

TEST_F(SessionTest, CommandsBeyondTheWindowWaitInOrder) {
  target->options().window = 4;
  target->options().command_delay = milliseconds(1);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  std::vector<std::uint8_t> blocks;
  target->inject({.matches =
                      [&](const SimCommand& command) {
                        blocks.push_back(command.cdb[9]);  // READ (16): the address's last byte
                        return false;
                      },
                  .count = 0});
  std::vector<TestCommand> commands(64);
  std::vector<std::uint8_t> submitted;
  for (TestCommand& command : commands) {
    command.submit_read(initiator.session, submitted.size(), 1);
    submitted.push_back(static_cast<std::uint8_t>(submitted.size()));
  }
  EXPECT_EQ(initiator.session.commands_in_flight(), 64U);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_EQ(blocks, submitted);
  for (const TestCommand& command : commands) {
    EXPECT_TRUE(command.task.succeeded());
  }
}

TEST_F(SessionTest, MaxCommandsBoundsWhatIsAtTheTarget) {
  SessionOptions options = test_session_options();
  options.max_commands = 3;
  target->options().command_delay = milliseconds(1);
  TestSession initiator(reactor, options);
  ASSERT_TRUE(initiator.start());
  target->inject({.count = 3, .hold = true});
  std::vector<TestCommand> commands(5);
  for (TestCommand& command : commands) {
    command.submit_test_unit_ready(initiator.session);
  }
  reactor.run_for(milliseconds(100));
  EXPECT_EQ(target->held(), 3U);
  EXPECT_EQ(lun->counters.others, 0U);
  target->release_held();
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
}

TEST_F(SessionTest, SequenceNumbersMayWrap) {
  SessionOptions options = test_session_options();
  options.initial_cmd_sn = 0xfffffffa;
  TestSession initiator(reactor, options);
  ASSERT_TRUE(initiator.start());  // the target's StatSN starts at 0xfffffff0
  for (int i = 0; i < 40; ++i) {
    TestCommand command;
    command.submit_read(initiator.session, 3, 1);
    ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
    ASSERT_TRUE(command.task.succeeded());
  }
}

// A deep queue behind a small window, with CmdSN, MaxCmdSN and StatSN all passing zero on the way.
TEST_F(SessionTest, WindowMovesAcrossTheWrap) {
  target->options().window = 3;
  target->options().command_delay = milliseconds(1);
  target->options().command_jitter = milliseconds(2);
  for (const std::uint32_t first : {0xfffffff0U, 0xfffffffdU, 0xffffffffU, 0x7ffffff8U}) {
    SessionOptions options = test_session_options();
    options.initial_cmd_sn = first;
    TestSession initiator(reactor, options);
    ASSERT_TRUE(initiator.start());
    std::vector<TestCommand> commands(64);
    for (TestCommand& command : commands) {
      command.submit_read(initiator.session, 0, 1);
    }
    ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
    for (const TestCommand& command : commands) {
      EXPECT_TRUE(command.task.succeeded());
    }
    EXPECT_EQ(initiator.session.statistics().connection_losses, 0U);
  }
}

TEST_F(SessionTest, OneSendCarriesEverythingOfATurn) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  const std::uint64_t before = initiator.session.statistics().sends;
  std::vector<TestCommand> commands(32);
  for (TestCommand& command : commands) {
    command.submit_write(initiator.session, 0, test_pattern(4096, 1));
  }
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
  EXPECT_EQ(initiator.session.statistics().sends - before, 1U);
}

// Answers that come one by one are received several at a time; and when those that a receive waits
// for do not come, the others do not wait with them.
TEST_F(SessionTest, GathersAnswersAndDoesNotWaitForThoseThatDoNotCome) {
  SimTargetOptions options;
  options.portals = {{test_address(4), 1}};
  options.power_on_unit_attention = false;
  options.command_delay = microseconds(100);
  options.command_jitter = microseconds(200);
  SimTarget slow(reactor, options);
  slow.add_lun(0, lun);
  TestSession initiator(reactor, test_session_options(4));
  ASSERT_TRUE(initiator.start());
  std::vector<TestCommand> commands(32);
  std::uint64_t submitted = 0;
  const auto keep_busy = [&](std::uint64_t count) {
    for (const std::uint64_t end = submitted + count; submitted < end;) {
      for (TestCommand& command : commands) {
        if (command.done || submitted < commands.size()) {
          ++submitted;
          command.done = false;
          command.submit_read(initiator.session, 0, 8);
        }
      }
      ASSERT_TRUE(runs_until(reactor, [&] {
        return std::any_of(commands.begin(), commands.end(),
                           [](const TestCommand& command) { return command.done; });
      }));
    }
  };
  keep_busy(4000);
  const std::uint64_t receives = initiator.session.statistics().receives;
  keep_busy(4000);
  EXPECT_LT(initiator.session.statistics().receives - receives, 4000 / 8);

  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
  constexpr std::uint8_t kHeldBlock = 77;
  slow.inject({.matches = [](const SimCommand& command) { return command.cdb[9] == kHeldBlock; },
               .count = 0,
               .hold = true});
  for (TestCommand& command : commands) {
    command.done = false;
    command.submit_read(initiator.session, &command < &commands[2] ? 0 : kHeldBlock, 8);
  }
  EXPECT_TRUE(runs_until(
      reactor, [&] { return commands[0].done && commands[1].done; }, milliseconds(5)));
  EXPECT_EQ(initiator.session.commands_in_flight(), 30U);
  slow.release_held();
  EXPECT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
}

TEST_F(SessionTest, AnswersPingsOfTheTarget) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->ping();
  reactor.run_for(milliseconds(100));
  EXPECT_EQ(target->counters.pings_answered, 1U);
}

TEST_F(SessionTest, IdleSessionStaysUpByPings) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.run_for(std::chrono::minutes(5));
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
  EXPECT_EQ(initiator.session.login_epoch(), 1U);
  // A ping each noop_out_interval and no more than that.
  EXPECT_GE(initiator.session.statistics().sends, 50U);
  EXPECT_LE(initiator.session.statistics().sends, 70U);
}

// Negotiated ways of data: (initial R2T, immediate data, status with data, bytes a receive takes at
// most, bytes of a Data-In at most).
using Way = std::tuple<bool, bool, bool, int, int>;
class SessionDataTest : public SessionTest, public ::testing::WithParamInterface<Way> {};

TEST_P(SessionDataTest, WritesAndReadsBackEverySize) {
  const auto [initial_r2t, immediate, with_data, split, data_in] = GetParam();
  target->options().initial_r2t = initial_r2t;
  target->options().immediate_data = immediate;
  target->options().status_with_data = with_data;
  target->options().max_data_in_bytes = static_cast<std::uint32_t>(data_in);
  target->options().command_jitter = microseconds(50);
  reactor.network().set_split(test_address(1), SimDirection::to_client,
                              static_cast<std::size_t>(split));
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.negotiated().initial_r2t, initial_r2t);
  EXPECT_EQ(initiator.session.negotiated().immediate_data, immediate);
  std::vector<std::unique_ptr<TestCommand>> writes;
  std::vector<std::unique_ptr<TestCommand>> reads;
  std::uint64_t block = 0;
  const std::vector<std::size_t> sizes = {512,   4096,   7680,   8192,   16384,  65536,
                                          66048, 131072, 262144, 262656, 1048576};
  for (const std::size_t bytes : sizes) {
    writes.push_back(std::make_unique<TestCommand>());
    writes.back()->submit_write(initiator.session, block, test_pattern(bytes, 3));
    block += bytes / 512;
  }
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
  block = 0;
  for (const std::size_t bytes : sizes) {
    reads.push_back(std::make_unique<TestCommand>());
    reads.back()->submit_read(initiator.session, block, static_cast<std::uint32_t>(bytes / 512));
    block += bytes / 512;
  }
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.session.commands_in_flight() == 0; }));
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_TRUE(writes[i]->task.succeeded()) << sizes[i];
    EXPECT_TRUE(reads[i]->task.succeeded()) << sizes[i];
    EXPECT_TRUE(reads[i]->data == writes[i]->data) << sizes[i];
  }
  EXPECT_EQ(initiator.session.statistics().connection_losses, 0U);
}
INSTANTIATE_TEST_SUITE_P(
    EveryWay, SessionDataTest,
    ::testing::Values(Way{false, true, true, 0, 0}, Way{false, false, true, 0, 0},
                      Way{true, true, false, 0, 0}, Way{true, false, false, 0, 8192},
                      Way{false, true, true, 3000, 0}, Way{false, true, false, 48, 65536},
                      Way{false, true, true, 100000, 20000}, Way{true, true, true, 20000, 17001}));

TEST_F(SessionTest, SmallSegmentsOfTheTargetAreRespected) {
  target->options().max_recv_data_segment_length = 512;
  target->options().first_burst_length = 4096;
  target->options().max_burst_length = 8192;
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(262144, 9));
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  EXPECT_TRUE(write.task.succeeded());
  EXPECT_TRUE(std::equal(write.data.begin(), write.data.end(), lun->medium().begin()));
}

// The same run again and again, with the stream (less than 2200 bytes) cut at four places each
// time.
TEST_F(SessionTest, StreamMayBeCutAtEveryByte) {
  TestCommand fill;
  {
    TestSession initiator(reactor, test_session_options());
    ASSERT_TRUE(initiator.start());
    fill.submit_write(initiator.session, 0, test_pattern(1024, 5));
    ASSERT_TRUE(runs_until(reactor, [&] { return fill.done; }));
  }
  for (std::uint64_t offset = 1; offset <= 550; ++offset) {
    reactor.network().set_boundaries(test_address(1), SimDirection::to_client,
                                     {offset, offset + 550, offset + 1100, offset + 1650});
    TestSession initiator(reactor, test_session_options());
    ASSERT_TRUE(initiator.start()) << offset;
    TestCommand read;
    read.submit_read(initiator.session, 0, 2);
    TestCommand failing;
    failing.submit_read(initiator.session, 16384, 1);
    ASSERT_TRUE(runs_until(reactor, [&] { return read.done && failing.done; })) << offset;
    ASSERT_TRUE(read.task.succeeded()) << offset;
    ASSERT_TRUE(read.data == fill.data) << offset;
    ASSERT_EQ(failing.task.sense.code(), 0x2100) << offset;
  }
}

}  // namespace
}  // namespace iscsi_blkback
