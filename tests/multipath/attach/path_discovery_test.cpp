// Looking up disks' portals on threads, and what is known while not everything is.
#include "multipath/attach/path_discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <set>

#include "base/unique_fd.h"
#include "base/uring_reactor.h"
#include "initiator/login/lookup_threads.h"
#include "multipath/attach/resolver_pool.h"

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

DiskConfig discovering(std::vector<Portal> at) {
  DiskConfig config;
  config.target_name = config.session.target_name = "iqn.a:b";
  config.discovery_portals = std::move(at);
  return config;
}

DiskConfig naming(std::vector<Portal> portals, const std::string& target_name = "iqn.a:b") {
  DiskConfig config;
  config.target_name = config.session.target_name = target_name;
  config.portals = std::move(portals);
  return config;
}

std::vector<std::string> addresses_of(const Result<ResolvedDisk>& disk) {
  std::vector<std::string> addresses;
  for (const ResolvedPortal& path : disk.value().specification.portals) {
    addresses.push_back(path.address.to_string());
  }
  return addresses;
}

TEST(DiscoveryState, AsksAllDiscoveryPortalsAtOnceAndThenForAllNames) {
  DiscoveryState lookup(discovering({portal_named("a"), portal_named("b"), portal_named("c")}));
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

TEST(DiscoveryState, TheOrderOfThePathsIsThatOfTheListsNotThatOfTheAnswers) {
  DiscoveryState lookup(discovering({portal_named("a"), portal_named("b")}));
  lookup.take_portals(portal_named("b"),
                      std::vector{portal_named("192.0.2.2"), portal_named("192.0.2.1")});
  EXPECT_THAT(addresses_of(lookup.result()), ElementsAre("192.0.2.2:3260", "192.0.2.1:3260"));
  lookup.take_portals(portal_named("a"),
                      std::vector{portal_named("192.0.2.1"), portal_named("192.0.2.3")});
  EXPECT_THAT(addresses_of(lookup.result()),
              ElementsAre("192.0.2.1:3260", "192.0.2.3:3260", "192.0.2.2:3260"));
  EXPECT_TRUE(lookup.result()->complete);
}

TEST(DiscoveryState, WhatFailsIsTroubleWhileOthersAreThere) {
  DiscoveryState lookup(discovering({portal_named("a"), portal_named("b")}));
  lookup.take_portals(portal_named("a"), fail(ErrorCode::timed_out, "a is silent"));
  EXPECT_FALSE(lookup.result());
  lookup.take_portals(portal_named("b"),
                      std::vector{portal_named("one"), portal_named("192.0.2.2")});
  (void)lookup.take_questions();
  lookup.take_addresses(portal_named("one"), fail(ErrorCode::not_found, "one is unknown"));
  EXPECT_TRUE(lookup.complete());
  EXPECT_EQ(lookup.result()->trouble, "a is silent; one is unknown");
}

TEST(DiscoveryState, ATargetWithVeryManyPortalsIsAskedForSomeOnly) {
  DiscoveryState lookup(discovering({portal_named("a")}));
  std::vector<Portal> many;
  for (int i = 0; i < 200; ++i) {
    many.push_back(portal_named("h" + std::to_string(i)));
  }
  (void)lookup.take_questions();
  lookup.take_portals(portal_named("a"), many);
  EXPECT_EQ(lookup.take_questions().size(), kMaxPortalsPerDisk);
}

TEST(DiscoveryState, PortalsBeyondTheBoundAreSaidToBeLeftOut) {
  for (const std::size_t portals : {kMaxPortalsPerDisk, kMaxPortalsPerDisk + 1}) {
    DiscoveryState lookup(discovering({portal_named("a")}));
    std::vector<Portal> many;
    for (std::size_t i = 0; i < portals; ++i) {
      many.push_back(portal_named("192.0.2." + std::to_string(i + 1)));
    }
    (void)lookup.take_questions();
    lookup.take_portals(portal_named("a"), many);
    const auto disk = lookup.result();
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->specification.portals.size(), kMaxPortalsPerDisk);
    EXPECT_EQ(disk->trouble,
              portals == kMaxPortalsPerDisk
                  ? ""
                  : "discovery tells of more than 32 portals, and no more of them are used");
  }
}

// Answers for hosts that are not shut; the others wait.
class GatedDirectory final : public PortalResolver {
 public:
  Result<std::vector<SocketAddress>> resolve(const Portal& at) override {
    pass(at.host);
    return std::vector{SocketAddress::parse("192.0.2.7", at.port).value()};
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
  // Look-ups of the host, or of all, that have begun.
  unsigned begun(const std::string& host = {}) {
    const std::lock_guard lock(mutex_);
    unsigned count = 0;
    for (const auto& [name, of_it] : begun_) {
      count += host.empty() || name == host ? of_it : 0;
    }
    return count;
  }

 private:
  void pass(const std::string& host) {
    std::unique_lock lock(mutex_);
    ++begun_[host];
    changed_.wait(lock, [&] { return !shut_.contains(host); });
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> shut_;
  std::map<std::string, unsigned> begun_;
};

class ThreadedResolver : public testing::Test {
 protected:
  void SetUp() override {
    auto reactor = UringReactor::create();
    if (!reactor) {
      GTEST_SKIP() << "no io_uring here";
    }
    reactor_ = std::move(*reactor);
    // Never destroyed: the threads that it keeps end later, and begin what waits for them.
    static auto* const all = new std::vector<std::unique_ptr<GatedDirectory>>;
    directory_ = all->emplace_back(std::make_unique<GatedDirectory>()).get();
    resolver_ = make_path_discovery(*reactor_, *directory_);
  }
  void TearDown() override {
    if (directory_ != nullptr) {
      directory_->open_all();
    }
  }
  [[nodiscard]] GatedDirectory& directory() const { return *directory_; }

  bool run_until(const std::function<bool()>& predicate) {
    const TimePoint end = reactor_->now() + 60s;
    while (!predicate() && reactor_->now() < end) {
      reactor_->run_once(10ms);
    }
    return predicate();
  }

  GatedDirectory* directory_ = nullptr;
  std::unique_ptr<UringReactor> reactor_;
  std::unique_ptr<PathDiscovery> resolver_;
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
  for (unsigned disk = 0; disk < 2 * LookupThreads::kMaxThreads; ++disk) {
    resolver_->resolve(discovering({portal_named("dead")}), [](Result<ResolvedDisk>) {});
  }
  bool told = false;
  resolver_->resolve(discovering({portal_named("dead"), portal_named("alive")}),
                     [&](Result<ResolvedDisk> disk) { told = disk.has_value(); });
  EXPECT_TRUE(run_until([&] { return told; }));
}

// A target may send us to look up as many names as it likes, each in a zone that is never answered.
TEST_F(ThreadedResolver, ATargetWhoseNamesHangDoesNotUseUpTheThreads) {
  std::vector<Portal> endless;
  for (unsigned name = 0; name < 2 * LookupThreads::kMaxThreads; ++name) {
    endless.push_back(portal_named("hangs" + std::to_string(name)));
    directory().shut(endless.back().host);
  }
  resolver_->resolve(naming(endless, "iqn.bad:b"), [](Result<ResolvedDisk>) {});
  bool told = false;
  resolver_->resolve(naming({portal_named("alive")}, "iqn.good:b"),
                     [&](Result<ResolvedDisk> disk) { told = disk.has_value(); });
  EXPECT_TRUE(run_until([&] { return told; }));
  EXPECT_LE(directory().begun(), LookupThreads::kMaxPerKey + 1);
}

TEST_F(ThreadedResolver, NoMoreThreadsThanTheBound) {
  for (unsigned target = 0; target < 2 * LookupThreads::kMaxThreads; ++target) {
    const std::string name = "hangs" + std::to_string(target);
    directory().shut(name);
    resolver_->resolve(naming({portal_named(name)}, "iqn.bad:" + name),
                       [](Result<ResolvedDisk>) {});
  }
  ASSERT_TRUE(run_until([&] { return directory().begun() == LookupThreads::kMaxThreads; }));
  reactor_->run_once(20ms);
  EXPECT_EQ(directory().begun(), LookupThreads::kMaxThreads);
  directory().open_all();
  EXPECT_TRUE(run_until([&] { return directory().begun() == 2 * LookupThreads::kMaxThreads; }));
}

TEST_F(ThreadedResolver, WhatIsBeingLookedUpIsNotLookedUpAgain) {
  directory().shut("name");
  int told = 0;
  for (int disk = 0; disk < 10; ++disk) {
    resolver_->resolve(naming({portal_named("name")}, "iqn.a:" + std::to_string(disk)),
                       [&](Result<ResolvedDisk> found) { told += found.has_value() ? 1 : 0; });
  }
  ASSERT_TRUE(run_until([&] { return directory().begun("name") != 0; }));
  reactor_->run_once(20ms);
  directory().open_all();
  EXPECT_TRUE(run_until([&] { return told == 10; }));
  EXPECT_EQ(directory().begun("name"), 1U);
}

// It waits behind what hangs for one target, but not for another one.
TEST_F(ThreadedResolver, ANameThatTwoTargetsHaveIsLookedUpForTheOneThatMay) {
  std::vector<Portal> portals;
  for (unsigned name = 0; name < LookupThreads::kMaxPerKey; ++name) {
    portals.push_back(portal_named("hangs" + std::to_string(name)));
    directory().shut(portals.back().host);
  }
  portals.push_back(portal_named("shared"));
  std::size_t bad_paths = 0;
  bool good_told = false;
  resolver_->resolve(naming(portals, "iqn.bad:b"), [&](Result<ResolvedDisk> found) {
    bad_paths = found ? found->specification.portals.size() : 0;
  });
  resolver_->resolve(naming({portal_named("shared")}, "iqn.good:b"),
                     [&](Result<ResolvedDisk> found) { good_told = found.has_value(); });
  EXPECT_TRUE(run_until([&] { return good_told && bad_paths == 1; }));
}

TEST_F(ThreadedResolver, ALookUpThatHangsIsToldOfAndHeardOfWhenItEnds) {
  resolver_ =
      std::make_unique<PathDiscovery>(*reactor_, make_resolver_pool(*reactor_, directory(), 50ms));
  directory().shut("slow");
  std::optional<Result<ResolvedDisk>> told;
  const auto ask = [&] {
    told.reset();
    resolver_->resolve(naming({portal_named("slow")}),
                       [&](Result<ResolvedDisk> found) { told = std::move(found); });
  };
  ask();
  ASSERT_TRUE(run_until([&] { return told.has_value(); }));
  ASSERT_FALSE(*told);
  EXPECT_THAT(told->error().message, HasSubstr("slow:3260 is still being asked or looked up"));
  for (int again = 0; again < 3; ++again) {
    ask();
    ASSERT_TRUE(run_until([&] { return told.has_value(); }));
    EXPECT_FALSE(*told);
  }
  EXPECT_EQ(directory().begun("slow"), 1U);
  do {
    ask();
    directory().open_all();
    ASSERT_TRUE(run_until([&] { return told.has_value(); }));
  } while (!*told);  // a machine that is busy may take longer than the patience
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

// Each discovery with an io_uring of its own, and all with one.
class SystemPortalDirectory : public testing::TestWithParam<bool> {
 protected:
  static PortalResolver& directory() {
    if (!GetParam()) {
      return system_portal_resolver();
    }
    static PortalResolver* const with_its_ring = make_portal_resolver_with_its_ring().value();
    return *with_its_ring;
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, SystemPortalDirectory, testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "OneOfAll" : "OneOfEach");
});

// A portal that takes connections and says nothing.
TEST_P(SystemPortalDirectory, TwoDiscoveriesAreUnderWayAtOnce) {
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
  const auto ask = [&] { return directory().discover(silent, session, "iqn.a:b"); };
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
