// The end of a guest's disks: detached, shut down, migrated, destroyed; whatever the target does
// meanwhile.
#include <filesystem>

#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/blocking_barrier.h"

namespace iscsi_blkback {
namespace {

TEST_F(GuestBackendTest, DetachUnderARunningGuest) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = disk("aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/2", 51728);
  toolstack_.add(xvda);
  toolstack_.add(xvdb);
  start();
  FakeFrontend& a = boot(xvda);
  FakeFrontend& b = boot(xvdb);
  ASSERT_TRUE(connect(a) && connect(b));
  do_io(a);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  toolstack_.remove(xvda);
  do_io(b);
  EXPECT_FALSE(finished_);
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "") << "no node comes back to life";
  toolstack_.request_detach(xvdb);
  ASSERT_TRUE(reaches_state(xvdb, 6, 10s));
  ASSERT_TRUE(ends());
  expect_nothing_left();
}

TEST_F(GuestBackendTest, DetachOfADiskThatIsInUseGoesOnServing) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  guest.set_busy(true);
  ASSERT_TRUE(connect(guest));
  toolstack_.request_detach(xvda);
  run_for(12s);  // libxl has given up
  EXPECT_EQ(toolstack_.backend_state(xvda), 5);
  // The guest's kernel says Closing and goes on doing I/O on the disk that it has open.
  const auto data = pattern(8, 1);
  const auto id = guest.write(0, data);
  guest.push();
  ASSERT_TRUE(run_until([&] {
    guest.poll();
    return guest.take_completion(*id).has_value();
  }));
}

TEST_F(GuestBackendTest, DetachWhileAllPathsAreDown) {
  const FakeDisk xvda = disk();
  serve(xvda);
  target_.close_portal(0);
  target_.close_portal(1);
  run_for(1s);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  ASSERT_TRUE(ends(10s));
}

TEST_F(GuestBackendTest, DetachWithRequestsWaitingForAPath) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  target_.set_hung(true);
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(10ms);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  target_.set_hung(false);
  ASSERT_TRUE(ends(90s));
}

TEST_F(GuestBackendTest, ForcedDetach) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  do_io(guest);
  halt_guests();  // a fake frontend does not bear losing its nodes
  toolstack_.force_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  ASSERT_TRUE(ends(10s));
}

TEST_F(GuestBackendTest, DetachOfADiskWhoseTargetNeverAnswered) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  boot(xvda);
  run_for(3s);
  EXPECT_NE(error_of(xvda), "");
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  ASSERT_TRUE(ends(10s));
}

TEST_F(GuestBackendTest, AttachAgainAfterDetach) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = second_disk();
  toolstack_.add(xvdb);
  toolstack_.add(xvda);
  start();
  FakeFrontend& first = boot(xvda);
  ASSERT_TRUE(connect(first));
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(reaches_state(xvda, 6, 10s));
  toolstack_.remove(xvda);
  toolstack_.add(xvda);
  FakeFrontend& second = boot(xvda);
  ASSERT_TRUE(connect(second));
  do_io(second);
}

TEST_F(GuestBackendTest, GuestShutsDown) {
  const FakeDisk xvda = disk();
  serve(xvda);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 6);
  expect_nothing_left();
}

// Design rule: the source of a migration stops retrying when its guest has suspended; where the
// guest goes on, the requests are issued again, and an old write of ours could land after theirs.
TEST_F(GuestBackendTest, ASuspendedGuestsWritesAreNotRetried) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  target_.stop();
  const auto data = pattern(8, 1);
  const auto id = guest.write(0, data);
  guest.push();
  run_for(1s);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  target_.start();
  run_for(30s);
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
  EXPECT_EQ(toolstack_.backend_state(xvda), 4);
  // The migration failed: the guest goes on here, and so does its write.
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  ASSERT_NO_FATAL_FAILURE(expect_answer(guest, *id));
  expect_read(guest, 0, data);
}

TEST_F(GuestBackendTest, AMigratedGuestIsDestroyedWithItsWritesUnissued) {
  FakeFrontend& guest = serve();
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  target_.start();
  run_for(1s);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(ends(10s));
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
}

// Both paths of the guest's disk have registered a key.
class GuestBackendKeys : public GuestBackendTest {
 protected:
  GuestBackendKeys() { configuration_.multipath.reservation_key = 0x5a0000; }
  void serve_with_keys() {
    serve(xvda_);
    ASSERT_TRUE(run_until([&] { return keys() == 2; }, 1s));
  }
  [[nodiscard]] std::size_t keys() const { return target_.keys(1).size(); }

  const FakeDisk xvda_ = disk();
};

TEST_F(GuestBackendKeys, ADetachedDiskTakesItsKeysBack) {
  serve_with_keys();
  toolstack_.request_detach(xvda_);
  ASSERT_TRUE(reaches_state(xvda_, 6, 1s));
  EXPECT_EQ(keys(), 0U);
}

TEST_F(GuestBackendKeys, AGuestThatShutsDownTakesItsKeysBack) {
  serve_with_keys();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(keys(), 0U);
}

TEST_F(GuestBackendKeys, AGuestThatIsDestroyedTakesItsKeysBack) {
  serve_with_keys();
  end_guest(DomainLife::dying);
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(keys(), 0U);
}

TEST_F(GuestBackendKeys, TheSourceOfAMigrationTakesItsKeysBack) {
  serve_with_keys();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  EXPECT_EQ(keys(), 2U) << "it may go on here";
  end_guest(DomainLife::dying);
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(keys(), 0U);
}

// The session waits for the command as long as for any, before it logs out.
TEST_F(GuestBackendKeys, ATargetThatDoesNotTakeThemBackDelaysADetachNoLongerThanLibxlWaits) {
  serve_with_keys();
  SimFault never;
  never.matches = [](const SimCommand& command) {
    return command.cdb[0] == scsi_operation::kPersistentReserveOut;
  };
  never.count = 0;
  never.answer = false;
  target_.inject(never);
  toolstack_.request_detach(xvda_);
  EXPECT_TRUE(reaches_state(xvda_, 6, DiskDevice::kCloseTimeout + 100ms));
  EXPECT_TRUE(ends());
}

// The guest's last write before a migration is lost with its path and stays in the target.
class GuestBackendMigration : public GuestBackendTest {
 protected:
  FakeFrontend& write_and_suspend() {
    xvda_ = disk();
    FakeFrontend& guest = serve(xvda_);
    run_for(100ms);
    hold_writes(true);
    EXPECT_TRUE(guest.write(0, pattern(8, 1)));
    guest.push();
    EXPECT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
    xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
    return guest;
  }
  // As another process on this host sees it.
  [[nodiscard]] bool another_disk_may_write(const std::string& wwid) {
    auto other = BlockingBarrier::enter(barriers_.path(), lun_barrier_key(wwid, kTargetName, 1),
                                        {.name = "another disk"});
    EXPECT_TRUE(other);
    const bool may_write = other && other->look(reactor_.now()).may_write();
    other->leave();
    return may_write;
  }
  std::size_t portal_of_the_write() {
    const auto report = report_of_the_disk();
    return report.multipath.paths[0].in_flight != 0 ? 0 : 1;
  }
  DiskReport report_of_the_disk() {
    DiskReport report;
    backend_->query([&](const GuestStatus& status) { report = *status.disks.at(0).report; });
    run_for(10ms);
    return report;
  }
  // What the old write would do to the data of a guest that has gone on elsewhere.
  void expect_the_old_write_does_nothing() {
    const std::uint64_t writes = target_.lun(1).counters.writes;
    target_.clear_faults();
    target_.release_held();
    run_for(120s);
    EXPECT_EQ(target_.lun(1).counters.writes, writes);
    EXPECT_EQ(target_.counters.executed_after_close, 0u);
  }

  FakeDisk xvda_;
};

TEST_F(GuestBackendMigration, ALostWriteIsFencedBeforeTheDiskIsClosed) {
  write_and_suspend();
  const std::size_t portal = portal_of_the_write();
  run_for(100ms);
  target_.close_portal(portal);  // and its sibling fences
  run_for(100ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(reaches_state(xvda_, 6, 10s));
  expect_the_old_write_does_nothing();
}

TEST_F(GuestBackendMigration, AWriteAtASilentPathIsFencedBeforeTheDiskIsClosed) {
  write_and_suspend();
  const std::size_t portal = portal_of_the_write();
  reactor_.network().set_dropping(target_.address(portal), true);
  run_for(100ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(reaches_state(xvda_, 6, 10s));
  EXPECT_GE(target_.counters.terminated_tasks, 1u);
  reactor_.network().set_dropping(target_.address(portal), false);
  expect_the_old_write_does_nothing();
}

// With no way to fence, the toolstack is not kept waiting longer than it waits; the process stays
// until the write can do no harm any more.
TEST_F(GuestBackendMigration, WithoutAWayToFenceTheDiskIsClosedInTimeAllTheSame) {
  configuration_.multipath.quiesce_time = 30s;
  write_and_suspend();
  lose_both_paths();
  run_for(100ms);
  end_guest(DomainLife::dying);
  const TimePoint ended = reactor_.now();
  ASSERT_TRUE(reaches_state(xvda_, 6, 10s));
  EXPECT_GE(reactor_.now() - ended, DiskDevice::kCloseTimeout);
  EXPECT_LE(reactor_.now() - ended, DiskDevice::kCloseTimeout + 100ms);
  EXPECT_FALSE(ends(20s)) << "the write may still strike";
  EXPECT_TRUE(ends(10s));
}

// Destroyed, crashed, rebooted: it is started anew under another number, and reads its journal.
TEST_F(GuestBackendMigration, AGuestThatIsDestroyedHasItsLostWritesFenced) {
  configuration_.multipath.quiesce_time = 30s;
  FakeFrontend& guest = serve();
  const std::string wwid = map().wwid;
  hold_writes();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  lose_both_paths();
  run_for(100ms);
  end_guest(DomainLife::dying);
  EXPECT_FALSE(ends(10s)) << "the write may still strike";
  EXPECT_FALSE(another_disk_may_write(wwid)) << "and whoever comes after it is told";
  for (std::size_t portal = 0; portal < 2; ++portal) {
    reactor_.network().set_refusing(target_.address(portal), false);
  }
  EXPECT_TRUE(ends(10s));
  EXPECT_TRUE(another_disk_may_write(wwid));
  expect_the_old_write_does_nothing();
}

// libxl waits for 10 s and detaches; the disk is attached again while the old life of it is not
// over: whatever is written there then stays.
TEST_F(GuestBackendMigration, ADiskThatIsAttachedAgainWaitsForTheLostWritesOfItsFormerLife) {
  configuration_.multipath.quiesce_time = 30s;
  xvda_ = disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1");
  FakeFrontend& guest = serve(xvda_);
  hold_writes();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  reactor_.network().set_refusing(target_.address(0), true);
  reactor_.network().reset_connections(target_.address(0));
  run_for(100ms);
  toolstack_.request_detach(xvda_);
  ASSERT_TRUE(reaches_state(xvda_, 6, 10s));
  toolstack_.remove(xvda_);
  halt_guests();
  const FakeDisk again = disk("aio:iscsi://192.0.2.2/iqn.2026-01.test:target/1");
  toolstack_.add(again);
  FakeFrontend& second = boot(again);
  ASSERT_TRUE(connect(second));
  expect_read(second, 0, std::vector<std::byte>(8 * kSectorBytes));
  const auto newer = pattern(8, 2);
  ASSERT_NO_FATAL_FAILURE(write(second, 0, newer));
  target_.clear_faults();
  target_.release_held();
  run_for(1s);
  expect_read(second, 0, newer);
}

// A path that is silent when the guest is suspended is not waited for.
TEST_F(GuestBackendMigration, AWriteAtASilentPathIsFencedAsSoonAsTheGuestIsSuspended) {
  xvda_ = disk();
  FakeFrontend& guest = serve(xvda_);
  run_for(100ms);
  hold_writes(true);
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
  reactor_.network().set_dropping(target_.address(portal_of_the_write()), true);
  run_for(300ms);
  EXPECT_EQ(target_.counters.terminated_tasks, 0U);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(100ms);
  EXPECT_EQ(target_.counters.terminated_tasks, 1U);
  expect_the_old_write_does_nothing();
}

// ---- the LUN of a guest that goes on

class GuestBackendPlace : public GuestBackendTest {
 protected:
  // A disk of guest 6, which waits for the LUN.
  BlockingBarrier wait_for_the_lun() {
    const auto file = std::filesystem::directory_iterator(barriers_.path())->path().filename();
    auto other = BlockingBarrier::enter(
        barriers_.path(), file.stem().string(),
        {.name = "xvda of guest 6", .vm = 6, .domain = 6, .quiesce_time = 60s}, reactor_.now());
    EXPECT_TRUE(other);
    EXPECT_FALSE(other->look(reactor_.now()).may_write());
    return std::move(*other);
  }
};

// As libxl saves a guest: it is suspended, its disks go, and then its domain.
TEST_F(GuestBackendPlace, IsKeptForAGuestThatIsSaved) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  do_io(guest);
  BlockingBarrier other = wait_for_the_lun();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  xen_.store().fire_special("@releaseDomain");
  run_for(1s);
  EXPECT_FALSE(other.look(reactor_.now()).may_write());
  halt_guests();
  toolstack_.request_detach(xvda);
  run_for(2s);
  toolstack_.remove(xvda);
  run_for(100ms);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::gone, {}});
  xen_.store().fire_special("@releaseDomain");
  run_for(3s);
  EXPECT_THAT(other.look(reactor_.now()).in_use_by, testing::HasSubstr("of guest"));
  other.leave();
}

// What the guest has asked for and was not answered it asks for again, of the next process.
TEST_F(GuestBackendPlace, IsKeptWhereTheProcessIsAskedToEnd) {
  do_io(serve());
  BlockingBarrier other = wait_for_the_lun();
  halt_guests();
  backend_->stop();
  ASSERT_TRUE(ends(10s));
  EXPECT_THAT(other.look(reactor_.now()).in_use_by, testing::HasSubstr("of guest"));
  other.leave();
}

// As above, but nobody goes on.
TEST_F(GuestBackendPlace, IsNotKeptForAGuestThatHasEnded) {
  do_io(serve());
  BlockingBarrier other = wait_for_the_lun();
  halt_guests();
  end_guest(DomainLife::dying);
  run_for(10ms);
  backend_->stop();
  ASSERT_TRUE(ends(10s));
  const BlockingBarrier::Others others = other.look(reactor_.now());
  EXPECT_EQ(others.in_use_by, "");
  EXPECT_EQ(others.late_writes_of, "");
  EXPECT_THAT(others.dead, testing::IsEmpty());
  other.leave();
}

TEST_F(GuestBackendTest, StopLeavesTheNodesAsTheyAre) {
  const FakeDisk xvda = disk();
  serve(xvda);
  halt_guests();
  backend_->stop();
  ASSERT_TRUE(ends(10s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 4);
  expect_nothing_left();
}

TEST_F(GuestBackendTest, DestroyDuringInputOutput) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda, BlkifAbi::x86_64, 4);
  ASSERT_TRUE(connect(guest));
  while (guest.write(0, pattern(8, 1))) {
  }
  guest.push();
  run_for(1ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(ends(5s));
  expect_nothing_left();
  toolstack_.remove(xvda);
  run_for(1s);
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "");
}

TEST_F(GuestBackendTest, DestroyDuringAnOutageWithRequestsUnderWay) {
  configuration_.multipath.quiesce_time = 20s;
  FakeFrontend& guest = serve();
  target_.set_hung(true);
  while (guest.write(0, pattern(8, 1))) {
  }
  guest.push();
  run_for(10ms);
  end_guest(DomainLife::dying);
  ASSERT_TRUE(run_until([&] { return xen_.grants().mapped_pages() == 0; }, 100ms));
  ASSERT_TRUE(ends(30s));
  target_.set_hung(false);
  run_for(1s);
}

TEST_F(GuestBackendTest, ToolstackWritesStateSixItself) {
  // libxl, for a qdisk of a paused guest: no Closing, 2 s later state 6.
  const FakeDisk xvda = disk();
  serve(xvda);
  halt_guests();
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/state", "6"));
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 6);
}

TEST_F(GuestBackendTest, TheNodeVanishes) {
  const FakeDisk xvda = disk();
  serve(xvda);
  toolstack_.remove(xvda);
  ASSERT_TRUE(ends(2s));
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "");
}

}  // namespace
}  // namespace iscsi_blkback
