#include "blkback/guest_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

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
  std::optional<pid_t> adopt(DomainId guest) override {
    const auto found = running.find(guest);
    return found == running.end() ? std::nullopt : std::optional<pid_t>(found->second);
  }

  std::map<DomainId, pid_t> running;  // not started by us
  std::vector<DomainId> started;
  int fail_next = 0;
  pid_t last_pid = 1000;
};

class GuestKeeperTest : public testing::Test {
 protected:
  void start() {
    ASSERT_TRUE(keeper_.start());
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
  GuestKeeper keeper_{reactor_,
                      [this]() -> Result<std::unique_ptr<XenStore>> {
                        return std::unique_ptr<XenStore>(xen_.store().connect(0));
                      },
                      launcher_, 0};
};

TEST_F(GuestKeeperTest, StartsOneProcessForEachGuestWithADiskOfOurs) {
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

TEST_F(GuestKeeperTest, AGuestWithoutADiskOfOursHasNoProcess) {
  start();
  toolstack_.add(disk(4, "aio:/dev/vg/lv"));
  toolstack_.add(disk(6, "", "vbd"));
  reactor_.run_for(1s);
  EXPECT_THAT(launcher_.started, IsEmpty());
  EXPECT_THAT(keeper_.guests(), IsEmpty());
}

TEST_F(GuestKeeperTest, TakesOverAProcessThatIsAtWork) {
  toolstack_.add(disk(3));
  launcher_.running[3] = 77;
  start();
  EXPECT_THAT(launcher_.started, IsEmpty());
  ASSERT_EQ(keeper_.guests().size(), 1u);
  EXPECT_EQ(keeper_.guests()[0].pid, 77);
  EXPECT_TRUE(keeper_.guests()[0].adopted);
  launcher_.running.clear();
  keeper_.on_exit(3, true);
  reactor_.run_for(1s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
}

TEST_F(GuestKeeperTest, AProcessThatEndsWithItsDisksIsNotMissed) {
  toolstack_.add(disk(3));
  start();
  toolstack_.remove(disk(3));
  keeper_.on_exit(3, true);
  reactor_.run_for(5s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
  EXPECT_THAT(keeper_.guests(), IsEmpty());
  toolstack_.add(disk(3));
  reactor_.run_for(50ms);
  EXPECT_THAT(launcher_.started, ElementsAre(3, 3));
}

TEST_F(GuestKeeperTest, ADiskThatIsOverNeedsNoProcess) {
  toolstack_.add(disk(3));
  start();
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/state", "6"));
  ASSERT_TRUE(toolstack_.store().write(disk(3).backend_path() + "/online", "0"));
  keeper_.on_exit(3, true);
  reactor_.run_for(60s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
}

TEST_F(GuestKeeperTest, ACrashedProcessIsStartedAgainEverMoreSlowly) {
  toolstack_.add(disk(3));
  start();
  for (int crash = 0; crash < 10; ++crash) {
    keeper_.on_exit(3, false);
    ASSERT_EQ(keeper_.guests().at(0).pid, 0);
    ASSERT_TRUE(reactor_.run_until([&] { return keeper_.guests().at(0).pid != 0; }, 31s));
  }
  EXPECT_EQ(keeper_.guests().at(0).restarts, 10u);
  keeper_.on_exit(3, false);
  reactor_.run_for(29s);
  EXPECT_EQ(keeper_.guests().at(0).pid, 0);
  reactor_.run_for(2s);
  EXPECT_NE(keeper_.guests().at(0).pid, 0);
  // One that has run for a while is started again soon.
  reactor_.run_for(61s);
  keeper_.on_exit(3, false);
  reactor_.run_for(300ms);
  EXPECT_NE(keeper_.guests().at(0).pid, 0);
}

TEST_F(GuestKeeperTest, ACrashIsNotRepairedWhenTheGuestIsGone) {
  toolstack_.add(disk(3));
  start();
  keeper_.on_exit(3, false);
  toolstack_.remove(disk(3));
  reactor_.run_for(60s);
  EXPECT_THAT(launcher_.started, ElementsAre(3));
  EXPECT_THAT(keeper_.guests(), IsEmpty());
}

TEST_F(GuestKeeperTest, AProcessThatCannotBeStartedIsTriedAgain) {
  launcher_.fail_next = 2;
  toolstack_.add(disk(3));
  start();
  ASSERT_TRUE(reactor_.run_until([&] { return keeper_.guests().at(0).pid != 0; }, 5s));
  EXPECT_EQ(launcher_.started.size(), 3u);
}

TEST_F(GuestKeeperTest, GoesOnAfterXenstoredHasRestarted) {
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
