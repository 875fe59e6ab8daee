// ISIDs of the pool: which sessions have which, also while one is just being stopped.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "multipath/attach/session_pool.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class SessionPoolEndTest : public testing::Test {
 protected:
  static SessionOptions options() {
    SessionOptions options;
    options.initiator_name = "iqn.2026-01.test:host";
    options.target_name = "iqn.2026-01.test:target";
    options.portal = SocketAddress::parse("192.0.2.1", 3260).value();
    return options;
  }
  static SimTargetOptions target_options() {
    SimTargetOptions target;
    target.portals = {{options().portal, 1}};
    return target;
  }

  SimReactor reactor{1};
  SimTarget target{reactor, target_options()};
  SessionPool pool{reactor, 0, 5};
};

// A login with the ISID of a session ends it: one that is logging out could not any more, and what
// it still has at the target would be ended without an answer.
TEST_F(SessionPoolEndTest, ASessionThatLogsOutLendsItsIsidToNobody) {
  Session* const leaving = pool.acquire(options()).value();
  ASSERT_TRUE(
      reactor.run_until([&] { return leaving->state() == SessionState::logged_in; }, seconds(5)));
  const Isid isid = leaving->options().isid;
  target.inject({.extra_delay = milliseconds(500)});
  ScsiTask task;
  bool answered = false;
  task.owner = &answered;
  task.on_complete = [](ScsiTask& done) noexcept { *static_cast<bool*>(done.owner) = true; };
  leaving->submit(task);
  pool.release(*leaving);  // waits for the command, then logs out
  Session* const next = pool.acquire(options()).value();
  EXPECT_NE(next, leaving);
  ASSERT_TRUE(reactor.run_until([&] { return answered; }, seconds(5)));
  EXPECT_EQ(task.outcome, TaskOutcome::completed);
  ASSERT_TRUE(reactor.run_until([&] { return target.counters.logouts == 1; }, seconds(5)));
  ASSERT_TRUE(
      reactor.run_until([&] { return next->state() == SessionState::logged_in; }, seconds(5)));
  EXPECT_EQ(target.counters.reinstatements, 0U) << "it has ended in order";
  pool.release(*next);
  ASSERT_TRUE(reactor.run_until([&] { return pool.empty(); }, seconds(20)));

  Session* const later = pool.acquire(options()).value();
  EXPECT_EQ(later->options().isid, isid) << "free again";
  pool.release(*later);
  ASSERT_TRUE(reactor.run_until([&] { return pool.empty(); }, seconds(20)));
}

class TwoHostsTest : public SessionPoolEndTest {
 protected:
  // Both hosts serve a guest with the same number, by the same name; for five minutes.
  void serve(const std::string& one_id, const std::string& other_id) {
    SessionPool one(reactor, 0, 5, one_id);
    SessionPool other(reactor, 0, 5, other_id);
    Session* const sessions[] = {one.acquire(options()).value(), other.acquire(options()).value()};
    reactor.run_for(std::chrono::minutes(5));
    for (std::size_t i = 0; i < 2; ++i) {
      logins[i] = sessions[i]->statistics().logins;
      losses[i] = sessions[i]->statistics().connection_losses;
      errors[i] = sessions[i]->last_error().message;
    }
    one.release(*sessions[0]);
    other.release(*sessions[1]);
    ASSERT_TRUE(reactor.run_until([&] { return one.empty() && other.empty(); }, seconds(20)));
  }
  std::uint64_t logins[2] = {};
  std::uint64_t losses[2] = {};
  std::string errors[2];
};

TEST_F(TwoHostsTest, WithIdsOfTheirOwnLeaveEachOthersSessionsAlone) {
  serve("one", "other");
  EXPECT_EQ(target.counters.reinstatements, 0U);
  EXPECT_EQ(losses[0] + losses[1], 0U);
}

// Of one host, as far as can be seen: the fight is slow, and each of them says what it is about.
TEST_F(TwoHostsTest, ThatCannotBeToldApartDoNotFightAtFullSpeed) {
  serve("same", "same");
  EXPECT_GT(losses[0] + losses[1], 5U);
  EXPECT_LE(logins[0] + logins[1], 60U) << "in five minutes";
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("another host logs in with the same initiator name"), std::string::npos)
        << error;
  }
}

// Another computer with our initiator name and ISID that is not ours: it logs in again so long
// after each end, however often that happens.
class StubbornInitiator {
 public:
  StubbornInitiator(SimReactor& reactor, SessionOptions options, Duration delay)
      : reactor_(reactor),
        delay_(delay),
        session_(reactor, std::move(options)),
        next_(
            reactor, [](void* self) noexcept { static_cast<StubbornInitiator*>(self)->look(); },
            this) {
    session_.start();
    next_.start_after(kLook);
  }
  ~StubbornInitiator() {
    next_.stop();
    if (session_.state() != SessionState::free && !stopping_) {
      stop();
    }
    EXPECT_TRUE(
        reactor_.run_until([&] { return session_.state() == SessionState::free; }, seconds(30)));
  }

 private:
  static constexpr milliseconds kLook{5};
  void stop() {
    stopping_ = true;
    session_.stop(
        [](void* self) noexcept { static_cast<StubbornInitiator*>(self)->stopping_ = false; },
        this);
  }
  void look() {
    if (session_.state() == SessionState::free && !stopping_) {
      session_.start();  // which forgets all that was before
      next_.start_after(kLook);
    } else if (session_.statistics().connection_losses > losses_) {
      losses_ = session_.statistics().connection_losses;
      stop();
      next_.start_after(delay_);
    } else {
      next_.start_after(kLook);
    }
  }
  SimReactor& reactor_;
  Duration delay_;
  Session session_;
  Timer next_;
  std::uint64_t losses_ = 0;
  bool stopping_ = false;
};

struct FightingHost {
  std::string id = "same";
  DomainId guest = 5;
  DomainId own_domain = 0;
  milliseconds backoff_min{100};
  milliseconds backoff_max{1000};
  milliseconds begins{0};
  std::string name = "iqn.2026-01.test:host";
  std::string interface = {};
};

struct Fight {
  std::string what;
  std::vector<FightingHost> hosts;
  Duration stranger = {};  // a StubbornInitiator's delay; 0: there is none
  bool is_one = true;
  std::uint64_t most_logins = 60;  // of all of ours, in five minutes
};

void PrintTo(const Fight& fight, std::ostream* out) {
  *out << fight.what;
}

class HostsOfOneName : public testing::TestWithParam<Fight> {};

TEST_P(HostsOfOneName, NoticeNameAndSlowDownTheirFightAndNothingElse) {
  const Fight& fight = GetParam();
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    SimReactor reactor(seed);
    SimTargetOptions at;
    at.portals = {{SocketAddress::parse("192.0.2.1", 3260).value(), 1}};
    SimTarget target(reactor, at);
    std::deque<SessionPool> pools;
    std::vector<Session*> sessions;
    for (const FightingHost& host : fight.hosts) {
      reactor.run_for(host.begins);
      SessionOptions options;
      options.initiator_name = host.name;
      options.target_name = at.name;
      options.portal = at.portals[0].address;
      options.relogin_backoff_min = host.backoff_min;
      options.relogin_backoff_max = host.backoff_max;
      options.interface_binding.name = host.interface;
      pools.emplace_back(reactor, host.own_domain, host.guest, host.id);
      sessions.push_back(pools.back().acquire(options).value());
    }
    std::optional<StubbornInitiator> stranger;
    if (fight.stranger != Duration::zero()) {
      SessionOptions options = sessions[0]->options();
      stranger.emplace(reactor, options, fight.stranger);
    }
    reactor.run_for(std::chrono::minutes(5));
    std::uint64_t logins = 0;
    for (Session* session : sessions) {
      logins += session->statistics().logins;
      const std::string& error = session->last_error().message;
      EXPECT_EQ(
          error.find("another host logs in with the same initiator name") != std::string::npos,
          fight.is_one)
          << fight.what << ", seed " << seed << ": " << error << " after "
          << session->statistics().logins;
    }
    if (fight.is_one) {
      EXPECT_LE(logins, fight.most_logins) << fight.what << ", seed " << seed;
    } else {
      EXPECT_EQ(target.counters.reinstatements, 0U) << fight.what;
    }
    stranger.reset();
    for (std::size_t at_host = 0; at_host < sessions.size(); ++at_host) {
      pools[at_host].release(*sessions[at_host]);
    }
    ASSERT_TRUE(reactor.run_until(
        [&] {
          return std::all_of(pools.begin(), pools.end(),
                             [](const SessionPool& pool) { return pool.empty(); });
        },
        seconds(60)));
  }
}

const FightingHost kHost;
FightingHost with_backoff(milliseconds least, milliseconds most) {
  return {.backoff_min = least, .backoff_max = most};
}

std::vector<Fight> fights() {
  std::vector<Fight> all = {
      {"two of equal ids", {kHost, kHost}},
      {"two without ids", {{.id = ""}, {.id = ""}}},
      {"three of equal ids", {kHost, kHost, kHost}, {}, true, 90},
      {"four of equal ids", {kHost, kHost, kHost, kHost}, {}, true, 120},
      {"one begins a moment later", {kHost, {.begins = milliseconds(50)}}},
      {"one begins ten seconds later", {kHost, {.begins = seconds(10)}}},
      {"both in driver domains of one number", {{.own_domain = 2}, {.own_domain = 2}}},
      {"the guest's number is high", {{.guest = 32751}, {.guest = 32751}}},
      {"through interfaces of one name", {{.interface = "eth1"}, {.interface = "eth1"}}},
      {"ids that differ", {{.id = "one"}, {.id = "other"}}, {}, false},
      {"ids that differ in the board only", {{.id = "m/a"}, {.id = "m/b"}}, {}, false},
      {"ids that differ in their last digit",
       {{.id = "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b"}, {.id = "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5c"}},
       {},
       false},
      {"one has an id", {{.id = "one"}, {.id = ""}}, {}, false},
      {"three ids", {{.id = "one"}, {.id = "other"}, {.id = "third"}}, {}, false},
      {"other guests", {kHost, {.guest = 6}}, {}, false},
      {"guests whose numbers have one low byte", {kHost, {.guest = 5 + 256}}, {}, false},
      {"a driver domain", {kHost, {.own_domain = 1}}, {}, false},
      {"other names", {kHost, {.name = "iqn.2026-01.test:other"}}, {}, false},
      {"other interfaces", {{.interface = "eth1"}, {.interface = "eth2"}}, {}, false},
      {"both wait 1 s",
       {with_backoff(seconds(1), seconds(1)), with_backoff(seconds(1), seconds(1))}},
      {"both wait 2 s",
       {with_backoff(seconds(2), seconds(2)), with_backoff(seconds(2), seconds(2))}},
      {"both wait 5 s",
       {with_backoff(seconds(5), seconds(5)), with_backoff(seconds(5), seconds(5))}},
      {"both wait 10 s",
       {with_backoff(seconds(10), seconds(10)), with_backoff(seconds(10), seconds(10))}},
      {"both wait 20 s",
       {with_backoff(seconds(20), seconds(20)), with_backoff(seconds(20), seconds(20))}},
      {"both wait up to 20 s",
       {with_backoff(milliseconds(100), seconds(20)),
        with_backoff(milliseconds(100), seconds(20))}},
      {"both wait a millisecond",
       {with_backoff(milliseconds(1), milliseconds(1)),
        with_backoff(milliseconds(1), milliseconds(1))}},
      {"one waits 5 s, the other a moment", {kHost, with_backoff(seconds(5), seconds(5))}},
      {"one waits 2 s, the other a moment", {kHost, with_backoff(seconds(2), seconds(2))}},
      {"three, one of which waits 5 s",
       {kHost, kHost, with_backoff(seconds(5), seconds(5))},
       {},
       true,
       90},
  };
  for (const milliseconds delay : {milliseconds(5), milliseconds(100), milliseconds(1000),
                                   milliseconds(2000), milliseconds(3000), milliseconds(5000),
                                   milliseconds(10000), milliseconds(15000), milliseconds(30000)}) {
    all.push_back({"a stranger that waits " + std::to_string(delay.count()) + " ms",
                   {kHost},
                   delay,
                   true,
                   65});
    all.push_back({"two and a stranger that waits " + std::to_string(delay.count()) + " ms",
                   {kHost, kHost},
                   delay,
                   true,
                   90});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, HostsOfOneName, testing::ValuesIn(fights()),
                         [](const auto& test) { return std::to_string(test.index); });

// Otherwise it would depend on the order of the disks which session has which, and a process that
// is started again would reinstate another session than its own.
TEST(MakeIsid, DiffersByPortAndBySessionNumber) {
  std::set<Isid> isids;
  for (const std::uint16_t port : {std::uint16_t{3260}, std::uint16_t{3261}}) {
    const SocketAddress portal = SocketAddress::parse("192.0.2.1", port).value();
    for (std::uint16_t number = 0; number < 8; ++number) {
      SessionOptions session;
      session.target_name = "iqn.2026-01.test:target";
      session.portal = portal;
      session.session_number = number;
      isids.insert(make_isid(0, 5, session, 0, 0));
    }
  }
  EXPECT_EQ(isids.size(), 16U);
}

}  // namespace
}  // namespace iscsi_blkback
