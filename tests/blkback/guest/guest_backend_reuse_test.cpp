// Xen gives a number to another guest while the process that served the former one still has to
// fence its lost writes. The one process serves both, and never mixes them up.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

class GuestBackendReuse : public GuestBackendTest {
 protected:
  GuestBackendReuse() { configuration_.multipath.quiesce_time = 300s; }

  FakeDisk first_disk() { return disk("aio:iscsi://192.0.2.1/iqn.2026-01.test:target/1"); }
  // Another LUN, by the other portal, at the same place in the guest and in xenstore.
  FakeDisk other_disk() { return disk("aio:iscsi://192.0.2.2/iqn.2026-01.test:target/2"); }

  // The guest's write is lost with its path, which does not come back.
  FakeFrontend& serve_and_lose_a_write() {
    FakeFrontend& guest = serve(first_disk());
    hold_writes();
    EXPECT_TRUE(guest.write(0, pattern(8, 1)));
    guest.push();
    EXPECT_TRUE(run_until([&] { return target_.held() == 1; }, 1s));
    reactor_.network().set_refusing(target_.address(0), true);
    reactor_.network().reset_connections(target_.address(0));
    run_for(100ms);
    return guest;
  }
  // As libxl destroys it: the nodes go when the disk is closed or has not been for 10 s.
  void destroy_guest(const FakeDisk& disk) {
    end_guest(DomainLife::dying);
    halt_guests();
    (void)reaches_state(disk, 6, 10s);
    toolstack_.remove(disk);
    run_for(10ms);
    xen_.set_domain(kGuest, DomainStatus{});
    run_for(10ms);
  }
  FakeFrontend& start_guest(const FakeDisk& disk) {
    xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
    toolstack_.add(disk);
    return boot(disk);
  }
  void let_the_path_come_back() { reactor_.network().set_refusing(target_.address(0), false); }
};

TEST_F(GuestBackendReuse, TheNewGuestIsServedWhileTheFormerOnesWritesAreFenced) {
  serve_and_lose_a_write();
  destroy_guest(first_disk());
  ASSERT_FALSE(finished_) << "a write may still strike";
  FakeFrontend& guest = start_guest(other_disk());
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  EXPECT_EQ(map().paths.size(), 1U) << "the status is the new guest's";
  // And when the old one's writes are fenced, the process goes on.
  target_.clear_faults();
  let_the_path_come_back();
  run_for(30s);
  EXPECT_FALSE(finished_);
  EXPECT_EQ(target_.sessions(), 1U);
  do_io(guest, 2);
}

// At the same LUN by the same portal, its login is what fences: they share the session.
TEST_F(GuestBackendReuse, TheNewGuestsLoginFencesTheFormerOnesWrites) {
  serve_and_lose_a_write();
  destroy_guest(first_disk());
  FakeFrontend& guest = start_guest(first_disk());
  run_for(1s);
  EXPECT_FALSE(guest.connected()) << "there is no path";
  let_the_path_come_back();
  ASSERT_TRUE(connect(guest));
  const auto newer = pattern(8, 2);
  write(guest, 0, newer);
  target_.clear_faults();
  target_.release_held();
  run_for(1s);
  expect_read(guest, 0, newer);
  EXPECT_EQ(target_.counters.executed_after_close, 0U);
  EXPECT_EQ(target_.sessions(), 1U);
}

TEST_F(GuestBackendReuse, WhileTheFormerOnesDiskIsBeingClosed) {
  serve_and_lose_a_write();
  end_guest(DomainLife::dying);
  halt_guests();
  run_for(500ms);
  EXPECT_EQ(toolstack_.backend_state(first_disk()), 4) << "libxl still waits";
  toolstack_.remove(first_disk());
  xen_.set_domain(kGuest, DomainStatus{});
  FakeFrontend& guest = start_guest(other_disk());
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  run_for(20s);
  EXPECT_EQ(toolstack_.backend_state(other_disk()), 4) << "nobody closes it for the former one";
}

// Everything happens at once, before the process looks: it must not end the new guest's disk for
// the old one's sake.
TEST_F(GuestBackendReuse, BeforeTheProcessHasSeenTheEndOfTheFormerGuest) {
  toolstack_.add(first_disk());
  start();
  toolstack_.remove(first_disk());
  xen_.set_domain(kGuest, DomainStatus{});
  FakeFrontend& guest = start_guest(other_disk());
  EXPECT_TRUE(connect(guest));
  do_io(guest);
}

TEST_F(GuestBackendReuse, AGuestThatEndsBeforeItsDiskIsAnnouncedLeavesTheNextOnesNodeAlone) {
  toolstack_.add(first_disk());
  start();
  xen_.faults().fail_calls("xenstore transaction", 100);  // nothing can be announced
  run_for(2s);
  end_guest(DomainLife::dying);
  xen_.faults().set_paused(true);
  toolstack_.remove(first_disk());
  xen_.set_domain(kGuest, DomainStatus{});
  FakeFrontend& guest = start_guest(other_disk());
  xen_.faults().disarm();
  EXPECT_TRUE(connect(guest));
  do_io(guest);
}

// Only the UUID tells.
TEST_F(GuestBackendReuse, WhenNobodyHasToldOfTheEnd) {
  const FakeDisk xvda = first_disk();
  toolstack_.add(xvda);
  start();
  ASSERT_TRUE(reaches_state(xvda, 2));
  EXPECT_TRUE(run_until([&] { return target_.sessions() == 1; }));
  xen_.set_domain_silently(kGuest, DomainStatus{});
  xen_.set_domain_silently(kGuest, DomainStatus{DomainLife::running, {}});
  run_for(GuestWatch::kInterval + 10ms);
  toolstack_.remove(xvda);
  toolstack_.add(other_disk());
  FakeFrontend& guest = boot(other_disk());
  EXPECT_TRUE(connect(guest));
  do_io(guest);
  EXPECT_TRUE(run_until([&] { return target_.sessions() == 1; }));
}

// The guest has been migrated away. Whatever it had under way here stays unsent; the next one's
// requests are sent.
TEST_F(GuestBackendReuse, AfterAGuestThatWasMigratedAway) {
  FakeFrontend& former = serve_and_lose_a_write();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(10ms);
  ASSERT_TRUE(former.write(512, pattern(8, 3)));
  former.push();
  run_for(10ms);
  destroy_guest(first_disk());
  FakeFrontend& guest = start_guest(other_disk());
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  target_.clear_faults();
  const std::uint64_t writes = target_.lun(1).counters.writes;
  let_the_path_come_back();
  run_for(30s);
  EXPECT_EQ(target_.lun(1).counters.writes, writes) << "of the guest that lives elsewhere";
  do_io(guest, 2);

  // And the new one is suspended and goes on like any other.
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(10ms);
  const std::uint64_t before = target_.lun(2).counters.writes;
  const auto id = guest.write(0, pattern(8, 4));
  guest.push();
  run_for(1s);
  EXPECT_EQ(target_.lun(2).counters.writes, before);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  expect_answer(guest, *id);
}

// Asked once more at the very moment, Xen says something else than when the look began.
class ScriptedDomains final : public DomainInfo {
 public:
  ScriptedDomains(std::unique_ptr<DomainInfo> domains, std::vector<DomainStatus>& script)
      : domains_(std::move(domains)), script_(script) {}
  Result<DomainStatus> status(DomainId domain) override {
    if (script_.empty()) {
      return domains_->status(domain);
    }
    const DomainStatus next = script_.front();
    script_.erase(script_.begin());
    return next;
  }

 private:
  std::unique_ptr<DomainInfo> domains_;
  std::vector<DomainStatus>& script_;
};

class GuestBackendReuseMeanwhile : public GuestBackendReuse {
 protected:
  std::unique_ptr<DomainInfo> open_domain_info() override {
    return std::make_unique<ScriptedDomains>(xen_.open_domain_info(), script_);
  }
  // For the first question of the look the former guest has ended; for the next one, before
  // anything is done to the disk's node, another guest has the number.
  void replace_in_the_middle_of_a_look() {
    script_ = {DomainStatus{}};
    toolstack_.remove(first_disk());
    xen_.set_domain_silently(kGuest, DomainStatus{});
    xen_.set_domain_silently(kGuest, DomainStatus{DomainLife::running, {}});
    toolstack_.add(other_disk());
  }
  void expect_served_without_being_closed() {
    bool closed = false;
    FakeFrontend& guest = boot(other_disk());
    EXPECT_TRUE(run_until([&] {
      closed = closed || toolstack_.backend_state(other_disk()) == 6;
      return guest.connected();
    }));
    EXPECT_FALSE(closed);
    do_io(guest);
  }

  std::vector<DomainStatus> script_;
};

TEST_F(GuestBackendReuseMeanwhile, WhileTheFormerOnesDiskIsBeingLookedAt) {
  toolstack_.add(first_disk());
  start();
  ASSERT_TRUE(reaches_state(first_disk(), 2));
  replace_in_the_middle_of_a_look();
  ASSERT_TRUE(toolstack_.store().write(other_disk().backend_path() + "/state", "2"));
  expect_served_without_being_closed();
}

// It has no device that would have to be closed before its node.
TEST_F(GuestBackendReuseMeanwhile, WhileADiskOfTheFormerOneIsLookedAtThatHasAnnouncedNothing) {
  toolstack_.add(first_disk());
  for (const std::string& path : {first_disk().backend_path(), first_disk().frontend_path()}) {
    ASSERT_TRUE(toolstack_.store().write(path + "/state", "5"));
  }
  start();
  run_for(100ms);
  replace_in_the_middle_of_a_look();
  expect_served_without_being_closed();
}

TEST_F(GuestBackendReuseMeanwhile, NothingIsWrittenAfterTheEndWhileXenDoesNotSayWhoseTheNodeIs) {
  toolstack_.add(first_disk());
  start();
  ASSERT_TRUE(reaches_state(first_disk(), 2));
  script_ = {DomainStatus{}};
  xen_.faults().fail_calls("domain status");
  ASSERT_TRUE(toolstack_.store().write(first_disk().backend_path() + "/online", "1"));
  run_for(5s);
  EXPECT_EQ(toolstack_.backend_state(first_disk()), 2);
  xen_.set_domain_silently(kGuest, DomainStatus{});
  xen_.faults().disarm();
  EXPECT_TRUE(reaches_state(first_disk(), 6));
}

// Whose disks are held: every suspend is one guest's.
class RecordingPlane final : public DataPlane {
 public:
  explicit RecordingPlane(DataPlane& plane) : plane_(plane) {}

  std::unique_ptr<DiskPort> open(DiskHandle disk, DiskSpecification specification,
                                 DiskEvents& events) override {
    return plane_.open(disk, std::move(specification), events);
  }
  void set_guest(DiskHandle first, const GuestNow& guest) override {
    told.emplace_back(first, guest.state);
    plane_.set_guest(first, guest);
  }
  void query(std::function<void(std::vector<DiskReport>)> done) override {
    plane_.query(std::move(done));
  }

  std::vector<std::pair<DiskHandle, GuestState>> told;

 private:
  DataPlane& plane_;
};

class GuestBackendReuseRecorded : public GuestBackendReuse {
 protected:
  DataPlane& data_plane() override {
    recording_ = std::make_unique<RecordingPlane>(*plane_);
    return *recording_;
  }
  ~GuestBackendReuseRecorded() override {
    // The backend must not outlive what it uses.
    halt_guests();
    if (!finished_) {
      end_guest(DomainLife::gone);
      EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 400s));
    }
    backend_.reset();
  }
  std::unique_ptr<RecordingPlane> recording_;
};

// As in a driver domain; nobody has told of the end, and the nodes are the same.
TEST_F(GuestBackendReuseRecorded, WhereXenMayNotBeAskedTheUuidInXenstoreTells) {
  const auto put_vm = [&](const char* uuid) {
    ASSERT_TRUE(toolstack_.store().write("/local/domain/5/vm", fmt::format("/vm/{}", uuid)));
  };
  domains_may_be_asked_ = false;
  toolstack_.add(first_disk());
  put_vm("01020304-0506-0708-090a-0b0c0d0e0f10");
  start();
  ASSERT_TRUE(reaches_state(first_disk(), 2));
  run_for(10s);
  ASSERT_EQ(recording_->told.back().first, 1U);
  put_vm("01020304-0506-0708-090a-0b0c0d0e0f11");
  run_for(GuestWatch::kInterval + 10ms);
  EXPECT_EQ(recording_->told.back().first, 2U) << "the former guest's disk is not this one's";
  FakeFrontend& guest = boot(first_disk());
  ASSERT_TRUE(connect(guest));
  do_io(guest);
  halt_guests();
  ASSERT_TRUE(toolstack_.store().remove("/local/domain/5"));
  EXPECT_TRUE(ends(10s));
}

TEST_F(GuestBackendReuseRecorded, ASuspendIsOneGuestsOnly) {
  using testing::ElementsAre;
  using testing::Pair;
  serve_and_lose_a_write();
  const DomainStatus suspended{DomainLife::shut_down, ShutdownReason::suspend};
  xen_.set_domain(kGuest, suspended);
  run_for(10ms);
  destroy_guest(first_disk());
  EXPECT_THAT(recording_->told,
              ElementsAre(Pair(1, GuestState::runs), Pair(1, GuestState::suspended),
                          Pair(1, GuestState::moved)));
  recording_->told.clear();
  ASSERT_TRUE(connect(start_guest(other_disk())));
  EXPECT_THAT(recording_->told, ElementsAre(Pair(2, GuestState::runs)));
  xen_.set_domain(kGuest, suspended);
  run_for(10ms);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  run_for(200ms);
  EXPECT_THAT(recording_->told,
              ElementsAre(Pair(2, GuestState::runs), Pair(2, GuestState::suspended),
                          Pair(2, GuestState::runs)));
  let_the_path_come_back();
}

TEST_F(GuestBackendReuse, WhatIsHeldOfTheFormerGuestStaysSo) {
  const FakeDisk xvda = disk();
  const FakeDisk xvdb = second_disk();
  toolstack_.add(xvda);
  start();
  FakeFrontend& a = boot(xvda);
  ASSERT_TRUE(connect(a));
  toolstack_.add(xvdb);
  FakeFrontend& b = boot(xvdb);
  ASSERT_TRUE(connect(b));
  plane_->set_guest(1, {GuestState::suspended});
  plane_->set_guest(2, {GuestState::runs});
  run_for(1ms);
  const auto held = a.write(0, pattern(8, 1));
  const auto sent = b.write(0, pattern(8, 1));
  a.push();
  b.push();
  expect_answer(b, *sent);
  run_for(1s);
  EXPECT_EQ(target_.lun(1).counters.writes, 0U);
  plane_->set_guest(1, {GuestState::runs});
  expect_answer(a, *held);
}

// While the control thread waits for xenstored (suspend_sentry.h).
TEST_F(GuestBackendReuse, WhatIsSeenOfAnotherGuestLetsNoDiskOfTheFormerOneGoOn) {
  FakeFrontend& guest = serve();
  const std::uint64_t vm = vm_of(domains_->status(kGuest)->handle);
  ASSERT_NE(vm, 0u);
  plane_->see_guest({GuestState::suspended, vm});
  run_for(1ms);
  const auto id = guest.write(0, pattern(8, 1));
  guest.push();
  plane_->see_guest({GuestState::runs, vm + 1});
  run_for(300ms);
  EXPECT_EQ(target_.lun(1).counters.writes, 0U);
  plane_->see_guest({GuestState::runs, vm});
  expect_answer(guest, *id);
}

TEST_F(GuestBackendReuse, AGuestThatHasEndedIsNotSeenToRunAgain) {
  FakeFrontend& guest = serve();
  const std::uint64_t vm = vm_of(domains_->status(kGuest)->handle);
  for (const GuestState end : {GuestState::moved, GuestState::ended}) {
    plane_->set_guest(1, {end, vm});
    plane_->see_guest({GuestState::in_doubt, 0});
    plane_->see_guest({GuestState::runs, vm});
    run_for(1ms);
    const auto id = guest.write(0, pattern(8, 1));
    guest.push();
    const std::uint64_t before = target_.lun(1).counters.writes;
    run_for(300ms);
    EXPECT_EQ(target_.lun(1).counters.writes, before);
    plane_->set_guest(1, {GuestState::runs, vm});
    expect_answer(guest, *id);
  }
}

TEST_F(GuestBackendReuse, AGuestWithoutDisksOfOursKeepsNothing) {
  serve_and_lose_a_write();
  destroy_guest(first_disk());
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  toolstack_.add(disk("aio:/dev/vg/lv"));
  run_for(10s);
  EXPECT_FALSE(finished_) << "a write may still strike";
  target_.clear_faults();
  let_the_path_come_back();
  EXPECT_TRUE(ends(30s));
  EXPECT_EQ(toolstack_.backend_state(disk("aio:/dev/vg/lv")), 1);
}

// A guest after a guest after a guest, each leaving a lost write that the next one's login fences.
TEST_F(GuestBackendReuse, AgainAndAgain) {
  serve_and_lose_a_write();
  for (int life = 1; life < 5; ++life) {
    destroy_guest(first_disk());
    ASSERT_FALSE(finished_) << life;
    FakeFrontend& guest = start_guest(first_disk());
    let_the_path_come_back();
    ASSERT_TRUE(connect(guest)) << life;
    expect_read(guest, 0, std::vector<std::byte>(8 * kSectorBytes));
    hold_writes();
    EXPECT_TRUE(guest.write(0, pattern(8, life)));
    guest.push();
    ASSERT_TRUE(run_until([&] { return target_.held() == 1; }, 1s)) << life;
    reactor_.network().set_refusing(target_.address(0), true);
    reactor_.network().reset_connections(target_.address(0));
    run_for(100ms);
  }
  destroy_guest(first_disk());
  let_the_path_come_back();
  EXPECT_TRUE(ends(30s));
  target_.clear_faults();
  target_.release_held();
  run_for(1s);
  EXPECT_EQ(target_.counters.executed_after_close, 0U);
}

// The last disk has gone, and the process is about to end: the service starts another one.
TEST_F(GuestBackendReuse, AfterTheLastDiskHasGoneAnotherProcessServes) {
  const FakeDisk xvda = first_disk();
  serve(xvda);
  destroy_guest(xvda);
  ASSERT_TRUE(ends(5s));
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
  toolstack_.add(other_disk());
  run_for(5s);
  EXPECT_EQ(toolstack_.backend_state(other_disk()), 1) << "left to the next process";
  forget_process();
  start();
  FakeFrontend& guest = boot(other_disk());
  EXPECT_TRUE(connect(guest));
}

}  // namespace
}  // namespace iscsi_blkback
