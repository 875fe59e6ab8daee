// What the control side asks of the I/O side for one disk, and what it makes of what it hears, with
// an I/O side that does nothing.
#include "tests/blkback/guest/disk_device_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(DiskDeviceTest, OpensWithThePortalsOfTheDiskLine) {
  open();
  EXPECT_THAT(opened_hosts(), ElementsAre("192.0.2.1", "192.0.2.2"));
  EXPECT_FALSE(device_->ready());
  plane_.events->on_ready({.sector_count = 2048}, names_);
  EXPECT_EQ(device_->geometry()->sector_count, 2048U);
  plane_.events->on_grown({.sector_count = 4096});
  EXPECT_EQ(device_->geometry()->sector_count, 4096U);
}

TEST_F(DiskDeviceTest, ADiskLineThatCannotBeReadIsNotTriedAgain) {
  make("aio:iscsi://192.0.2.1/no-name/1");
  device_->open();
  reactor_.run_for(60s);
  EXPECT_TRUE(device_->refused());
  EXPECT_TRUE(device_->unreadable());
  EXPECT_THAT(error_, HasSubstr("the disk's target: "));
  EXPECT_THAT(plane_.asked, ElementsAre());
}

TEST_F(DiskDeviceTest, WhatLeadsElsewhereBeforeAGuestKnowsTheDiskOpensItAnewLater) {
  open();
  plane_.events->on_conflict("LUN 1 here, LUN 2 there");
  EXPECT_EQ(error_, "LUN 1 here, LUN 2 there: the portals of a disk must lead to one LUN");
  EXPECT_THAT(plane_.asked, ElementsAre("open", "abandon"));
  plane_.events->on_closed();
  EXPECT_EQ(closed_, 1);
  EXPECT_EQ(plane_.events, nullptr) << "its port is not kept";
  reactor_.run_for(DiskDevice::kRetryMin - 1ms);
  EXPECT_EQ(plane_.asked.size(), 2U);
  reactor_.run_for(1s);
  EXPECT_THAT(plane_.asked, ElementsAre("open", "abandon", "open"));
}

TEST_F(DiskDeviceTest, WhatLeadsElsewhereOnceAGuestKnowsTheDiskChangesNothing) {
  serve();
  device_->on_published();
  plane_.events->on_conflict("LUN 1 here, LUN 2 there");
  EXPECT_THAT(plane_.asked, ElementsAre());
  EXPECT_TRUE(device_->ready());
}

TEST_F(DiskDeviceTest, IsOpenedAnewAsTheLunThatItWas) {
  serve();
  device_->reopen();
  EXPECT_THAT(plane_.asked, ElementsAre("keep_place", "close"));
  plane_.events->on_closed();
  reactor_.run_for(1s);
  EXPECT_THAT(plane_.asked, ElementsAre("keep_place", "close", "open"));
  EXPECT_EQ(plane_.opened.multipath.same_lun, names_);
}

TEST_F(DiskDeviceTest, TheToolstackWaitsForADeviceThatClosesOnlySoLong) {
  serve();
  device_->close(false);
  reactor_.run_for(DiskDevice::kCloseTimeout - 1ms);
  EXPECT_TRUE(device_->worth_waiting_for());
  reactor_.run_for(1ms);
  EXPECT_FALSE(device_->worth_waiting_for());
  EXPECT_TRUE(device_->closing());
  device_->guest_ended();
  EXPECT_THAT(plane_.asked, ElementsAre("close", "abandon"));
}

TEST_F(DiskDeviceTest, ARingThatIsAbandonedTakesTheDeviceWithIt) {
  serve();
  device_->disconnect_ring(RingEnd::answer);
  EXPECT_TRUE(device_->is_open());
  device_->disconnect_ring(RingEnd::abandon);
  EXPECT_TRUE(device_->closing());
  EXPECT_THAT(plane_.asked, ElementsAre("disconnect_ring", "abandon_ring"));
}

TEST_F(DiskDeviceTest, WhatIsHeardOfADeviceThatClosesIsOfNoInterest) {
  serve();
  device_->close(false);
  error_ = "as it was";
  plane_.events->on_unavailable("no path answers");
  plane_.events->on_conflict("LUN 1 here, LUN 2 there");
  plane_.events->on_grown({.sector_count = 4096});
  EXPECT_EQ(error_, "as it was");
  EXPECT_EQ(device_->geometry()->sector_count, 2048U);
  EXPECT_THAT(plane_.asked, ElementsAre("close"));
}

TEST_F(DiskDeviceTest, AnOperatorsSettingsHoldForTheNextLifeToo) {
  serve();
  EXPECT_EQ(refusal(SetNoPathRetry{{.time = std::nullopt}}), "");
  EXPECT_EQ(refusal(SetNoPathRetry{{.checks = 3}}), "");
  SetPolicies policies;
  policies.policies.path_selector = PathSelectorKind::queue_length;
  EXPECT_EQ(refusal(policies), "");
  EXPECT_THAT(plane_.asked, ElementsAre("set_no_path_retry queue", "set_no_path_retry 15000 ms",
                                        "change_policies"))
      << "checks are polling_interval apart";
  device_->reopen();
  plane_.events->on_closed();
  reactor_.run_for(1s);
  EXPECT_EQ(plane_.opened.multipath.no_path_retry, NoPathRetry(15s));
  EXPECT_EQ(plane_.opened.multipath.path_selector, PathSelectorKind::queue_length);
  plane_.asked.clear();
  EXPECT_EQ(refusal(RestoreNoPathRetry{}), "");
  EXPECT_THAT(plane_.asked, ElementsAre("set_no_path_retry default"));
}

TEST_F(DiskDeviceTest, SettingsOfADiskThatIsNotOpenWaitForIt) {
  EXPECT_EQ(refusal(SetNoPathRetry{}), "");
  EXPECT_THAT(plane_.asked, ElementsAre());
  open();
  EXPECT_EQ(plane_.opened.multipath.no_path_retry, NoPathRetry(0ms));
}

TEST_F(DiskDeviceTest, AModeThatHasChangedHoldsForTheNextLifeToo) {
  serve();
  device_->set_read_only(true);
  EXPECT_THAT(plane_.asked, ElementsAre("read_only"));
  device_->reopen();
  plane_.events->on_closed();
  plane_.asked.clear();
  reactor_.run_for(1s);
  EXPECT_THAT(plane_.asked, ElementsAre("open", "read_only"));
}

TEST_F(DiskDeviceTest, ALunWithSmallerBlocksThanTheSectorsThatAreToBeToldIsRefused) {
  for (const std::uint32_t block : {512U, 1024U, 2048U}) {
    make("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1?sector_size=4096");
    open();
    plane_.events->on_ready({.sector_count = 2048, .logical_block_bytes = block}, names_);
    EXPECT_TRUE(device_->refused());
    EXPECT_TRUE(device_->closing());
    EXPECT_THAT(error_, HasSubstr(fmt::format("logical blocks of {} bytes", block)));
    plane_.events->on_closed();
    plane_.asked.clear();
    reactor_.run_for(60s);
    EXPECT_THAT(plane_.asked, ElementsAre()) << "the disk line does not change by itself";
  }
  make("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1?sector_size=4096");
  open();
  plane_.events->on_ready({.sector_count = 2048, .logical_block_bytes = 4096}, names_);
  EXPECT_TRUE(device_->ready());
  EXPECT_EQ(device_->sector_size(), 4096U);
}

TEST_F(DiskDeviceTest, PathsThatCameAndWentAreRemembered) {
  serve();
  plane_.removed = {resolved("192.0.2.2")};
  EXPECT_EQ(refusal(RemovePath{path("192.0.2.2")}), "");
  EXPECT_EQ(refusal(AddPath{path("192.0.2.3")}), "");
  EXPECT_THAT(plane_.asked, ElementsAre("remove_path 192.0.2.2", "add_path 192.0.2.3"));
  device_->reopen();
  plane_.events->on_closed();
  reactor_.run_for(1s);
  EXPECT_THAT(opened_hosts(), ElementsAre("192.0.2.1", "192.0.2.3"));
}

TEST_F(DiskDeviceTest, PathsOfADiskThatIsNotInUseAreRefused) {
  EXPECT_EQ(refusal(AddPath{path("192.0.2.3")}),
            "the disk is not in use yet: none of its portals is known so far");
  EXPECT_EQ(refusal(RemovePath{path("192.0.2.1")}), "the disk is not in use");
}

TEST_F(DiskDeviceTest, APathThatIsFoundWhenTheDiskHasGoneIsRefused) {
  serve();
  std::string sentence;
  const auto note = [&](const Result<void>& result) { sentence = result.error().message; };
  device_->change(AddPath{path("192.0.2.3")}, note);
  device_->close(true);
  plane_.events->on_closed();
  reactor_.run_for(1s);
  EXPECT_EQ(sentence, "the disk is not in use");

  sentence.clear();
  make(description_.params);
  serve();
  device_->change(AddPath{path("192.0.2.3")}, note);
  device_.reset();
  reactor_.run_for(1s);
  EXPECT_EQ(sentence, "the disk is not in use");
  EXPECT_THAT(plane_.asked, ElementsAre());
}

TEST_F(DiskDeviceTest, ALookUpThatEndsAfterTheDiskTellsNobody) {
  device_->open();
  device_.reset();
  reactor_.run_for(1s);
  EXPECT_THAT(plane_.asked, ElementsAre());
}

}  // namespace
}  // namespace iscsi_blkback
