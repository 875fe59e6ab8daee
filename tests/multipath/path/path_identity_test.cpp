// No guest I/O goes to a LUN that is not the disk's.
#include <gmock/gmock.h>

#include "tests/multipath/multipath_fixture.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

TEST_F(MultipathTest, APathToAnotherLunIsQuarantined) {
  start_target();
  SimTargetOptions other_options;
  other_options.portals = {{portal_address(7), 1}};
  SimTarget other(reactor_, other_options);
  SimLunOptions other_lun;
  other_lun.naa_extension = 2;
  other.add_lun(0, std::make_shared<SimLun>(other_lun));
  start_device();

  Session& session = add_session(7);
  session.start();
  device_->add_path(session, 0);
  ASSERT_TRUE(reactor_.run_until([this] { return path(2).state == PathState::quarantined; }));
  EXPECT_THAT(path(2).last_error,
              testing::StartsWith("leads to another LUN than portal 10.0.0.1:3260: its identity is "
                                  "\""));
  EXPECT_THAT(path(2).last_error,
              testing::EndsWith("the disk's is \"" + device_->snapshot().wwid + "\""));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  reactor_.run_for(seconds(60));
  EXPECT_EQ(path(2).state, PathState::quarantined);
  EXPECT_EQ(other.lun(0).counters.writes, 0U);
  close();
  stop_sessions();
}

// Tells the observer's story in order.
class FirstAnswersTest : public MultipathTest {
 protected:
  void on_ready(MultipathDevice& device) noexcept override {
    ready_at_ = reactor_.now();
    MultipathTest::on_ready(device);
  }
  void on_conflict(MultipathDevice& /*device*/, const std::string& why) noexcept override {
    EXPECT_EQ(ready_calls_, 0);
    conflicts_.push_back(why);
  }
  // A second target with a LUN of its own behind portal 7, which answers a little later.
  void start_other(const SimLunOptions& lun = {.naa_extension = 2}) {
    SimTargetOptions options;
    options.portals = {{portal_address(7), 1}};
    other_ = std::make_unique<SimTarget>(reactor_, options);
    other_->add_lun(0, std::make_shared<SimLun>(lun));
    reactor_.network().set_latency(portal_address(7), milliseconds(3));
  }
  // It answers together with the first; the sentence about that.
  std::string told_at_attach(const SimLunOptions& lun) {
    start_target({1});
    start_other(lun);
    start_with_portals({0, 7});
    EXPECT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, seconds(1)));
    return conflicts_.size() == 1 ? conflicts_[0] : "";
  }
  // It is there only when the disk is ready; what its path says then.
  std::string told_later(const SimLunOptions& lun) {
    start_target({1});
    start_other(lun);
    reactor_.network().set_refusing(portal_address(7), true);
    start_with_portals({0, 7});
    EXPECT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, seconds(1)));
    reactor_.network().set_refusing(portal_address(7), false);
    EXPECT_TRUE(reactor_.run_until([this] { return path(1).state == PathState::quarantined; },
                                   seconds(10)));
    EXPECT_TRUE(conflicts_.empty());
    return path(1).last_error;
  }
  void end() {
    close();
    stop_sessions();
  }
  void start_with_portals(std::initializer_list<std::size_t> portals) {
    device_ = std::make_unique<MultipathDevice>(reactor_, fencing_, options_, *this);
    for (const std::size_t portal : portals) {
      Session& session = add_session(portal);
      session.start();
      device_->add_path(session, 0);
    }
  }

  std::unique_ptr<SimTarget> other_;
  TimePoint ready_at_{};
  std::vector<std::string> conflicts_;
};

TEST_F(FirstAnswersTest, DifferentLunsThatAnswerTogetherAreToldBeforeTheDiskIsReady) {
  EXPECT_THAT(told_at_attach({.naa_extension = 2}),
              testing::StartsWith("portal 10.0.0.8:3260 leads to another LUN than portal "
                                  "10.0.0.1:3260: its identity is \""));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  end();
}

// wwid says which one is meant, whichever answers first.
TEST_F(FirstAnswersTest, OnlyTheLunWithTheWantedIdentityIsUsed) {
  options_.wwid = "360014050000000000000000000000002";
  EXPECT_EQ(told_at_attach({.naa_extension = 2}), "");
  EXPECT_EQ(device_->snapshot().wwid, options_.wwid);
  EXPECT_EQ(path(0).last_error,
            "leads to another LUN: its identity is \"360014050000000000000000000000001\", the "
            "disk's wwid is \"360014050000000000000000000000002\"");
  EXPECT_EQ(path(0).state, PathState::quarantined);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  EXPECT_EQ(lun_->counters.writes, 0U);
  EXPECT_EQ(other_->lun(0).counters.writes, 1U);
  end();
}

// As tgtd answers for a LUN with this scsi_id, whose letters and digits it has read as a number.
SimLunOptions tgt_lun(const std::string& scsi_id, const std::string& serial, int naa_end = 0,
                      int number = 1) {
  Bytes t10 = text(scsi_id);
  t10.resize(36);
  Bytes naa6(16);
  naa6[0] = std::byte{0x60};
  naa6[15] = static_cast<std::byte>(naa_end);
  SimLunOptions lun;
  lun.vendor = "IET";
  lun.product = "VIRTUAL-DISK";
  lun.serial = std::string(36 - serial.size(), ' ') + serial;
  lun.pages[0x83] =
      page(0x83, joined({designator(kAscii, kT10, t10),
                         designator(kBinary, kNaa, octets({0x30, 0, 0, 1, 0, 0, 0, number})),
                         designator(kBinary, kNaa, naa6)}));
  return lun;
}
// Of IET: a name that is called binary, of which "IET" is the beginning.
SimLunOptions iet_lun(int id) {
  Bytes t10 = text(std::string_view("IET\0\0\0\0\0", 8));
  t10.resize(24);
  t10[20] = static_cast<std::byte>(id);
  SimLunOptions lun;
  lun.vendor = "IET";
  lun.product = "VIRTUAL-DISK";
  lun.serial.clear();
  lun.pages[0x83] = page(0x83, designator(kBinary, kT10, t10));
  return lun;
}

class LunNamesTest : public FirstAnswersTest {
 protected:
  // What the disk says when its two paths lead to these; empty: it is one LUN.
  std::string told_of(const SimLunOptions& one, const SimLunOptions& other, std::size_t paths = 2) {
    restart();
    lun_options_ = one;
    const std::string told = told_at_attach(other);
    if (told.empty()) {
      EXPECT_TRUE(wait_for_up(paths, seconds(1))) << path(1).last_error;
    }
    return told;
  }
  void restart() {
    if (!device_) {
      return;
    }
    end();
    sessions_.clear();
    sessions_stopped_ = false;
    other_.reset();
    target_.reset();
    target_options_.portals.clear();
    conflicts_.clear();
    requests_.clear();
    ready_calls_ = 0;
  }
};

TEST_F(LunNamesTest, LunsThatDifferInAnyNameAreTwo) {
  const auto with_serial = [](const std::string& serial) {
    SimLunOptions lun;
    lun.serial = serial;
    return lun;
  };
  const struct {
    const char* what;
    SimLunOptions one;
    SimLunOptions other;
    const char* told;
  } kCases[] = {
      {"IET", iet_lun(1), iet_lun(2), "its identity is \"149455400000000000000000000000000"},
      {"IET, not printable", iet_lun(0x1b), iet_lun(0x80), "its identity is"},
      {"tgt, an NAA of zeros", tgt_lun("mysql-g", "beaf11"), tgt_lun("mysql-h", "beaf11"),
       "its T10 vendor identification is \"1mysql-h\", the disk's is \"1mysql-g\""},
      {"tgt, an equal NAA", tgt_lun("beef-g", "beaf11", 0xbe), tgt_lun("beef-h", "beaf11", 0xbe),
       "its T10 vendor identification is"},
      {"tgt, serial numbers", tgt_lun("mysql", "beaf11", 1), tgt_lun("mysql", "beaf12", 1),
       "its unit serial number is \"beaf12\", the disk's is \"beaf11\""},
      {"serial numbers beside an NAA with a company", with_serial("S1"), with_serial("S2"),
       "its unit serial number is"},
  };
  for (const auto& test : kCases) {
    EXPECT_THAT(told_of(test.one, test.other), testing::HasSubstr(test.told)) << test.what;
    EXPECT_EQ(path(1).state, PathState::quarantined) << test.what;
    EXPECT_NE(told_of(test.other, test.one), "") << test.what;
  }
  restart();
}

TEST_F(LunNamesTest, PathsThatShowTheSameNamesLeadToOneLun) {
  const auto without_serial = [](SimLunOptions lun) {
    lun.serial.clear();
    return lun;
  };
  const auto without_83 = [](SimLunOptions lun) {
    lun.pages[0x83] = {};
    return lun;
  };
  const struct {
    const char* what;
    SimLunOptions one;
    SimLunOptions other;
  } kCases[] = {
      {"IET", iet_lun(1), iet_lun(1)},
      {"tgt", tgt_lun("mysql-g", "beaf11"), tgt_lun("mysql-g", "beaf11")},
      {"tgt, of two targets", tgt_lun("beef-g", "S1", 0xbe, 1), tgt_lun("beef-g", "S1", 0xbe, 2)},
      {"one tells no serial number", tgt_lun("mysql-g", "beaf11"),
       without_serial(tgt_lun("mysql-g", "beaf11"))},
      {"only serial numbers", without_83(SimLunOptions()), without_83(SimLunOptions())},
      {"as it is", SimLunOptions(), SimLunOptions()},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(told_of(test.one, test.other), "") << test.what;
    EXPECT_EQ(told_of(test.other, test.one), "") << test.what;
  }
  restart();
}

TEST_F(LunNamesTest, AnotherLunThatComesLaterIsQuarantinedByAnyOfItsNames) {
  lun_options_ = tgt_lun("mysql-g", "beaf11");
  EXPECT_EQ(told_later(tgt_lun("mysql-h", "beaf11")),
            "leads to another LUN than portal 10.0.0.1:3260: its T10 vendor identification is "
            "\"1mysql-h\", the disk's is \"1mysql-g\"");
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  }
  EXPECT_EQ(other_->lun(0).counters.writes, 0U);
  end();
}

// Each controller of such an array has a serial number of its own, and so the paths are grouped by
// it.
TEST_F(LunNamesTest, SerialNumbersThatPathsAreGroupedByAreNoNamesOfTheLun) {
  options_.path_grouping_policy = PathGroupingPolicy::group_by_serial;
  SimLunOptions one;
  SimLunOptions other;
  other.serial = "CONTROLLER-B";
  EXPECT_EQ(told_of(one, other), "");
  other.naa_extension = 2;
  EXPECT_NE(told_of(one, other), "");
  restart();
}

TEST_F(LunNamesTest, TheLunThatIsMeantMayBeCalledAsScsiIdCallsIt) {
  const auto ata = [](const std::string& serial) {
    SimLunOptions lun;
    lun.vendor = "ATA";
    lun.product = "QEMU HARDDISK";
    lun.serial = serial;
    lun.naa_extension = 0;
    return lun;
  };
  const struct {
    SimLunOptions other;
    SimLunOptions wanted;
    const char* wwid;
  } kCases[] = {
      {tgt_lun("IET     00010001", "A", 1), tgt_lun("IET     00010002", "B", 2), "1IET_00010002"},
      {tgt_lun("IET     00010001", "A", 1), tgt_lun("IET     00010002", "B", 2),
       "1IET     00010002"},
      {tgt_lun("IET     00010001", "A", 1), tgt_lun("IET     00010002", "B", 2),
       "360000000000000000000000000000002"},
      {tgt_lun("IET     00010001", "A", 1), tgt_lun("IET     00010002", "B", 2),
       "SIET_VIRTUAL-DISK_B"},
      {iet_lun(1), iet_lun(2), "1494554000000000000000000000000000000000002000000"},
      {ata("QM00001"), ata("QM00002"), "SATA_QEMU_HARDDISK_QM00002"},
      {ata("QM00001"), ata("QM00002"), "SQM00002"},
  };
  for (const auto& test : kCases) {
    options_.wwid = test.wwid;
    EXPECT_EQ(told_of(test.other, test.wanted, 1), "");
    EXPECT_EQ(path(0).state, PathState::quarantined) << test.wwid;
    EXPECT_EQ(path(1).state, PathState::up) << test.wwid;
  }
  restart();
}

TEST_F(LunNamesTest, TheDiskOfAFormerLifeIsKnownByAllItsNames) {
  lun_options_ = tgt_lun("mysql-g", "beaf11");
  start_target({1});
  start_with_portals({0});
  ASSERT_TRUE(wait_for_up(1));
  options_.same_lun = device_->names();
  restart();
  EXPECT_EQ(told_of(tgt_lun("mysql-g", "beaf11"), tgt_lun("mysql-g", "beaf11")), "");
  restart();
  lun_options_ = tgt_lun("mysql-h", "beaf11");
  start_target({1});
  start_with_portals({0});
  reactor_.run_for(seconds(5));
  EXPECT_EQ(path(0).state, PathState::quarantined);
  EXPECT_EQ(path(0).last_error,
            "leads to another LUN: its T10 vendor identification is \"1mysql-h\", the disk's is "
            "\"1mysql-g\"");
  EXPECT_FALSE(device_->ready());
  restart();
}

TEST_F(FirstAnswersTest, ALunThatIsNotTheWantedOneIsNoDisk) {
  options_.wwid = "360014050000000000000000000000002";
  options_.capacity_polling_interval = milliseconds(0);
  start_target({1});
  start_with_portals({0});
  reactor_.run_for(seconds(60));
  EXPECT_FALSE(device_->ready());
  EXPECT_EQ(ready_calls_, 0);
  EXPECT_EQ(path(0).state, PathState::quarantined);
  lun_->options.naa_extension = 2;  // the array shows the right one now
  EXPECT_TRUE(wait_for_up(1, seconds(31)));
  reactor_.run_for(milliseconds(1));
  EXPECT_EQ(ready_calls_, 1);
}

// A standby path is no measure for the disk, but it tells who the LUN is.
TEST_F(FirstAnswersTest, AGhostOfAnotherLunIsQuarantined) {
  options_.wwid = "360014050000000000000000000000002";
  lun_options_.tpgs = 2;
  lun_options_.port_groups = {{.tag = 1, .state = AccessState::standby, .ports = {1}}};
  start_target({1});
  start_with_portals({0});
  reactor_.run_for(seconds(60));
  EXPECT_EQ(path(0).state, PathState::quarantined);
  EXPECT_EQ(lun_->counters.set_port_groups, 0U);
}

TEST_F(FirstAnswersTest, DifferentBlockSizesAreToldBeforeTheDiskIsReady) {
  EXPECT_EQ(told_at_attach({.block_count = 256, .block_bytes = 4096}),
            "by portal 10.0.0.8:3260 the LUN has logical blocks of 4096 bytes, by portal "
            "10.0.0.1:3260 of 512");
  EXPECT_EQ(path(1).state, PathState::quarantined);
  end();
}

TEST_F(FirstAnswersTest, ASmallerCapacityIsToldBeforeTheDiskIsReady) {
  EXPECT_EQ(told_at_attach({.block_count = 1024}),
            "by portal 10.0.0.8:3260 the LUN has 1024 blocks, by portal 10.0.0.1:3260 it has 2048");
  EXPECT_EQ(path(1).state, PathState::quarantined);
  end();
}

TEST_F(FirstAnswersTest, SoIsALargerOne) {
  EXPECT_EQ(told_at_attach({.block_count = 4096}),
            "by portal 10.0.0.8:3260 the LUN has 4096 blocks, by portal 10.0.0.1:3260 it has 2048");
  end();
}

TEST_F(FirstAnswersTest, OtherBlocksThatAreSeenLaterAreQuarantined) {
  EXPECT_EQ(told_later({.block_count = 256, .block_bytes = 4096}),
            "its logical blocks are 4096 bytes, the disk's (by portal 10.0.0.1:3260) are 512");
  end();
}

TEST_F(FirstAnswersTest, ASmallerLunThatIsSeenLaterIsQuarantined) {
  EXPECT_THAT(told_later({.block_count = 1024}),
              testing::EndsWith("its capacity is 1024 blocks, the disk's (by portal "
                                "10.0.0.1:3260) is 2048"));
  end();
}

TEST_F(FirstAnswersTest, AQuarantinedPathIsLookedAtEvenWhereTheCapacityIsNotPolled) {
  options_.capacity_polling_interval = milliseconds(0);
  told_later({.block_count = 1024});
  other_->lun(0).options.block_count = 2048;
  EXPECT_TRUE(wait_for_up(2, seconds(31)));
  end();
}

TEST_F(FirstAnswersTest, ADeadPortalDoesNotKeepTheDiskWaiting) {
  start_target({1});
  drop_silently(7);
  start_with_portals({0, 7});
  ASSERT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, milliseconds(50)));
  EXPECT_TRUE(conflicts_.empty());
}

TEST_F(FirstAnswersTest, APortalThatHangsInItsLoginIsWaitedForAMoment) {
  start_target({1});
  start_other();
  start_with_portals({0, 7});
  ASSERT_TRUE(reactor_.run_until([this] { return sessions_[1]->state() == SessionState::in_login; },
                                 seconds(1)));
  drop_silently(7);
  ASSERT_TRUE(reactor_.run_until([this] { return up() == 1; }, seconds(1)));
  const TimePoint up_at = reactor_.now();
  ASSERT_TRUE(reactor_.run_until([this] { return ready_calls_ == 1; }, seconds(1)));
  EXPECT_EQ(ready_at_ - up_at, milliseconds(100));
  end();
}

TEST_F(MultipathTest, APathToASmallerLunIsQuarantined) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->options.block_count = 1024;
  restore(1);
  ASSERT_TRUE(
      reactor_.run_until([this] { return path(1).state == PathState::quarantined; }, seconds(20)));
  EXPECT_THAT(path(1).last_error,
              testing::EndsWith("its capacity is 1024 blocks, the disk's (by portal "
                                "10.0.0.1:3260) is 2048"));
  lun_->options.block_count = 2048;
}

TEST_F(MultipathTest, APathToTheSameLunThatHasGrownIsUsed) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->resize(4096);
  restore(1);
  EXPECT_TRUE(wait_for_up(2));
  EXPECT_EQ(device_->geometry().sector_count, 2048U);
}

TEST_F(MultipathTest, APathToALunWithOtherBlocksIsQuarantined) {
  start();
  cut(1);
  ASSERT_TRUE(wait_for_up(1));
  lun_->options.block_bytes = 4096;
  restore(1);
  EXPECT_TRUE(
      reactor_.run_until([this] { return path(1).state == PathState::quarantined; }, seconds(20)));
  EXPECT_EQ(path(1).last_error,
            "its logical blocks are 4096 bytes, the disk's (by portal 10.0.0.1:3260) are 512");
  lun_->options.block_bytes = 512;
}

TEST_F(MultipathTest, ALunThatBecomesAnotherOneUnderALiveSessionIsQuarantined) {
  start();
  lun_->options.naa_extension = 99;
  target_->add_unit_attention(0x3f0e);
  const GuestRequest& request = write(0, 8, 1);
  ASSERT_TRUE(reactor_.run_until(
      [this] {
        return path(0).state == PathState::quarantined && path(1).state == PathState::quarantined;
      },
      seconds(20)));
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.writes, 0U) << "no guest data on a foreign LUN";

  lun_->options.naa_extension = 1;
  target_->add_unit_attention(0x3f03);
  EXPECT_EQ(answer(request, seconds(20)), IoStatus::ok);
}

// And nobody says so: the check finds out when the path works again.
TEST_F(MultipathTest, ALunThatIsSwappedWhileItsPathIsDownIsNotUsed) {
  start({1});
  SimFault broken = sense_fault(SenseKey::not_ready, 0x0403, 0);
  broken.matches = {};
  target_->inject(broken);
  ASSERT_TRUE(reactor_.run_until([this] { return path(0).state == PathState::down; }, seconds(11)));
  lun_->options.naa_extension = 99;
  const GuestRequest& request = write(0, 8, 1);
  target_->clear_faults();
  EXPECT_TRUE(
      reactor_.run_until([this] { return path(0).state == PathState::quarantined; }, seconds(21)));
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.writes, 0U);
}

// The target says once that a LUN may be another one by now, to whichever command comes first.
class SwappedLunTest : public MultipathTest {
 protected:
  SwappedLunTest() {
    // Only the commands that a test wants are sent.
    options_.path_checker = PathCheckerKind::none;
    options_.capacity_polling_interval = milliseconds(0);
    options_.polling_interval = seconds(5);
  }
  void use_alua() {
    lun_options_.tpgs = 1;
    lun_options_.port_groups = {
        {.tag = 1, .state = AccessState::active_optimized, .ports = {1}},
        {.tag = 2, .state = AccessState::active_non_optimized, .ports = {2}}};
  }
  void swap(std::uint16_t code) {
    lun_->options.naa_extension = 99;
    target_->add_unit_attention(code);
  }
  [[nodiscard]] bool all_quarantined(Duration at_most) {
    return reactor_.run_until(
        [this] {
          return path(0).state == PathState::quarantined && path(1).state == PathState::quarantined;
        },
        at_most);
  }
};

class SwappedIdleLunTest : public SwappedLunTest,
                           public testing::WithParamInterface<std::uint16_t> {};

TEST_P(SwappedIdleLunTest, TheAttentionThatThePollOfTheAccessStateMeetsQuarantinesThePath) {
  use_alua();
  start({1, 2});
  swap(GetParam());
  EXPECT_TRUE(all_quarantined(seconds(6)));
  GuestRequest& request = write(0, 8, 1);
  reactor_.run_for(seconds(60));
  EXPECT_TRUE(pending(request));
  EXPECT_EQ(lun_->counters.writes, 0U);
}

TEST_P(SwappedIdleLunTest, SoDoesTheOneThatAnotherCommandOfOursMeets) {
  options_.polling_interval = seconds(3600);
  options_.capacity_polling_interval = seconds(10);
  start({1, 2});
  swap(GetParam());
  EXPECT_TRUE(all_quarantined(seconds(11)));
}

INSTANTIATE_TEST_SUITE_P(, SwappedIdleLunTest,
                         testing::Values(std::uint16_t{0x2800}, std::uint16_t{0x2903},
                                         std::uint16_t{0x3f03}, std::uint16_t{0x3f0e}));

// At whichever question behind that for the identity.
TEST_F(SwappedLunTest, AnAttentionInTheMiddleOfAnIdentificationStartsItAnew) {
  use_alua();
  start({1, 2});
  for (const std::uint8_t question :
       {scsi_operation::kServiceActionIn16, scsi_operation::kModeSense6,
        scsi_operation::kMaintenanceIn}) {
    lun_->options.naa_extension = 1;
    target_->add_unit_attention(0x3f0e);
    ASSERT_TRUE(wait_for_up(2, seconds(31)));
    cut(1);
    ASSERT_TRUE(wait_for_up(1));
    SimFault fault;
    fault.matches = [this, question](const SimCommand& command) {
      if (command.portal != 1 || command.cdb[0] != question) {
        return false;
      }
      lun_->options.naa_extension = 99;
      return true;
    };
    fault.status = ScsiStatus::check_condition;
    fault.sense = make_sense(SenseKey::unit_attention, 0x3f0e);
    target_->inject(fault);
    restore(1);
    ASSERT_TRUE(reactor_.run_until(
        [this] { return path(1).state != PathState::down && path(1).state != PathState::pending; },
        seconds(20)));
    EXPECT_EQ(path(1).state, PathState::quarantined) << static_cast<int>(question);
  }
}

// The attention comes to a command of the guest while the LUN is being asked who it is.
TEST_F(SwappedLunTest, SoDoesOneThatIsToldToAnotherCommand) {
  start({1, 1});
  SimFault slow;
  slow.matches = io_at(1);
  slow.extra_delay = milliseconds(100);
  slow.status = ScsiStatus::check_condition;
  slow.sense = make_sense(SenseKey::unit_attention, 0x3f0e);
  target_->inject(slow);
  GuestRequest& request = at_path(1, [this]() -> GuestRequest& { return read(0, 8); });
  SimFault late;  // a question behind that for the identity, still under way then
  late.matches = [](const SimCommand& command) {
    return command.portal == 1 && command.cdb[0] == scsi_operation::kServiceActionIn16;
  };
  late.extra_delay = milliseconds(200);
  target_->inject(late);
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x2a09);
  reactor_.run_for(milliseconds(90));
  ASSERT_EQ(path(1).state, PathState::pending);
  lun_->options.naa_extension = 99;
  ASSERT_TRUE(
      reactor_.run_until([this] { return path(1).state != PathState::pending; }, seconds(1)));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  lun_->options.naa_extension = 1;
  wait(request);
}

TEST_F(SwappedLunTest, AChangeOfAccessThatThePollOfTheCapacityMeetsIsFollowed) {
  options_.polling_interval = seconds(3600);
  options_.capacity_polling_interval = seconds(10);
  use_alua();
  start({1, 2});
  EXPECT_EQ(path(0).priority, 50);
  lun_->options.port_groups[0].state = AccessState::active_non_optimized;
  target_->add_unit_attention(0x2a06);
  EXPECT_TRUE(reactor_.run_until([this] { return path(0).priority == 10; }, seconds(11)));
}

// An array that has a target name for each controller.
class SeveralTargets : public MultipathTest {
 protected:
  ~SeveralTargets() override {
    close();
    stop_sessions();
  }
  // The same LUN, or another one, by another target's only portal.
  void add_path_by_another_target(std::shared_ptr<SimLun> lun) {
    SimTargetOptions options = target_options_;
    options.name = "iqn.2026-01.test:controller-b";
    options.portals = {{portal_address(7), 1}};
    other_ = std::make_unique<SimTarget>(reactor_, options);
    other_->add_lun(0, std::move(lun));
    add_path_to_target(options.name, portal_address(7));
  }
  std::unique_ptr<SimTarget> other_;
};

TEST_F(SeveralTargets, ServeOneDisk) {
  start({1});
  add_path_by_another_target(lun_);
  ASSERT_TRUE(wait_for_up(2));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  cut(0);
  EXPECT_EQ(answer(write(0, 8, 2), seconds(2)), IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
  restore(0);
  EXPECT_TRUE(wait_for_up(2));
}

TEST_F(SeveralTargets, WithAnotherLunBehindOneOfThemAreQuarantined) {
  start({1});
  add_path_by_another_target(std::make_shared<SimLun>(SimLunOptions{.naa_extension = 2}));
  reactor_.run_for(seconds(1));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  EXPECT_THAT(path(1).last_error, testing::HasSubstr("leads to another LUN"));
}

// Two servers that were set up alike have LUNs of equal local names.
TEST_F(SeveralTargets, ThatNameTheirLunsLocallyAreNotTakenForOne) {
  lun_options_.naa_has_company = false;
  start({1});
  add_path_by_another_target(lun_);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  EXPECT_THAT(path(1).last_error, testing::HasSubstr("unlike all others in the world"));
}

TEST_F(SeveralTargets, AreNotKnownToLeadToALunThatSaysNothingOfItself) {
  lun_options_.naa_extension = 0;
  lun_options_.serial.clear();
  start({1});
  add_path_by_another_target(lun_);
  reactor_.run_for(seconds(1));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  EXPECT_THAT(path(1).last_error, testing::HasSubstr("the LUN reports no identity"));
}

TEST_F(MultipathTest, ALunWithoutIdentityIsRecognizedByItsPlace) {
  lun_options_.naa_extension = 0;
  lun_options_.serial.clear();
  start();
  EXPECT_EQ(device_->snapshot().wwid, "");
  EXPECT_EQ(up(), 2U);

  target_->add_lun(3, std::make_shared<SimLun>(lun_options_));
  ASSERT_TRUE(device_->add_path(*sessions_[0], 3));
  reactor_.run_for(seconds(1));
  EXPECT_EQ(path(2).state, PathState::quarantined) << "another LUN of the target";
}

}  // namespace
}  // namespace iscsi_blkback
