// A portal whose host name has several addresses: each is tried, in sessions and behind redirects.
#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Tells all these addresses of whatever name.
class ListResolver final : public NameResolver {
 public:
  std::unique_ptr<NameLookup> look_up(Reactor& reactor, const std::string&, const std::string&,
                                      std::uint16_t, Answer answer, void* owner) override {
    reactor.post([this, answer, owner] { answer(owner, addresses); });
    return std::make_unique<NameLookup>();
  }
  std::vector<SocketAddress> addresses;
};

// Portals 1 to 3 are in groups 1, 1 and 2; 4 and 5 are not there.
class SessionAddressTest : public SessionTest {
 protected:
  static SessionOptions options(std::vector<int> portals) {
    SessionOptions result = test_session_options(portals.front());
    for (std::size_t at = 1; at < portals.size(); ++at) {
      result.other_addresses.push_back(test_address(portals[at]));
    }
    return result;
  }
  bool round_fails(TestSession& initiator, std::uint64_t logins) {
    return runs_until(reactor,
                      [&] { return initiator.session.statistics().login_failures == logins; });
  }
};

TEST_F(SessionAddressTest, TheFirstThatAnswersIsUsed) {
  struct Case {
    std::vector<int> portals;
    int used;
    std::uint64_t failures;
  };
  for (const Case& one : {Case{{1, 2}, 1, 0}, Case{{4, 1}, 1, 1}, Case{{4, 5, 2}, 2, 2},
                          Case{{4, 5, 2, 1}, 2, 2}, Case{{3}, 3, 0}}) {
    TestSession initiator(reactor, options(one.portals));
    const TimePoint begin = reactor.now();
    ASSERT_TRUE(initiator.start());
    EXPECT_EQ(initiator.session.portal_address(), test_address(one.used));
    EXPECT_EQ(initiator.session.peer(), test_address(one.used));
    EXPECT_EQ(initiator.session.statistics().login_failures, one.failures);
    EXPECT_LT(reactor.now() - begin, initiator.session.options().relogin_backoff_min / 2)
        << "the others are tried at once";
  }
}

TEST_F(SessionAddressTest, OneThatDoesNotAnswerCostsItsConnectTimeout) {
  SimNetwork& network = reactor.network();
  network.set_dropping(test_address(1), true);
  TestSession initiator(reactor, options({1, 2}));
  const TimePoint begin = reactor.now();
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.peer(), test_address(2));
  EXPECT_LT(reactor.now() - begin, initiator.session.options().connect_timeout + seconds(1));
  network.set_dropping(test_address(1), false);
}

TEST_F(SessionAddressTest, OneWhereTheLoginIsRefusedIsNotTheEnd) {
  target->refuse_logins(0, 0x0301);
  TestSession initiator(reactor, options({1, 2}));
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.peer(), test_address(2));
}

TEST_F(SessionAddressTest, WhenAllHaveFailedTheSentenceHasAllReasonsAndTheBackOffFollows) {
  TestSession initiator(reactor, options({4, 5}));
  initiator.session.start();
  ASSERT_TRUE(round_fails(initiator, 2));
  EXPECT_THAT(initiator.session.last_error().message,
              AllOf(HasSubstr("10.0.0.4"), HasSubstr("10.0.0.5")));
  const TimePoint first_round = reactor.now();
  ASSERT_TRUE(round_fails(initiator, 4));
  EXPECT_GE(reactor.now() - first_round, initiator.session.options().relogin_backoff_min / 2);
  ASSERT_TRUE(round_fails(initiator, 40));
  EXPECT_GE(reactor.now() - first_round, 10 * initiator.session.options().relogin_backoff_max / 2);
}

// The session that the target still has is there, and only there do its commands end.
TEST_F(SessionAddressTest, AfterALossTheAddressThatWasUsedComesFirst) {
  TestSession initiator(reactor, options({4, 2, 1}));
  ASSERT_TRUE(initiator.start());
  ASSERT_EQ(initiator.session.peer(), test_address(2));
  for (int loss = 1; loss <= 3; ++loss) {
    reactor.network().reset_connections(test_address(2));
    ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == loss + 1; }));
    EXPECT_EQ(initiator.session.peer(), test_address(2));
  }
  target->close_portal(1);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 5; }));
  EXPECT_EQ(initiator.session.peer(), test_address(1));
}

TEST_F(SessionAddressTest, EachAddressOfARedirectsNameIsTried) {
  ListResolver resolver;
  resolver.addresses = {test_address(4), test_address(5), test_address(2)};
  target->redirect_logins(0, "san.example");
  TestSession initiator(reactor, test_session_options(), resolver);
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.portal_address(), test_address(1));
  EXPECT_EQ(initiator.session.peer(), test_address(2));
  EXPECT_EQ(initiator.session.statistics().login_failures, 2U);
}

TEST_F(SessionAddressTest,
       WhenNoneOfARedirectsNameAnswersTheNextLoginIsAtAnotherAddressOfThePortal) {
  ListResolver resolver;
  resolver.addresses = {test_address(4), test_address(5)};
  target->redirect_logins(0, "san.example");
  TestSession initiator(reactor, options({1, 3}), resolver);
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.peer(), test_address(3));
}

TEST_F(SessionAddressTest, MayBeStoppedBetweenAddresses) {
  TestSession initiator(reactor, options({4, 5, 1}));
  initiator.session.start();
  ASSERT_TRUE(round_fails(initiator, 1));
  initiator.stop();
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.peer(), test_address(1));
}

TEST_F(SessionAddressTest, AStopWhileAnAddressIsTriedDoesNotShortenALaterBackOff) {
  TestSession initiator(reactor, options({1, 2}));
  initiator.session.start();
  initiator.stop();
  ASSERT_TRUE(initiator.start());
  const TimePoint loss = reactor.now();
  reactor.network().reset_connections(test_address(1));
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_GE(reactor.now() - loss, initiator.session.options().relogin_backoff_min / 2);
}

}  // namespace
}  // namespace iscsi_blkback
