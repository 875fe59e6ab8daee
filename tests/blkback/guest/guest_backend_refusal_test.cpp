// Bad disk lines: one sentence in hotplug-error, and the guest's other disk works.
#include <algorithm>

#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// --- Two disks at one LUN

TEST_F(GuestBackendTest, ADiskWhoseLunIsInUseIsServedWhenThatHasEnded) {
  const FakeDisk first = disk();
  FakeFrontend& guest = serve(first);
  const FakeDisk second = disk(kParams, 51728);
  toolstack_.add(second);
  FakeFrontend& other = boot(second);
  ASSERT_TRUE(run_until([&] { return error_of(second) != ""; }, 3s));
  EXPECT_THAT(error_of(second), HasSubstr("the LUN is in use by xvda of guest 5"));
  run_for(5s);
  EXPECT_FALSE(other.connected());
  do_io(guest);
  toolstack_.request_detach(first);
  ASSERT_TRUE(reaches_state(first, 6));
  toolstack_.remove(first);
  ASSERT_TRUE(connect(other));
  EXPECT_EQ(error_of(second), "");
  do_io(other);
}

TEST_F(GuestBackendTest, DisksThatSayThatTheyAreSharedUseOneLunTogether) {
  const std::string params = std::string(kParams) + "?shared=yes";
  FakeFrontend& guest = serve(disk(params));
  const FakeDisk second = disk(params, 51728);
  toolstack_.add(second);
  FakeFrontend& other = boot(second);
  ASSERT_TRUE(connect(other));
  do_io(guest);
  do_io(other);
}

// --- Bad input: one sentence in hotplug-error, and the guest's other disk works

class GuestBackendBadInput : public GuestBackendTest {
 protected:
  void expect_error(const std::string& params, const std::string& sentence, Duration after = 3s) {
    const FakeDisk bad = disk(params);
    const FakeDisk good = second_disk();
    toolstack_.add(bad);
    toolstack_.add(good);
    start();
    FakeFrontend& broken = boot(bad);
    FakeFrontend& guest = boot(good);
    ASSERT_TRUE(connect(guest));
    do_io(guest);
    run_for(after);
    EXPECT_THAT(error_of(bad), HasSubstr(sentence));
    EXPECT_EQ(toolstack_.backend_value(bad, "hotplug-status"), "");
    EXPECT_FALSE(broken.connected());
    // It does not spin either: half a minute of simulated time costs few look-ups and logins.
    const int lookups = resolver_.lookups;
    run_for(30s);
    EXPECT_LT(resolver_.lookups - lookups, 10);
  }
};

TEST_F(GuestBackendBadInput, UnknownHost) {
  expect_error("aio:iscsi://nowhere/iqn.2026-01.test:target/1", "nowhere is unknown");
}

TEST_F(GuestBackendBadInput, DeadPortal) {
  expect_error("aio:iscsi://192.0.2.99/iqn.2026-01.test:target/1", "192.0.2.99");
}

TEST_F(GuestBackendBadInput, WrongTargetName) {
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:other/1", "192.0.2.1");
}

TEST_F(GuestBackendBadInput, LargerSectorsThanTheLunHasBlocks) {
  expect_error(std::string(kParams) + "?sector_size=4096",
               "the LUN has logical blocks of 512 bytes, and no disk of it has larger sectors: "
               "sector_size is 4096 (from the disk's target)");
}

TEST_F(GuestBackendBadInput, MissingLun) {
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/7", "192.0.2.1");
}

TEST_F(GuestBackendBadInput, SecretInTheTarget) {
  expect_error("aio:iscsi://joe%hunter2@192.0.2.1/iqn.2026-01.test:target/1", "credentials");
  std::string params;
  backend_->query([&](const GuestStatus& status) { params = status.disks.at(0).params; });
  run_for(10ms);
  EXPECT_EQ(params, "iscsi:(not shown)");
}

TEST_F(GuestBackendBadInput, MalformedTarget) {
  expect_error("aio:iscsi://192.0.2.1", "target name");
}

// Nobody else would say why the guest waits for its disk.
TEST_F(GuestBackendBadInput, DiskLineWithAFormat) {
  expect_error("qcow2:iscsi://192.0.2.1/iqn.2026-01.test:target/1", "format=qcow2");
}

TEST_F(GuestBackendBadInput, BlankBeforeTheTarget) {
  expect_error("aio: iscsi://192.0.2.1/iqn.2026-01.test:target/1", "blank stands before iscsi:");
}

TEST_F(GuestBackendBadInput, QuotationMarkBeforeTheTarget) {
  expect_error("aio:'iscsi://192.0.2.1/iqn.2026-01.test:target/1'", "quotation mark");
}

TEST_F(GuestBackendBadInput, AccessBehindTheTarget) {
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1,access=ro", "access=");
}

// ---- the device model of an HVM guest

struct HvmDisk {
  const char* name;
  std::uint32_t device_id;
  bool refused;
  const char* type = "hvm";
  const char* kind = "qdisk";
  const char* device_type = "disk";
};

void PrintTo(const HvmDisk& disk, std::ostream* out) {
  *out << disk.name;
}

std::string name_of_hvm_disk(const testing::TestParamInfo<HvmDisk>& test) {
  std::string name = fmt::format("{}_{}_{}_{}_{}", test.index, test.param.name, test.param.type,
                                 test.param.kind, test.param.device_type);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == ' ' || c == '+'; }, '_');
  return name;
}

class GuestBackendHvm : public GuestBackendBadInput, public testing::WithParamInterface<HvmDisk> {};

// libxl gives QEMU the target of an emulated drive of kind qdisk, and QEMU opens the LUN itself.
TEST_P(GuestBackendHvm, DisksThatQemuOpensTooAreRefusedByName) {
  ASSERT_TRUE(toolstack_.store().write("/libxl/5/type", GetParam().type));
  FakeDisk xvda = disk(kParams, GetParam().device_id, GetParam().kind);
  xvda.virtual_device = GetParam().name;
  xvda.device_type = GetParam().device_type;
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  if (GetParam().refused) {
    run_for(3s);
    EXPECT_FALSE(guest.connected());
    // One with a blank is called by its number.
    const std::string name = GetParam().name;
    EXPECT_THAT(error_of(xvda), AllOf(HasSubstr(name.find(' ') == std::string::npos
                                                    ? name
                                                    : fmt::to_string(GetParam().device_id)),
                                      HasSubstr("device model"), HasSubstr("backendtype=tap")));
  } else {
    ASSERT_TRUE(connect(guest)) << error_of(xvda);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Names, GuestBackendHvm,
    testing::Values(HvmDisk{"xvda", 51712, true}, HvmDisk{"xvdb", 51728, true},
                    HvmDisk{"xvdd", 51760, true}, HvmDisk{"xvde", 51776, false},
                    HvmDisk{"xvdaa", 268442112, false}, HvmDisk{"xvda1", 51713, true},
                    HvmDisk{"hda", 768, true}, HvmDisk{"hdd", 5696, true},
                    HvmDisk{"sda", 2048, true}, HvmDisk{"sdp", 2288, true},
                    HvmDisk{"d0p0", 51712, true}, HvmDisk{"d3p1", 51761, true},
                    HvmDisk{"d4p0", 51776, false}, HvmDisk{"51712", 51712, false},
                    HvmDisk{"xvda", 51712, false, "pvh"}, HvmDisk{"xvda", 51712, false, "pv"},
                    HvmDisk{"sda", 2048, false, "pv"}, HvmDisk{"xvda", 51712, false, "hvm", "vbd3"},
                    HvmDisk{"xvde", 51776, true, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"xvdf", 51792, false, "hvm", "qdisk", "cdrom"}),
    name_of_hvm_disk);

// Each with the number that libxl makes of it (libxl__device_disk_dev_number of 4.17, run).
INSTANTIATE_TEST_SUITE_P(
    FurtherNames, GuestBackendHvm,
    testing::Values(HvmDisk{"d0x0p0", 51712, true}, HvmDisk{"d0x3p0", 51760, true},
                    HvmDisk{"d0X1p0", 51728, true}, HvmDisk{"d003p0", 51760, true},
                    HvmDisk{"d0x1p0x0", 51728, true}, HvmDisk{"d3p010", 51768, true},
                    HvmDisk{"d3p0x10", 268436240, true}, HvmDisk{"d0xp0", 51712, true},
                    HvmDisk{"d+1p0", 51728, true}, HvmDisk{"d1p+0", 51728, true},
                    HvmDisk{"d 1p0", 51728, true}, HvmDisk{"d1p 0", 51728, true},
                    HvmDisk{"d4294967296p0", 51712, true}, HvmDisk{"d3p255", 268436479, true},
                    HvmDisk{"xvda16", 268435472, true}, HvmDisk{"xvda255", 268435711, true},
                    HvmDisk{"hdb", 832, true}, HvmDisk{"hdc", 5632, true},
                    HvmDisk{"hda63", 831, true}, HvmDisk{"hdd63", 5759, true},
                    HvmDisk{"sdp15", 2303, true}, HvmDisk{"d0x4p0", 51776, false},
                    HvmDisk{"d04p0", 51776, false}, HvmDisk{"d010p0", 51840, false},
                    HvmDisk{"d0x10p0", 268439552, false}, HvmDisk{"d4p3", 51779, false},
                    HvmDisk{"xvdq", 268439552, false}, HvmDisk{"xvdaa1", 268442113, false},
                    HvmDisk{"0xca00", 51712, false}, HvmDisk{"768", 768, false},
                    HvmDisk{"2048", 2048, false}, HvmDisk{"d0x3p0", 51760, false, "pvh"},
                    HvmDisk{"d0x3p0", 51760, false, "pv"}, HvmDisk{"hda", 768, false, "pvh"},
                    HvmDisk{"sda", 2048, false, "hvm", "vbd3"},
                    HvmDisk{"d0x3p0", 51760, false, "hvm", "vbd3"},
                    HvmDisk{"d0x4p0", 51776, true, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"d0x5p0", 51792, false, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"hdd", 5696, true, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"sde", 2112, true, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"sdf", 2128, false, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"51712", 51712, false, "hvm", "qdisk", "cdrom"},
                    HvmDisk{"xvda", 51712, false, "pvh", "qdisk", "cdrom"}),
    name_of_hvm_disk);

TEST_F(GuestBackendBadInput, UnknownAlias) {
  expect_error("aio:iscsi:nothing", "no LUN with the alias nothing");
}

TEST_F(GuestBackendBadInput, ContradictionBetweenTheDiskLineAndTheConfiguration) {
  configuration_.multipath.path_weights = {parse_path_rule("portal 192.0.2.1 5", 100).value()};
  expect_error("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1?path_selector=queue-length",
               "path_weights is for path_selector service-time and round-robin, not queue-length");
}

// Two targets at two portals, whose LUNs are not the same.
class GuestBackendTwoLuns : public GuestBackendBadInput {
 protected:
  GuestBackendTwoLuns() : other_(reactor_, other_options()) {
    SimLunOptions lun;
    lun.naa_extension = 99;
    other_lun_ = std::make_shared<SimLun>(lun);
    other_.add_lun(1, other_lun_);
  }
  static SimTargetOptions other_options() {
    SimTargetOptions options;
    options.name = kTargetName;
    options.portals = {SimPortal{SocketAddress::parse("192.0.2.77", 3260).value(), 1}};
    return options;
  }

  SimTarget other_;
  std::shared_ptr<SimLun> other_lun_;
};

TEST_F(GuestBackendTwoLuns, TwoPortalsWithDifferentLunsAreNotServed) {
  const std::string params = "aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1";
  expect_error(params, "leads to another LUN than portal 192.0.2.");
  const std::string error = error_of(disk(params));
  for (const char* part :
       {"192.0.2.1:3260", "192.0.2.77:3260", "36001405", "must lead to one LUN"}) {
    EXPECT_THAT(error, HasSubstr(part));
  }
  EXPECT_TRUE(run_until([&] { return target_.sessions() == 1u && other_.sessions() == 0u; }, 1s))
      << "but for the good disk's, none stays";
  EXPECT_EQ(toolstack_.backend_state(disk(params)), 2) << "its guest waits";
}

TEST_F(GuestBackendTwoLuns, ADiskAppearsWhenItsPortalsLeadToOneLun) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  EXPECT_FALSE(run_until([&] { return guest.connected(); }, 120s));
  EXPECT_THAT(error_of(xvda), HasSubstr("must lead to one LUN"));
  other_lun_->options.naa_extension = 1;
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, DiskDevice::kRetryMax + 5s));
  EXPECT_EQ(error_of(xvda), "");
}

// The array's nodes take the new size one after the other.
TEST_F(GuestBackendTwoLuns, ADiskThatIsAttachedWhileItsLunGrowsAppearsSoonAfterThat) {
  other_lun_->options.naa_extension = 1;
  other_lun_->resize(4096);
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  EXPECT_FALSE(run_until([&] { return guest.connected(); }, 2s));
  EXPECT_THAT(error_of(xvda), HasSubstr(" blocks, by portal 192.0.2."));
  target_.lun(1).resize(4096);
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, 5s));
  EXPECT_EQ(error_of(xvda), "");
  EXPECT_EQ(toolstack_.backend_value(xvda, "sectors"), "4096");
}

TEST_F(GuestBackendTwoLuns, ADiskThatIsDetachedMeanwhileIsNotTriedAgain) {
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1");
  toolstack_.add(xvda);
  start();
  boot(xvda);
  ASSERT_TRUE(run_until([&] { return !error_of(xvda).empty(); }));
  toolstack_.request_detach(xvda);
  EXPECT_TRUE(ends());
}

TEST_F(GuestBackendTwoLuns, TwoPortalsThatTellDifferentSizesAreNotServed) {
  other_lun_->options.naa_extension = 1;
  other_lun_->options.block_count = 4096;
  const std::string params = "aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1";
  expect_error(params, " blocks, by portal 192.0.2.");
  EXPECT_THAT(error_of(disk(params)), HasSubstr("must lead to one LUN"));
}

TEST_F(GuestBackendTwoLuns, APortalThatTurnsUpLaterWithAnotherLunIsQuarantined) {
  other_.stop();
  const FakeDisk xvda = disk("aio:iscsi://192.0.2.1,192.0.2.77/iqn.2026-01.test:target/1");
  FakeFrontend& guest = serve(xvda);
  other_.start();
  run_for(60s);
  do_io(guest);
  EXPECT_EQ(other_lun_->counters.writes, 0u);
  EXPECT_EQ(error_of(xvda), "");
  std::string line;
  backend_->query([&](const GuestStatus& status) {
    line = status.disks.at(0).report->multipath.paths.at(1).last_error;
    EXPECT_EQ(status.disks.at(0).report->multipath.paths.at(1).state, PathState::quarantined);
  });
  run_for(10ms);
  EXPECT_THAT(line, HasSubstr("leads to another LUN than portal 192.0.2.1:3260"));
}

// The device is closed and opened anew when a ring leaves requests behind that wait for a path.
TEST_F(GuestBackendTest, AGuestDoesNotGoOnWithAnotherLunInTheDevicesNextLife) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  do_io(guest);
  const std::uint64_t writes = target_.lun(1).counters.writes;
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  guest.restart();
  ASSERT_TRUE(run_until([&] { return guest.state() == 3; }, 30s)) << xen_.store().dump();
  target_.lun(1).options.naa_extension = 99;
  target_.start();
  EXPECT_FALSE(run_until([&] { return guest.connected(); }, 60s));
  EXPECT_THAT(error_of(xvda), HasSubstr("leads to another LUN: its identity is "
                                        "\"360014050000000000000000000000063\", the disk's is "
                                        "\"360014050000000000000000000000001\""));
  EXPECT_EQ(target_.lun(1).counters.writes, writes);

  target_.lun(1).options.naa_extension = 1;
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, 60s)) << xen_.store().dump();
  do_io(guest);
  EXPECT_EQ(error_of(xvda), "");
}

TEST_F(GuestBackendTest, ARefusedDiskDoesNotKeepTheGuestsBootWaiting) {
  const FakeDisk xvda = disk("aio:iscsi:nothing");
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(run_until([&] { return guest.state() == 6; }));
  ASSERT_TRUE(reaches_state(xvda, 6));
}

}  // namespace
}  // namespace iscsi_blkback
