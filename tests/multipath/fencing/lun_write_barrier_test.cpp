#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multipath/fencing/barrier_use.h"
#include "tests/multipath/fencing/lun_write_barrier_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// ---- disks whose guests run

TEST_F(LunWriteBarrierTest, OneDiskAloneMayWrite) {
  BlockingBarrier one = enter();
  EXPECT_TRUE(one.look(kNow).may_write());
  EXPECT_FALSE(one.changed());
}

TEST_F(LunWriteBarrierTest, ALaterDiskWaitsForOneThatIsInUse) {
  BlockingBarrier one = enter("xvda of guest 5");
  BlockingBarrier later = enter("xvdb of guest 6");
  EXPECT_THAT(later.look(kNow).in_use_by, HasSubstr("xvda of guest 5"));
  EXPECT_THAT(later.look(kNow).in_use_by, HasSubstr(std::to_string(::getpid())));
  EXPECT_FALSE(later.look(kNow).may_write());
  EXPECT_TRUE(one.look(kNow).may_write()) << "it came first";
  one.leave();
  EXPECT_TRUE(later.changed());
  EXPECT_TRUE(later.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, DisksThatAreSharedUseTheLunTogether) {
  BlockingBarrier one = enter("one", true);
  BlockingBarrier two = enter("two", true);
  EXPECT_TRUE(two.look(kNow).may_write());
  BlockingBarrier alone = enter("alone", false);
  EXPECT_FALSE(alone.look(kNow).may_write()) << "it does not know of the others";
}

TEST_F(LunWriteBarrierTest, ASharedDiskWaitsForOneThatIsNot) {
  BlockingBarrier one = enter("one", false);
  BlockingBarrier two = enter("two", true);
  EXPECT_FALSE(two.look(kNow).may_write());
}

// ---- disks of other LUNs, and of guests that have ended

TEST_F(LunWriteBarrierTest, DisksOfOtherLunsAreNoConcern) {
  BlockingBarrier one = enter();
  auto other = BlockingBarrier::enter(folder(), "36001405ab", {.name = "other"});
  ASSERT_TRUE(other);
  EXPECT_TRUE(other->look(kNow).may_write());
}

// ---- disks whose guests have ended

TEST_F(LunWriteBarrierTest, WritesThatAreOutstandingWhenTheGuestEndsHoldOthersBack) {
  BlockingBarrier one = enter("xvda of guest 5");
  one.set_outstanding(3, true);
  one.set_use(HolderUse::ended, 0, {});
  BlockingBarrier later = enter();
  EXPECT_THAT(later.look(kNow).late_writes_of, HasSubstr("xvda of guest 5"));
  EXPECT_FALSE(later.look(kNow + kQuiesceTime * 10).may_write())
      << "how long that may be, the holder knows";
  one.set_outstanding(3, false);
  EXPECT_TRUE(later.changed());
  EXPECT_TRUE(later.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, UnfencedWritesHoldOthersBack) {
  BlockingBarrier one = enter();
  one.set_unfenced(path_bit(63), false, kNow + seconds(1));
  one.set_use(HolderUse::ended, 0, {});
  BlockingBarrier later = enter();
  EXPECT_FALSE(later.look(kNow + seconds(2)).may_write()) << "the holder says when that is over";
  one.set_unfenced(0, true, kNow + seconds(1));
  EXPECT_FALSE(later.look(kNow).may_write());
  one.set_unfenced(0, false, {});
  EXPECT_TRUE(later.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, HoldADiskBackThatWasThereBefore) {
  BlockingBarrier earlier = enter("earlier", true);
  BlockingBarrier one = enter("one", true);
  one.set_outstanding(0, true);
  EXPECT_TRUE(earlier.look(kNow).may_write());
  one.set_use(HolderUse::ended, 0, {});
  EXPECT_TRUE(earlier.changed());
  EXPECT_FALSE(earlier.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, WhatARunningDiskDoesIsNoChangeForOthers) {
  BlockingBarrier one = enter("one", true);
  BlockingBarrier two = enter("two", true);
  (void)two.look(kNow);
  one.set_outstanding(0, true);
  one.set_unfenced(path_bit(0), false, kNow + kQuiesceTime);
  one.set_outstanding(0, false);
  EXPECT_FALSE(two.changed());
}

// ---- disks whose processes have died

TEST_F(LunWriteBarrierTest, ADeadDisksOutstandingWritesLastForTheQuiesceTime) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier later = enter();
  const auto others = later.look(kNow);
  ASSERT_THAT(others.dead, SizeIs(1));
  EXPECT_EQ(others.dead[0].paths, path_bit(2));
  EXPECT_EQ(others.dead[0].until, kNow + kQuiesceTime);
  EXPECT_FALSE(later.look(kNow + kQuiesceTime - seconds(1)).may_write());
  EXPECT_TRUE(later.look(kNow + kQuiesceTime).may_write());
}

TEST_F(LunWriteBarrierTest, ADeadDiskThatHadNothingUnderWayIsNoConcern) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  one.set_outstanding(2, false);
  die(one);
  EXPECT_TRUE(enter().look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, OutstandingWritesAreThoseOfEachPath) {
  BlockingBarrier one = enter();
  one.set_outstanding(1, true);
  one.set_outstanding(2, true);
  one.set_outstanding(2, false);
  die(one);
  BlockingBarrier later = enter();
  EXPECT_EQ(later.look(kNow).dead.at(0).paths, path_bit(1));
}

TEST_F(LunWriteBarrierTest, ADeadDisksOutstandingWritesOutlastWhatItHadLostBefore) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  one.set_unfenced(path_bit(1), false, kNow + seconds(7));
  die(one);
  EXPECT_EQ(enter().look(kNow).dead.at(0).until, kNow + kQuiesceTime);
}

TEST_F(LunWriteBarrierTest, ADeadDiskIsDeadForAllWhoLook) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier second = enter("second", true);
  BlockingBarrier third = enter("third", true);
  EXPECT_THAT(second.look(kNow).dead, SizeIs(1));
  EXPECT_THAT(third.look(kNow).dead, SizeIs(1));
}

// Disks of several processes notice a death at the same time.
TEST_F(LunWriteBarrierTest, NobodyWhoLooksIsTakenForTheHolder) {
  BlockingBarrier one = enter("one", true);
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier later = enter("later", true);
  const auto looking = BarrierFile::open_existing(files().at(0).string());
  ASSERT_TRUE(looking);
  ASSERT_TRUE(looking->try_lock_shared(0));
  const auto dead = later.look(kNow).dead;
  ASSERT_THAT(dead, SizeIs(1));
  later.reinstated({dead[0].slot, dead[0].turn, 2});
  EXPECT_TRUE(later.look(kNow).may_write());
  BlockingBarrier next = enter("next", true);
  next.set_use(HolderUse::ended, 0, {});
  next.set_outstanding(0, true);
  EXPECT_FALSE(later.look(kNow).may_write()) << "it has a slot that nobody looks at";
}

TEST_F(LunWriteBarrierTest, TheTimeOfUnfencedWritesIsThatOfTheLast) {
  BlockingBarrier one = enter();
  one.set_unfenced(path_bit(1), false, kNow + seconds(7));
  one.set_unfenced(path_bit(1), false, kNow + seconds(9));
  die(one);
  EXPECT_EQ(enter().look(kNow).dead.at(0).until, kNow + seconds(9));
}

TEST_F(LunWriteBarrierTest, ADeadDisksUnfencedWritesLastUntilTheyAreHarmless) {
  BlockingBarrier one = enter();
  one.set_unfenced(path_bit(1), true, kNow + seconds(7));
  die(one);
  BlockingBarrier later = enter();
  EXPECT_FALSE(later.look(kNow + seconds(6)).may_write());
  EXPECT_TRUE(later.look(kNow + seconds(7)).may_write());
}

TEST_F(LunWriteBarrierTest, ADeadDisksLossesWhereNoPathLeadsLastUntilTheyAreHarmless) {
  BlockingBarrier one = enter();
  one.set_unfenced(0, true, kNow + seconds(7));
  die(one);
  BlockingBarrier later = enter();
  EXPECT_FALSE(later.look(kNow + seconds(6)).may_write());
  EXPECT_TRUE(later.look(kNow + seconds(7)).may_write());
}

TEST_F(LunWriteBarrierTest, NoQuiesceTimeIsBelievedThatNobodyCanHaveSet) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier later = enter();
  const auto file = BarrierFile::open_existing(files().at(0).string());
  ASSERT_TRUE(file);
  file->slot(0).quiesce_time_ns = Duration(std::chrono::hours(1000)).count();
  EXPECT_EQ(later.look(kNow).dead.at(0).until, kNow + barrier_layout::kLongestQuiesceTime);
  file->slot(0).quiesce_time_ns = -1;
  EXPECT_TRUE(later.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, TheTimeOfADeathIsThatOfTheFirstWhoFoundOut) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier second = enter();
  EXPECT_FALSE(second.look(kNow).may_write());
  die(second);
  EXPECT_TRUE(enter().look(kNow + kQuiesceTime).may_write());
}

// In a folder that outlives the host's restart: its times are of a clock that began again since.
TEST_F(LunWriteBarrierTest, TimesFromBeforeTheHostStartedAnewHoldNobodyBackForLong) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  one.set_unfenced(path_bit(1), true, kNow + kQuiesceTime);
  die(one);
  BlockingBarrier later = enter();
  EXPECT_FALSE(later.look(kNow).may_write());
  const TimePoint young = kNow - std::chrono::hours(99);
  EXPECT_FALSE(later.look(young).may_write());
  EXPECT_TRUE(later.look(young + kQuiesceTime).may_write());
}

TEST_F(LunWriteBarrierTest, TheServiceSaysWhenAProcessHasDied) {
  BlockingBarrier one = enter();
  BlockingBarrier alive = enter();
  one.set_outstanding(2, true);
  alive.set_outstanding(2, true);
  die(one);
  BlockingBarrier later = enter();
  note_death_in_barriers(folder(), ::getpid() + 1, kNow - seconds(50));
  note_death_in_barriers(folder(), ::getpid(), kNow - seconds(10));
  EXPECT_TRUE(later.changed());
  ASSERT_THAT(later.look(kNow).dead, SizeIs(1));
  EXPECT_EQ(later.look(kNow).dead[0].until, kNow - seconds(10) + kQuiesceTime);
  die(alive);
  EXPECT_EQ(later.look(kNow).dead[1].until, kNow + kQuiesceTime) << "it lived at that time";
}

TEST_F(LunWriteBarrierTest, ANexusThatWasReinstatedIsHarmless) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  one.set_outstanding(7, true);
  one.set_unfenced(path_bit(2) | path_bit(5), false, kNow + seconds(7));
  die(one);
  BlockingBarrier later = enter();
  const auto dead = later.look(kNow).dead.at(0);
  later.reinstated({dead.slot, dead.turn, 2});
  ASSERT_THAT(later.look(kNow).dead, SizeIs(1));
  EXPECT_EQ(later.look(kNow).dead[0].paths, path_bit(5) | path_bit(7));
  later.reinstated({dead.slot, dead.turn, 7});
  EXPECT_EQ(later.look(kNow).dead.at(0).paths, path_bit(5));
  later.reinstated({dead.slot, dead.turn, 5});
  EXPECT_TRUE(later.look(kNow).may_write());
}

// The fence of a dead disk takes so long that its time is over before, and another disk has come.
TEST_F(LunWriteBarrierTest, AReinstatementIsNoneOfWhoeverHasTheSlotByThen) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier fencing = enter();
  const auto dead = fencing.look(kNow).dead.at(0);
  EXPECT_TRUE(fencing.look(kNow + kQuiesceTime).may_write());
  BlockingBarrier next = enter();
  next.set_outstanding(2, true);
  fencing.reinstated({dead.slot, dead.turn, 2});
  next.set_use(HolderUse::ended, 0, {});
  EXPECT_FALSE(fencing.look(kNow + kQuiesceTime).may_write()) << "it lives";
  die(next);
  fencing.reinstated({dead.slot, dead.turn, 2});
  const auto left = fencing.look(kNow + kQuiesceTime).dead;
  ASSERT_THAT(left, SizeIs(1)) << "or has died since";
  EXPECT_EQ(left[0].slot, dead.slot) << "the same slot, or this proves nothing";
}

TEST_F(LunWriteBarrierTest, NoSlotIsTakenAsLongAsItsDeadDiskIsAConcern) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier second = enter();
  BlockingBarrier third = enter();
  third.leave();
  EXPECT_THAT(second.look(kNow).dead, SizeIs(1));
}

// A disk that comes after a dead one, and whose own process dies, wipes nothing of it.
TEST_F(LunWriteBarrierTest, ADeadDiskOutlivesThoseThatComeAfterIt) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier second = enter();
  EXPECT_FALSE(second.look(kNow).may_write());
  second.set_use(HolderUse::ended, 0, {});
  second.set_use(HolderUse::runs, 0, {});
  second.set_unfenced(0, false, {});
  EXPECT_FALSE(second.look(kNow).may_write());
  second.leave();
  EXPECT_FALSE(enter().look(kNow + kQuiesceTime - seconds(1)).may_write());
}

TEST_F(LunWriteBarrierTest, OfAProcessThatIsKilledTheKernelTells) {
  BlockingBarrier later = enter();
  const pid_t child = ::fork();
  if (child == 0) {
    BlockingBarrier one = enter();
    one.set_outstanding(0, true);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_THAT(later.look(kNow).dead, SizeIs(1));
}

// ---- nexuses

BarrierNexus some_nexus() {
  BarrierNexus nexus;
  nexus.isid = {0x80, 1, 2, 3, 4, 5};
  nexus.session_number = 7;
  nexus.initiator_name = "iqn.2026-01.test:host";
  nexus.target_name = "iqn.2026-01.test:" + std::string(206, 't');
  nexus.portal = SocketAddress::parse("192.0.2.1", 3260).value();
  nexus.interface_binding = {.name = "eth1",
                             .hardware_address = "52:54:00:12:34:56",
                             .address = "2001:db8:1111:2222:3333:4444:5555:6666"};
  nexus.login.portal =
      SocketAddress::parse("2001:db8:1111:2222:3333:4444:5555:6666", 65535).value();
  nexus.login.portal_group = 0xfffe;
  return nexus;
}

TEST_F(LunWriteBarrierTest, ANexusIsReadAsItWasTold) {
  BlockingBarrier one = enter();
  const BarrierNexus told = some_nexus();
  one.set_nexus(63, told);
  one.set_outstanding(63, true);
  die(one);
  BlockingBarrier later = enter();
  const auto read = nexus_of_dead(later, 63);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->isid, told.isid);
  EXPECT_EQ(read->session_number, told.session_number);
  EXPECT_EQ(read->initiator_name, told.initiator_name);
  EXPECT_EQ(read->target_name, told.target_name);
  EXPECT_EQ(read->portal, told.portal);
  EXPECT_EQ(read->interface_binding, told.interface_binding);
  EXPECT_EQ(read->login.portal, told.login.portal);
  EXPECT_EQ(read->login.portal_group, told.login.portal_group);
}

TEST_F(LunWriteBarrierTest, ANexusWithoutAPortalGroupHasNone) {
  BlockingBarrier one = enter();
  BarrierNexus told = some_nexus();
  told.login.portal_group.reset();
  one.set_nexus(0, told);
  one.set_outstanding(0, true);
  die(one);
  BlockingBarrier later = enter();
  const auto read = nexus_of_dead(later, 0);
  ASSERT_TRUE(read);
  EXPECT_FALSE(read->login.portal_group);
}

TEST_F(LunWriteBarrierTest, OfAPathThatWasForgottenThereIsNoNexus) {
  BlockingBarrier one = enter();
  one.set_nexus(4, some_nexus());
  one.forget_nexus(4);
  one.set_outstanding(4, true);
  die(one);
  BlockingBarrier later = enter();
  EXPECT_FALSE(nexus_of_dead(later, 4));
}

TEST_F(LunWriteBarrierTest, ASlotThatIsTakenAgainKnowsNoNexusOfTheFormerDisk) {
  BlockingBarrier one = enter();
  one.set_nexus(4, some_nexus());
  one.leave();
  BlockingBarrier second = enter();
  second.set_outstanding(4, true);
  die(second);
  BlockingBarrier later = enter();
  EXPECT_FALSE(nexus_of_dead(later, 4));
}

TEST_F(LunWriteBarrierTest, ASlotThatIsTakenAgainKnowsNoEndOfTheFormerDisk) {
  BlockingBarrier one = enter();
  one.set_use(HolderUse::ended, 0, {});
  one.leave();
  BlockingBarrier second = enter("second");
  EXPECT_THAT(enter().look(kNow).in_use_by, HasSubstr("second"));
}

TEST_F(LunWriteBarrierTest, ASlotThatIsTakenAgainKnowsNoDeathOfTheFormerDisk) {
  BlockingBarrier one = enter();
  one.set_outstanding(2, true);
  die(one);
  BlockingBarrier later = enter();
  const auto slot = later.look(kNow).dead.at(0).slot;
  EXPECT_TRUE(later.look(kNow + kQuiesceTime).may_write());
  BlockingBarrier second = enter();
  second.set_outstanding(2, true);
  die(second);
  const TimePoint now = kNow + kQuiesceTime * 10;
  const auto dead = later.look(now).dead;
  ASSERT_THAT(dead, SizeIs(1));
  EXPECT_EQ(dead[0].slot, slot) << "the same slot, or this proves nothing";
  EXPECT_EQ(dead[0].until, now + kQuiesceTime);
}

TEST_F(LunWriteBarrierTest, WhatIsNoAddressIsNoNexus) {
  BlockingBarrier one = enter();
  one.set_nexus(0, some_nexus());
  one.set_outstanding(0, true);
  die(one);
  BlockingBarrier later = enter();
  {
    const auto file = BarrierFile::open_existing(files().at(0).string());
    ASSERT_TRUE(file);
    file->nexus(0, 0).portal.fill('x');  // no end, either
  }
  EXPECT_FALSE(nexus_of_dead(later, 0));
}

// Its slot has gone to a disk that lives: a login would end that one's session.
TEST_F(LunWriteBarrierTest, ANexusIsNoneOfWhoeverHasTheSlotByThen) {
  BlockingBarrier one = enter();
  one.set_nexus(0, some_nexus());
  one.set_outstanding(0, true);
  die(one);
  BlockingBarrier later = enter();
  const auto dead = later.look(kNow).dead.at(0);
  EXPECT_TRUE(later.nexus_of({dead.slot, dead.turn, 0}));
  EXPECT_TRUE(later.look(kNow + kQuiesceTime).may_write());
  BlockingBarrier next = enter();
  next.set_nexus(0, some_nexus());
  EXPECT_FALSE(later.nexus_of({dead.slot, dead.turn, 0}));
  next.set_outstanding(0, true);
  die(next);
  EXPECT_FALSE(later.nexus_of({dead.slot, dead.turn, 0}));
}

// ---- at the same time

// What was lost where the path led, and then where it does not lead any more, is dangerous at any
// time.
TEST_F(LunWriteBarrierTest, WhatIsUnfencedIsNeverSeenAsHarmless) {
  BlockingBarrier one = enter("one", true);
  one.set_unfenced(path_bit(0), false, kNow + kQuiesceTime);
  one.set_use(HolderUse::ended, 0, {});
  BlockingBarrier other = enter("other", true);
  std::atomic<bool> over = false;
  std::thread holder([&] {
    while (!over) {
      one.set_unfenced(0, true, kNow + kQuiesceTime);
      one.set_unfenced(path_bit(0), false, kNow + kQuiesceTime);
    }
  });
  int harmless = 0;
  for (int look = 0; look < 100000; ++look) {
    harmless += other.look(kNow).may_write() ? 1 : 0;
  }
  over = true;
  holder.join();
  EXPECT_EQ(harmless, 0);
}

TEST_F(LunWriteBarrierTest, WhatTheLastPathHasLostIsUnfencedUntilTimeIsOver) {
  BlockingBarrier one = enter();
  one.set_unfenced(path_bit(63), false, kNow + seconds(7));
  die(one);
  BlockingBarrier later = enter();
  const auto dead = later.look(kNow).dead;
  ASSERT_THAT(dead, SizeIs(1));
  EXPECT_EQ(dead[0].paths, 0U) << "or its nexus is logged in to in vain";
  later.reinstated({dead[0].slot, dead[0].turn, 63});
  EXPECT_FALSE(later.look(kNow).may_write());
  EXPECT_TRUE(later.look(kNow + seconds(7)).may_write());
}

TEST_F(LunWriteBarrierTest, ThoseThatLookAtADeadSharedDiskAtTheSameTimeAllWait) {
  BlockingBarrier dead = enter("dead", true);
  dead.set_outstanding(0, true);
  BlockingBarrier others[] = {enter("one", true), enter("two", true), enter("three", true)};
  die(dead);
  std::atomic<int> early = 0;
  std::vector<std::thread> threads;
  for (BlockingBarrier& other : others) {
    threads.emplace_back([&early, &other] {
      for (int look = 0; look < 20000; ++look) {
        early += other.look(kNow).may_write() ? 1 : 0;
      }
    });
  }
  // And so does one that tries all slots in vain.
  for (int come = 0; come < 1000; ++come) {
    BlockingBarrier passing = enter("passing", true);
    passing.leave();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(early, 0);
}

// ---- the file is removed while disks are in use

TEST_F(LunWriteBarrierTest, ADiskIsSeenAlsoWhenTheFolderHasBeenCleaned) {
  BlockingBarrier one = enter("one");
  clean();
  BlockingBarrier other = enter("other", false, kNow);
  EXPECT_THAT(other.look(kNow).late_writes_of, HasSubstr("was removed"));
  ASSERT_TRUE(one.follow_file());
  EXPECT_TRUE(other.changed());
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("one"));
  EXPECT_TRUE(one.look(kNow).may_write()) << "it came first";
  one.leave();
  EXPECT_TRUE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AFileThatIsWhereItWasIsNotLeft) {
  BlockingBarrier one = enter("one");
  (void)one.look(kNow);
  ASSERT_TRUE(one.follow_file());
  EXPECT_FALSE(one.changed());
}

TEST_F(LunWriteBarrierTest, DisksThatComeToAnotherFileKeepTheirOrder) {
  BlockingBarrier one = enter("one", false, kNow - seconds(9));
  BlockingBarrier two = enter("two", false, kNow - seconds(8));
  clean();
  BlockingBarrier three = enter("three", false, kNow - seconds(7));
  for (BlockingBarrier* disk : {&two, &one}) {
    EXPECT_FALSE(three.look(kNow).may_write());
    ASSERT_TRUE(disk->follow_file());
  }
  EXPECT_TRUE(one.look(kNow).may_write());
  EXPECT_FALSE(two.look(kNow).may_write());
  EXPECT_FALSE(three.look(kNow).may_write());
  one.leave();
  EXPECT_TRUE(two.look(kNow).may_write());
  EXPECT_FALSE(three.look(kNow).may_write());
  two.leave();
  EXPECT_TRUE(three.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatWaitsAndComesToAnotherFileFirstStillWaits) {
  BlockingBarrier one = enter("one", false, kNow - seconds(9));
  BlockingBarrier two = enter("two", false, kNow - seconds(8));
  EXPECT_TRUE(one.look(kNow).may_write());
  EXPECT_FALSE(two.look(kNow).may_write());
  clean();
  ASSERT_TRUE(two.follow_file());
  EXPECT_FALSE(two.look(kNow).may_write());
  ASSERT_TRUE(one.follow_file());
  EXPECT_TRUE(one.look(kNow).may_write());
  EXPECT_FALSE(two.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatHasTheLunWaitsForNobodyInAnotherFile) {
  BlockingBarrier one = enter("one", false, kNow - seconds(9));
  BlockingBarrier two = enter("two", false, kNow - seconds(8));
  EXPECT_TRUE(one.look(kNow).may_write());
  clean();
  ASSERT_TRUE(one.follow_file());
  EXPECT_TRUE(one.look(kNow).may_write()) << "though the other one has not come";
  ASSERT_TRUE(two.follow_file());
  EXPECT_FALSE(two.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AGuestThatIsResumedInAnotherFileWaitsForTheDiskThatHasTakenItOver) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write());
  clean();
  ASSERT_TRUE(source.follow_file());
  destination.set_outstanding(0, true);
  destination.set_outstanding(0, false);
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_FALSE(source.look(kNow).may_write());
  ASSERT_TRUE(destination.follow_file());
  EXPECT_TRUE(source.look(kNow).overtaken);
  EXPECT_TRUE(destination.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AGuestIsResumedInTheFileWhereItsSuccessorIs) {
  BlockingBarrier source = enter_for(kGuest, "source");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write());
  destination.set_outstanding(0, true);
  clean();
  ASSERT_TRUE(destination.follow_file());
  EXPECT_THAT(source.look(kNow).dead, IsEmpty()) << "it lives, in another file";
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_FALSE(source.look(kNow).may_write());
  EXPECT_TRUE(destination.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskTakesAllThatItTellsToAnotherFile) {
  BlockingBarrier one = enter("one", true);
  one.set_nexus(3, some_nexus());
  one.set_outstanding(3, true);
  one.set_unfenced(path_bit(5), true, kNow + seconds(7));
  one.set_use(HolderUse::ended, 0, {});
  clean();
  ASSERT_TRUE(one.follow_file());
  BlockingBarrier later = enter("later", true);
  EXPECT_THAT(later.look(kNow).late_writes_of, HasSubstr("one"));
  die(one);
  const auto dead = later.look(kNow).dead;
  ASSERT_THAT(dead, SizeIs(1));
  EXPECT_EQ(dead[0].paths, path_bit(3) | path_bit(5));
  EXPECT_EQ(dead[0].until, kNow + kQuiesceTime);
  EXPECT_EQ(nexus_of_dead(later, 3)->target_name, some_nexus().target_name);
}

TEST_F(LunWriteBarrierTest, TheDeadAreTakenToAnotherFileOnce) {
  BlockingBarrier dead = enter("dead", true);
  dead.set_nexus(0, some_nexus());
  dead.set_outstanding(0, true);
  BlockingBarrier one = enter("one", true);
  BlockingBarrier two = enter("two", true);
  die(dead);
  EXPECT_FALSE(one.look(kNow).may_write());
  clean();
  ASSERT_TRUE(one.follow_file() && two.follow_file());
  ASSERT_THAT(two.look(kNow + seconds(9)).dead, SizeIs(1));
  EXPECT_EQ(two.look(kNow + seconds(9)).dead[0].until, kNow + kQuiesceTime);
  EXPECT_TRUE(nexus_of_dead(two, 0));
}

// Killed before it could come: nobody knows what it had under way.
TEST_F(LunWriteBarrierTest, ADiskThatHasLostItsFileAndDiesIsWaitedForAsLongAsItsWritesMayLand) {
  BlockingBarrier one = enter("one");
  clean();
  BlockingBarrier other = enter("other");
  EXPECT_FALSE(other.look(kNow).may_write());
  die(one);
  EXPECT_FALSE(other.look(kNow + kQuiesceTime - seconds(1)).may_write());
  EXPECT_TRUE(other.look(kNow + kQuiesceTime).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatCannotComeToAnotherFileSaysWhy) {
  BlockingBarrier one = enter("one");
  clean();
  std::filesystem::remove(folder());
  std::ofstream(folder()) << "in the way";
  const auto followed = one.follow_file();
  ASSERT_FALSE(followed);
  EXPECT_THAT(followed.error().message, HasSubstr(folder()));
  std::filesystem::remove(folder());
  EXPECT_TRUE(one.follow_file());
  EXPECT_FALSE(enter("other").look(kNow).may_write());
}

// ---- what is left for those who want to know whether anything is

TEST_F(LunWriteBarrierTest, TheHostHasEndedWhenNothingIsLeft) {
  EXPECT_EQ(use_of_barriers(folder(), kNow), BarrierUse::none);
  BlockingBarrier one = enter();
  EXPECT_EQ(use_of_barriers(folder(), kNow), BarrierUse::running);
  one.set_outstanding(0, true);
  one.set_use(HolderUse::ended, 0, {});
  EXPECT_EQ(use_of_barriers(folder(), kNow), BarrierUse::ending);
  die(one);
  EXPECT_EQ(use_of_barriers(folder(), kNow), BarrierUse::ending);
  EXPECT_EQ(use_of_barriers(folder(), kNow + kQuiesceTime - seconds(1)), BarrierUse::ending);
  EXPECT_EQ(use_of_barriers(folder(), kNow + kQuiesceTime), BarrierUse::none);
  BlockingBarrier two = enter();
  two.leave();
  EXPECT_EQ(use_of_barriers(folder(), kNow + kQuiesceTime), BarrierUse::none);
}

// ---- the file

// In a process of its own: it was ended by SIGBUS.
TEST_F(LunWriteBarrierTest, AFullFileSystemIsAnErrorAndNotTheEndOfTheProcess) {
  for (const char* size : {"size=4k", "size=36k"}) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::mount("none", folder_.path().c_str(), "tmpfs", 0, size) != 0) {
        ::_exit(77);
      }
      auto one = BlockingBarrier::enter(folder(), "36001405aa",
                                        {.name = "one", .quiesce_time = kQuiesceTime});
      bool told = !one && one.error().message.find("No space") != std::string::npos;
      if (one) {
        const auto nexus = one->set_nexus(63, some_nexus());
        told = !nexus && nexus.error().message.find("no space") != std::string::npos;
        one->forget_nexus(63);
        one->set_outstanding(63, true);
        die(*one);
        auto later = BlockingBarrier::enter(folder(), "36001405aa", {.name = "later"});
        told = told && later && !nexus_of_dead(*later, 63);
      }
      ::_exit(told ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ::umount(folder_.path().c_str());
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    if (WEXITSTATUS(status) == 77) {
      GTEST_SKIP() << "only root mounts file systems";
    }
    EXPECT_EQ(WEXITSTATUS(status), 0) << size;
  }
}

TEST_F(LunWriteBarrierTest, AFileWithOtherThingsIsRefusedByName) {
  (void)enter();
  const std::string path = files().at(0).string();
  for (const std::size_t size : {std::size_t{5}, std::size_t{0}}) {
    std::filesystem::resize_file(path, size);
    std::ofstream(path, std::ios::in) << "what is this? what is this?";
    const auto opened = BlockingBarrier::enter(folder(), "36001405aa", {.name = "disk"});
    ASSERT_FALSE(opened);
    EXPECT_THAT(opened.error().message, HasSubstr(path));
  }
  std::filesystem::resize_file(path, sizeof(barrier_layout::Contents));
  const auto opened = BlockingBarrier::enter(folder(), "36001405aa", {.name = "disk"});
  ASSERT_FALSE(opened) << "of the right size, with the wrong beginning";
  EXPECT_THAT(opened.error().message, HasSubstr(path));
}

TEST_F(LunWriteBarrierTest, NoIdentityOfATargetLeadsOutOfTheFolder) {
  for (const std::string& key :
       {std::string("../../escaped"), std::string("."), std::string("..\0/x", 5),
        std::string("t10/a b"), std::string(4000, '/')}) {
    EXPECT_TRUE(BlockingBarrier::enter(folder(), key, {.name = "disk"}));
  }
  // None of these is another one's, though they differ in their signs only.
  const auto dot = BlockingBarrier::enter(folder(), "t10.a b", {.name = "disk"});
  const auto underscore = BlockingBarrier::enter(folder(), "t10_a b", {.name = "disk"});
  std::size_t found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
    found += entry.is_regular_file() && entry.path().parent_path() == folder() ? 1 : 0;
  }
  EXPECT_EQ(found, 7U);
}

TEST_F(LunWriteBarrierTest, AFolderThatCannotBeMadeIsNamed) {
  const auto opened = BlockingBarrier::enter("/proc/nowhere", "36001405aa", {.name = "disk"});
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("/proc/nowhere"));
}

TEST_F(LunWriteBarrierTest, MoreDisksThanThereAreSlotsAreRefused) {
  std::vector<BlockingBarrier> disks;
  for (std::size_t disk = 0; disk < barrier_layout::kSlots; ++disk) {
    disks.push_back(enter());
  }
  EXPECT_FALSE(BlockingBarrier::enter(folder(), "36001405aa", {.name = "disk"}));
  disks.pop_back();
  (void)enter();
}

TEST_F(LunWriteBarrierTest, WithoutAFileTellsNobody) {
  BlockingBarrier none;
  none.set_nexus(0, some_nexus());
  none.set_outstanding(0, true);
  none.set_unfenced(1, true, kNow);
  none.set_use(HolderUse::ended, 0, {});
  EXPECT_FALSE(none.entered());
  EXPECT_FALSE(none.changed());
  EXPECT_TRUE(none.look(kNow).may_write());
  none.leave();
}

TEST_F(LunWriteBarrierTest, ADiskTakesItsPagesWhenItEntersAndNoneLater) {
  BlockingBarrier one = enter();
  EXPECT_THAT(files(), SizeIs(1));
  const auto bytes = [&] {
    struct stat status {};
    EXPECT_EQ(::stat(files()[0].c_str(), &status), 0);
    return status.st_blocks * 512;
  };
  const auto entered = bytes();
  EXPECT_LE(entered, 24 * 4096);
  (void)one.look(kNow);
  for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
    EXPECT_TRUE(one.set_nexus(path, some_nexus()));
  }
  EXPECT_EQ(bytes(), entered);
}

// ---- which LUN it is

TEST(LunBarrierKey, AnIdentityWithACompanyNamesTheLunAlone) {
  for (const char* wwid : {"36001405aabbccddeeff00112233445566", "35000c50012345678",
                           "32000000c50123456", "20002c90300abcdef", "8iqn.2026-01.test:disk"}) {
    EXPECT_EQ(lun_barrier_key(wwid, "iqn.a", 1), lun_barrier_key(wwid, "iqn.b", 2)) << wwid;
    EXPECT_NE(lun_barrier_key(wwid, "iqn.a", 1),
              lun_barrier_key(std::string(wwid) + "0", "iqn.a", 1));
  }
}

// Those that targets are given when nobody chooses one: two servers have the same.
TEST(LunBarrierKey, AnIdentityWithoutACompanyNamesTheLunTogetherWithItsTarget) {
  for (const char* wwid : {"360000000000000000e00000000010001", "3300000000000beef",
                           "1IET     00010001", "Sbeaf11", "2000000000000beef", "3", "2"}) {
    EXPECT_NE(lun_barrier_key(wwid, "iqn.a", 1), lun_barrier_key(wwid, "iqn.b", 1)) << wwid;
    EXPECT_EQ(lun_barrier_key(wwid, "iqn.a", 1), lun_barrier_key(wwid, "iqn.a", 2)) << wwid;
  }
}

TEST(LunBarrierKey, ALunWithoutAnIdentityIsNamedByItsPlace) {
  const std::string key = lun_barrier_key("", "iqn.a", 1);
  EXPECT_EQ(key, lun_barrier_key("", "iqn.a", 1));
  EXPECT_NE(key, lun_barrier_key("", "iqn.a", 2));
  EXPECT_NE(key, lun_barrier_key("", "iqn.b", 1));
}

}  // namespace
}  // namespace iscsi_blkback
