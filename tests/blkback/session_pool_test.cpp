#include "blkback/session_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  for (std::size_t i = 0; i < SessionPool::kMaxSessions; ++i) {
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

TEST(MakeIsid, IsOfTheRandomTypeAndCarriesTheGuest) {
  const Isid isid = make_isid(0, 0x1234, "iqn.a:b", address("192.0.2.1"), {}, 0, 0);
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
            for (const std::uint32_t attempt : {0u, 1u}) {
              isids.insert(make_isid(own, guest, target, address(host),
                                     InterfaceBinding{.name = interface_name}, 0, attempt));
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(isids.size(), 2u * 3 * 2 * 2 * 3 * 2);
}

// A changed hash would let the old process's commands run beside the new one's.
TEST(MakeIsid, NeverChanges) {
  const Isid isid = make_isid(0, 5, "iqn.2026-01.test:target", address("192.0.2.1"),
                              InterfaceBinding{.name = "eth0"}, 0, 0);
  const Isid expected{0x80, 0x44, 0x61, 0xe6, 0x00, 0x05};
  EXPECT_EQ(isid, expected);
}

}  // namespace
}  // namespace iscsi_blkback
