// ISIDs of the pool: which sessions have which, also while one is just being stopped.
#include <gtest/gtest.h>

#include <set>

#include "blkback/session_pool.h"
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
