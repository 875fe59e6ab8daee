#include "multipath/attach/session_pool.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

SocketAddress address(const std::string& host) {
  return SocketAddress::parse(host, 3260).value();
}

class SessionPoolTest : public testing::Test {
 protected:
  SessionPoolTest() : target_(reactor_, target_options()) {}
  ~SessionPoolTest() override { EXPECT_THAT(target_.violations, testing::IsEmpty()); }

  static SimTargetOptions target_options() {
    SimTargetOptions options;
    options.name = "iqn.2026-01.test:target";
    options.portals = {SimPortal{address("192.0.2.1"), 1}, SimPortal{address("192.0.2.2"), 1}};
    return options;
  }

  SessionOptions options(const std::string& host) {
    SessionOptions result;
    result.initiator_name = "iqn.2026-01.test:host";
    result.target_name = "iqn.2026-01.test:target";
    result.portal = address(host);
    result.portal_name = host;
    return result;
  }

  SimReactor reactor_{1};
  SimTarget target_;
};

TEST_F(SessionPoolTest, OneSessionForEachPortalWhoeverAsks) {
  SessionPool pool(reactor_, 0, 5);
  Session* const first = pool.acquire(options("192.0.2.1")).value();
  Session* const again = pool.acquire(options("192.0.2.1")).value();
  Session* const other = pool.acquire(options("192.0.2.2")).value();
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
  ASSERT_TRUE(reactor_.run_until([&] { return target_.sessions() == 2; }, 5s));
  pool.release(*first);
  reactor_.run_for(1s);
  EXPECT_EQ(target_.sessions(), 2u) << "somebody still uses it";
  EXPECT_FALSE(pool.stopping());
  pool.release(*again);
  pool.release(*other);
  EXPECT_TRUE(pool.stopping());
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
  EXPECT_EQ(target_.sessions(), 0u);
  EXPECT_EQ(target_.counters.logouts, 2u);
}

TEST_F(SessionPoolTest, AnInterfaceMakesItAnotherSession) {
  SessionPool pool(reactor_, 0, 5);
  SessionOptions with_interface = options("192.0.2.1");
  with_interface.interface_binding.name = "eth1";
  Session* const one = pool.acquire(options("192.0.2.1")).value();
  Session* const two = pool.acquire(with_interface).value();
  EXPECT_NE(one, two);
  EXPECT_NE(one->options().isid, two->options().isid);
  pool.release(*one);
  pool.release(*two);
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

TEST_F(SessionPoolTest, SeveralSessionsToOnePortalAreDistinct) {
  SessionPool pool(reactor_, 0, 5);
  std::vector<Session*> sessions;
  std::set<Isid> isids;
  for (std::uint16_t number = 0; number < 4; ++number) {
    SessionOptions numbered = options("192.0.2.1");
    numbered.session_number = number;
    sessions.push_back(pool.acquire(numbered).value());
    isids.insert(sessions.back()->options().isid);
  }
  EXPECT_EQ(isids.size(), 4u);
  ASSERT_TRUE(reactor_.run_until([&] { return target_.sessions() == 4; }, 5s));
  EXPECT_EQ(target_.counters.reinstatements, 0u);
  for (Session* session : sessions) {
    pool.release(*session);
  }
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

// --- disks with settings of their own

TEST_F(SessionPoolTest, DisksWithTheSameSettingsShareASessionHoweverTheirPortalIsWritten) {
  SessionPool pool(reactor_, 0, 5);
  SessionOptions by_name = options("192.0.2.1");
  by_name.portal_name = "san-a:3260";
  by_name.discovery_chap.username = "finder";
  by_name.discovery_chap.password = "discovery-secret";
  Session* const one = pool.acquire(options("192.0.2.1")).value();
  EXPECT_EQ(pool.acquire(by_name).value(), one);
  pool.release(*one);
  pool.release(*one);
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

TEST_F(SessionPoolTest, ADiskWithOtherCredentialsHasASessionOfItsOwn) {
  SessionPool pool(reactor_, 0, 5);
  SessionOptions with_chap = options("192.0.2.1");
  with_chap.chap.username = "host";
  with_chap.chap.password = "initiator-secret";
  SessionOptions with_another_password = with_chap;
  with_another_password.chap.password = "another-secret";
  Session* const without = pool.acquire(options("192.0.2.1")).value();
  Session* const one = pool.acquire(with_chap).value();
  Session* const two = pool.acquire(with_another_password).value();
  EXPECT_EQ(std::set({without, one, two}).size(), 3u);
  EXPECT_EQ(std::set({without->options().isid, one->options().isid, two->options().isid}).size(),
            3u);
  EXPECT_FALSE(without->options().chap.enabled());
  EXPECT_EQ(one->options().chap.password, "initiator-secret");
  EXPECT_EQ(two->options().chap.password, "another-secret");
  for (Session* session : {without, one, two}) {
    pool.release(*session);
  }
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

TEST_F(SessionPoolTest, AnIsidDoesNotDependOnWhichDiskComesFirst) {
  const SessionOptions of_target = options("192.0.2.1");
  SessionOptions patient = of_target;
  patient.command_timeout = 60s;
  SessionOptions hasty = of_target;
  hasty.command_timeout = 5s;
  const std::vector<SessionOptions> all{of_target, patient, hasty};
  std::vector<std::vector<Isid>> isids;
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0, 1, 2}, {2, 1, 0}, {1, 2, 0}}) {
    SessionPool pool(reactor_, 0, 5);
    std::vector<Session*> sessions(all.size());
    for (const std::size_t at : order) {
      sessions[at] = pool.acquire(all[at], session_variant(all[at], of_target)).value();
    }
    ASSERT_TRUE(reactor_.run_until([&] { return target_.sessions() == all.size(); }, 5s));
    std::vector<Isid>& found = isids.emplace_back();
    for (Session* session : sessions) {
      found.push_back(session->options().isid);
      pool.release(*session);
    }
    ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
  }
  EXPECT_EQ(isids[1], isids[0]);
  EXPECT_EQ(isids[2], isids[0]);
  EXPECT_EQ(isids[0][0], make_isid(0, 5, of_target, 0, 0)) << "as it has always been";
  EXPECT_EQ(target_.counters.reinstatements, 0u);
}

// A login with its ISID would end its logout, and one with another ISID would leave the next
// process with an old session that it knows nothing of.
TEST_F(SessionPoolTest, ANewSessionWaitsUntilTheFormerOneWithItsIsidHasLoggedOut) {
  SessionPool pool(reactor_, 0, 5);
  Session* const former = pool.acquire(options("192.0.2.1")).value();
  ASSERT_TRUE(reactor_.run_until([&] { return former->state() == SessionState::logged_in; }, 5s));
  target_.set_hung(true);
  pool.release(*former);
  Session* const next = pool.acquire(options("192.0.2.1")).value();
  EXPECT_NE(next, former);
  EXPECT_EQ(next->options().isid, former->options().isid);
  reactor_.run_for(1s);
  EXPECT_EQ(next->state(), SessionState::free);
  target_.set_hung(false);
  ASSERT_TRUE(reactor_.run_until([&] { return next->state() == SessionState::logged_in; }, 5s));
  EXPECT_EQ(target_.counters.logouts, 1u);
  EXPECT_EQ(target_.counters.reinstatements, 0u);
  EXPECT_EQ(pool.size(), 1u);
  pool.release(*next);
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

TEST_F(SessionPoolTest, ASessionThatWaitsForAnIsidMayBeGivenBack) {
  SessionPool pool(reactor_, 0, 5);
  Session* const former = pool.acquire(options("192.0.2.1")).value();
  ASSERT_TRUE(reactor_.run_until([&] { return former->state() == SessionState::logged_in; }, 5s));
  target_.set_hung(true);
  pool.release(*former);
  pool.release(*pool.acquire(options("192.0.2.1")).value());
  Session* const last = pool.acquire(options("192.0.2.1")).value();
  ASSERT_TRUE(reactor_.run_until([&] { return pool.size() == 2; }, 2s)) << "the one that waited";
  EXPECT_EQ(last->state(), SessionState::free);
  ASSERT_TRUE(reactor_.run_until([&] { return pool.size() == 1; }, 10s)) << "logout_timeout";
  target_.set_hung(false);
  ASSERT_TRUE(reactor_.run_until([&] { return last->state() == SessionState::logged_in; }, 20s));
  pool.release(*last);
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
}

TEST_F(SessionPoolTest, StopsASessionThatNeverLoggedIn) {
  target_.stop();
  SessionPool pool(reactor_, 0, 5);
  pool.release(*pool.acquire(options("192.0.2.1")).value());
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 5s));
}

TEST_F(SessionPoolTest, ARestartedProcessComesToTheSameIsid) {
  const auto isid = [&] {
    SessionPool pool(reactor_, 0, 5);
    Session* const session = pool.acquire(options("192.0.2.1")).value();
    const Isid result = session->options().isid;
    pool.release(*session);
    EXPECT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 20s));
    return result;
  };
  EXPECT_EQ(isid(), isid());
}

TEST_F(SessionPoolTest, RefusesMoreSessionsThanTheBound) {
  target_.stop();
  SessionPool pool(reactor_, 0, 5);
  std::vector<Session*> sessions;
  for (std::size_t i = 0; i < SessionBudget::kMaxSessions - SessionBudget::kFenceReserve; ++i) {
    auto session =
        pool.acquire(options("10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256)));
    ASSERT_TRUE(session);
    sessions.push_back(*session);
  }
  const auto more = pool.acquire(options("192.0.2.1"));
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, ErrorCode::exhausted);
  EXPECT_TRUE(pool.acquire(options("10.0.0.1"))) << "an existing one may be shared";
  sessions.push_back(sessions[1]);
  for (Session* session : sessions) {
    pool.release(*session);
  }
  ASSERT_TRUE(reactor_.run_until([&] { return pool.empty(); }, 30s));
}

SessionOptions session_to(const char* target, const char* host, const char* interface_name = "") {
  SessionOptions session;
  session.target_name = target;
  session.portal = address(host);
  session.interface_binding.name = interface_name;
  return session;
}

TEST(MakeIsid, IsOfTheRandomTypeAndCarriesTheGuest) {
  const Isid isid = make_isid(0, 0x1234, session_to("iqn.a:b", "192.0.2.1"), 0, 0);
  EXPECT_EQ(isid[0], 0x80);
  EXPECT_EQ(isid[4], 0x12);
  EXPECT_EQ(isid[5], 0x34);
}

TEST(MakeIsid, DiffersByEverythingThatASessionIsKnownBy) {
  std::set<Isid> isids;
  for (const DomainId own : {DomainId{0}, DomainId{3}}) {
    for (const DomainId guest : {DomainId{1}, DomainId{2}, DomainId{300}}) {
      for (const char* target : {"iqn.a:b", "iqn.a:c"}) {
        for (const char* host : {"192.0.2.1", "192.0.2.2"}) {
          for (const char* interface_name : {"", "eth0", "eth1"}) {
            for (const std::uint32_t variant : {0u, 1u, 0xffffffffu}) {
              for (const std::uint32_t attempt : {0u, 1u}) {
                isids.insert(make_isid(own, guest, session_to(target, host, interface_name),
                                       variant, attempt));
              }
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(isids.size(), 2u * 3 * 2 * 2 * 3 * 3 * 2);
}

// Two hosts that were set up alike, with the same initiator name and the same guest.
TEST(MakeIsid, DiffersByTheHostWhateverItsId) {
  const SessionOptions session = session_to("iqn.a:b", "192.0.2.1");
  std::set<Isid> isids;
  for (const char* host : {"", "a", "b", "ab", "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b"}) {
    isids.insert(make_isid(0, 5, session, 0, 0, host));
    EXPECT_EQ(make_isid(0, 5, session, 0, 0, host), make_isid(0, 5, session, 0, 0, host));
  }
  EXPECT_EQ(isids.size(), 5U);
  // As for the rest: it never changes.
  const Isid with_host{0x80, 0x7c, 0x1b, 0x0d, 0x00, 0x05};
  EXPECT_EQ(make_isid(0, 5, session, 0, 0, "8c7e2a3f4b5d4e6f8a9b0c1d2e3f4a5b"), with_host);
}

// Each reactor of a process knows its own sessions only.
TEST(MakeIsid, IsNeverThatOfAnotherReactor) {
  std::map<Isid, std::uint32_t> reactors;
  for (std::uint32_t number = 0; number < kMaxReactors; ++number) {
    for (int host = 0; host < 100; ++host) {
      for (std::uint32_t attempt = 0; attempt < 40; ++attempt) {
        const Isid isid =
            make_isid(0, 5, session_to("iqn.a:b", fmt::format("192.0.2.{}", host).c_str()), 0,
                      attempt, "", {number, kMaxReactors});
        EXPECT_EQ(reactors.emplace(isid, number).first->second, number);
      }
    }
  }
  EXPECT_GT(reactors.size(), 16U * 100 * 39);
}

// A changed hash would let the old process's commands run beside the new one's.
TEST(MakeIsid, NeverChanges) {
  const SessionOptions session = session_to("iqn.2026-01.test:target", "192.0.2.1", "eth0");
  const Isid ordinary{0x80, 0x44, 0x61, 0xe6, 0x00, 0x05};
  EXPECT_EQ(make_isid(0, 5, session, 0, 0), ordinary);
  SessionOptions patient = session;
  patient.command_timeout = 60s;
  EXPECT_EQ(session_variant(patient, session), 1444564092u);
  const Isid of_reactor{0x80, 0x44, 0x61, 0xee, 0x00, 0x05};
  EXPECT_EQ(make_isid(0, 5, session, 0, 0, "", {14, 15}), of_reactor);
  const Isid of_variant{0x80, 0x1b, 0xc0, 0xf8, 0x00, 0x05};
  EXPECT_EQ(make_isid(0, 5, patient, session_variant(patient, session), 0), of_variant);
}

TEST(SessionVariant, IsMadeOfWhatIsSetAndOfNothingElse) {
  const SessionOptions of_target = session_to("iqn.a:b", "192.0.2.1");
  EXPECT_EQ(session_variant(of_target, of_target), 0u);
  SessionOptions other_place = session_to("iqn.a:c", "192.0.2.2", "eth0");
  other_place.session_number = 3;
  other_place.portal_name = "san-a";
  other_place.isid = {0x80, 1, 2, 3, 4, 5};
  other_place.initiator_name = "iqn.a:host";
  other_place.discovery_chap.username = "finder";
  EXPECT_EQ(session_variant(other_place, of_target), 0u);
  SessionOptions secret = of_target;
  secret.chap.password = "initiator-secret";
  secret.chap.password_in = "targets-secret";
  EXPECT_EQ(session_variant(secret, of_target), 0u) << "ISIDs can be read on the network";
  // The same in another section: where the target has it, the LUN's own is nothing of its own.
  SessionOptions patient = of_target;
  patient.command_timeout = 60s;
  EXPECT_NE(session_variant(patient, of_target), 0u);
  EXPECT_EQ(session_variant(patient, patient), 0u);
}

}  // namespace
}  // namespace iscsi_blkback
