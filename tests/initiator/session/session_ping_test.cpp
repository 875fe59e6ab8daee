// Session::ping() and detach_buffer(): what a multipath device asks of a session that has gone silent.
#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PingObserver final : public SessionObserver {
 public:
  explicit PingObserver(Session& session) : session_(session) { session.add_observer(*this); }
  ~PingObserver() { session_.remove_observer(*this); }
  void on_session_up(Session&) noexcept override {}
  void on_session_down(Session&, const Error&) noexcept override {}
  void on_ping_answered(Session&) noexcept override { ++answers; }
  int answers = 0;

 private:
  Session& session_;
};

class SessionPingTest : public SessionTest {
 protected:
  void drop_silently(bool dropping) { reactor.network().set_dropping(test_address(1), dropping); }
};

TEST_F(SessionPingTest, TheAnswerIsTold) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  PingObserver observer(initiator.session);
  initiator.session.ping();
  initiator.session.ping();
  EXPECT_EQ(observer.answers, 0) << "from inside the call";
  ASSERT_TRUE(runs_until(
      reactor, [&] { return observer.answers != 0; }, milliseconds(10)));
  reactor.run_for(seconds(1));
  EXPECT_EQ(observer.answers, 1) << "one NOP-Out served both";
}

TEST_F(SessionPingTest, WithoutAnAnswerTheConnectionIsDroppedAlthoughIdle) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  drop_silently(true);
  const TimePoint asked = reactor.now();
  initiator.session.ping();
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.downs == 1; }));
  EXPECT_GE(reactor.now() - asked, milliseconds(2000));
  EXPECT_LE(reactor.now() - asked, milliseconds(2010));
  drop_silently(false);
}

TEST_F(SessionPingTest, SilenceWithCommandsEndsExactlyAtPathTimeout) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.run_for(milliseconds(777));
  drop_silently(true);
  const TimePoint sent = reactor.now();
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  EXPECT_EQ(write.task.outcome, TaskOutcome::connection_lost);
  EXPECT_GE(reactor.now() - sent, milliseconds(2000));
  EXPECT_LE(reactor.now() - sent, milliseconds(2010));
  drop_silently(false);
}

TEST_F(SessionPingTest, WhileNotLoggedInNothingHappens) {
  TestSession initiator(reactor, test_session_options());
  initiator.session.ping();
  ASSERT_TRUE(initiator.start());
  PingObserver observer(initiator.session);
  reactor.run_for(seconds(1));
  EXPECT_EQ(observer.answers, 0);
}

TEST_F(SessionPingTest, NothingArrivesInADetachedBuffer) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  const std::vector<std::byte> pattern = test_pattern(65536, 2);
  std::copy(pattern.begin(), pattern.end(), lun->medium().begin());
  reactor.network().set_held(test_address(1), SimDirection::to_client, true);
  TestCommand read;
  read.submit_read(initiator.session, 0, 128);
  reactor.run_for(milliseconds(10));
  TestCommand other;
  other.submit_read(initiator.session, 0, 128);
  ASSERT_TRUE(initiator.session.detach_buffer(read.task));
  reactor.network().set_held(test_address(1), SimDirection::to_client, false);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done && other.done; }));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(read.data, std::vector<std::byte>(65536, std::byte{0xee}));
  EXPECT_EQ(other.data, pattern);
}

TEST_F(SessionPingTest, TheBufferOfAReadThatIsBeingReceivedIsNotDetached) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  reactor.network().set_buffers(test_address(1), 65536, 8192);
  TestCommand read;
  TestCommand other;
  read.submit_read(initiator.session, 0, 256);
  other.submit_read(initiator.session, 0, 256);
  const std::uint64_t before = initiator.session.statistics().bytes_received;
  ASSERT_TRUE(runs_until(
      reactor, [&] { return initiator.session.statistics().bytes_received > before + 20000; }));
  reactor.network().set_held(test_address(1), SimDirection::to_client, true);
  reactor.run_for(milliseconds(10));
  const bool first = initiator.session.detach_buffer(read.task);
  const bool second = initiator.session.detach_buffer(other.task);
  EXPECT_NE(first, second) << "the one that the target has answered first";
  reactor.network().set_held(test_address(1), SimDirection::to_client, false);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done && other.done; }));
  EXPECT_TRUE(read.task.succeeded() && other.task.succeeded());
}

}  // namespace
}  // namespace iscsi_blkback
