// RedirectChain: where each login goes, after failures and along redirects.
#include "initiator/login/redirect_chain.h"

#include <gmock/gmock.h>

#include <map>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class RedirectChainTest : public testing::Test {
 protected:
  // Knows names at once, and is asked for others in vain.
  class Names final : public NameResolver {
   public:
    std::unique_ptr<NameLookup> look_up(Reactor& on, const std::string&, const std::string& host,
                                        std::uint16_t, Answer answer, void* owner) override {
      return std::make_unique<Question>(*this, on, host, answer, owner);
    }
    std::map<std::string, Result<std::vector<SocketAddress>>> known;

   private:
    struct Question final : NameLookup {
      Question(Names& of_test, Reactor& on, std::string asked, Answer to, void* of)
          : host(std::move(asked)),
            resolver(of_test),
            answer(to),
            owner(of),
            timer(
                on, [](void* self) noexcept { static_cast<Question*>(self)->fire(); }, this) {
        timer.start_after(1ms);
      }
      void fire() {
        if (const auto it = resolver.known.find(host); it != resolver.known.end()) {
          answer(owner, it->second);
        }
      }
      std::string host;
      Names& resolver;
      Answer answer;
      void* owner;
      Timer timer;
    };
  };

  static SocketAddress at(int number) {
    return SocketAddress::parse("10.0.0." + std::to_string(number), 3260).value();
  }
  static SessionOptions options_with(std::vector<SocketAddress> other_addresses) {
    SessionOptions options;
    options.target_name = "iqn.2026-01.test:target";
    options.portal = at(1);
    options.other_addresses = std::move(other_addresses);
    return options;
  }
  RedirectChain make(const SessionOptions& options) {
    return {reactor,
            options,
            options.target_name,
            names,
            [](void* self, const Result<void>& result) noexcept {
              static_cast<RedirectChainTest*>(self)->found.push_back(result);
            },
            this};
  }
  // What a login's failure is told as.
  static std::string failure(RedirectChain& chain, const std::string& text) {
    Error why{ErrorCode::unavailable, text};
    chain.failed(why);
    return why.message;
  }
  // A redirect is followed to a numeric address.
  static void hop(RedirectChain& chain, int number, bool permanently) {
    ASSERT_TRUE(chain.redirect("10.0.0." + std::to_string(number) + ":3260,1", permanently));
    ASSERT_TRUE(chain.redirected());
    ASSERT_EQ(chain.next(), RedirectChain::Next::at_once);
    ASSERT_EQ(chain.login_address(), at(number));
  }

  SimReactor reactor{1};
  Names names;
  std::vector<Result<void>> found;
};

TEST_F(RedirectChainTest, BeginsAtThePortalAndStaysThereWhereItHasOneAddress) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  EXPECT_EQ(chain.login_address(), at(1));
  EXPECT_EQ(failure(chain, "refused"), "refused");
  EXPECT_FALSE(chain.has_another_address());
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(1));
}

TEST_F(RedirectChainTest, EveryAddressOfThePortalHasItsTurnBeforeTheBackOff) {
  const SessionOptions options = options_with({at(2), at(3)});
  RedirectChain chain = make(options);
  chain.start();
  for (const int next : {2, 3}) {
    failure(chain, "no");
    EXPECT_TRUE(chain.has_another_address());
    EXPECT_EQ(chain.next(), RedirectChain::Next::at_once);
    EXPECT_EQ(chain.login_address(), at(next));
    EXPECT_EQ(chain.portal_address(), at(next));
  }
  EXPECT_EQ(failure(chain, "last"), "last; no; no") << "what all of them have failed with";
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(1));
}

TEST_F(RedirectChainTest, AFailureThatIsNotTheAddresssKeepsIt) {
  const SessionOptions options = options_with({at(2)});
  RedirectChain chain = make(options);
  chain.start();
  chain.failed_elsewhere();
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(1));
}

TEST_F(RedirectChainTest, ATemporaryRedirectIsForOneLogin) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  hop(chain, 5, false);
  chain.logged_in();
  EXPECT_EQ(chain.login_address(), at(5));
  EXPECT_EQ(chain.portal_address(), at(1));
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(1));
}

TEST_F(RedirectChainTest, APermanentOneIsWhereLoginsBeginUntilOneFailsThere) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  hop(chain, 5, true);
  chain.logged_in();
  ASSERT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(5));
  failure(chain, "gone");
  ASSERT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(1));
}

TEST_F(RedirectChainTest, OfAChainOnlyThePermanentHopsAtItsBeginningAreKept) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  hop(chain, 5, true);
  hop(chain, 6, false);
  hop(chain, 7, true);
  chain.logged_in();
  ASSERT_EQ(chain.next(), RedirectChain::Next::after_back_off);
  EXPECT_EQ(chain.login_address(), at(5));
}

TEST_F(RedirectChainTest, ARedirectToNowhereIsAnError) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  const Result<void> followed = chain.redirect("[", false);
  ASSERT_FALSE(followed);
  EXPECT_EQ(followed.error().code, ErrorCode::protocol);
  EXPECT_THAT(followed.error().message, HasSubstr("redirects to nowhere"));
  EXPECT_FALSE(chain.redirected());
}

TEST_F(RedirectChainTest, TheEleventhRedirectInARowIsACircle) {
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  for (int i = 0; i < 10; ++i) {
    hop(chain, 5 + i % 2, false);
  }
  const Result<void> followed = chain.redirect("10.0.0.5:3260,1", false);
  ASSERT_FALSE(followed);
  EXPECT_THAT(followed.error().message, HasSubstr("in a circle"));
}

TEST_F(RedirectChainTest, ANameIsLookedUpAndItsAddressesHaveTheirTurn) {
  names.known["array"] = std::vector{at(7), at(8)};
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  ASSERT_TRUE(chain.redirect("array:3260,1", false));
  ASSERT_EQ(chain.next(), RedirectChain::Next::looking_up);
  EXPECT_TRUE(chain.looking_up());
  reactor.run_for(1s);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0]);
  EXPECT_FALSE(chain.looking_up());
  EXPECT_EQ(chain.login_address(), at(7));
  failure(chain, "no");
  ASSERT_EQ(chain.next(), RedirectChain::Next::at_once);
  EXPECT_EQ(chain.login_address(), at(8));
  failure(chain, "no");
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
}

TEST_F(RedirectChainTest, ANameThatDoesNotExistIsToldOnce) {
  names.known["array"] = fail(ErrorCode::not_found, "cannot resolve the host name array");
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  ASSERT_TRUE(chain.redirect("array:3260,1", false));
  ASSERT_EQ(chain.next(), RedirectChain::Next::looking_up);
  reactor.run_for(1min);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].error().message, "redirects, but cannot resolve the host name array");
  EXPECT_EQ(chain.next(), RedirectChain::Next::after_back_off);
}

TEST_F(RedirectChainTest, ANameServerThatHangsHasLoginTimeout) {
  SessionOptions options = options_with({});
  options.login_timeout = 15s;
  RedirectChain chain = make(options);
  chain.start();
  ASSERT_TRUE(chain.redirect("array:3260,1", false));
  ASSERT_EQ(chain.next(), RedirectChain::Next::looking_up);
  reactor.run_for(14999ms);
  EXPECT_TRUE(found.empty());
  reactor.run_for(2ms);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].error().code, ErrorCode::timed_out);
  EXPECT_FALSE(chain.looking_up());
}

TEST_F(RedirectChainTest, WhatIsNotWantedAnyMoreIsNotTold) {
  names.known["array"] = std::vector{at(7)};
  const SessionOptions options = options_with({});
  RedirectChain chain = make(options);
  chain.start();
  ASSERT_TRUE(chain.redirect("array:3260,1", false));
  ASSERT_EQ(chain.next(), RedirectChain::Next::looking_up);
  chain.stop_looking_up();
  reactor.run_for(1min);
  EXPECT_TRUE(found.empty());
}

}  // namespace
}  // namespace iscsi_blkback
