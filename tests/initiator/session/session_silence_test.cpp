// What counts as silence, and when it ends a connection: from what moment it is measured, and that
// anything which arrives ends it.
#include "tests/initiator/session/protocol_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class SessionSilenceTest : public ProtocolTest {
 protected:
  // A read of 64 KiB at the target.
  std::uint32_t long_read() {
    command.submit_read(initiator.session, 0, 128);
    return taken();
  }
  // The next 512 bytes of it, after this time, so many times.
  void trickle(std::uint32_t tag, Duration interval, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i, ++trickled) {
      reactor.run_for(interval);
      send_data(data_in(tag, trickled * 512, 512, trickled));
      ASSERT_EQ(initiator.session.state(), SessionState::logged_in);
    }
  }
  [[nodiscard]] bool pinged() const {
    return std::any_of(target.received.begin(), target.received.end(),
                       [](const ReceivedPdu& pdu) { return pdu.header.opcode == Opcode::nop_out; });
  }

  std::uint32_t trickled = 0;
};
INSTANTIATE_TEST_SUITE_P(EverySplit, SessionSilenceTest, ::testing::Values<std::size_t>(0));

TEST_P(SessionSilenceTest, DataThatTricklesInIsNone) {
  const std::uint32_t tag = long_read();
  trickle(tag, milliseconds(150), 20);  // less than stall_probe, for longer than path_timeout
  EXPECT_FALSE(pinged());
  target.reset();
  ASSERT_TRUE(runs([&] { return command.done; }));
}

TEST_P(SessionSilenceTest, BeginsWithTheCommandOnASessionThatWasIdle) {
  reactor.run_for(seconds(3));
  static_cast<void>(long_read());
  reactor.run_for(milliseconds(190));
  EXPECT_FALSE(pinged()) << "it has had something to wait for only since then";
  reactor.run_for(milliseconds(20));
  EXPECT_TRUE(pinged()) << "stall_probe";
  target.reset();
  ASSERT_TRUE(runs([&] { return command.done; }));
}

// The target is busy with the data, and has not come to the NOP-Out yet.
TEST_P(SessionSilenceTest, APingThatIsNotAnsweredIsNoneWhileDataArrives) {
  const std::uint32_t tag = long_read();
  reactor.run_for(milliseconds(300));
  ASSERT_TRUE(pinged());
  trickle(tag, milliseconds(900), 15);  // longer than noop_out_timeout and path_timeout
  const TimePoint last = reactor.now();
  ASSERT_TRUE(runs([&] { return command.done; }));
  EXPECT_GE(reactor.now() - last, milliseconds(1990)) << "path_timeout from the last data on";
  EXPECT_LE(reactor.now() - last, milliseconds(2100));
}

TEST_P(SessionSilenceTest, OfTheLastConnectionDoesNotCountAtTheNextOne) {
  ReceivedPdu ping;
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));  // never answered
  target.reset();
  ASSERT_TRUE(runs([&] { return target.connections() == 2; }));
  ASSERT_TRUE(target.accept_login());
  ASSERT_TRUE(initiator.up());
  const TimePoint up = reactor.now();
  ASSERT_TRUE(target.next(Opcode::nop_out, ping));
  EXPECT_GE(reactor.now() - up, milliseconds(4900)) << "noop_out_interval";
  NopInPdu answer;
  answer.initiator_task_tag = ping.header.initiator_task_tag;
  answer.numbers = target.status_numbers();
  target.send(answer);
  reactor.run_for(seconds(4));
  EXPECT_EQ(initiator.session.state(), SessionState::logged_in);
}

// login_timeout (15 s) is for the first try.
TEST_P(SessionSilenceTest, ALoginThatTakesLongerThanLoginTimeoutHasMoreTimeAtTheNextTry) {
  const auto next_connection = [this] {
    const int before = target.connections();
    const TimePoint began = reactor.now();
    EXPECT_TRUE(runs([&] { return target.connections() != before; }));
    return reactor.now() - began;
  };
  target.reset();
  (void)next_connection();
  EXPECT_GE(next_connection(), seconds(14));
  for (const int most : {30, 60, 60}) {
    const Duration given = next_connection();
    EXPECT_GE(given, seconds(most - 1));
    EXPECT_LE(given, seconds(most + 2)) << "bounded";
  }
  reactor.run_for(seconds(40));
  ASSERT_TRUE(target.accept_login());
  ASSERT_TRUE(initiator.up());
  target.reset();
  (void)next_connection();
  EXPECT_GE(next_connection(), seconds(59)) << "it is known to be slow";
  ASSERT_TRUE(target.accept_login());
  ASSERT_TRUE(initiator.up());
  target.reset();
  (void)next_connection();
  EXPECT_LE(next_connection(), seconds(17)) << "and not any more";
}

// How long a session waits before it logs in again.
class SessionBackoffTest : public SessionTest {
 protected:
  // Until the next failed login.
  Duration until_next_failure(const Session& session) {
    const TimePoint begin = reactor.now();
    const std::uint64_t before = session.statistics().login_failures;
    EXPECT_TRUE(runs_until(reactor, [&] { return session.statistics().login_failures != before; }));
    return reactor.now() - begin;
  }
};

TEST_F(SessionBackoffTest, WaitsStayLongHoweverOftenALoginFails) {
  target->stop();
  TestSession initiator(reactor, test_session_options());
  initiator.session.start();
  for (int failure = 0; failure < 5; ++failure) {
    static_cast<void>(until_next_failure(initiator.session));
  }
  for (int failure = 0; failure < 100; ++failure) {
    ASSERT_GE(until_next_failure(initiator.session), milliseconds(500)) << failure;
  }
  target->start();
}

TEST_F(SessionBackoffTest, ASessionThatWasUpForLongBeginsWithShortWaits) {
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  for (int i = 0; i < 4; ++i) {
    reactor.network().reset_connections(test_address(1));
    ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2 + i; }));
  }
  reactor.run_for(seconds(6));
  reactor.network().reset_connections(test_address(1));
  const TimePoint lost = reactor.now();
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 6; }));
  EXPECT_LE(reactor.now() - lost, milliseconds(150));
}

}  // namespace
}  // namespace iscsi_blkback
