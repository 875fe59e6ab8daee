// LunWriteBarrier and guests that are suspended, moved, resumed or have another disk: whose the LUN
// is, and whose it was so that they know nothing any more.
#include "tests/multipath/fencing/lun_write_barrier_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::SizeIs;

// ---- guests that are suspended

TEST_F(LunWriteBarrierTest, AGuestThatIsResumedComesAfterTheDiskThatWasToTakeItOver) {
  BlockingBarrier source = enter_for(kGuest, "source");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write());
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_FALSE(source.look(kNow).may_write());
  EXPECT_TRUE(destination.look(kNow).may_write());
  destination.leave();
  EXPECT_TRUE(source.look(kNow).may_write());
  EXPECT_FALSE(source.look(kNow).overtaken) << "nobody has written";
}

TEST_F(LunWriteBarrierTest, ASuspendedGuestKeepsItsLunFromOtherGuests) {
  BlockingBarrier one = enter_for(kGuest, "xvda of guest 5");
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  one.set_use(HolderUse::suspended, kGuest, {});
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("xvda of guest 5"));
  one.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(one.look(kNow).may_write()) << "the other one had come before it was resumed";
  EXPECT_FALSE(other.look(kNow).may_write());
  one.set_use(HolderUse::ended, kGuest, {});
  EXPECT_TRUE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatWasToTakeAGuestOverAndIsGoneLeavesItItsTurn) {
  BlockingBarrier source = enter_for(kGuest, "source");
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier ended = enter_for(kGuest, "destination that has ended");
  BlockingBarrier dead = enter_for(kGuest, "destination that has died");
  ended.set_use(HolderUse::ended, kGuest, {});
  die(dead);
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(source.look(kNow).may_write());
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AGuestWhoseLunWasWrittenWhileItWasSuspendedIsOvertaken) {
  BlockingBarrier source = enter_for(kGuest, "source");
  source.set_outstanding(0, true);
  source.set_outstanding(0, false);
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  destination.set_outstanding(3, true);
  destination.set_outstanding(3, false);
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_FALSE(source.look(kNow).overtaken) << "the other one is not gone yet";
  destination.leave();
  EXPECT_TRUE(source.look(kNow).overtaken);
  EXPECT_TRUE(source.look(kNow).overtaken) << "for good";
}

TEST_F(LunWriteBarrierTest, AGuestWhoseLunIsWrittenAfterItWasResumedIsOvertaken) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  source.set_use(HolderUse::runs, kGuest, {});
  destination.set_outstanding(3, true);
  destination.set_outstanding(3, false);
  destination.leave();
  EXPECT_TRUE(source.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, WhatAGuestHasWrittenItselfDoesNotOvertakeIt) {
  BlockingBarrier source = enter_for(kGuest, "source");
  for (int time = 0; time < 2; ++time) {
    source.set_outstanding(0, true);
    source.set_outstanding(0, false);
    source.set_use(HolderUse::suspended, kGuest, {});
    source.set_use(HolderUse::runs, kGuest, {});
    EXPECT_FALSE(source.look(kNow).overtaken);
  }
  // The next suspend begins anew: what others have written before is no concern of it.
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  source.set_use(HolderUse::runs, kGuest, {});
  destination.leave();
  EXPECT_FALSE(source.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, DisksThatAreSharedDoNotOvertakeEachOther) {
  BlockingBarrier one = enter("one", true);
  BlockingBarrier other = enter("other", true);
  one.set_use(HolderUse::suspended, 0, {});
  other.set_outstanding(0, true);
  other.set_outstanding(0, false);
  one.set_use(HolderUse::runs, 0, {});
  EXPECT_FALSE(one.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, AGuestIsOvertakenAlsoInAnotherFile) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  destination.set_outstanding(0, true);
  destination.set_outstanding(0, false);
  destination.leave();
  clean();
  ASSERT_TRUE(source.follow_file());
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(source.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, AGuestIsOvertakenInAFileThatItsDiskHasNotSeenYet) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  clean();
  BlockingBarrier destination = enter_for(kGuest, "destination");
  destination.set_outstanding(0, true);
  destination.set_outstanding(0, false);
  destination.leave();
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(source.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, ADiskTakesItsSuspendedGuestToAnotherFile) {
  BlockingBarrier one = enter_for(0, "one");
  one.set_use(HolderUse::suspended, kGuest, {});
  clean();
  ASSERT_TRUE(one.follow_file());
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("one"));
  BlockingBarrier destination = enter_for(kGuest, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write()) << "it has the place of the suspended one";
}

TEST_F(LunWriteBarrierTest, AGuestWhoseUuidIsToldLaterIsKnownFromThen) {
  BlockingBarrier source = enter_for(0, "source");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(0, "destination");
  EXPECT_FALSE(destination.look(kNow).may_write());
  destination.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(destination.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AnotherGuestThatWaitsDoesNotPassOneThatIsMoved) {
  BlockingBarrier source = enter_for(kGuest, "source");
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write());
  source.set_use(HolderUse::ended, kGuest, {});
  source.leave();
  EXPECT_TRUE(destination.look(kNow).may_write());
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("destination"));
}

TEST_F(LunWriteBarrierTest, AnotherGuestThatWaitsDoesNotPassOneThatIsResumed) {
  BlockingBarrier source = enter_for(kGuest, "source");
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  source.set_use(HolderUse::runs, kGuest, {});
  destination.leave();
  EXPECT_FALSE(other.look(kNow).may_write());
  EXPECT_TRUE(source.look(kNow).may_write());
}

// Its suspend may be noticed later than the guest comes to where it is moved to.
TEST_F(LunWriteBarrierTest, AGuestIsMovedToADiskThatComesALittleBeforeItsSuspendIsNoticed) {
  const auto enter_at = [&](const std::string& name, TimePoint when) {
    return enter_as({.name = name, .vm = kGuest, .quiesce_time = kQuiesceTime}, when);
  };
  BlockingBarrier source = enter_at("source", kNow - seconds(99));
  BlockingBarrier old_copy = enter_at("an old copy, restored", kNow - seconds(3));
  BlockingBarrier destination = enter_at("destination", kNow - seconds(1));
  EXPECT_FALSE(destination.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, kNow);
  EXPECT_FALSE(old_copy.look(kNow).may_write());
  EXPECT_TRUE(destination.look(kNow).may_write());
  EXPECT_FALSE(old_copy.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADestinationWhoseSourceHasGoneOnIsOvertaken) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  destination.set_use(HolderUse::suspended, kGuest, {});
  source.set_use(HolderUse::runs, kGuest, {});
  source.set_outstanding(0, true);
  source.set_outstanding(0, false);
  source.leave();
  destination.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(destination.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, AGuestThatIsOvertakenIsInNobodysWay) {
  BlockingBarrier source = enter_for(kGuest, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier destination = enter_for(kGuest, "destination");
  destination.set_outstanding(0, true);
  destination.set_outstanding(0, false);
  destination.leave();
  source.set_use(HolderUse::runs, kGuest, {});
  BlockingBarrier next = enter_for(kGuest, "next");
  EXPECT_TRUE(source.look(kNow).overtaken);
  EXPECT_TRUE(next.look(kNow).may_write());
  source.set_use(HolderUse::runs, kGuest, {});
  EXPECT_TRUE(next.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatNeverHadTheLunIsNotOvertaken) {
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  BlockingBarrier waiting = enter_for(kGuest, "waiting");
  EXPECT_FALSE(waiting.look(kNow).may_write());
  waiting.set_use(HolderUse::suspended, kGuest, {});
  other.set_outstanding(0, true);
  other.set_outstanding(0, false);
  waiting.set_use(HolderUse::runs, kGuest, {});
  other.leave();
  EXPECT_FALSE(waiting.look(kNow).overtaken);
}

TEST_F(LunWriteBarrierTest, OnlyADiskThatIsSharedTakesThePlaceOfASharedOne) {
  BlockingBarrier source = enter_as({.name = "source", .vm = kGuest, .shared = true}, {});
  BlockingBarrier beside = enter_as({.name = "beside", .vm = kAnotherGuest, .shared = true}, {});
  source.set_use(HolderUse::suspended, kGuest, {});
  BlockingBarrier alone = enter_for(kGuest, "alone");
  EXPECT_EQ(beside.look(kNow).in_use_by, "");
  EXPECT_NE(alone.look(kNow).in_use_by, "");
}

TEST_F(LunWriteBarrierTest, ASecondDiskOfASuspendedGuestWaitsAsBefore) {
  const TimePoint attached = kNow - seconds(9);
  BlockingBarrier one = enter_for(kGuest, "xvda", attached);
  BlockingBarrier two = enter_for(kGuest, "xvdb", attached);
  for (int time = 0; time < 2; ++time) {
    two.set_use(HolderUse::suspended, kGuest, kNow);
    one.set_use(HolderUse::suspended, kGuest, kNow);
    two.set_use(HolderUse::runs, kGuest, kNow);
    EXPECT_FALSE(two.look(kNow).may_write());
    one.set_use(HolderUse::runs, kGuest, kNow);
    EXPECT_FALSE(two.look(kNow).may_write());
    EXPECT_TRUE(one.look(kNow).may_write());
  }
}

// ---- places that are kept

TEST_F(LunWriteBarrierTest, APlaceIsKeptForTheGuestsNextDisk) {
  BlockingBarrier one = enter_for(kGuest, "xvda of guest 5");
  EXPECT_TRUE(one.look(kNow).may_write());
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  one.leave_place(kNow);
  EXPECT_TRUE(other.changed());
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("xvda of guest 5"));
  BlockingBarrier next = enter_for(kGuest, "next", kNow);
  EXPECT_TRUE(next.look(kNow).may_write());
  EXPECT_FALSE(next.look(kNow).overtaken);
  EXPECT_THAT(other.look(kNow).in_use_by, HasSubstr("next"));
  next.leave();
  EXPECT_TRUE(other.look(kNow).may_write()) << "the place was taken, and is kept no more";
}

TEST_F(LunWriteBarrierTest, APlaceIsKeptForTheQuiesceTime) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  one.leave_place(kNow);
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  EXPECT_FALSE(other.look(kNow + kQuiesceTime - seconds(1)).may_write());
  EXPECT_TRUE(other.look(kNow + kQuiesceTime).may_write());
  BlockingBarrier next = enter_for(kGuest, "next", kNow + kQuiesceTime);
  EXPECT_FALSE(next.look(kNow + kQuiesceTime).may_write());
}

TEST_F(LunWriteBarrierTest, APlaceIsKeptWhereTheProcessOfASuspendedGuestDies) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  one.set_use(HolderUse::suspended, kGuest, kNow);
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  die(one);
  EXPECT_FALSE(other.look(kNow).may_write());
  BlockingBarrier again = enter_for(kGuest, "one", kNow);
  EXPECT_TRUE(again.look(kNow).may_write());
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, ADiskThatHasWaitedForLongDoesNotTakeAPlaceThatIsKept) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  BlockingBarrier old_copy = enter_for(kGuest, "an old copy, restored");
  one.leave_place(kNow);
  EXPECT_FALSE(old_copy.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, APlaceIsKeptInAnotherFile) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  one.leave_place(kNow);
  clean();
  ASSERT_TRUE(other.follow_file());
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, NobodyTakesTheSlotOfAPlaceThatIsKept) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  one.leave_place(kNow);
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, APlaceIsKeptForADomainWhoseUuidIsNotKnown) {
  BlockingBarrier one = enter_in(1, 0, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  one.leave_place(kNow);
  BlockingBarrier other = enter_in(2, 0, "another guest, whose UUID is not known either");
  EXPECT_FALSE(other.look(kNow).may_write());
  BlockingBarrier next = enter_in(1, 0, "next");
  EXPECT_TRUE(next.look(kNow).may_write());
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, AGuestWhoseUuidIsNotKnownIsMovedAllTheSame) {
  BlockingBarrier source = enter_in(1, 0, "source");
  EXPECT_TRUE(source.look(kNow).may_write());
  source.set_use(HolderUse::suspended, 0, kNow);
  BlockingBarrier destination = enter_in(2, 0, "destination");
  EXPECT_TRUE(destination.look(kNow).may_write());
}

TEST_F(LunWriteBarrierTest, WhatIsUnfencedHoldsOthersBackAlsoWhereThePlaceIsKept) {
  BlockingBarrier one = enter_for(kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  one.set_unfenced(1, false, kNow + seconds(5));
  one.leave_place(kNow);
  BlockingBarrier next = enter_for(kGuest, "next", kNow);
  EXPECT_THAT(next.look(kNow).dead, SizeIs(1));
  BlockingBarrier other = enter_for(kAnotherGuest, "other");
  EXPECT_TRUE(next.look(kNow + seconds(5)).may_write());
  EXPECT_FALSE(other.look(kNow + seconds(5)).may_write());
}

TEST_F(LunWriteBarrierTest, OfTwoPlacesAGuestThatIsMovedTakesTheFirst) {
  BlockingBarrier one = enter_in(1, kGuest, "one");
  EXPECT_TRUE(one.look(kNow).may_write());
  BlockingBarrier other = enter_in(9, kAnotherGuest, "other");
  BlockingBarrier two = enter_in(1, kGuest, "two");
  one.set_use(HolderUse::suspended, kGuest, kNow);
  two.set_use(HolderUse::suspended, kGuest, kNow);
  BlockingBarrier moved = enter_in(2, kGuest, "moved");
  EXPECT_TRUE(moved.look(kNow).may_write());
  one.leave();
  two.leave();
  EXPECT_FALSE(other.look(kNow).may_write());
}

// ---- places that were taken

// A guest is moved from source_ to moved_, and goes on there.
class LunWriteBarrierPlaceTaken : public LunWriteBarrierTest {
 protected:
  LunWriteBarrierPlaceTaken() { write(source_); }

  void move() {
    source_.set_use(HolderUse::suspended, kGuest, kNow);
    moved_ = enter_in(2, kGuest, "moved");
    write(moved_);
  }
  void expect_served(BlockingBarrier& disk) {
    EXPECT_TRUE(disk.look(kNow).may_write());
    EXPECT_FALSE(disk.look(kNow).overtaken);
  }

  BlockingBarrier source_ = enter_in(1, kGuest, "source");
  BlockingBarrier moved_;
};

class LunWriteBarrierNextDomain : public LunWriteBarrierPlaceTaken,
                                  public testing::WithParamInterface<std::uint32_t> {};

TEST_P(LunWriteBarrierNextDomain, MayHaveAnotherDiskWhileTheSourceIsStillThere) {
  move();
  moved_.leave();
  BlockingBarrier again = enter_in(GetParam(), kGuest, "again");
  EXPECT_THAT(again.look(kNow).in_use_by, HasSubstr("source"));
  source_.leave();
  expect_served(again);
}

// The disk is detached and attached; the guest is started anew.
INSTANTIATE_TEST_SUITE_P(BlockingBarrier, LunWriteBarrierNextDomain, testing::Values(2, 3));

TEST_F(LunWriteBarrierPlaceTaken, TheGuestHasItAgainWhenItIsMovedTwice) {
  BlockingBarrier other = enter_in(9, kAnotherGuest, "other");
  move();
  moved_.set_use(HolderUse::suspended, kGuest, kNow);
  moved_.leave_place(kNow);  // while the source is still there
  BlockingBarrier again = enter_in(3, kGuest, "again");
  expect_served(again);
  source_.leave();
  EXPECT_TRUE(again.look(kNow).may_write());
  EXPECT_FALSE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierPlaceTaken, ItIsNotKeptASecondTime) {
  BlockingBarrier other = enter_in(9, kAnotherGuest, "other");
  move();
  source_.leave_place(kNow);
  moved_.leave();
  EXPECT_TRUE(other.look(kNow).may_write());
}

TEST_F(LunWriteBarrierPlaceTaken, WhatIsUnfencedHoldsOthersBack) {
  move();
  source_.set_unfenced(1, false, kNow + seconds(5));
  source_.leave_place(kNow);
  EXPECT_THAT(moved_.look(kNow).dead, SizeIs(1));
  EXPECT_TRUE(moved_.look(kNow + seconds(5)).may_write());
}

TEST_F(LunWriteBarrierPlaceTaken, ItIsSoInAnotherFile) {
  move();
  clean();
  ASSERT_TRUE(source_.follow_file());
  ASSERT_TRUE(moved_.follow_file());
  moved_.leave();
  BlockingBarrier again = enter_in(2, kGuest, "again");
  source_.leave();
  expect_served(again);
}

}  // namespace
}  // namespace iscsi_blkback
