// Login redirects: where the next logins go, and every redirect that is not followed.
#include <gmock/gmock.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "base/uring_reactor.h"
#include "initiator/login/lookup_threads.h"
#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// Answers after a while, in virtual time; a name that is not in the map never.
class FakeResolver final : public NameResolver {
 public:
  std::unique_ptr<NameLookup> look_up(Reactor& reactor, const std::string&, const std::string& host,
                                      std::uint16_t port, Answer answer, void* owner) override {
    ++questions;
    return std::make_unique<Lookup>(*this, reactor, host, port, answer, owner);
  }

  std::map<std::string, std::string> addresses;  // an empty one: there is none
  int questions = 0;

 private:
  class Lookup final : public NameLookup {
   public:
    Lookup(FakeResolver& resolver, Reactor& reactor, std::string host, std::uint16_t port,
           Answer answer, void* owner)
        : resolver_(resolver),
          host_(std::move(host)),
          port_(port),
          answer_(answer),
          owner_(owner),
          timer_(
              reactor, [](void* self) noexcept { static_cast<Lookup*>(self)->fire(); }, this) {
      timer_.start_after(milliseconds(20));
    }

   private:
    void fire() {
      const auto found = resolver_.addresses.find(host_);
      if (found == resolver_.addresses.end()) {
        return;
      }
      if (found->second.empty()) {
        answer_(owner_, fail(ErrorCode::not_found, "cannot resolve the host name " + host_));
        return;
      }
      answer_(owner_, std::vector{SocketAddress::parse(found->second, port_).value()});
    }
    FakeResolver& resolver_;
    std::string host_;
    std::uint16_t port_;
    Answer answer_;
    void* owner_;
    Timer timer_;
  };
};

class RedirectTest : public SessionTest {
 protected:
  bool fails_once(TestSession& initiator) {
    initiator.session.start();
    return runs_until(reactor, [&] { return initiator.session.statistics().login_failures == 1; });
  }
  // Waits for the next login after the connection at this portal has been cut.
  bool comes_back(TestSession& initiator, int portal) {
    const int before = initiator.observer.ups;
    reactor.network().reset_connections(test_address(portal));
    return runs_until(reactor, [&] { return initiator.observer.ups > before; });
  }

  FakeResolver resolver;
};

TEST_F(RedirectTest, TemporaryOneIsForOneLogin) {
  target->redirect_logins(0, "10.0.0.2:3260,1");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(1), 1U);
  // The next login starts at the portal that was configured.
  target->redirect_logins(0, "");
  ASSERT_TRUE(comes_back(initiator, 2));
  EXPECT_EQ(target->sessions_at(0), 1U);
}

TEST_F(RedirectTest, PermanentOneIsKept) {
  target->redirect_logins(0, "10.0.0.2:3260,1", 0x0102);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->redirect_logins(0, "");
  ASSERT_TRUE(comes_back(initiator, 2));
  EXPECT_EQ(target->sessions_at(1), 1U) << "the portal that was configured is not asked again";
}

TEST_F(RedirectTest, PermanentOneIsKeptUntilItFails) {
  target->redirect_logins(0, "10.0.0.2:3260,1", 0x0102);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->redirect_logins(0, "");
  target->close_portal(1);
  ASSERT_TRUE(runs_until(reactor, [&] { return initiator.observer.ups == 2; }));
  EXPECT_EQ(target->sessions_at(0), 1U);
}

TEST_F(RedirectTest, TemporaryOneBehindAPermanentOneIsForOneLogin) {
  target->redirect_logins(0, "10.0.0.2", 0x0102);
  target->redirect_logins(1, "10.0.0.3", 0x0101);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(2), 1U);
  target->redirect_logins(0, "");
  target->redirect_logins(1, "");
  ASSERT_TRUE(comes_back(initiator, 3));
  EXPECT_EQ(target->sessions_at(1), 1U);
}

TEST_F(RedirectTest, PermanentOneBehindATemporaryOneIsForOneLogin) {
  target->redirect_logins(0, "10.0.0.2", 0x0101);
  target->redirect_logins(1, "10.0.0.3", 0x0102);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(2), 1U);
  target->redirect_logins(0, "");
  ASSERT_TRUE(comes_back(initiator, 3));
  EXPECT_EQ(target->sessions_at(0), 1U);
}

TEST_F(RedirectTest, AStartBeginsAtThePortalAgain) {
  target->redirect_logins(0, "10.0.0.2:3260,1", 0x0102);
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  initiator.stop();
  target->redirect_logins(0, "");
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(0), 1U);
}

TEST_F(RedirectTest, TheIsidStaysTheSame) {
  target->options().linger_delay = seconds(5);
  target->redirect_logins(0, "10.0.0.2");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  target->inject({.execute = true, .extra_delay = milliseconds(10)});
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(4096, 1));
  reactor.run_for(milliseconds(5));
  ASSERT_TRUE(comes_back(initiator, 2));
  EXPECT_EQ(target->counters.terminated_tasks, 1U) << "the new session is the old one's successor";
}

TEST_F(RedirectTest, ToAnIpv6Address) {
  SimTargetOptions options;
  options.portals = {{SocketAddress::parse("2001:db8::7", 3261).value(), 1}};
  options.power_on_unit_attention = false;
  SimTarget elsewhere(reactor, options);
  target->redirect_logins(0, "[2001:db8::7]:3261,1");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(elsewhere.sessions(), 1U);
}

TEST_F(RedirectTest, CircleEnds) {
  target->redirect_logins(0, "10.0.0.2");
  target->redirect_logins(1, "10.0.0.1:3260");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(fails_once(initiator));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("circle"));
}

TEST_F(RedirectTest, RefusesTextThatIsNoAddress) {
  target->redirect_logins(0, "[10.0.0.2");
  TestSession initiator(reactor, test_session_options());
  ASSERT_TRUE(fails_once(initiator));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("redirects to nowhere"));
}

TEST_F(RedirectTest, HostNameIsLookedUp) {
  resolver.addresses["san.example"] = "10.0.0.2";
  target->redirect_logins(0, "san.example:3260,1");
  TestSession initiator(reactor, test_session_options(), resolver);
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(target->sessions_at(1), 1U);
  EXPECT_EQ(resolver.questions, 1);
}

TEST_F(RedirectTest, HostNameThatDoesNotExistIsSaidSo) {
  resolver.addresses["san.example"] = "";
  target->redirect_logins(0, "san.example:3260,1");
  TestSession initiator(reactor, test_session_options(), resolver);
  ASSERT_TRUE(fails_once(initiator));
  EXPECT_THAT(initiator.session.last_error().message,
              HasSubstr("redirects, but cannot resolve the host name san.example"));
  target->redirect_logins(0, "");
  EXPECT_TRUE(initiator.up());
}

TEST_F(RedirectTest, NameServerThatHangsEndsTheLogin) {
  target->redirect_logins(0, "san.example");
  TestSession initiator(reactor, test_session_options(), resolver);
  ASSERT_TRUE(fails_once(initiator));
  EXPECT_THAT(initiator.session.last_error().message, HasSubstr("name servers do not tell"));
  target->redirect_logins(0, "");
  EXPECT_TRUE(initiator.up());
}

TEST_F(RedirectTest, MayBeStoppedDuringTheLookUp) {
  target->redirect_logins(0, "san.example");
  TestSession initiator(reactor, test_session_options(), resolver);
  initiator.session.start();
  ASSERT_TRUE(runs_until(reactor, [&] { return resolver.questions == 1; }));
  initiator.stop();
  reactor.run_for(seconds(60));
  EXPECT_EQ(initiator.session.state(), SessionState::free);
}

TEST(SystemNameResolver, AnswersOnTheReactor) {
  auto reactor = UringReactor::create();
  if (!reactor) {
    GTEST_SKIP() << reactor.error().message;
  }
  struct Asker {
    std::optional<Result<std::vector<SocketAddress>>> answer;
    std::unique_ptr<NameLookup> lookup;
  } asker;
  const auto ask = [&](const std::string& host) {
    asker.answer.reset();
    asker.lookup = system_name_resolver().look_up(
        **reactor, "iqn.a:b", host, 3261,
        [](void* owner, Result<std::vector<SocketAddress>> addresses) noexcept {
          auto& self = *static_cast<Asker*>(owner);
          self.lookup.reset();
          self.answer = std::move(addresses);
        },
        &asker);
    EXPECT_FALSE(asker.answer) << "from inside the call";
    const TimePoint end = (*reactor)->now() + seconds(60);
    while (!asker.answer && (*reactor)->now() < end) {
      (*reactor)->run_once(milliseconds(50));
    }
  };
  ask("127.0.0.9");
  ASSERT_TRUE(asker.answer && *asker.answer);
  EXPECT_EQ((*asker.answer)->front().to_string(), "127.0.0.9:3261");
  ask("no-such-host.invalid");
  ASSERT_TRUE(asker.answer);
  EXPECT_FALSE(*asker.answer);
}

TEST(SystemNameResolver, AQuestionMayBeForgotten) {
  auto reactor = UringReactor::create();
  if (!reactor) {
    GTEST_SKIP() << reactor.error().message;
  }
  auto lookup = system_name_resolver().look_up(
      **reactor, "iqn.a:b", "127.0.0.1", 3260,
      [](void*, Result<std::vector<SocketAddress>>) noexcept { ADD_FAILURE(); }, nullptr);
  lookup.reset();
  (*reactor)->run_once(milliseconds(50));
}

// The names that one target redirects to hang; what another one asks for is answered.
TEST(ThreadedNameResolver, ATargetWhoseNamesHangKeepsNoOtherWaiting) {
  auto reactor = UringReactor::create();
  if (!reactor) {
    GTEST_SKIP() << reactor.error().message;
  }
  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
    unsigned hanging = 0;
  };
  const auto gate = std::make_shared<Gate>();
  const auto resolver = make_threaded_name_resolver([gate](const std::string& host, std::uint16_t) {
    std::unique_lock lock(gate->mutex);
    gate->hanging += host == "alive" ? 0 : 1;
    gate->changed.wait(lock, [&] { return gate->open || host == "alive"; });
    return Result<std::vector<SocketAddress>>(
        std::vector{SocketAddress::parse("192.0.2.1", 3260).value()});
  });
  int answers = 0;
  const auto ask = [&](const std::string& target, const std::string& host) {
    return resolver->look_up(
        **reactor, target, host, 3260,
        [](void* count, Result<std::vector<SocketAddress>>) noexcept {
          ++*static_cast<int*>(count);
        },
        &answers);
  };
  std::vector<std::unique_ptr<NameLookup>> lookups;
  for (unsigned name = 0; name < 2 * LookupThreads::kMaxThreads; ++name) {
    lookups.push_back(ask("iqn.bad:b", "hangs" + std::to_string(name)));
  }
  lookups.push_back(ask("iqn.good:b", "alive"));
  const TimePoint end = (*reactor)->now() + seconds(60);
  while (answers == 0 && (*reactor)->now() < end) {
    (*reactor)->run_once(milliseconds(50));
  }
  EXPECT_EQ(answers, 1);
  // Those that nobody waits for any more are not begun.
  lookups.clear();
  {
    const std::lock_guard lock(gate->mutex);
    EXPECT_LE(gate->hanging, LookupThreads::kMaxPerKey);
    gate->open = true;
    gate->changed.notify_all();
  }
  (*reactor)->run_once(milliseconds(50));
  const std::lock_guard lock(gate->mutex);
  EXPECT_LE(gate->hanging, LookupThreads::kMaxPerKey);
  EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace iscsi_blkback
