// Questions that fail are asked again: to Xen, about the guest; to xenstore, about its disks; to
// the kernel, for its rings. And xenstored itself dies, hangs, and forgets.
#include <filesystem>
#include <set>

#include "base/log.h"
#include "blkback/guest/guest_run_state.h"
#include "tests/blkback/guest/guest_backend_fixture.h"
#include "tests/support/blocking_barrier.h"

namespace iscsi_blkback {
namespace {

class GuestBackendQuestions : public GuestBackendTest {
 protected:
  void suspend() {
    xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  }
  void resume() { xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}}); }
  // Whether a new write of the guest's reaches the target within a moment.
  bool writes_are_sent(FakeFrontend& guest) {
    const std::uint64_t before = target_.lun(1).counters.writes;
    const auto id = guest.write(64, pattern(8, 1));
    EXPECT_TRUE(id);
    guest.push();
    const bool sent = run_until([&] { return target_.lun(1).counters.writes != before; }, 200ms);
    return sent;
  }
  void expect_served(FakeFrontend& guest) { do_io(guest); }
};

// ---- Xen is asked about the guest ----

TEST_F(GuestBackendQuestions, OneThatFailsHidesNoSuspend) {
  FakeFrontend& guest = serve();
  xen_.faults().fail_calls("domain status", 1);
  suspend();
  run_for(30ms);
  EXPECT_FALSE(writes_are_sent(guest));
  resume();
  run_for(200ms);
  expect_served(guest);
}

TEST_F(GuestBackendQuestions, OneThatFailsHidesNoEndOfTheGuest) {
  serve();
  xen_.faults().fail_calls("domain status", 1);
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::crash});
  EXPECT_TRUE(run_until([&] { return xen_.grants().mapped_pages() == 0; }, 100ms));
  EXPECT_TRUE(ends(2s));
}

// It may have been started anew at another host by then.
TEST_F(GuestBackendQuestions, AGuestThatHasEndedSendsNothingMoreWhileXenstoreCannotBeRead) {
  FakeFrontend& guest = serve();
  target_.stop();
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  run_for(1s);
  xen_.faults().fail_calls("xenstore read");
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::dying, {}});
  run_for(100ms);
  target_.start();
  run_for(30s);
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
  xen_.faults().disarm();
  EXPECT_TRUE(ends(10s));
  EXPECT_EQ(target_.lun(1).counters.writes, 0u);
}

TEST_F(GuestBackendQuestions, ADiskThatIsOpenedWhileTheGuestIsSuspendedWaitsToo) {
  suspend();
  FakeFrontend& guest = serve();
  EXPECT_FALSE(writes_are_sent(guest));
  resume();
  EXPECT_TRUE(run_until([&] { return guest.outstanding() == 0; }, 1s));
}

// Neither an event nor xenstore says that the guest is suspended.
TEST_F(GuestBackendQuestions, ASuspendThatNobodyTellsOfIsSeenWithinASecond) {
  FakeFrontend& guest = serve();
  xen_.set_domain_silently(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(GuestWatch::kInterval + 10ms);
  EXPECT_FALSE(writes_are_sent(guest));
}

// Nothing is sent that a suspended guest's successor might overwrite; nothing is lost of a guest
// that runs.
TEST_F(GuestBackendQuestions, WhileXenDoesNotAnswerNothingIsSent) {
  FakeFrontend& guest = serve();
  xen_.faults().fail_calls("domain status");
  run_for(GuestWatch::kInterval);
  run_for(GuestWatch::kDoubt + 50ms);
  EXPECT_FALSE(writes_are_sent(guest));
  run_for(10min);
  xen_.faults().disarm();
  EXPECT_TRUE(run_until([&] { return guest.outstanding() == 0; }, 2s));
  expect_served(guest);
}

// The disk of another guest, or of this one at another place, that waits for the guest's LUN.
class GuestBackendLun : public GuestBackendQuestions {
 protected:
  BlockingBarrier wait_for_the_lun(std::uint64_t vm) {
    std::string key;
    for (const auto& file : std::filesystem::directory_iterator(barriers_.path())) {
      key = file.path().stem().string();
    }
    auto other = BlockingBarrier::enter(barriers_.path(), key,
                                        {.name = "another disk", .vm = vm, .quiesce_time = 60s},
                                        reactor_.now());
    EXPECT_TRUE(other);
    EXPECT_FALSE(other->look(reactor_.now()).may_write());
    return std::move(*other);
  }
  bool gets_the_lun(BlockingBarrier& other, Duration within) {
    const TimePoint end = reactor_.now() + within;
    while (reactor_.now() < end) {
      run_for(1ms);
      if (other.look(reactor_.now()).may_write()) {
        return true;
      }
    }
    return false;
  }

  const DomainHandle handle_{0x6c, 0x9d, 0xbf, 0x50, 0x1d, 0x3e, 0x4c, 0x0f,
                             0x9b, 0x8e, 0x2f, 0x5a, 0x5c, 0x1d, 0x2e, 0x3f};
};

TEST_F(GuestBackendLun, IsNobodyElsesWhileXenDoesNotAnswer) {
  FakeFrontend& guest = serve();
  BlockingBarrier other = wait_for_the_lun(6);
  BlockingBarrier of_the_same_guest = wait_for_the_lun(0);
  xen_.faults().fail_calls("domain status");
  EXPECT_FALSE(gets_the_lun(other, 5s));
  EXPECT_FALSE(gets_the_lun(of_the_same_guest, 5s));
  xen_.faults().disarm();
  run_for(2s);
  expect_served(guest);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::dying, ShutdownReason::poweroff});
  EXPECT_TRUE(gets_the_lun(other, 5s));
  other.leave();
  of_the_same_guest.leave();
}

TEST_F(GuestBackendLun, GoesFromASuspendedGuestOnlyToWhereTheSameGuestIsMoved) {
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}, handle_});
  FakeFrontend& guest = serve();
  BlockingBarrier other = wait_for_the_lun(vm_of(handle_) + 1);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend, handle_});
  EXPECT_FALSE(gets_the_lun(other, 5s));
  other.leave();
  BlockingBarrier destination = [&] {
    xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}, handle_});
    run_for(2s);
    expect_served(guest);
    return wait_for_the_lun(vm_of(handle_));
  }();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend, handle_});
  EXPECT_TRUE(gets_the_lun(destination, 5s));
  destination.leave();
}

// Some toolstacks set it when the domain is there already.
TEST_F(GuestBackendLun, KnowsTheGuestByAUuidThatIsSetLater) {
  serve();
  BlockingBarrier destination = wait_for_the_lun(vm_of(handle_));
  xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}, handle_});
  run_for(2s);
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend, handle_});
  EXPECT_TRUE(gets_the_lun(destination, 5s));
  destination.leave();
}

// A guest that ended while Xen did not answer has perhaps been migrated.
TEST_F(GuestBackendQuestions, AGuestThatHasGoneMeanwhileHasNothingSentEither) {
  FakeFrontend& guest = serve();
  xen_.faults().fail_calls("domain status");
  run_for(GuestWatch::kInterval);
  run_for(GuestWatch::kDoubt + 50ms);
  EXPECT_FALSE(writes_are_sent(guest));
  const std::uint64_t writes = target_.lun(1).counters.writes;
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{});
  xen_.faults().disarm();
  EXPECT_TRUE(ends(10s));
  EXPECT_EQ(target_.lun(1).counters.writes, writes);
}

TEST_F(GuestBackendQuestions, AnAnswerThatNeverComesIsAskedForEverMoreSlowly) {
  serve();
  auto* const log = new MemoryLogSink;
  auto before = set_log_sink(std::unique_ptr<LogSink>(log));
  xen_.faults().fail_calls("domain status");
  const std::uint64_t asked = xen_.faults().calls("domain status");
  run_for(10min);
  EXPECT_LE(xen_.faults().calls("domain status") - asked, 2 * 10 * 60U);
  EXPECT_LE(log->lines().size(), 5 + 10 + 1U);
  (void)set_log_sink(std::move(before));
  xen_.faults().disarm();
}

// Driver domains may not ask: xenstore tells of the end then, and nothing is held back.
TEST_F(GuestBackendQuestions, ADomainThatMayNotAskHearsOfTheEndFromXenstore) {
  domains_may_be_asked_ = false;
  FakeFrontend& guest = serve();
  run_for(10s);
  expect_served(guest);
  halt_guests();
  ASSERT_TRUE(toolstack_.store().remove("/local/domain/5"));
  EXPECT_TRUE(ends(3s));
}

// ---- xenstore is asked about its disks ----

TEST_F(GuestBackendQuestions, AListThatCannotBeReadIsReadAgain) {
  toolstack_.add(disk());
  xen_.faults().fail_calls("xenstore list", 3);
  start();
  run_for(5s);
  EXPECT_TRUE(connect(boot(disk())));
}

TEST_F(GuestBackendQuestions, ANodeThatCannotBeReadIsReadAgain) {
  toolstack_.add(disk());
  xen_.faults().fail_calls("xenstore read", 5);
  start();
  run_for(10s);
  EXPECT_FALSE(finished_);
  EXPECT_TRUE(connect(boot(disk())));
}

// Nothing else happens that would make it be looked for once more.
TEST_F(GuestBackendQuestions, ADiskThatIsAddedIsFoundWhicheverReadFails) {
  serve();
  for (std::uint64_t nth = 1; nth <= 12; ++nth) {
    const FakeDisk xvdb = second_disk();
    xen_.faults().set_paused(true);
    toolstack_.add(xvdb);
    xen_.faults().set_paused(false);
    xen_.faults().fail_nth(nth);
    EXPECT_TRUE(reaches_state(xvdb, 2, 3s)) << nth << ", " << xen_.faults().fired();
    xen_.faults().disarm();
    xen_.faults().set_paused(true);
    toolstack_.remove(xvdb);
    xen_.faults().set_paused(false);
    run_for(2s);
  }
}

TEST_F(GuestBackendQuestions, AFrontendThatCannotBeWatchedIsWatchedLater) {
  toolstack_.add(disk());
  xen_.faults().set_paused(true);
  start();
  xen_.faults().set_paused(false);
  xen_.faults().fail_calls("xenstore watch", 3);
  run_for(5s);
  EXPECT_EQ(xen_.faults().fired(), "xenstore watch");
  EXPECT_TRUE(connect(boot(disk())));
}

// Its watch is made when the connection is; without it, and without events, a suspend is seen late.
TEST_F(GuestBackendQuestions, WhereReleasesCannotBeWatchedTheyAreWatchedLater) {
  toolstack_.add(disk());
  start();
  reactor_.run_for(1us);
  xen_.faults().fail_calls("xenstore watch", 1);
  run_for(3s);
  FakeFrontend& guest = boot(disk());
  ASSERT_TRUE(connect(guest));
  run_for(10ms);  // just asked
  suspend();
  run_for(20ms);
  EXPECT_FALSE(writes_are_sent(guest));
}

TEST_F(GuestBackendQuestions, WhatIsWrongWithADiskIsWrittenAsSoonAsXenstoreTakesIt) {
  const FakeDisk wrong = disk("aio:iscsi://192.0.2.1/");
  toolstack_.add(wrong);
  start();
  xen_.faults().fail_calls("xenstore remove", 0);
  xen_.faults().fail_calls("xenstore write", 4);
  run_for(10s);
  EXPECT_NE(error_of(wrong), "");
}

TEST_F(GuestBackendQuestions, ANodeOfADriverDomainIsRemovedInTheEnd) {
  own_domain_ = 7;
  MemXenStoreTree::Permissions readable;
  readable.listed[own_domain_] = MemXenStoreTree::Access::read;
  ASSERT_TRUE(toolstack_.store().write("/local/domain/7", ""));
  ASSERT_TRUE(toolstack_.store().set_permissions("/local/domain/7", readable));
  const FakeDisk xvda = disk();
  toolstack_.add(xvda);
  start(own_domain_);
  FakeFrontend& guest = boot(xvda);
  ASSERT_TRUE(connect(guest));
  xen_.faults().fail_calls("xenstore remove", 2);
  xen_.faults().set_paused(true);
  toolstack_.request_detach(xvda);
  xen_.faults().set_paused(false);
  EXPECT_TRUE(ends(20s));
  EXPECT_EQ(xen_.store().dump(xvda.backend_path()), "");
}

// ---- the kernel is asked for its rings ----

TEST_F(GuestBackendQuestions, ARingThatCannotBeMappedNowIsMappedLater) {
  toolstack_.add(disk());
  start();
  xen_.faults().fail_calls("grant map", 3);
  FakeFrontend& guest = boot(disk());
  ASSERT_TRUE(connect(guest));
  expect_served(guest);
}

TEST_F(GuestBackendQuestions, AnEventChannelThatCannotBeBoundNowIsBoundLater) {
  toolstack_.add(disk());
  start();
  xen_.faults().fail_calls("event channel bind", 3);
  FakeFrontend& guest = boot(disk());
  ASSERT_TRUE(connect(guest));
  EXPECT_EQ(error_of(disk()), "");
}

// ---- xenstored dies, hangs, forgets ----

TEST_F(GuestBackendQuestions, ASuspendWhileXenstoredIsAwayIsSeen) {
  FakeFrontend& guest = serve();
  store_is_away_ = true;
  xen_.store().break_connections();
  run_for(10s);
  xen_.set_domain_silently(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::suspend});
  run_for(GuestWatch::kShortInterval + 10ms);
  const std::uint64_t before = target_.lun(1).counters.writes;
  ASSERT_TRUE(guest.write(0, pattern(8, 1)));
  guest.push();
  reactor_.run_for(1s);
  EXPECT_EQ(target_.lun(1).counters.writes, before);
  store_is_away_ = false;
}

TEST_F(GuestBackendQuestions, TheEndOfTheGuestWhileXenstoredIsAwayIsSeen) {
  serve();
  halt_guests();
  store_is_away_ = true;
  xen_.store().break_connections();
  reactor_.run_for(1s);
  xen_.set_domain_silently(kGuest, DomainStatus{DomainLife::dying, {}});
  reactor_.run_for(GuestWatch::kShortInterval + 10ms);
  EXPECT_EQ(xen_.grants().mapped_pages(), 0U) << "the domain cannot go as long as they are";
  reactor_.run_for(10s);
  store_is_away_ = false;
  EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 20s));
  FakeToolstack again(xen_);
  EXPECT_EQ(again.backend_state(disk()), 6);
}

// What it knew has gone with it; that is not the toolstack that has detached everything.
TEST_F(GuestBackendQuestions, AXenstoredThatHasForgottenEverythingTakesNoDiskFromItsGuest) {
  FakeFrontend& guest = serve();
  const std::size_t sessions = target_.sessions();
  xen_.store().break_connections();
  xen_.store().forget_everything();
  reactor_.run_for(60s);
  EXPECT_EQ(target_.sessions(), sessions);
  EXPECT_EQ(xen_.grants().mapped_pages(), 1U);
  const auto id = guest.write(0, pattern(8, 1));
  ASSERT_TRUE(id);
  guest.push();
  reactor_.run_for(1s);
  guest.poll();
  EXPECT_TRUE(guest.take_completion(*id));
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{});
  EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 20s));
}

// Xen's soft reset: xl removes the guest's folder with its devices' nodes, and makes them anew.
TEST_F(GuestBackendQuestions, AGuestThatIsResetIsNotOneThatXenstoredHasForgotten) {
  serve();
  halt_guests();
  xen_.set_domain(kGuest, DomainStatus{DomainLife::shut_down, ShutdownReason::soft_reset});
  xen_.store().break_connections();
  xen_.store().forget_everything();
  EXPECT_TRUE(reactor_.run_until([&] { return finished_; }, 20s));
  EXPECT_EQ(xen_.grants().mapped_pages(), 0U);
}

// ---- every place where a call can fail ----

// Fails the n-th call to xenstore, libxenctrl, grant table or event channels, for n = 1, 2 ...
// until a run has not reached its n-th call. Whatever fails, and if it fails three times, the disk
// is served, a suspend is seen, and a detach ends.
class GuestBackendFaults : public GuestBackendTest {
 protected:
  void TestBody() override {}
  void set_life(DomainLife life, ShutdownReason reason = {}) {
    xen_.faults().set_paused(true);
    xen_.set_domain(kGuest, DomainStatus{life, reason});
    xen_.faults().set_paused(false);
  }

 public:
  // Which call has failed; empty: the n-th has not been reached.
  std::string run(std::uint64_t nth, std::uint64_t times) {
    const FakeDisk xvda = disk();
    toolstack_.add(xvda);
    start();
    FakeFrontend& guest = boot(xvda);
    reactor_.run_for(1us);
    xen_.faults().fail_nth(nth, times);
    EXPECT_TRUE(connect(guest));
    EXPECT_TRUE(reaches_state(xvda, 4));
    set_life(DomainLife::shut_down, ShutdownReason::suspend);
    run_for(100ms);
    xen_.faults().set_paused(true);
    const auto id = guest.write(0, pattern(8, 1));
    guest.push();
    run_for(100ms);
    EXPECT_EQ(target_.lun(1).counters.writes, 0U);
    set_life(DomainLife::running);
    EXPECT_TRUE(run_until([&] { return guest.take_completion(*id).has_value(); }));
    xen_.faults().set_paused(true);
    toolstack_.request_detach(xvda);
    EXPECT_TRUE(ends(30s)) << xen_.store().dump();
    const std::string fired = xen_.faults().fired();
    xen_.faults().disarm();
    EXPECT_EQ(toolstack_.backend_state(xvda), 6);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "with call " << nth << ", " << fired;
    }
    return fired;
  }
};

void walk_through_all_calls(std::uint64_t times) {
  std::set<std::string> kinds;
  for (std::uint64_t nth = 1; nth < 2000 && !testing::Test::HasFailure(); ++nth) {
    GuestBackendFaults run;
    const std::string fired = run.run(nth, times);
    if (fired.empty()) {
      EXPECT_GT(nth, 60U) << "the calls of a life";
      EXPECT_THAT(kinds,
                  testing::IsSupersetOf({"grant map", "event channel bind", "domain status",
                                         "xenstore read", "xenstore write", "xenstore commit"}));
      return;
    }
    kinds.insert(fired);
  }
  ADD_FAILURE() << "there are always more calls, or one was fatal";
}

TEST(GuestBackendFailures, WhateverCallFailsTheDiskIsServedAndEnds) {
  walk_through_all_calls(1);
}

TEST(GuestBackendFailures, WhateverThreeCallsFailTheDiskIsServedAndEnds) {
  walk_through_all_calls(3);
}

}  // namespace
}  // namespace iscsi_blkback
