// What xentop finds of a guest's disks: of those of kind vbd3, in dom0.
#include <filesystem>

#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/xentop_reader.h"

namespace iscsi_blkback {
namespace {

class GuestBackendStatistics : public GuestBackendTest {
 protected:
  // The disks go before folder_ does.
  ~GuestBackendStatistics() override {
    halt_guests();
    end_guest(DomainLife::gone);
    EXPECT_TRUE(ends(60s));
    EXPECT_FALSE(file_of(xvda())) << "a disk that is no more";
  }

  StatisticsFolder* statistics() override { return &folder_; }

  FakeDisk xvda() { return disk(kParams, 51712, "vbd3"); }

  // As xentop goes about it; nullopt: it shows dashes, or nothing.
  std::optional<XentopDisk> file_of(const FakeDisk& disk) {
    return read_as_xentop(shm_ / fmt::format("td3-4711/vbd-{}-{}", disk.guest, disk.device_id));
  }
  std::optional<XentopDisk> xentop(const FakeDisk& disk) {
    EXPECT_EQ(toolstack_.backend_value(disk, "kthread-pid"), "4711");
    run_for(StatisticsWriter::kInterval);
    return file_of(disk);
  }
  void detach(const FakeDisk& disk) {
    toolstack_.request_detach(disk);
    ASSERT_TRUE(reaches_state(disk, 6));
    toolstack_.remove(disk);
    run_for(100ms);
  }

  TemporaryFolder shm_;
  StatisticsFolder folder_{shm_.path(), 4711};
};

TEST_F(GuestBackendStatistics, XentopCountsRequestsAndSectors) {
  FakeFrontend& guest = serve(xvda());
  const auto idle = xentop(xvda());
  ASSERT_TRUE(idle);
  EXPECT_EQ(idle->reads + idle->writes + idle->read_sectors + idle->written_sectors, 0u);
  do_io(guest);
  write(guest, 8, pattern(8, 2));
  const auto busy = xentop(xvda());
  ASSERT_TRUE(busy);
  EXPECT_EQ(busy->reads, 1u);
  EXPECT_EQ(busy->reads_completed, 1u);
  EXPECT_EQ(busy->read_sectors, 16u);
  EXPECT_EQ(busy->writes, 2u);
  EXPECT_EQ(busy->writes_completed, 2u);
  EXPECT_EQ(busy->written_sectors, 24u);
  EXPECT_EQ(busy->errors, 0u);
  EXPECT_EQ(busy->out_of_requests, 0u);
}

TEST_F(GuestBackendStatistics, ARequestUnderWayIsSubmittedAndItsTimeCountsWhenItIsAnswered) {
  FakeFrontend& guest = serve(xvda());
  hold_writes();
  const auto id = guest.write(0, pattern(8, 1));
  ASSERT_TRUE(id);
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }));
  const auto waiting = xentop(xvda());
  ASSERT_TRUE(waiting);
  EXPECT_EQ(waiting->writes, 1u);
  EXPECT_EQ(waiting->writes_completed, 0u);
  EXPECT_EQ(waiting->write_microseconds, 0u);
  target_.release_held();
  expect_answer(guest, *id);
  const auto answered = xentop(xvda());
  ASSERT_TRUE(answered);
  EXPECT_EQ(answered->writes_completed, 1u);
  EXPECT_GE(answered->write_microseconds, 500'000u);
  EXPECT_LT(answered->write_microseconds, 1'000'000u);
}

TEST_F(GuestBackendStatistics, AllQueuesCount) {
  toolstack_.add(xvda());
  start();
  FakeFrontend& guest = boot(xvda());
  FakeFrontend& second = add_queue(guest, xvda());
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  do_io(second, 2);
  const auto seen = xentop(xvda());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->reads, 2u);
  EXPECT_EQ(seen->written_sectors, 32u);
}

TEST_F(GuestBackendStatistics, TheNextRingCountsOn) {
  FakeFrontend& guest = serve(xvda());
  do_io(guest);
  guest.restart();
  ASSERT_TRUE(run_until([&] { return !guest.connected(); }));
  ASSERT_TRUE(connect(guest));
  const auto between = file_of(xvda());
  ASSERT_TRUE(between);
  EXPECT_EQ(between->reads, 1u) << "of a ring that was closed before its numbers were due";
  do_io(guest, 2);
  const auto seen = xentop(xvda());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->reads, 2u);
  EXPECT_EQ(seen->read_sectors, 32u);
}

TEST_F(GuestBackendStatistics, AFileGoesWhenItsDiskIsDetached) {
  serve(xvda());
  ASSERT_TRUE(xentop(xvda()));
  detach(xvda());
  EXPECT_FALSE(file_of(xvda()));
}

// Of other disks xentop asks QEMU, and of a driver domain's it asks nobody.
TEST_F(GuestBackendStatistics, WhatXentopDoesNotLookForIsNotMade) {
  const FakeDisk qdisk = disk();
  serve(qdisk);
  run_for(1s);
  EXPECT_EQ(toolstack_.backend_value(qdisk, "kthread-pid"), "");
  EXPECT_TRUE(std::filesystem::is_empty(shm_.path()));
}

TEST_F(GuestBackendStatistics, ADriverDomainsDiskHasNone) {
  own_domain_ = 3;
  MemXenStoreTree::Permissions readable;
  readable.listed[3] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/3", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/3", readable));
  const FakeDisk far = xvda();
  toolstack_.add(far);
  start(3);
  FakeFrontend& guest = boot(far);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(toolstack_.backend_value(far, "kthread-pid"), "");
  EXPECT_TRUE(std::filesystem::is_empty(shm_.path()));
}

TEST_F(GuestBackendStatistics, ADiskIsServedThoughItsFileCannotBeMade) {
  const std::filesystem::path taken = shm_ / "td3-4711";
  std::filesystem::create_directory(taken);
  std::filesystem::permissions(taken, std::filesystem::perms::all);
  FakeFrontend& guest = serve(xvda());
  EXPECT_EQ(toolstack_.backend_value(xvda(), "kthread-pid"), "");
  EXPECT_EQ(error_of(xvda()), "");
  do_io(guest);
}

// The former guest's disk is still being closed, for its lost write may strike: its file makes room.
TEST_F(GuestBackendStatistics, TheNextGuestOfTheNumberBeginsAtNothing) {
  configuration_.multipath.quiesce_time = 300s;
  FakeFrontend& guest =
      serve(disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1", 51712, "vbd3"));
  do_io(guest);
  hold_writes();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  reactor_.network().set_refusing(target_.address(0), true);
  reactor_.network().reset_connections(target_.address(0));
  run_for(100ms);
  end_guest(DomainLife::dying);
  halt_guests();
  (void)reaches_state(xvda(), 6, 10s);
  toolstack_.remove(xvda());
  run_for(10ms);
  xen_.set_domain(kGuest, DomainStatus{});
  run_for(10ms);
  ASSERT_FALSE(finished_);

  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  const FakeDisk its = disk("aio:iscsi://192.0.2.2/iqn.2026-01.test:target/2", 51712, "vbd3");
  toolstack_.add(its);
  FakeFrontend& next = boot(its);
  ASSERT_TRUE(connect(next));
  do_io(next, 2);
  const auto seen = xentop(its);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->reads, 1u);
  target_.clear_faults();
  reactor_.network().set_refusing(target_.address(0), false);
  run_for(30s);
  EXPECT_TRUE(file_of(its)) << "the former one has taken its own away only";
}

}  // namespace
}  // namespace iscsi_blkback
