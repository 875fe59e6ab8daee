// LoginPhase: how much time a login has, and what the last one means for the next.
#include "initiator/session/login_phase.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class LoginPhaseTest : public testing::Test {
 protected:
  static SessionOptions login_options() {
    SessionOptions options;
    options.initiator_name = "iqn.2026-01.test:initiator";
    options.target_name = "iqn.2026-01.test:target";
    options.connect_timeout = 1500ms;
    options.login_timeout = 10s;
    return options;
  }
  // Connects after this time. Returns when the login is given up from then on, if ever.
  Duration given_up_after(Duration connects_after) {
    overdue = 0;
    login.connecting();
    reactor.run_for(connects_after);
    EXPECT_TRUE(login.connected(1));
    const TimePoint connected = reactor.now();
    static_cast<void>(reactor.run_until([this] { return overdue != 0; }, 2min));
    return overdue == 0 ? Duration::max() : reactor.now() - connected;
  }
  void ends() {
    Error why{ErrorCode::timed_out, "no answer"};
    login.failed(why);
    login.stop_waiting();
    login.forget_connection();
  }

  SimReactor reactor{1};
  const SessionOptions options = login_options();
  ChapMemory memory;
  int overdue = 0;
  LoginPhase login{reactor, options, memory,
                   [](void* self) noexcept { ++static_cast<LoginPhaseTest*>(self)->overdue; },
                   this};
};

TEST_F(LoginPhaseTest, TheAttemptToConnectHasConnectTimeout) {
  login.connecting();
  reactor.run_for(1499ms);
  EXPECT_EQ(overdue, 0);
  reactor.run_for(2ms);
  EXPECT_EQ(overdue, 1);
}

TEST_F(LoginPhaseTest, ConnectAndLoginHaveLoginTimeoutTogether) {
  EXPECT_EQ(given_up_after(1s), 9s);
}

TEST_F(LoginPhaseTest, ASlowLoginHasTwiceTheTimeTheNextTimeUpToFourTimes) {
  for (const Duration time : {10s, 20s, 40s, 40s}) {
    EXPECT_EQ(given_up_after(0s), time);
    ends();
  }
}

TEST_F(LoginPhaseTest, AConnectionThatDoesNotComeIsNoSlowLogin) {
  login.connecting();
  reactor.run_for(2s);
  ASSERT_EQ(overdue, 1);
  ends();
  EXPECT_EQ(given_up_after(0s), 10s);
}

TEST_F(LoginPhaseTest, AfterAQuickLoginTheTimeIsAsAtFirst) {
  given_up_after(0s);
  ends();
  login.connecting();
  ASSERT_TRUE(login.connected(1));
  reactor.run_for(9s);
  login.succeeded();
  reactor.run_for(1min);
  EXPECT_EQ(overdue, 1) << "one that has succeeded is not waited for";
  EXPECT_EQ(given_up_after(0s), 10s);
}

TEST_F(LoginPhaseTest, AfterOneThatSucceededLateItIsNot) {
  given_up_after(0s);
  ends();
  login.connecting();
  ASSERT_TRUE(login.connected(1));
  reactor.run_for(15s);
  login.succeeded();
  EXPECT_EQ(given_up_after(0s), 20s);
}

TEST_F(LoginPhaseTest, AStartForgetsThatLoginsWereSlow) {
  given_up_after(0s);
  ends();
  login.start();
  EXPECT_EQ(given_up_after(0s), 10s);
}

TEST_F(LoginPhaseTest, ARequestThatCouldNotLeaveIsDueOnce) {
  login.connecting();
  ASSERT_TRUE(login.connected(1));
  EXPECT_FALSE(login.take_due());
  login.send_later();
  EXPECT_TRUE(login.take_due());
  EXPECT_FALSE(login.take_due());
  login.send_later();
  ends();
  EXPECT_FALSE(login.take_due()) << "the connection is gone";
}

TEST_F(LoginPhaseTest, TheRequestCarriesTheCmdSn) {
  login.connecting();
  ASSERT_TRUE(login.connected(0x01020304));
  const std::span<const std::byte> request = login.next_request();
  ASSERT_GE(request.size(), kBhsBytes);
  EXPECT_EQ(request[24], std::byte{1});
  EXPECT_EQ(request[27], std::byte{4});
}

TEST_F(LoginPhaseTest, AFailureThatChapHasNothingToDoWithOffersNothingElse) {
  given_up_after(0s);
  ends();
  EXPECT_FALSE(login.has_another_offer());
  EXPECT_FALSE(login.take_another_offer());
  EXPECT_FALSE(login.every_offer_failed());
}

}  // namespace
}  // namespace iscsi_blkback
