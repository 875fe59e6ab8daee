// Looking up disks' portals on threads, and what is known while not everything is.
#include "blkback/disk_resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <set>

#include "base/unique_fd.h"
#include "base/uring_reactor.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::chrono_literals;

Portal portal_named(const std::string& host) {
  Portal portal;
  portal.host = host;
  return portal;
}

DiskPlan discovering(std::vector<Portal> at) {
  DiskPlan plan;
  plan.target_name = plan.session.target_name = "iqn.a:b";
  plan.discovery_portals = std::move(at);
  return plan;
}

DiskPlan naming(std::vector<Portal> portals) {
  DiskPlan plan;
  plan.target_name = plan.session.target_name = "iqn.a:b";
  plan.portals = std::move(portals);
  return plan;
}

std::vector<std::string> addresses_of(const Result<ResolvedDisk>& disk) {
  std::vector<std::string> addresses;
  for (const ResolvedPortal& path : disk.value().specification.portals) {
    addresses.push_back(path.address.to_string());
  }
  return addresses;
}

TEST(DiskLookup, AsksAllDiscoveryPortalsAtOnceAndThenForAllNames) {
  DiskLookup lookup(discovering({portal_named("a"), portal_named("b"), portal_named("c")}));
  EXPECT_EQ(lookup.take_questions().size(), 3U);
  EXPECT_EQ(lookup.take_questions().size(), 0U);
  lookup.take_portals(portal_named("b"), std::vector{portal_named("one"), portal_named("two"),
                                                     portal_named("192.0.2.3")});
  const auto questions = lookup.take_questions();
  ASSERT_EQ(questions.size(), 2U) << "a numeric address needs none";
  EXPECT_EQ(questions[0].portal, portal_named("one"));
  EXPECT_EQ(questions[1].portal, portal_named("two"));
  EXPECT_FALSE(lookup.complete());
  EXPECT_THAT(addresses_of(lookup.result()), ElementsAre("192.0.2.3:3260"));
  EXPECT_FALSE(lookup.result()->complete);
}

TEST(DiskLookup, TheOrderOfThePathsIsThatOfTheListsNotThatOfTheAnswers) {
  DiskLookup lookup(discovering({portal_named("a"), portal_named("b")}));
  lookup.take_portals(portal_named("b"),
                      std::vector{portal_named("192.0.2.2"), portal_named("192.0.2.1")});
  EXPECT_THAT(addresses_of(lookup.result()), ElementsAre("192.0.2.2:3260", "192.0.2.1:3260"));
  lookup.take_portals(portal_named("a"),
                      std::vector{portal_named("192.0.2.1"), portal_named("192.0.2.3")});
  EXPECT_THAT(addresses_of(lookup.result()),
              ElementsAre("192.0.2.1:3260", "192.0.2.3:3260", "192.0.2.2:3260"));
  EXPECT_TRUE(lookup.result()->complete);
}

TEST(DiskLookup, WhatFailsIsTroubleWhileOthersAreThere) {
  DiskLookup lookup(discovering({portal_named("a"), portal_named("b")}));
  lookup.take_portals(portal_named("a"), fail(ErrorCode::timed_out, "a is silent"));
  EXPECT_FALSE(lookup.result());
  lookup.take_portals(portal_named("b"),
                      std::vector{portal_named("one"), portal_named("192.0.2.2")});
  (void)lookup.take_questions();
  lookup.take_address(portal_named("one"), fail(ErrorCode::not_found, "one is unknown"));
  EXPECT_TRUE(lookup.complete());
  EXPECT_EQ(lookup.result()->trouble, "a is silent; one is unknown");
}

TEST(DiskLookup, ATargetWithVeryManyPortalsIsAskedForSomeOnly) {
  DiskLookup lookup(discovering({portal_named("a")}));
  std::vector<Portal> many;
  for (int i = 0; i < 200; ++i) {
    many.push_back(portal_named("h" + std::to_string(i)));
  }
  (void)lookup.take_questions();
  lookup.take_portals(portal_named("a"), many);
  EXPECT_EQ(lookup.take_questions().size(), kMaxPortalsPerDisk);
}

// Answers for hosts that are not shut; the others wait.
class GatedDirectory final : public PortalDirectory {
 public:
  Result<SocketAddress> resolve(const Portal& at) override {
    pass(at.host);
    return SocketAddress::parse("192.0.2.7", at.port);
  }
  Result<std::vector<Portal>> discover(const Portal& at, const SessionOptions&,
                                       const std::string&) override {
    pass(at.host);
    return std::vector{portal_named("192.0.2.8")};
  }
  void shut(const std::string& host) {
    const std::lock_guard lock(mutex_);
    shut_.insert(host);
  }
  void open_all() {
    const std::lock_guard lock(mutex_);
    shut_.clear();
    changed_.notify_all();
  }

 private:
  void pass(const std::string& host) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !shut_.contains(host); });
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> shut_;
};

class ThreadedResolver : public testing::Test {
 protected:
  void SetUp() override {
    auto reactor = UringReactor::create();
    if (!reactor) {
      GTEST_SKIP() << "no io_uring here";
    }
    reactor_ = std::move(*reactor);
    resolver_ = make_threaded_resolver(*reactor_, directory());
  }
  // Never destroyed: the threads that it keeps end later.
  static GatedDirectory& directory() {
    static auto* const directory = new GatedDirectory;
    return *directory;
  }
  void TearDown() override { directory().open_all(); }

  bool run_until(const std::function<bool()>& predicate) {
    const TimePoint end = reactor_->now() + 60s;
    while (!predicate() && reactor_->now() < end) {
      reactor_->run_once(10ms);
    }
    return predicate();
  }

  std::unique_ptr<UringReactor> reactor_;
  std::unique_ptr<DiskResolver> resolver_;
};

TEST_F(ThreadedResolver, GoesOnWithTheFirstAnswerAndTellsTheLast) {
  directory().shut("dead");
  std::vector<Result<ResolvedDisk>> told;
  resolver_->resolve(naming({portal_named("dead"), portal_named("alive")}),
                     [&](Result<ResolvedDisk> disk) { told.push_back(std::move(disk)); });
  ASSERT_TRUE(run_until([&] { return !told.empty(); }));
  EXPECT_EQ(told[0]->specification.portals.size(), 1U);
  EXPECT_FALSE(told[0]->complete);
  directory().open_all();
  ASSERT_TRUE(run_until([&] { return told.back()->complete; }));
}

TEST_F(ThreadedResolver, ADeadPortalDoesNotUseUpTheThreads) {
  directory().shut("dead");
  for (unsigned disk = 0; disk < 2 * kMaxResolverThreads; ++disk) {
    resolver_->resolve(discovering({portal_named("dead")}), [](Result<ResolvedDisk>) {});
  }
  bool told = false;
  resolver_->resolve(discovering({portal_named("dead"), portal_named("alive")}),
                     [&](Result<ResolvedDisk> disk) { told = disk.has_value(); });
  EXPECT_TRUE(run_until([&] { return told; }));
}

TEST_F(ThreadedResolver, NoAnswerComesAfterItHasGone) {
  directory().shut("dead");
  bool told = false;
  resolver_->resolve(discovering({portal_named("dead")}),
                     [&](Result<ResolvedDisk>) { told = true; });
  reactor_->run_once(10ms);
  resolver_.reset();
  directory().open_all();
  for (int i = 0; i < 10; ++i) {
    reactor_->run_once(1ms);
  }
  EXPECT_FALSE(told);
}

// A portal that takes connections and says nothing.
TEST(SystemPortalDirectory, TwoDiscoveriesAreUnderWayAtOnce) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(listener.valid());
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  Portal silent = portal_named("127.0.0.1");
  silent.port = ntohs(address.sin_port);
  SessionOptions session;
  session.initiator_name = "iqn.2026-01.test:host";
  session.login_timeout = 120s;
  const auto ask = [&] { return system_portal_directory().discover(silent, session, "iqn.a:b"); };
  auto one = std::async(std::launch::async, ask);
  auto other = std::async(std::launch::async, ask);
  std::vector<UniqueFd> connections;
  for (int i = 0; i < 2; ++i) {
    pollfd waiting{.fd = listener.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&waiting, 1, 30000), 1) << i;
    if (waiting.revents != 0) {
      connections.emplace_back(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
  }
  EXPECT_EQ(connections.size(), 2U);
  connections.clear();
  if (HasFailure()) {
    // The second one connects now.
    connections.emplace_back(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    connections.clear();
  }
  EXPECT_THAT(one.get().error().message, HasSubstr("discovery at 127.0.0.1"));
  EXPECT_THAT(other.get().error().message, HasSubstr("discovery at 127.0.0.1"));
}

}  // namespace
}  // namespace iscsi_blkback
