// While the control thread waits for xenstored, a suspend of the guest stops its disks all the
// same, and they go on when it does.
#include "blkback/guest/suspend_sentry.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>

#include "base/uring_reactor.h"
#include "blkback/guest/guest_backend.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/fake_xenstored.h"
#include "tests/support/loopback_directory.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
constexpr DomainId kServed = 5;
constexpr auto kLongEnough = 60s;
constexpr auto kAWhile = 400ms;  // several times as long as it takes
const DomainStatus kRuns{DomainLife::running, {}};
const DomainStatus kSuspended{DomainLife::shut_down, ShutdownReason::suspend};

bool comes_true(const std::function<bool()>& what) {
  const auto end = std::chrono::steady_clock::now() + kLongEnough;
  while (!what() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(5ms);
  }
  return what();
}

class SuspendSentryTest : public testing::Test {
 protected:
  SuspendSentryTest() { xen_.set_domain(kServed, kRuns); }

  // Calls xenstored, which answers when body returns.
  template <class Body>
  void during_a_call(Body&& body) {
    watchdog_.watched("reading", "a node", std::forward<Body>(body));
  }

  MemXen xen_;
  std::atomic<GuestState> state_ = GuestState::runs;
  std::atomic<std::uint64_t> vm_ = 0;
  std::atomic<int> told_ = 0;
  int over_ = 0;
  SuspendSentry sentry_{xen_.open_domain_info(), kServed,
                        [this](const GuestNow& guest) {
                          state_ = guest.state;
                          vm_ = guest.vm;
                          ++told_;
                        },
                        [this] { ++over_; }};
  CallWatchdog watchdog_{"xenstored", kLongEnough, &sentry_};
};

TEST_F(SuspendSentryTest, ASuspendIsToldWhileACallHangs) {
  during_a_call([&] {
    std::this_thread::sleep_for(kAWhile);
    EXPECT_LE(told_, 1) << "the guest runs";
    EXPECT_EQ(state_, GuestState::runs);
    xen_.set_domain_silently(kServed, kSuspended);
    EXPECT_TRUE(comes_true([&] { return told_ > 2; }));
    EXPECT_EQ(state_, GuestState::suspended);
    EXPECT_EQ(over_, 0);
  });
  EXPECT_EQ(over_, 1) << "the control thread shall ask anew";
  const int told = told_;
  std::this_thread::sleep_for(kAWhile);
  EXPECT_EQ(told_, told) << "it can ask by itself now";
  during_a_call([] {});
  EXPECT_EQ(over_, 1);
}

TEST_F(SuspendSentryTest, AGuestThatHasEndedIsTold) {
  during_a_call([&] {
    xen_.set_domain_silently(kServed, DomainStatus{DomainLife::gone, {}});
    EXPECT_TRUE(comes_true([&] { return told_ > 0; }));
  });
}

TEST_F(SuspendSentryTest, AGuestOfWhichXenDoesNotTellIsInDoubt) {
  during_a_call([&] {
    xen_.faults().fail_calls("domain status");
    EXPECT_TRUE(comes_true([&] { return told_ > 0; }));
    EXPECT_EQ(state_, GuestState::in_doubt);
  });
  xen_.faults().disarm();
}

TEST_F(SuspendSentryTest, ADoubtEndsWhenXenAnswersAgain) {
  during_a_call([&] {
    xen_.faults().fail_calls("domain status");
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::in_doubt; }));
    xen_.faults().disarm();
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::runs; }))
        << "the disks of a guest that runs send nothing";
  });
  EXPECT_EQ(over_, 1);
}

// A checkpoint: "xl save -c".
TEST_F(SuspendSentryTest, AGuestThatGoesOnIsTold) {
  during_a_call([&] {
    xen_.set_domain_silently(kServed, kSuspended);
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::suspended; }));
    const std::uint64_t vm = vm_;
    xen_.set_domain_silently(kServed, kRuns);
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::runs; }));
    EXPECT_NE(vm, 0u);
    EXPECT_EQ(vm_, vm);
  });
  EXPECT_EQ(over_, 1);
}

// The control thread had told of the suspend before it called xenstored.
TEST_F(SuspendSentryTest, AGuestThatRunsIsToldThoughNothingElseWasToldHere) {
  during_a_call([&] { EXPECT_TRUE(comes_true([&] { return told_ == 1; })); });
  EXPECT_EQ(state_, GuestState::runs);
  EXPECT_EQ(over_, 1) << "the control thread knows nothing of it";
}

TEST_F(SuspendSentryTest, AnotherGuestWithTheNumberDoesNotGoOnForTheFormerOne) {
  during_a_call([&] {
    xen_.set_domain_silently(kServed, kSuspended);
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::suspended; }));
    xen_.set_domain_silently(kServed, DomainStatus{});
    xen_.set_domain_silently(kServed, kRuns);
    std::this_thread::sleep_for(kAWhile);
    EXPECT_EQ(state_, GuestState::suspended);
  });
}

TEST_F(SuspendSentryTest, AGuestThatWasGoneDoesNotGoOnUnderItsUuid) {
  DomainStatus restored = kRuns;
  restored.handle = xen_.open_domain_info()->status(kServed)->handle;
  during_a_call([&] {
    xen_.set_domain_silently(kServed, DomainStatus{});
    EXPECT_TRUE(comes_true([&] { return state_ == GuestState::suspended; }));
    xen_.set_domain_silently(kServed, restored);
    std::this_thread::sleep_for(kAWhile);
    EXPECT_EQ(state_, GuestState::suspended);
  });
}

TEST_F(SuspendSentryTest, CallsThatReturnSoonAreNoConcern) {
  xen_.set_domain_silently(kServed, kSuspended);
  const auto end = std::chrono::steady_clock::now() + kAWhile;
  while (std::chrono::steady_clock::now() < end) {
    during_a_call([] {});
  }
  EXPECT_EQ(told_, 0);
  EXPECT_EQ(over_, 0);
}

// ---- with a xenstored that hangs

// Of one disk.
class NullPlane final : public DataPlane {
 public:
  explicit NullPlane(Reactor& control) : control_(control) {}
  std::unique_ptr<DiskPort> open(DiskHandle, DiskSpecification, DiskEvents& events) override {
    events_ = &events;
    opened = true;
    return std::make_unique<Port>(*this);
  }
  void set_guest(DiskHandle, const GuestNow& guest) override {
    held = guest.state != GuestState::runs;
  }
  void query(std::function<void(std::vector<DiskReport>)>) override {}
  // On the control thread.
  void tell(std::function<void(DiskEvents&)> event) {
    control_.post([this, event = std::move(event)] {
      if (events_ != nullptr) {
        event(*events_);
      }
    });
  }
  std::atomic<bool> opened = false;
  std::atomic<bool> held = false;

 private:
  class Port final : public DiskPort {
   public:
    explicit Port(NullPlane& plane) : plane_(plane) {}
    ~Port() override { plane_.events_ = nullptr; }
    void add_portals(std::vector<ResolvedPortal>) override {}
    void add_paths(std::vector<ResolvedPortal>, std::function<void(Result<void>)>) override {}
    void remove_paths(PathChoice,
                      std::function<void(Result<std::vector<ResolvedPortal>>)>) override {}
    void change_policies(const PathPolicySettings&) override {}
    void set_no_path_retry(std::optional<NoPathRetry>) override {}
    void set_read_only(bool) override {}
    void connect_ring(FrontendRing, RingEvents&) override {}
    void serve_nbd(UniqueFd, bool) override {}
    void disconnect_ring(RingEnd) override { close(true); }
    void close(bool) override {
      plane_.tell([](DiskEvents& events) { events.on_closed(); });
    }
    void keep_place() override {}

   private:
    NullPlane& plane_;
  };

  Reactor& control_;
  DiskEvents* events_ = nullptr;
};

TEST(SuspendSentry, AXenstoredThatHangsHidesNoSuspend) {
  MemXen xen;
  FakeToolstack toolstack(xen);
  FakeXenstored xenstored(xen.store());
  LoopbackDirectory directory;
  Configuration configuration;
  configuration.initiator_name = "iqn.2026-01.test:host";
  xen.set_domain(kServed, kRuns);
  FakeDisk disk;
  disk.guest = kServed;
  disk.device_id = 51712;
  disk.params = "aio:iscsi://host0/iqn.2026-01.test:target/0";
  toolstack.add(disk);
  auto control = UringReactor::create();
  ASSERT_TRUE(control);
  auto domains = xen.open_domain_info();
  NullPlane plane(**control);
  auto resolver = make_path_discovery(**control, directory);
  std::atomic<bool> finished = false;
  std::unique_ptr<GuestBackend> backend;
  SuspendSentry sentry(
      xen.open_domain_info(), kServed, [&](const GuestNow& guest) { plane.set_guest(0, guest); },
      [&] { (*control)->post([&] { backend->tell_guest_again(); }); });
  backend = std::make_unique<GuestBackend>(
      GuestBackend::Environment{**control, [&] { return xenstored.connect({}, &sentry); },
                                domains.get(), plane, *resolver},
      configuration, DomainId{0}, kServed, [&] { finished = true; });
  ASSERT_TRUE(backend->start());
  std::thread control_thread([&] { (*control)->run(); });
  ASSERT_TRUE(comes_true([&] { return plane.opened.load(); }));
  xenstored.set_hung(true);
  plane.tell([](DiskEvents& events) { events.on_unavailable("no path answers"); });
  std::this_thread::sleep_for(kAWhile);
  xen.set_domain_silently(kServed, kSuspended);
  EXPECT_TRUE(comes_true([&] { return plane.held.load(); })) << "the disks go on sending";
  xen.set_domain_silently(kServed, kRuns);
  xenstored.set_hung(false);
  EXPECT_TRUE(comes_true([&] { return !plane.held; }))
      << "the guest runs again, and its disks wait";
  xen.set_domain(kServed, DomainStatus{});
  EXPECT_TRUE(comes_true([&] { return finished.load(); }));
  (*control)->stop();
  control_thread.join();
  resolver.reset();
  backend.reset();
}

}  // namespace
}  // namespace iscsi_blkback
