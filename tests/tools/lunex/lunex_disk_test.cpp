// LunexDisk at the simulated target: when it is known whether a LUN can be reached. A refusal, a
// redirect or a LUN that is not ready yet is not the end.
#include "tools/lunex/lunex_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"
#include "tools/lunex/lunex_info.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LunexDiskTest : public testing::Test {
 protected:
  LunexDiskTest() : target_(reactor_, options()) {
    target_.add_lun(1, std::make_shared<SimLun>(SimLunOptions{}));
  }
  ~LunexDiskTest() override {
    if (disk_) {
      disk_->close();
      EXPECT_TRUE(reactor_.run_until([&] { return disk_->closed(); }, 60s));
      disk_.reset();
    }
    EXPECT_THAT(target_.violations, IsEmpty());
  }
  static SimTargetOptions options() {
    SimTargetOptions options;
    for (const char* address : {"192.0.2.1", "192.0.2.2", "192.0.2.3"}) {
      options.portals.push_back({SocketAddress::parse(address, 3260).value(), 1});
    }
    return options;
  }
  ResolvedPortal portal(const std::string& host) {
    return {Portal{host, 3260, {}}, SocketAddress::parse(host, 3260).value(), 0,
            target_.options().name};
  }

  void open(const std::vector<std::string>& portals, LunexDisk::Use use = LunexDisk::Use::io,
            std::uint16_t sessions_per_portal = 1) {
    specification_ = {};
    specification_.lun = 1;
    specification_.session.initiator_name = "iqn.2026-01.test:lunex";
    specification_.session.target_name = target_.options().name;
    for (const std::string& host : portals) {
      for (std::uint16_t number = 0; number < sessions_per_portal; ++number) {
        specification_.portals.push_back(portal(host));
        specification_.portals.back().session_number = number;
      }
    }
    specification_.multipath.reservation_key = 0x5a;
    disk_.emplace(reactor_, specification_, 1, use);
  }
  // As lunex waits.
  bool settles(Duration at_most = 300s) {
    EXPECT_TRUE(reactor_.run_until([&] { return disk_->settled() || disk_->overdue(); }, at_most));
    return disk_->settled();
  }
  void expect_reached(const std::vector<std::string>& portals = {"192.0.2.1"}) {
    open(portals);
    EXPECT_TRUE(settles());
    EXPECT_EQ(disk_->trouble(), "");
    EXPECT_TRUE(disk_->device().ready());
    EXPECT_EQ(disk_->snapshot().paths_up(), portals.size());
  }
  // As lunex info asks.
  Result<LunexInfo> ask() {
    return ask_lun(reactor_, *disk_->live_session(), 1,
                   [this](const std::function<bool()>& condition) {
                     return reactor_.run_until(condition, 5s);
                   });
  }
  void leave_unanswered(std::function<bool(const SimCommand&)> matches) {
    SimFault silent;
    silent.count = 0;
    silent.answer = false;
    silent.matches = std::move(matches);
    target_.inject(silent);
  }
  void soon(Duration delay, std::function<void()> task) {
    reactor_.schedule(delay, std::move(task));
  }

  SimReactor reactor_{1};
  SimTarget target_;
  DiskSpecification specification_;
  std::optional<LunexDisk> disk_;
};

TEST_F(LunexDiskTest, ReachesALunByAllItsPaths) {
  expect_reached({"192.0.2.1", "192.0.2.2", "192.0.2.3"});
}

TEST_F(LunexDiskTest, SeveralSessionsToAPortalAreToldApart) {
  open({"192.0.2.1", "192.0.2.2"}, LunexDisk::Use::io, 2);
  EXPECT_TRUE(settles());
  EXPECT_EQ(target_.sessions(), 4U);
  EXPECT_EQ(disk_->connection_losses(), 0U) << "none has ended another one";
  std::vector<std::string> names;
  for (const PathSnapshot& path : disk_->snapshot().paths) {
    EXPECT_EQ(path.state, PathState::up);
    names.push_back(path.portal);
  }
  EXPECT_THAT(names, ElementsAre("192.0.2.1:3260", "192.0.2.1:3260#2", "192.0.2.2:3260",
                                 "192.0.2.2:3260#2"));
}

TEST_F(LunexDiskTest, TwoNamesOfTheSameAddressesAreOnePath) {
  open({"192.0.2.1"});
  disk_->close();
  EXPECT_TRUE(reactor_.run_until([&] { return disk_->closed(); }, 5s));
  ResolvedPortal one = portal("192.0.2.1");
  ResolvedPortal other = portal("192.0.2.2");
  one.portal.host = "one.example";
  other.portal.host = "other.example";
  one.other_addresses = {other.address};
  other.other_addresses = {one.address};
  specification_.portals = {one, other};
  disk_.emplace(reactor_, specification_, 1);
  EXPECT_TRUE(settles());
  EXPECT_EQ(disk_->snapshot().paths_up(), 1U);
  EXPECT_EQ(disk_->snapshot().paths.size(), 1U);
}

// Beside a guest's session, and beside those of another lunex: that one has another random number.
TEST_F(LunexDiskTest, ItsSessionsEndNobodyElses) {
  open({"192.0.2.1", "192.0.2.2"}, LunexDisk::Use::io, 2);
  LunexDisk other(reactor_, specification_, 1);
  EXPECT_TRUE(settles());
  EXPECT_TRUE(reactor_.run_until([&] { return other.settled(); }, 5s));
  EXPECT_EQ(target_.sessions(), 8U);
  EXPECT_EQ(disk_->connection_losses(), 0U);
  for (LunexDisk* disk : {&*disk_, &other}) {
    EXPECT_EQ(disk->live_session()->options().isid[4], 0x80) << "no guest's number";
  }
  other.close();
  EXPECT_TRUE(reactor_.run_until([&] { return other.closed(); }, 5s));
}

TEST_F(LunexDiskTest, WaitsThroughAFirstRefusedLogin) {
  for (const int status : {0x0201, 0x0203, 0x0206, 0x0300, 0x0301, 0x0302}) {
    target_.refuse_logins(0, static_cast<std::uint16_t>(status));
    soon(30ms, [this] { target_.refuse_logins(0, 0); });
    expect_reached();
    disk_->close();
    ASSERT_TRUE(reactor_.run_until([&] { return disk_->closed(); }, 60s));
    disk_.reset();
  }
}

TEST_F(LunexDiskTest, WaitsThroughAFirstRefusedConnection) {
  target_.close_portal(0);
  soon(100ms, [this] { target_.open_portal(0); });
  expect_reached();
}

TEST_F(LunexDiskTest, WaitsForAFirstLoginAsLongAsThatMayTake) {
  target_.set_hung(true);
  soon(13s, [this] { target_.set_hung(false); });  // login_timeout: 15 s
  expect_reached();
}

TEST_F(LunexDiskTest, WaitsForTheSlowerPathThatIsRefusedFirst) {
  target_.refuse_logins(1, 0x0301);
  soon(100ms, [this] { target_.refuse_logins(1, 0); });
  expect_reached({"192.0.2.1", "192.0.2.2"});
}

TEST_F(LunexDiskTest, FollowsRedirects) {
  target_.redirect_logins(0, "192.0.2.2:3260,1");
  target_.redirect_logins(1, "192.0.2.3:3260,1");
  for (std::size_t number = 0; number < 3; ++number) {
    reactor_.network().set_latency(target_.address(number), 100ms);
  }
  expect_reached();
  EXPECT_EQ(target_.sessions_at(2), 1U);
}

TEST_F(LunexDiskTest, FollowsARedirectForGood) {
  target_.redirect_logins(0, "192.0.2.2", 0x0102);
  expect_reached();
}

TEST_F(LunexDiskTest, WaitsForALunThatIsBecomingReady) {
  SimFault fault;
  fault.count = 0;
  fault.status = ScsiStatus::check_condition;
  fault.sense = make_sense(SenseKey::not_ready, 0x0401);
  fault.matches = [](const SimCommand& command) { return command.cdb[0] != 0x12; };
  target_.inject(fault);
  soon(7s, [this] { target_.clear_faults(); });
  expect_reached();
}

TEST_F(LunexDiskTest, WaitsForALunThatHasToBeActivated) {
  target_.lun(1).options.tpgs = 3;
  target_.lun(1).options.port_groups = {
      {.tag = 1, .state = AccessState::standby, .ports = {1, 2, 3}}};
  expect_reached();
}

TEST_F(LunexDiskTest, WaitsForASlowArrayAsAGuestsDiskDoes) {
  for (const Duration delay : {400ms, 4900ms}) {  // checker_timeout: 5 s
    target_.options().command_delay = delay;
    expect_reached();
    target_.options().command_delay = 0ms;
    disk_->close();
    ASSERT_TRUE(reactor_.run_until([&] { return disk_->closed(); }, 60s));
    disk_.reset();
  }
}

// Each answer comes in time.
TEST_F(LunexDiskTest, ASlowArrayIsDescribed) {
  open({"192.0.2.1"});
  ASSERT_TRUE(settles());
  target_.options().command_delay = 900ms;
  const auto info = ask();
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_NE(info->identity.block_count, 0U);
}

TEST_F(LunexDiskTest, ALunIsDescribedWithoutAPageThatIsNotNeededAndNotAnswered) {
  open({"192.0.2.1"});
  ASSERT_TRUE(settles());
  leave_unanswered([](const SimCommand& command) {
    return command.cdb[0] == 0x12 && (command.cdb[1] & 1) != 0 && command.cdb[2] == 0xb1;
  });
  const auto info = ask();
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_NE(info->identity.block_count, 0U);
  target_.clear_faults();
}

TEST_F(LunexDiskTest, ALunThatDoesNotAnswerIsDescribedByWhatIsNotAnswered) {
  open({"192.0.2.1"});
  ASSERT_TRUE(settles());
  leave_unanswered([](const SimCommand& command) { return command.cdb[0] == 0x12; });
  const auto info = ask();
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().message, "INQUIRY is not answered");
  target_.clear_faults();
}

TEST_F(LunexDiskTest, AQuestionThatIsNotAnsweredCostsNoOther) {
  open({"192.0.2.1"});
  ASSERT_TRUE(settles());
  leave_unanswered([](const SimCommand& command) { return command.cdb[0] == 0x5e; });
  const auto info = ask();
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_FALSE(info->reservation);
  EXPECT_THAT(info->luns, testing::ElementsAre(encode_lun(1))) << "asked for last";
  target_.clear_faults();
}

TEST_F(LunexDiskTest, ALunWhoseConnectionIsLostMeanwhileIsNotDescribedInPart) {
  open({"192.0.2.1"});
  ASSERT_TRUE(settles());
  for (const unsigned operation : {0x12U, 0x5eU, 0xa0U}) {
    SimFault lost;
    lost.drop_connection = true;
    lost.matches = [operation](const SimCommand& command) { return command.cdb[0] == operation; };
    target_.inject(lost);
    const auto info = ask();
    ASSERT_FALSE(info) << operation;
    EXPECT_THAT(info.error().message, HasSubstr("connection was lost"));
    ASSERT_TRUE(settles());
    ASSERT_TRUE(reactor_.run_until([&] { return disk_->snapshot().paths_up() == 1; }, 20s));
  }
  EXPECT_TRUE(ask());
}

TEST_F(LunexDiskTest, AnIdentificationThatWasLostIsNotTheEnd) {
  target_.options().command_delay = 100ms;
  soon(150ms, [this] { reactor_.network().reset_connections(target_.address(0)); });
  expect_reached();
}

TEST_F(LunexDiskTest, TheFewestPathsThatWereUpAreRemembered) {
  expect_reached({"192.0.2.1", "192.0.2.2", "192.0.2.3"});
  disk_->watch_paths();
  EXPECT_EQ(disk_->fewest_paths_up(), 3U);
  const auto lose = [&](std::initializer_list<std::size_t> portals) {
    for (const std::size_t number : portals) {
      reactor_.network().reset_connections(target_.address(number));
    }
    EXPECT_TRUE(reactor_.run_until([&] { return disk_->snapshot().paths_up() < 3; }, 1s));
    EXPECT_TRUE(reactor_.run_until([&] { return disk_->snapshot().paths_up() == 3; }, 20s));
  };
  lose({0, 1});
  EXPECT_EQ(disk_->fewest_paths_up(), 1U);
  lose({2});
  EXPECT_EQ(disk_->fewest_paths_up(), 1U) << "not of the last change";
  disk_->watch_paths();
  EXPECT_EQ(disk_->fewest_paths_up(), 3U) << "anew";
}

// ---- the end, and soon

TEST_F(LunexDiskTest, ADeadPortalIsToldSoon) {
  open({"192.0.2.99"});
  EXPECT_TRUE(settles(3s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("192.0.2.99"));
}

TEST_F(LunexDiskTest, ARedirectInACircleIsToldAndNotTakenForAnIntermediateState) {
  target_.redirect_logins(0, "192.0.2.2");
  target_.redirect_logins(1, "192.0.2.1");
  open({"192.0.2.1"});
  EXPECT_TRUE(settles(5s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("redirects in a circle"));
}

TEST_F(LunexDiskTest, ATargetThatDoesNotAnswerTheLoginIsToldWithTheReason) {
  target_.set_hung(true);
  open({"192.0.2.1"});
  EXPECT_TRUE(settles(20s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("192.0.2.1"));
  target_.set_hung(false);
}

TEST_F(LunexDiskTest, AMissingLunIsToldSoon) {
  target_.remove_lun(1);
  open({"192.0.2.1"});
  EXPECT_TRUE(settles(1s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("does not exist"));
}

// `lunex info` is not to take a LUN from the hosts that use it through another controller.
TEST_F(LunexDiskTest, ALunThatIsOnlyAskedIsNotActivatedNorGivenAKey) {
  target_.lun(1).options.tpgs = 3;
  target_.lun(1).options.port_groups = {
      {.tag = 1, .state = AccessState::standby, .ports = {1, 2, 3}}};
  open({"192.0.2.1"}, LunexDisk::Use::questions);
  EXPECT_TRUE(settles(3s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("is not served here"));
  reactor_.run_for(30s);
  EXPECT_EQ(target_.lun(1).options.port_groups[0].state, AccessState::standby);
  EXPECT_THAT(target_.keys(1), IsEmpty());
}

TEST_F(LunexDiskTest, ALunThatIsOnlyAskedIsReached) {
  open({"192.0.2.1", "192.0.2.2"}, LunexDisk::Use::questions);
  EXPECT_TRUE(settles(3s));
  EXPECT_EQ(disk_->trouble(), "");
  EXPECT_TRUE(disk_->device().ready());
  EXPECT_NE(disk_->live_session(), nullptr);
  EXPECT_THAT(target_.keys(1), IsEmpty());
}

TEST_F(LunexDiskTest, ADeadPathBesideALivingOneIsNoTrouble) {
  open({"192.0.2.1", "192.0.2.99"});
  EXPECT_TRUE(settles(3s));
  EXPECT_EQ(disk_->trouble(), "");
  EXPECT_EQ(disk_->snapshot().paths_up(), 1U);
}

TEST_F(LunexDiskTest, ATargetThatHidesItselfIsToldWithTheNameItHidesFrom) {
  target_.refuse_logins(0, 0x0203);
  open({"192.0.2.1"});
  EXPECT_TRUE(settles(3s));
  EXPECT_THAT(disk_->trouble(), HasSubstr("or it does not show itself to iqn.2026-01.test:lunex"));
}

}  // namespace
}  // namespace iscsi_blkback
