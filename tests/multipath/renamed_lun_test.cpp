// A LUN that gains or loses a name while it is in use: the array's firmware is upgraded, one
// controller after the other. It is the same LUN, for its disk and for all others of the host.
#include <gmock/gmock.h>

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "multipath/fencing/barrier_folder.h"
#include "multipath/multipath_text.h"
#include "tests/multipath/following_disk.h"
#include "tests/support/vpd_bytes.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

class RenamedLun : public FollowingDisk {
 protected:
  // Writes that are lost wait for nothing but time.
  RenamedLun() { options_.portal_group_fences = PortalGroupFences::no; }

  static Bytes t10() { return designator(kAscii, kT10, text("SIM     volume-4711")); }
  static Bytes naa() {
    return designator(kBinary, kNaa,
                      octets({0x60, 0x01, 0x40, 0x51, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}));
  }
  static Bytes old_names() { return page(0x83, t10()); }
  static Bytes new_names() { return page(0x83, joined({t10(), naa()})); }

  void start_as(const Bytes& names, std::vector<std::uint16_t> portal_groups = {1, 2}) {
    lun_options_.pages[0x83] = names;
    options_.holder_name = "xvda of guest 5";
    start(std::move(portal_groups));
  }
  // Through all paths.
  void rename(const Bytes& names) {
    lun_->options.pages[0x83] = names;
    for (std::size_t portal = 0; portal < sessions_.size(); ++portal) {
      target_->send_scsi_event(0, SenseKey::unit_attention, 0x3f03);
    }
    reactor_.run_for(milliseconds(100));
    for (std::size_t portal = 0; portal < sessions_.size(); ++portal) {
      ASSERT_EQ(path(portal).state, PathState::up) << path(portal).last_error;
    }
  }
  // Through this path, which logs in again.
  void rename_at(std::size_t portal, const Bytes& names) {
    refuse(portal);
    reactor_.run_for(milliseconds(100));
    lun_->options.pages[0x83] = names;
    accept(portal);
    ASSERT_TRUE(wait_for_up(sessions_.size()));
  }
  void expect_to_wait(OtherDisk& next) {
    reactor_.run_for(seconds(10));
    EXPECT_EQ(next.ready_calls(), 0);
    EXPECT_THAT(unavailable_reason(next.device().snapshot()),
                HasSubstr("in use by xvda of guest 5"));
  }
  void expect_the_next_disk_to_wait(std::size_t portal) {
    auto next = follow({sessions_[portal].get()});
    expect_to_wait(*next);
  }
};

TEST_F(RenamedLun, ThatHasGainedABetterNameIsInUseByItsDisk) {
  start_as(old_names());
  rename(new_names());
  expect_the_next_disk_to_wait(0);
}

TEST_F(RenamedLun, ThatHasLostItsBestNameIsInUseByItsDisk) {
  start_as(new_names());
  rename(old_names());
  expect_the_next_disk_to_wait(0);
}

// {T10}, {T10, NAA}, {NAA}: with the last, the first would have nothing in common.
TEST_F(RenamedLun, MayLoseTheNameThatItWasKnownByFirst) {
  start_as(old_names());
  rename(new_names());
  rename(page(0x83, naa()));
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  expect_the_next_disk_to_wait(0);
}

TEST_F(RenamedLun, IsOneWhicheverControllerHasBeenUpgraded) {
  start_as(old_names());
  rename_at(1, new_names());
  {
    SCOPED_TRACE("the next disk comes by the upgraded controller");
    expect_the_next_disk_to_wait(1);
  }
  lun_->options.pages[0x83] = old_names();
  SCOPED_TRACE("and by the other one");
  expect_the_next_disk_to_wait(0);
}

// The disk's own paths have told nothing new yet.
TEST_F(RenamedLun, IsInUseByADiskThatHasNotHeardOfTheNewName) {
  start_as(old_names());
  lun_->options.pages[0x83] = new_names();
  expect_the_next_disk_to_wait(0);
}

// The next one is there as soon as it can be; the name has to be told before that.
TEST_F(RenamedLun, HasItsNameToldInTheNextTurnAtTheFolder) {
  start_as(old_names());
  reactor_.run_for(seconds(1));
  auto turn = std::optional(BarrierFolder::lock(folder_.path()));
  ASSERT_TRUE(*turn);
  rename(new_names());
  turn.reset();
  reactor_.run_for(milliseconds(25));
  rename(page(0x83, naa()));
  expect_the_next_disk_to_wait(0);
}

TEST_F(RenamedLun, HasTheNextDiskWaitForTheEndOfTheFormerOneOnly) {
  start_as(old_names());
  rename(new_names());
  auto next = follow({sessions_[0].get()});
  expect_to_wait(*next);
  close();
  EXPECT_TRUE(reactor_.run_until([&] { return next->ready_calls() == 1; }, seconds(1)));
}

TEST_F(RenamedLun, HasNoLostWriteOfTheFormerDiskOverwriteTheNextOnes) {
  start_as(old_names());
  hold_writes_at(0);
  GuestRequest& lost = at_path(0, [this]() -> GuestRequest& { return write(0, 8, 1); });
  reactor_.run_for(milliseconds(5));
  refuse(0);
  target_->clear_faults();
  reactor_.run_for(milliseconds(50));
  EXPECT_EQ(answer(lost), IoStatus::ok) << "through the other path";
  lun_->options.pages[0x83] = new_names();
  target_->send_scsi_event(0, SenseKey::unit_attention, 0x3f03);
  reactor_.run_for(milliseconds(100));
  auto next = follow({sessions_[1].get()});
  reactor_.run_for(seconds(1));
  GuestRequest& newer = next->write(0, 2);
  (void)reactor_.run_until([&] { return newer.completions != 0; }, seconds(1));
  const bool acknowledged = newer.status == IoStatus::ok;
  target_->release_held();
  reactor_.run_for(milliseconds(100));
  EXPECT_FALSE(acknowledged && medium(0) != 2) << "an acknowledged write is lost";
  EXPECT_EQ(next->ready_calls(), 0);
  next.reset();
  accept(0);
}

// As when everything in the folder goes with the file that had the names.
TEST_F(RenamedLun, IsInUseByItsDiskAlsoWhenTheFolderHasBeenCleaned) {
  start_as(old_names());
  rename(new_names());
  for (const Bytes& names : {old_names(), page(0x83, naa())}) {
    for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
      std::filesystem::remove(file);
    }
    lun_->options.pages[0x83] = names;
    expect_the_next_disk_to_wait(0);
    lun_->options.pages[0x83] = new_names();
  }
}

// Two disks that could not know of each other: one of them has to wait from now on.
TEST_F(RenamedLun, ThatWasTwoForItsDisksIsOneAsSoonAsAPathTellsSo) {
  auto sink = std::make_unique<MemoryLogSink>();
  MemoryLogSink& log = *sink;
  auto former_sink = set_log_sink(std::move(sink));
  start_as(old_names());
  lun_->options.pages[0x83] = page(0x83, naa());
  auto other = follow({sessions_[1].get()});
  ASSERT_TRUE(reactor_.run_until([&] { return other->ready_calls() == 1; }, seconds(1)))
      << "nothing tells that it is the same LUN";
  rename(new_names());
  EXPECT_TRUE(log.contains("had not seen this one"));
  (void)set_log_sink(std::move(former_sink));
  GuestRequest& held = other->write(0, 2);
  EXPECT_EQ(answer(write(0, 8, 1)), IoStatus::ok);
  reactor_.run_for(seconds(10));
  EXPECT_TRUE(pending(held));
  EXPECT_THAT(unavailable_reason(other->device().snapshot()),
              HasSubstr("in use by xvda of guest 5"));
  close();
  EXPECT_TRUE(reactor_.run_until([&] { return !pending(held); }, seconds(2)));
  EXPECT_EQ(held.status, IoStatus::ok);
  EXPECT_EQ(medium(0), 2);
}

// Its former name is one that targets which were set up alike share.
TEST_F(RenamedLun, IsAnotherOneAtAnotherTargetThatDoesNotTellItsNewName) {
  start_as(old_names(), {1});
  rename(new_names());
  SimTargetOptions options = target_options_;
  options.name = "iqn.2026-01.test:alike";
  options.portals = {{portal_address(7), 1}};
  SimTarget alike(reactor_, options);
  SimLunOptions lun = lun_options_;
  lun.pages[0x83] = old_names();
  alike.add_lun(0, std::make_shared<SimLun>(lun));
  add_path_to_target(options.name, portal_address(7));
  reactor_.run_for(seconds(1));
  EXPECT_EQ(path(1).state, PathState::quarantined);
  EXPECT_THAT(path(1).last_error, HasSubstr("unlike all others in the world"));
  close();
  stop_sessions();
}

}  // namespace
}  // namespace iscsi_blkback
