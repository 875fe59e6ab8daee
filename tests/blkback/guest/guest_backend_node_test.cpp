// What an attached disk's node says of it, and what comes of it when the toolstack writes there anew.
// See guest_backend_fixture.h.
#include <algorithm>

#include "base/base64.h"
#include "base/log.h"
#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

class GuestBackendNode : public GuestBackendTest {
 protected:
  GuestBackendNode() {
    auto sink = std::make_unique<MemoryLogSink>();
    sink_ = sink.get();
    before_ = set_log_sink(std::move(sink));
  }
  ~GuestBackendNode() override { (void)set_log_sink(std::move(before_)); }

  static FakeDisk read_only(FakeDisk disk) {
    disk.mode = "r";
    return disk;
  }
  void put(const std::string& key, const std::string& value) {
    xen_.faults().set_paused(true);
    ASSERT_TRUE(toolstack_.store().write(disk().backend_path() + "/" + key, value));
    xen_.faults().set_paused(false);
    run_for(100ms);
  }
  int status_of_write(FakeFrontend& guest) {
    const auto id = guest.write(0, pattern(8, 1));
    guest.push();
    std::optional<FakeFrontend::Answer> answer;
    EXPECT_TRUE(run_until([&] {
      answer = guest.take_completion(*id);
      return answer.has_value();
    }));
    return answer ? answer->status : 99;
  }
  std::size_t said(const std::string& sentence) const {
    return static_cast<std::size_t>(std::count_if(
        sink_->lines().begin(), sink_->lines().end(),
        [&](const std::string& line) { return line.find(sentence) != std::string::npos; }));
  }
  // A driver that is loaded anew: the nodes stay.
  bool starts_anew(FakeFrontend& guest) {
    xen_.faults().set_paused(true);
    guest.restart();
    xen_.faults().set_paused(false);
    return run_until([&] { return !guest.connected(); }) && connect(guest);
  }

  MemoryLogSink* sink_;

 private:
  std::unique_ptr<LogSink> before_;
};

// ---- which LUN it is

TEST_F(GuestBackendNode, AGuestCanReadWhichLunItsDiskIs) {
  serve();
  const auto guest = xen_.store().connect(kGuest);
  const std::string pages = disk().backend_path() + "/sm-data/scsi/0x12/";
  EXPECT_EQ(guest->read(pages + "0x80").value_or(""), to_base64(page(0x80, text("SERIAL0"))));
  const std::string designators = guest->read(pages + "0x83").value_or("");
  EXPECT_EQ(designators.substr(0, 2), "AI") << "page 0x83";
  // From the sixth byte on: what is before has the page's length in it.
  EXPECT_EQ(designators.substr(8, 24),
            to_base64(octets({0, 16, 0x60, 0x01, 0x40, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})));
}

TEST_F(GuestBackendNode, ALunWithoutNamesIsCalledNothing) {
  target_.add_lun(1, std::make_shared<SimLun>(SimLunOptions{.serial = "", .naa_extension = 0}));
  serve();
  EXPECT_FALSE(toolstack_.store().read(disk().backend_path() + "/sm-data"));
}

// ---- the mode

TEST_F(GuestBackendNode, WritesAreRefusedAsSoonAsTheModeIsR) {
  FakeFrontend& guest = serve();
  ASSERT_EQ(status_of_write(guest), kBlkifOkay);
  put("mode", "r");
  EXPECT_EQ(status_of_write(guest), kBlkifError);
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 0, pattern(8, 1)));
  const auto flush = guest.flush();
  guest.push();
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *flush));
  EXPECT_EQ(said("its mode is r now"), 1U);
  EXPECT_EQ(toolstack_.backend_state(disk()), 4);
  put("mode", "w");
  EXPECT_EQ(status_of_write(guest), kBlkifOkay);
  EXPECT_EQ(said("its mode is w again"), 1U);
}

TEST_F(GuestBackendNode, AWriteThatIsUnderWayWhenTheModeBecomesRIsAnswered) {
  FakeFrontend& guest = serve();
  hold_writes();
  const auto id = guest.write(0, pattern(8, 1));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  put("mode", "r");
  target_.release_held();
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
}

TEST_F(GuestBackendNode, AModeThatChangesBeforeTheFrontendConnectsIsTold) {
  toolstack_.add(disk());
  start();
  ASSERT_TRUE(reaches_state(disk(), 2));
  ASSERT_TRUE(run_until([&] { return toolstack_.backend_value(disk(), "hotplug-status") != ""; }));
  put("mode", "r");
  FakeFrontend& guest = boot(disk());
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.info(), 4U);
  EXPECT_EQ(status_of_write(guest), kBlkifError);
}

TEST_F(GuestBackendNode, ADiskThatWasAttachedToBeReadOnlyStaysSoUntilItsFrontendStartsAnew) {
  FakeFrontend& guest = serve(read_only(disk()));
  put("mode", "w");
  EXPECT_EQ(status_of_write(guest), kBlkifError);
  EXPECT_EQ(said("was attached to be read only, and stays so"), 1U);
  put("mode", "w");
  EXPECT_EQ(said("was attached to be read only, and stays so"), 1U) << "it is the same";
  ASSERT_TRUE(starts_anew(guest));
  EXPECT_EQ(guest.info(), 0U);
  EXPECT_EQ(status_of_write(guest), kBlkifOkay);
}

// Xenstored has died and come back meanwhile, and tells of no change.
TEST_F(GuestBackendNode, AModeThatChangedWhileXenstoredWasAwayIsSeen) {
  FakeFrontend& guest = serve();
  store_is_away_ = true;
  xen_.store().break_connections();
  run_for(1s);
  ASSERT_TRUE(xen_.store().connect(0)->write(disk().backend_path() + "/mode", "r"));
  store_is_away_ = false;
  run_for(5s);
  EXPECT_EQ(status_of_write(guest), kBlkifError);
}

// Its events come before its new state is looked at.
TEST_F(GuestBackendNode, ANodeThatIsMadeAnewIsNoChangeOfTheOldDisk) {
  serve();
  const FakeDisk next = read_only(disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2"));
  halt_guests();
  toolstack_.remove(disk());
  toolstack_.add(next);
  FakeFrontend& guest = boot(next);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.info(), 4U);
  EXPECT_EQ(said("its mode is") + said("another target"), 0U);
}

// ---- CD drives

TEST_F(GuestBackendNode, ACdIsReadOnlyAndRemovable) {
  FakeDisk cd = disk();
  cd.device_type = "cdrom";
  FakeFrontend& guest = serve(cd);
  EXPECT_EQ(guest.info(), 7U);
  EXPECT_EQ(status_of_write(guest), kBlkifError);
  EXPECT_FALSE(guest.discard_supported());
}

TEST_F(GuestBackendNode, AGuestKeepsACdThatIsEjectedUntilItIsDetached) {
  FakeDisk cd = read_only(disk());
  cd.device_type = "cdrom";
  FakeFrontend& guest = serve(cd);
  put("params", "");
  EXPECT_EQ(said("taken out of its node (eject)"), 1U);
  ASSERT_NO_FATAL_FAILURE(
      expect_read(guest, 0, std::vector<std::byte>(8 * kSectorBytes, std::byte{0})));
  toolstack_.request_detach(cd);
  EXPECT_TRUE(reaches_state(cd, 6));
}

TEST_F(GuestBackendNode, AnotherTargetIsTakenWhenTheFrontendStartsAnew) {
  FakeFrontend& guest = serve();
  ASSERT_EQ(status_of_write(guest), kBlkifOkay);
  put("params", "aio:iscsi://192.0.2.1/iqn.2026-01.test:target/2");
  EXPECT_EQ(said("has another target now"), 1U);
  ASSERT_NO_FATAL_FAILURE(expect_read(guest, 0, pattern(8, 1)));
  ASSERT_TRUE(starts_anew(guest));
  ASSERT_NO_FATAL_FAILURE(
      expect_read(guest, 0, std::vector<std::byte>(8 * kSectorBytes, std::byte{0})));
}

// ---- a LUN that becomes smaller

TEST_F(GuestBackendNode, ALunThatShrinksIsRefusedAndItsGuestWaits) {
  const auto lun = std::make_shared<SimLun>(SimLunOptions{});
  target_.add_lun(1, lun);
  FakeFrontend& guest = serve();
  ASSERT_TRUE(paths_up(2));
  lun->options.block_count = 1024;
  ASSERT_TRUE(paths_up(0, 31s));
  EXPECT_EQ(toolstack_.backend_value(disk(), "sectors"), "2048");
  EXPECT_EQ(toolstack_.backend_state(disk()), 4);
  EXPECT_EQ(said("the LUN is smaller than the disk, whose guest may have data behind its end: its "
                 "capacity is 1024 blocks"),
            2U)
      << "once for each path";
  const auto id = guest.write(0, pattern(8, 1));
  guest.push();
  run_for(60s);
  EXPECT_FALSE(guest.take_completion(*id));
  lun->options.block_count = 2048;
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id, 31s));
}

}  // namespace
}  // namespace iscsi_blkback
