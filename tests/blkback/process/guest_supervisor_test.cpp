#include "blkback/process/guest_supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/log.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

class FakeLauncher final : public GuestLauncher {
 public:
  Result<pid_t> start(DomainId guest) override {
    started.push_back(guest);
    if (fail_next > 0) {
      --fail_next;
      return fail(ErrorCode::io, "no more processes");
    }
    return ++last_pid;
  }
  Result<std::optional<pid_t>> adopt(DomainId guest) override {
    if (adopt_fails > 0) {
      --adopt_fails;
      return fail(ErrorCode::exhausted, "no more descriptors");
    }
    const auto found = running.find(guest);
    return found == running.end() ? std::nullopt : std::optional<pid_t>(found->second);
  }

  std::map<DomainId, pid_t> running;  // not started by us
  std::vector<DomainId> started;
  int fail_next = 0;
  int adopt_fails = 0;
  pid_t last_pid = 1000;
};

class GuestSupervisorTest : public testing::Test {
 protected:
  void start() {
    ASSERT_TRUE(supervisor_.start());
    reactor_.run_for(50ms);
  }

  FakeDisk disk(DomainId guest, const std::string& params = "aio:iscsi:data",
                const std::string& kind = "qdisk") {
    FakeDisk result;
    result.guest = guest;
    result.params = params;
    result.kind = kind;
    return result;
  }

  SimReactor reactor_{1};
  MemXen xen_;
  FakeToolstack toolstack_{xen_};
  FakeLauncher launcher_;
  GuestSupervisor supervisor_{reactor_,
                              [this]() -> Result<std::unique_ptr<XenStore>> {
                                return std::unique_ptr<XenStore>(xen_.store().connect(0));
                              },
                              launcher_, 0};
};

TEST_F(GuestSupervisorTest, StartsOneProcessForEachGuestWithADiskOfOurs) {
  toolstack_.add(disk(3));
  toolstack_.add(disk(4, "aio:/dev/vg/lv"));
  start();
  toolstack_.add(disk(5, "aio:iscsi://h/iqn.a:b/1", "vbd3"));
  FakeDisk second = disk(3);
  second.device_id = 51728;
  toolstack_.add(second);
  reactor_.run_for(50ms);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 5));
}

TEST_F(GuestSupervisorTest, AGuestWithoutADiskOfOursHasNoProcess) {
  start();
  toolstack_.add(disk(4, "aio:/dev/vg/lv"));
  toolstack_.add(disk(6, "", "vbd"));
  reactor_.run_for(1s);
  EXPECT_THAT(launcher_.started, IsEmpty());
  EXPECT_THAT(supervisor_.guests(), IsEmpty());
}

TEST_F(GuestSupervisorTest, TakesOverAProcessThatIsAtWork) {
  toolstack_.add(disk(3));
  launcher_.running[3] = 77;
  start();
  EXPECT_THAT(launcher_.started, IsEmpty());
  ASSERT_EQ(supervisor_.guests().size(), 1u);
  EXPECT_EQ(supervisor_.guests()[0].pid, 77);
  EXPECT_TRUE(supervisor_.guests()[0].adopted);
  launcher_.running.clear();
  supervisor_.on_exit(3, true);
  reactor_.run_for(1s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
}

TEST_F(GuestSupervisorTest, AProcessThatEndsWithItsDisksIsNotMissed) {
  toolstack_.add(disk(3));
  start();
  toolstack_.remove(disk(3));
  supervisor_.on_exit(3, true);
  reactor_.run_for(5s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
  EXPECT_THAT(supervisor_.guests(), IsEmpty());
  toolstack_.add(disk(3));
  reactor_.run_for(50ms);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3));
}

TEST_F(GuestSupervisorTest, ADiskThatIsOverNeedsNoProcess) {
  toolstack_.add(disk(3));
  start();
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/state", "6"));
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/online", "0"));
  supervisor_.on_exit(3, true);
  reactor_.run_for(60s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
}

// The driver has been unbound, or has given the disk up: it may be bound again at any time.
TEST_F(GuestSupervisorTest, ADiskBetweenTwoHandshakesHasAProcessWhileItsGuestHasNotEnded) {
  const auto domains = xen_.open_domain_info();
  GuestSupervisor supervisor(
      reactor_,
      [this]() -> Result<std::unique_ptr<XenStore>> {
        return std::unique_ptr<XenStore>(xen_.store().connect(0));
      },
      launcher_, 0, domains.get());
  xen_.set_domain(3, DomainStatus{DomainLife::running, {}});
  toolstack_.add(disk(3));
  ASSERT_TRUE(supervisor.start());
  reactor_.run_for(50ms);
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/state", "6"));
  ASSERT_TRUE(toolstack_.store().write(disk(3).frontend_path() + "/state", "6"));
  supervisor.on_exit(3, false);
  reactor_.run_for(10s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3));
  xen_.set_domain(3, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  supervisor.on_exit(3, false);
  reactor_.run_for(10s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3, 3)) << "it may go on";
  xen_.faults().fail_calls("domain status");
  supervisor.on_exit(3, false);
  reactor_.run_for(60s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3, 3, 3)) << "nobody says that it has ended";
  xen_.faults().disarm();
  // Preserved, so that its nodes stay.
  xen_.set_domain(3, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  supervisor.on_exit(3, true);
  reactor_.run_for(600s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3, 3, 3)) << "a process for nothing";
  EXPECT_THAT(supervisor.guests(), IsEmpty());
  // But libxl waits for one that was connected.
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/state", "5"));
  reactor_.run_for(1s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3, 3, 3, 3));
}

TEST_F(GuestSupervisorTest, ACrashedProcessIsStartedAgainEverMoreSlowly) {
  toolstack_.add(disk(3));
  start();
  for (int crash = 0; crash < 10; ++crash) {
    supervisor_.on_exit(3, false);
    ASSERT_EQ(supervisor_.guests().at(0).pid, 0);
    ASSERT_TRUE(reactor_.run_until([&] { return supervisor_.guests().at(0).pid != 0; }, 31s));
  }
  EXPECT_EQ(supervisor_.guests().at(0).restarts, 10u);
  supervisor_.on_exit(3, false);
  reactor_.run_for(29s);
  EXPECT_EQ(supervisor_.guests().at(0).pid, 0);
  reactor_.run_for(2s);
  EXPECT_NE(supervisor_.guests().at(0).pid, 0);
  // One that has run for a while is started again soon.
  reactor_.run_for(61s);
  supervisor_.on_exit(3, false);
  reactor_.run_for(300ms);
  EXPECT_NE(supervisor_.guests().at(0).pid, 0);
}

TEST_F(GuestSupervisorTest, ACrashIsNotRepairedWhenTheGuestIsGone) {
  toolstack_.add(disk(3));
  start();
  supervisor_.on_exit(3, false);
  toolstack_.remove(disk(3));
  reactor_.run_for(60s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
  EXPECT_THAT(supervisor_.guests(), IsEmpty());
}

TEST_F(GuestSupervisorTest, AProcessThatCannotBeStartedIsTriedAgain) {
  launcher_.fail_next = 2;
  toolstack_.add(disk(3));
  start();
  ASSERT_TRUE(reactor_.run_until([&] { return supervisor_.guests().at(0).pid != 0; }, 5s));
  EXPECT_EQ(launcher_.started.size(), 3u);
}

// ---- questions that fail ----

TEST_F(GuestSupervisorTest, AGuestWhoseDisksCannotBeReadIsLookedAtAgain) {
  start();
  for (const char* call : {"xenstore list", "xenstore read"}) {
    launcher_.started.clear();
    toolstack_.add(disk(3));
    reactor_.run_for(1s);
    supervisor_.on_exit(3, false);
    xen_.faults().fail_calls(call);
    reactor_.run_for(10s);
    EXPECT_THAT(launcher_.started, ElementsAre(3)) << call;
    EXPECT_EQ(supervisor_.guests().size(), 1U) << call;
    xen_.faults().disarm();
    reactor_.run_for(GuestSupervisor::kReadRetry + 50ms);
    EXPECT_THAT(launcher_.started, ElementsAre(3, 3)) << call;
    supervisor_.on_exit(3, true);
    toolstack_.remove(disk(3));
    reactor_.run_for(60s);
    EXPECT_THAT(supervisor_.guests(), IsEmpty());
  }
}

TEST_F(GuestSupervisorTest, ANewGuestWhoseDisksCannotBeReadIsServedLater) {
  start();
  for (const char* call : {"xenstore list", "xenstore read"}) {
    launcher_.started.clear();
    toolstack_.add(disk(3));
    xen_.faults().fail_calls(call);
    reactor_.run_for(10s);
    EXPECT_THAT(launcher_.started, IsEmpty());
    xen_.faults().disarm();
    reactor_.run_for(GuestSupervisor::kReadRetry + 50ms);
    EXPECT_THAT(launcher_.started, ElementsAre(3)) << call;
    toolstack_.remove(disk(3));
    supervisor_.on_exit(3, true);
    reactor_.run_for(60s);
  }
}

TEST_F(GuestSupervisorTest, TheListOfGuestsThatCannotBeReadIsReadAgain) {
  toolstack_.add(disk(3));
  xen_.faults().fail_calls("xenstore list", 5);
  ASSERT_TRUE(supervisor_.start());
  reactor_.run_for(20s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
}

TEST_F(GuestSupervisorTest, WhereAProcessMayBeAtWorkNoSecondOneIsStarted) {
  toolstack_.add(disk(3));
  launcher_.running[3] = 77;
  launcher_.adopt_fails = 3;
  start();
  reactor_.run_for(10s);
  EXPECT_THAT(launcher_.started, IsEmpty());
  ASSERT_EQ(supervisor_.guests().size(), 1U);
  EXPECT_EQ(supervisor_.guests()[0].pid, 77);
}

TEST_F(GuestSupervisorTest, AQuestionThatIsNeverAnsweredIsAskedOnceASecondAndLoggedOnceAMinute) {
  auto* const log = new MemoryLogSink;
  auto before = set_log_sink(std::unique_ptr<LogSink>(log));
  toolstack_.add(disk(3));
  start();
  supervisor_.on_exit(3, false);
  xen_.faults().fail_calls("xenstore read");
  const std::uint64_t asked = xen_.faults().calls("xenstore read");
  reactor_.run_for(10min);
  EXPECT_LE(xen_.faults().calls("xenstore read") - asked, 700U);
  EXPECT_LE(log->lines().size(), 20U);
  (void)set_log_sink(std::move(before));
}

// The process of a number whose guests change ends with its last disk, as the next guest's comes.
TEST_F(GuestSupervisorTest, ADiskThatComesWhenTheProcessEndsIsServedByAnother) {
  toolstack_.add(disk(3));
  start();
  toolstack_.remove(disk(3));
  toolstack_.add(disk(3, "aio:iscsi:other"));
  supervisor_.on_exit(3, true);
  reactor_.run_for(GuestSupervisor::kRestartMin + 50ms);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3));
}

TEST_F(GuestSupervisorTest, GoesOnAfterXenstoredHasRestarted) {
  toolstack_.add(disk(3));
  start();
  xen_.store().break_connections();
  FakeToolstack after(xen_);
  after.add(disk(5));
  reactor_.run_for(3s);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 5));
}

}  // namespace
}  // namespace iscsi_blkback
