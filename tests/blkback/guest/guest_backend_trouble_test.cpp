// What stands in hotplug-error while a disk is being attached: an intermediate state is not the
// end, and with the hotplug script a sentence there is a failed `xl create`.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

constexpr const char* kOnePath = "aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1";

class GuestBackendTrouble : public GuestBackendTest {
 protected:
  void attach(const std::string& params) {
    disk_ = disk(params);
    toolstack_.add(disk_);
    start();
    guest_ = &boot(disk_);
  }
  // The disk is there in the end, and until then nothing was said against it.
  void expect_not_a_word(const std::string& params = kOnePath, Duration at_most = 20s) {
    attach(params);
    std::string said;
    EXPECT_TRUE(run_until(
        [&] {
          said = said.empty() ? error_of(disk_) : said;
          return guest_->connected();
        },
        at_most))
        << error_of(disk_);
    EXPECT_EQ(said, "");
    do_io(*guest_);
  }
  void expect_said(const std::string& sentence, Duration after, Duration before,
                   const std::string& params = kOnePath) {
    attach(params);
    EXPECT_FALSE(run_until([&] { return error_of(disk_) != ""; }, after)) << error_of(disk_);
    EXPECT_TRUE(run_until([&] { return error_of(disk_) != ""; }, before - after));
    EXPECT_THAT(error_of(disk_), HasSubstr(sentence));
  }
  void soon(Duration delay, std::function<void()> task) {
    reactor_.schedule(delay, std::move(task));
  }
  void refuse_for(std::uint16_t status, Duration time) {
    target_.refuse_logins(0, status);
    soon(time, [this] { target_.refuse_logins(0, 0); });
  }
  void is_not_ready_for(std::uint16_t code, Duration time) {
    SimFault fault;
    fault.count = 0;
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(SenseKey::not_ready, code);
    fault.matches = [](const SimCommand& command) {
      return command.cdb[0] != 0x12 && command.cdb[0] != 0xa0;
    };
    target_.inject(fault);
    soon(time, [this] { target_.clear_faults(); });
  }
  void all_ports_are(AccessState state) {
    target_.lun(1).options.tpgs = 3;
    target_.lun(1).options.port_groups = {{.tag = 1, .state = state, .ports = {1, 2}}};
  }

  FakeDisk disk_;
  FakeFrontend* guest_ = nullptr;
};

TEST_F(GuestBackendTrouble, AnArrayThatAnswersSlowlyIsNone) {
  target_.options().command_delay = 400ms;
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ASlowPathBesideADeadOneIsNone) {
  target_.options().command_delay = 400ms;
  expect_not_a_word("aio:iscsi://192.0.2.99,192.0.2.1/iqn.2026-01.test:target/1");
}

TEST_F(GuestBackendTrouble, AFirstRefusalIsNone) {
  refuse_for(0x0301, 600ms);
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AFirstRefusalForWantOfResourcesIsNone) {
  refuse_for(0x0302, 600ms);
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AFirstRefusalOfTheInitiatorIsNone) {
  refuse_for(0x0201, 200ms);  // CHAP: the next try offers another algorithm
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AFirstRefusalOfTheConnectionIsNone) {
  target_.close_portal(0);
  soon(600ms, [this] { target_.open_portal(0); });
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AFirstConnectionThatIsLostIsNone) {
  soon(3ms, [this] { reactor_.network().reset_connections(target_.address(0)); });
  soon(60ms, [this] { reactor_.network().reset_connections(target_.address(0)); });
  target_.options().command_delay = 50ms;
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ATargetThatIsSilentAtFirstIsNone) {
  reactor_.network().set_dropping(target_.address(0), true);
  soon(2s, [this] { reactor_.network().set_dropping(target_.address(0), false); });
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ARedirectIsNone) {
  reactor_.network().set_latency(target_.address(0), 150ms);
  reactor_.network().set_latency(target_.address(1), 150ms);
  target_.redirect_logins(0, "192.0.2.2:3260,1");
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ALunThatIsBecomingReadyIsNone) {
  is_not_ready_for(0x0401, 2s);
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ALunThatTakesLongToBecomeReadyIsNone) {
  is_not_ready_for(0x0401, 8s);
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, ALunThatHasToBeActivatedIsNone) {
  all_ports_are(AccessState::standby);
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AnAccessStateThatChangesIsNone) {
  all_ports_are(AccessState::transitioning);
  soon(5s, [this] { all_ports_are(AccessState::active_optimized); });
  expect_not_a_word();
}

TEST_F(GuestBackendTrouble, AFirstLookUpThatFailsIsNone) {
  soon(600ms, [this] { resolver_.names["storage"] = "192.0.2.1"; });
  expect_not_a_word("aio:iscsi://storage/iqn.2026-01.test:target/1");
}

TEST_F(GuestBackendTrouble, AUnitAttentionIsNone) {
  soon(5ms, [this] { target_.add_unit_attention(0x2900); });
  target_.options().command_delay = 100ms;
  expect_not_a_word();
}

// ---- what is said, and when

TEST_F(GuestBackendTrouble, APortalThatRefusesIsTold) {
  target_.close_portal(0);
  expect_said("192.0.2.1", 200ms, 3s);
}

TEST_F(GuestBackendTrouble, ATargetThatRefusesIsTold) {
  target_.refuse_logins(0, 0x0203);
  expect_said("there is no target of this name", 500ms, 3s);
}

TEST_F(GuestBackendTrouble, ASilentPortalIsToldBeforeXlGivesUp) {
  reactor_.network().set_dropping(target_.address(0), true);
  expect_said("192.0.2.1", 2s, 12s);
}

// One try takes login_timeout.
TEST_F(GuestBackendTrouble, ATargetThatDoesNotAnswerTheLoginIsToldAtItsFirstTry) {
  target_.set_hung(true);
  expect_said("192.0.2.1", 14s, 17s);
  target_.set_hung(false);
}

TEST_F(GuestBackendTrouble, AMissingLunIsToldAtOnce) {
  expect_said("does not exist", 0s, 2s, "aio:iscsi://192.0.2.1/iqn.2026-01.test:target/7");
}

TEST_F(GuestBackendTrouble, ALunThatDoesNotAnswerIsTold) {
  SimFault fault;
  fault.count = 0;
  fault.answer = false;
  target_.inject(fault);
  expect_said("is not answered", 2s, 12s);
}

TEST_F(GuestBackendTrouble, ALunThatIsNeverReadyIsTold) {
  is_not_ready_for(0x0403, 1h);  // manual intervention required
  expect_said("not ready", 5s, 20s);
}

TEST_F(GuestBackendTrouble, ALunThatNobodyCanActivateIsTold) {
  all_ports_are(AccessState::standby);
  target_.lun(1).options.tpgs = 1;  // implicit only
  expect_said("is not served here", 0s, 3s);
}

// xl waits for 40 s, the hotplug script for 35.
TEST_F(GuestBackendTrouble, WhatTakesTooLongIsToldBeforeXlGivesUp) {
  all_ports_are(AccessState::transitioning);
  expect_said("is changing its access state", 20s, 34s);
}

TEST_F(GuestBackendTrouble, AHostThatIsNotKnownIsTold) {
  expect_said("nowhere is unknown", 500ms, 4s, "aio:iscsi://nowhere/iqn.2026-01.test:target/1");
}

TEST_F(GuestBackendTrouble, WhatWasSaidGoesWhenTheDiskIsThere) {
  target_.close_portal(0);
  expect_said("192.0.2.1", 200ms, 3s);
  target_.open_portal(0);
  ASSERT_TRUE(connect(*guest_));
  EXPECT_TRUE(run_until([&] { return error_of(disk_) == ""; }, 1s));
}

}  // namespace
}  // namespace iscsi_blkback
