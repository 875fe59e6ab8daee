// The whole life of a guest's disks: they come up, connect, find their portals, and outlive the
// guest's restarts and those of xenstored. See guest_backend_fixture.h.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

TEST_F(GuestBackendTest, AttachConnectAndDoInputOutput) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  EXPECT_EQ(guest.sectors(), 2048u);
  EXPECT_EQ(guest.sector_size(), 512u);
  EXPECT_EQ(guest.physical_sector_size(), 4096u);
  EXPECT_TRUE(guest.flush_supported());
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "connected");
  EXPECT_EQ(error_of(xvda), "");
  do_io(guest);
  EXPECT_EQ(target_.sessions(), 2u);
}

TEST_F(GuestBackendTest, BothKindsAllAbisAllRingSizes) {
  configuration_.multipath.shared = true;  // they all lead to one LUN
  start();
  std::uint32_t device_id = 51712;
  std::vector<FakeDisk> disks;
  for (const char* kind : {"qdisk", "vbd3"}) {
    for (const BlkifAbi abi : {BlkifAbi::native, BlkifAbi::x86_32, BlkifAbi::x86_64}) {
      for (const std::uint32_t pages : {1u, 16u}) {
        disks.push_back(disk(kParams, device_id, kind));
        device_id += 16;
        toolstack_.add(disks.back());
        FakeFrontend& guest = boot(disks.back(), abi, pages);
        ASSERT_TRUE(connect(guest)) << kind;
        ASSERT_NO_FATAL_FAILURE(do_io(guest, static_cast<int>(device_id)));
      }
    }
  }
  EXPECT_EQ(target_.sessions(), 2u) << "the disks of a guest share their sessions";
}

TEST_F(GuestBackendTest, CapabilitiesAndStateTwoComeBeforeAnyLogin) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  run_for(10ms);
  EXPECT_EQ(toolstack_.backend_state(xvda), 2);
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-flush-cache"), "1");
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-barrier"), "1");
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-persistent"), "0");
  EXPECT_EQ(toolstack_.backend_value(xvda, "max-ring-page-order"), "4");
  EXPECT_EQ(toolstack_.backend_value(xvda, "multi-queue-max-queues"), "4");
  EXPECT_EQ(toolstack_.backend_value(xvda, "feature-max-indirect-segments"), "256");
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "");
  EXPECT_EQ(target_.counters.logins, 0u);
}

TEST_F(GuestBackendTest, AForeignDiskIsLeftAlone) {
  const FakeDisk file = disk("aio:/dev/vg/lv");
  toolstack_.add(file);
  const FakeDisk ours = disk(kParams, 51728);
  toolstack_.add(ours);
  start();
  run_for(100ms);
  EXPECT_EQ(toolstack_.backend_state(file), 1);
  EXPECT_EQ(toolstack_.backend_value(file, "max-ring-page-order"), "");
  EXPECT_EQ(toolstack_.backend_state(ours), 2);
}

TEST_F(GuestBackendTest, WithoutADiskOfOursTheProcessEnds) {
  toolstack_.add(disk("aio:/dev/vg/lv"));
  start();
  EXPECT_TRUE(ends());
}

TEST_F(GuestBackendTest, NothingIsWrittenIntoTheFrontendsDirectory) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  const std::string before = xen_.store().dump(xvda.frontend_path());
  start();
  run_for(1s);
  EXPECT_EQ(xen_.store().dump(xvda.frontend_path()), before);
}

TEST_F(GuestBackendTest, AFrontendThatResumesWithoutWaiting) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  FakeFrontend& guest = boot(xvda);
  guest.resume();
  start();
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
}

TEST_F(GuestBackendTest, AReadOnlyDisk) {
  FakeDisk xvda = disk();
  xvda.mode = "r";
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(guest.info() & 4, 4u);
  const auto id = guest.write(0, pattern(8, 1));
  guest.push();
  expect_answer(guest, *id, 20s, kBlkifError);
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
}

TEST_F(GuestBackendTest, GuestRestartsItsFrontend) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(connect(guest)) << round;
    ASSERT_NO_FATAL_FAILURE(do_io(guest, round));
    guest.restart();
    ASSERT_TRUE(run_until([&] { return !guest.connected(); }));
  }
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(target_.counters.logins, 2u) << "sessions stay while the guest restarts";
}

TEST_F(GuestBackendTest, GuestCrashesIntoANewKernelWithoutClosing) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& first = boot(xvda);
  ASSERT_TRUE(connect(first));
  halt_guests();  // its memory is the new kernel's
  ASSERT_TRUE(toolstack_.store().write(xvda.frontend_path() + "/state", "1"));
  FakeFrontend& second = boot(xvda);
  ASSERT_TRUE(connect(second)) << xen_.store().dump();
  do_io(second);
}

TEST_F(GuestBackendTest, OfAFrontendThatStartsWithoutHavingClosedTheLogTells) {
  auto sink = std::make_unique<MemoryLogSink>();
  MemoryLogSink& log = *sink;
  auto former_sink = set_log_sink(std::move(sink));
  const FakeDisk xvda = disk();
  FakeFrontend& first = serve(xvda);
  first.restart();
  ASSERT_TRUE(run_until([&] { return !first.connected(); }));
  ASSERT_TRUE(connect(first));
  EXPECT_FALSE(log.contains("has not closed")) << "it has";
  halt_guests();
  ASSERT_TRUE(toolstack_.store().write(xvda.frontend_path() + "/state", "1"));
  ASSERT_TRUE(connect(boot(xvda)));
  EXPECT_TRUE(log.contains("the frontend starts anew and has not closed"));
  (void)set_log_sink(std::move(former_sink));
}

TEST_F(GuestBackendTest, RestartOfAFrontendDuringAnOutage) {
  FakeFrontend& guest = serve();
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  guest.restart();
  ASSERT_TRUE(run_until([&] { return guest.state() == 3; }, 30s)) << xen_.store().dump();
  target_.start();
  ASSERT_TRUE(run_until([&] { return guest.connected(); }, 120s)) << xen_.store().dump();
  do_io(guest);
}

TEST_F(GuestBackendTest, ADriverDomainRemovesItsNode) {
  own_domain_ = 3;
  // As libxl leaves it: a domain may read what is its own.
  MemXenStoreTree::Permissions readable;
  readable.listed[3] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/3", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/3", readable));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start(3);
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest);
  toolstack_.request_detach(xvda);
  ASSERT_TRUE(ends(10s));
  EXPECT_EQ(toolstack_.backend_state(xvda), 0);
}

// A guest can bring it down (XSA-484 as well).
TEST_F(GuestBackendTest, Xsa481XenstoredDiesAndStartsAgain) {
  const FakeDisk xvda = disk();
  serve(xvda);
  xen_.store().break_connections();
  halt_guests();  // its connection is dead, too: it does not close in order
  FakeToolstack after(xen_);
  run_for(3s);
  EXPECT_EQ(after.backend_state(xvda), 4);
  after.force_detach(xvda);
  ASSERT_TRUE(ends(10s));
  EXPECT_EQ(after.backend_state(xvda), 6);
}

TEST_F(GuestBackendTest, ADeadPortalThatComesBackMakesTheDiskComeUp) {
  target_.stop();
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& guest = boot(xvda);
  run_for(60s);
  EXPECT_NE(error_of(xvda), "");
  EXPECT_FALSE(guest.connected());
  target_.start();
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(error_of(xvda), "");
  EXPECT_EQ(toolstack_.backend_value(xvda, "hotplug-status"), "connected");
}

TEST_F(GuestBackendTest, AHostThatIsKnownLaterAddsItsPath) {
  serve(disk("aio:iscsi://192.0.2.1,two/iqn.2026-01.test:target/1"));
  EXPECT_EQ(target_.sessions(), 1u);
  resolver_.names["two"] = "192.0.2.2";
  ASSERT_TRUE(run_until([&] { return target_.sessions() == 2; }, 60s));
}

TEST_F(GuestBackendTest, PortalsByDiscovery) {
  Portal portal;
  portal.host = "192.0.2.1";
  configuration_.discovery_portals = {portal};
  resolver_.discovered = {portal};
  resolver_.discovered.push_back(portal);
  resolver_.discovered[1].host = "192.0.2.2";
  serve(disk("aio:iscsi:iqn.2026-01.test:target/1"));
  ASSERT_TRUE(run_until([&] { return target_.sessions() == 2; }));
}

TEST_F(GuestBackendTest, ADeadPredecessorsRingIsNotTakenUp) {
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  auto store = xen_.store().connect(kGuest);
  ASSERT_TRUE(store->write(xvda.frontend_path() + "/state", "4"));
  ASSERT_TRUE(toolstack_.store().write(xvda.backend_path() + "/state", "4"));
  start();
  ASSERT_TRUE(reaches_state(xvda, 5));
}

// --- Status

TEST_F(GuestBackendTest, StatusOfAConnectedDisk) {
  const FakeDisk xvda = disk();
  FakeFrontend& guest = serve(xvda);
  do_io(guest);
  run_for(20ms);
  std::optional<GuestStatus> status;
  backend_->query([&](GuestStatus answer) { status = std::move(answer); });
  ASSERT_TRUE(run_until([&] { return status.has_value(); }));
  EXPECT_TRUE(status->complete);
  ASSERT_EQ(status->disks.size(), 1u);
  const DiskStatus& disk = status->disks[0];
  EXPECT_EQ(disk.virtual_device, "xvda");
  EXPECT_EQ(disk.params, kParams);
  EXPECT_EQ(disk.backend_state, XenbusState::connected);
  EXPECT_EQ(disk.frontend_state, XenbusState::connected);
  ASSERT_TRUE(disk.report && disk.report->ring);
  EXPECT_EQ(disk.report->multipath.paths.size(), 2u);
  EXPECT_EQ(disk.report->ring->write_requests, 1u);
  EXPECT_EQ(disk.report->ring->read_requests, 1u);
  EXPECT_EQ(disk.report->ring->flush_requests, 1u);
}

}  // namespace
}  // namespace iscsi_blkback
