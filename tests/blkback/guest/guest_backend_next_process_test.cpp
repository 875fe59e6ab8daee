// What a process leaves when it is killed or asked to end is served by the next one, whatever the
// handshake had come to.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class NextProcess : public GuestBackendTest {
 protected:
  void end_process() {
    backend_->stop();
    ASSERT_TRUE(ends());
    forget_process();
  }
  void write_frontend_state(const char* state) {
    ASSERT_TRUE(toolstack_.store().write(disk().frontend_path() + "/state", state));
  }
  // The driver is unbound, or has given the disk up.
  void close_frontend() {
    halt_guests();
    write_frontend_state("6");
    ASSERT_TRUE(reaches_state(disk(), 6));
  }
  // The next process has taken up the disk, and has announced nothing: its frontend is closing.
  void be_adopted_while_closing() {
    serve();
    halt_guests();
    write_frontend_state("5");
    ASSERT_TRUE(reaches_state(disk(), 5));
    end_process();
    start();
    run_for(1s);
  }
};

TEST_F(NextProcess, ServesAFrontendThatWasClosedWhenTheFormerOneEnded) {
  do_io(serve());
  close_frontend();
  end_process();
  start();
  run_for(60s);
  EXPECT_FALSE(finished_) << "the toolstack keeps the disk";
  write_frontend_state("1");
  ASSERT_TRUE(reaches_state(disk(), 2));
  FakeFrontend& guest = boot(disk());
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  do_io(guest, 2);
}

// As blkfront_resume() does it.
TEST_F(NextProcess, ServesAFrontendThatWasClosedAndConnectsWithoutStarting) {
  do_io(serve());
  close_frontend();
  end_process();
  start();
  run_for(1s);
  write_frontend_state("3");
  EXPECT_TRUE(reaches_state(disk(), 2));
  FakeFrontend& guest = boot(disk());
  EXPECT_TRUE(connect(guest)) << xen_.store().dump();
}

TEST_F(NextProcess, EndsWithADiskThatIsDetachedBetweenTwoHandshakes) {
  do_io(serve());
  close_frontend();
  end_process();
  start();
  run_for(1s);
  toolstack_.request_detach(disk());
  EXPECT_TRUE(ends());
  EXPECT_EQ(toolstack_.backend_state(disk()), 6);
}

// In a driver domain nobody else removes the node, whatever the guest writes.
TEST_F(NextProcess, RemovesTheNodeOfADetachedDiskWhoseFrontendIsClosing) {
  own_domain_ = 7;
  MemXenStoreTree::Permissions readable;
  readable.listed[7] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/7", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/7", readable));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start(7);
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  halt_guests();
  ASSERT_TRUE(toolstack_.store().write(xvda.frontend_path() + "/state", "6"));
  ASSERT_TRUE(reaches_state(xvda, 6));
  ASSERT_TRUE(toolstack_.store().write(xvda.frontend_path() + "/state", "5"));
  run_for(100ms);
  toolstack_.request_detach(xvda);
  EXPECT_TRUE(ends());
  EXPECT_EQ(toolstack_.backend_state(xvda), 0);
}

// The node stays as it is until the toolstack destroys the guest, which may be never, and another
// disk keeps the process.
TEST_F(NextProcess, ADiskThatHasNeverStartedIsNotTakenUpAgainWhenItsGuestHasEnded) {
  configuration_.multipath.quiesce_time = 300s;
  FakeFrontend& guest = serve();
  toolstack_.add(second_disk());
  ASSERT_TRUE(reaches_state(second_disk(), 2));
  hold_writes();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  ASSERT_TRUE(run_until([&] { return target_.held() == 1; }));
  lose_both_paths();
  run_for(100ms);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::poweroff});
  halt_guests();
  ASSERT_TRUE(reaches_state(second_disk(), 6));
  const std::uint64_t before = xen_.faults().calls("xenstore transaction");
  run_for(30s);
  EXPECT_FALSE(finished_) << "a write may still strike";
  EXPECT_EQ(toolstack_.backend_state(second_disk()), 6);
  EXPECT_LT(xen_.faults().calls("xenstore transaction") - before, 20u)
      << "it is taken up again and again";
  target_.clear_faults();
  for (std::size_t portal = 0; portal < 2; ++portal) {
    reactor_.network().set_refusing(target_.address(portal), false);
  }
  EXPECT_TRUE(ends(60s));
}

// While the process has announced nothing, it sees no difference in the states.
TEST_F(NextProcess, ANodeThatWasMadeAnewForAnotherLunLeadsToThatLun) {
  ASSERT_NO_FATAL_FAILURE(be_adopted_while_closing());
  // Detach and attach, before the process looks.
  toolstack_.remove(disk());
  const FakeDisk other = disk("aio:iscsi://192.0.2.1,192.0.2.2/iqn.2026-01.test:target/2");
  toolstack_.add(other);
  FakeFrontend& guest = boot(other);
  ASSERT_TRUE(connect(guest)) << xen_.store().dump();
  ASSERT_NO_FATAL_FAILURE(write(guest, 0, pattern(8, 9)));
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
  EXPECT_EQ(target_.lun(2).counters.writes, 1u);
}

TEST_F(NextProcess, ANodeThatWasMadeAnewWithoutADiskLineIsServedByNobody) {
  ASSERT_NO_FATAL_FAILURE(be_adopted_while_closing());
  toolstack_.remove(disk());
  toolstack_.add(disk("aio:/dev/vg/lv"));
  ASSERT_TRUE(toolstack_.store().remove(disk().backend_path() + "/params"));
  EXPECT_TRUE(ends());
  EXPECT_EQ(toolstack_.backend_state(disk()), 1);
}

TEST_F(NextProcess, ADiskIsServedAfterXenstoredDiedWithoutSayingThatItHadWrittenStateSix) {
  FakeFrontend& guest = serve();
  do_io(guest);
  halt_guests();
  xen_.store().break_connections_after_next_commit();
  write_frontend_state("6");
  run_for(10s);
  FakeToolstack after(xen_);
  EXPECT_GT(stores_opened_, 1);
  EXPECT_EQ(after.backend_state(disk()), 6);
  EXPECT_FALSE(finished_) << "the toolstack keeps the disk";
  ASSERT_TRUE(after.store().write(disk().frontend_path() + "/state", "1"));
  ASSERT_TRUE(run_until([&] { return after.backend_state(disk()) == 2; }, 60s));
  EXPECT_TRUE(connect(boot(disk()))) << xen_.store().dump();
}

}  // namespace
}  // namespace iscsi_blkback
