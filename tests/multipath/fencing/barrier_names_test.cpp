// Disks of one host that know a LUN by different names, without their devices.
#include "multipath/fencing/barrier_names.h"

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/multipath/fencing/lun_write_barrier_fixture.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::SizeIs;

constexpr const char* kTarget = "iqn.2026-01.test:a";

Designator t10(const std::string& name) {
  return {.code_set = 2, .type = 1, .bytes = name};
}
// With a company.
Designator naa(int last) {
  std::string bytes("\x60\x01\x40\x51\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c", 15);
  bytes.push_back(static_cast<char>(last));
  return {.code_set = 1, .type = 3, .bytes = bytes};
}
LunNames named(std::vector<Designator> designators, const std::string& serial = "") {
  return {.designators = std::move(designators),
          .serial = serial,
          .vendor = "SIM     ",
          .product = "DISK            "};
}

class BarrierNamesTest : public LunWriteBarrierTest {
 protected:
  Result<BlockingBarrier> try_to_enter(const LunNames& names, const std::string& name,
                                       const std::string& target = kTarget) {
    BarrierNames told;
    told.add(names, target);
    return BlockingBarrier::enter(folder(), lun_barrier_key(barrier_name_of(names), target, 0),
                                  {.name = name, .quiesce_time = kQuiesceTime}, next_time(), told);
  }
  BlockingBarrier come(const LunNames& names, const std::string& name,
                       const std::string& target = kTarget) {
    auto barrier = try_to_enter(names, name, target);
    EXPECT_TRUE(barrier) << barrier.error().message;
    return std::move(*barrier);
  }
  TimePoint next_time() { return kNow + std::chrono::milliseconds(++entered_); }
  static void expect_one(BlockingBarrier& first, BlockingBarrier& second) {
    EXPECT_TRUE(first.look(kNow).may_write());
    EXPECT_FALSE(second.look(kNow).may_write());
  }
  static void expect_two(BlockingBarrier& first, BlockingBarrier& second) {
    EXPECT_TRUE(first.look(kNow).may_write());
    EXPECT_TRUE(second.look(kNow).may_write());
  }
  BarrierFile only_file() {
    EXPECT_THAT(files(), SizeIs(1));
    return std::move(*BarrierFile::open_existing(files().at(0).string()));
  }

  std::atomic<int> entered_{0};
  const LunNames old_ = named({t10("SIM     one")});
  const LunNames both_ = named({t10("SIM     one"), naa(1)});
  const LunNames new_ = named({naa(1)});
};

// ---- which LUN it is

TEST_F(BarrierNamesTest, OneNameInCommonIsTheSameLun) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(both_, "second");
  expect_one(first, second);
  BlockingBarrier third = come(new_, "third");
  EXPECT_FALSE(third.look(kNow).may_write());
  EXPECT_THAT(files(), SizeIs(1));
}

TEST_F(BarrierNamesTest, ANameThatIsGoneIsRemembered) {
  BlockingBarrier first = come(both_, "first");
  BlockingBarrier second = come(old_, "second");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, ANameThatADiskHasLeftBehindIsRemembered) {
  come(both_, "gone").leave();
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(new_, "second");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, LunsThatShareANameAndDifferInAnotherAreTwo) {
  BlockingBarrier first = come(named({t10("SIM     one"), naa(1)}), "first");
  BlockingBarrier second = come(named({t10("SIM     one"), naa(2)}), "second");
  expect_two(first, second);
  BlockingBarrier third = come(named({naa(2)}), "third");
  EXPECT_THAT(third.look(kNow).in_use_by, HasSubstr("second"));
}

TEST_F(BarrierNamesTest, ANameWithoutACompanyIsOneWithItsTargetOnly) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier alike = come(old_, "alike", "iqn.2026-01.test:b");
  expect_two(first, alike);
  BlockingBarrier upgraded =
      come(named({t10("SIM     one"), naa(2)}), "upgraded", "iqn.2026-01.test:b");
  EXPECT_THAT(upgraded.look(kNow).in_use_by, HasSubstr("alike"));
}

TEST_F(BarrierNamesTest, ANameWithACompanyIsOneAtAnyTarget) {
  BlockingBarrier first = come(both_, "first");
  BlockingBarrier second = come(new_, "second", "iqn.2026-01.test:b");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, AnotherSerialNumberIsAnotherLun) {
  BlockingBarrier first = come(named({t10("SIM     one"), naa(1)}, "4711"), "first");
  BlockingBarrier second = come(named({t10("SIM     one")}, "4712"), "second");
  expect_two(first, second);
}

TEST_F(BarrierNamesTest, ASerialNumberOfThePathIsNoNameOfTheLun) {
  BarrierNames names;
  names.serial = SerialNumberIs::the_paths;
  EXPECT_TRUE(names.add(named({t10("SIM     one")}, "4711"), kTarget));
  EXPECT_THAT(names.known, SizeIs(1));
}

// What the first versions did: a disk that waits for nothing is better than one that waits for
// none.
TEST_F(BarrierNamesTest, DisksWithOneKeySeeEachOtherWhateverElseDiffers) {
  BlockingBarrier first = come(named({t10("SIM     one"), naa(1)}), "first");
  BlockingBarrier second = come(named({t10("SIM     two"), naa(1)}), "second");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, TheFileOfTheKeyCountsBesideThatOfAnotherName) {
  BlockingBarrier one = come(named({t10("SIM     one"), naa(1)}), "one");
  BlockingBarrier two = come(named({t10("SIM     two")}), "two");
  BlockingBarrier third = come(named({t10("SIM     two"), naa(1)}), "third");
  one.leave();
  EXPECT_FALSE(third.look(kNow).may_write());
  two.leave();
  EXPECT_TRUE(third.look(kNow).may_write());
  BlockingBarrier again = come(named({t10("SIM     one"), naa(1)}), "again");
  EXPECT_FALSE(again.look(kNow).may_write());
}

TEST_F(BarrierNamesTest, ALunThatMayBeEitherOfTwoWaitsForBoth) {
  BlockingBarrier one = come(named({t10("SIM     one"), naa(1)}), "one");
  BlockingBarrier two = come(named({t10("SIM     one"), naa(2)}), "two");
  BlockingBarrier either = come(old_, "either");
  EXPECT_FALSE(either.look(kNow).may_write());
  one.leave();
  EXPECT_FALSE(either.look(kNow).may_write());
  two.set_outstanding(0, true);
  die(two);
  EXPECT_FALSE(either.look(kNow).may_write());
  EXPECT_FALSE(either.look(kNow + kQuiesceTime - seconds(1)).may_write());
  EXPECT_TRUE(either.look(kNow + kQuiesceTime).may_write());
  BlockingBarrier later = come(named({t10("SIM     one"), naa(2)}), "later");
  EXPECT_FALSE(later.look(kNow + kQuiesceTime).may_write());
}

// ---- two files that turn out to be one LUN's

TEST_F(BarrierNamesTest, ADiskThatLearnsANameIsSeenByIt) {
  BlockingBarrier first = come(old_, "first");
  EXPECT_TRUE(first.learn(both_, kTarget));
  EXPECT_THAT(first.follow_file(), testing::Eq(false)) << "nobody was there";
  EXPECT_FALSE(first.learn(new_, kTarget));
  BlockingBarrier second = come(new_, "second");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, TheDiskThatLearnsComesToTheOtherFile) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(new_, "second");
  write(first);
  write(second);
  EXPECT_TRUE(first.learn(both_, kTarget));
  EXPECT_THAT(first.follow_file(), testing::Eq(true)) << "the two had not seen each other";
  EXPECT_TRUE(first.changed());
  EXPECT_TRUE(second.changed());
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, TheDiskThatWasLaterWaitsAlsoWhereItLearns) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(new_, "second");
  write(second);
  EXPECT_TRUE(second.learn(both_, kTarget));
  EXPECT_THAT(second.follow_file(), testing::Eq(true));
  expect_one(first, second);
}

// A place in the line is a time, and two guests' processes may be started at once.
TEST_F(BarrierNamesTest, OfDisksThatCameToTwoFilesAtTheSameMomentOneWaits) {
  const auto come_now = [this](const LunNames& names) {
    BarrierNames told;
    told.add(names, kTarget);
    auto barrier =
        BlockingBarrier::enter(folder(), lun_barrier_key(barrier_name_of(names), kTarget, 0),
                               {.name = "disk", .quiesce_time = kQuiesceTime}, kNow, told);
    EXPECT_TRUE(barrier);
    return std::move(*barrier);
  };
  BlockingBarrier first = come_now(old_);
  BlockingBarrier second = come_now(new_);
  write(first);
  write(second);
  EXPECT_TRUE(second.learn(both_, kTarget));
  EXPECT_THAT(second.follow_file(), testing::Eq(true));
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, APlaceThatNoTimeIsIsNotGoneOnFrom) {
  BlockingBarrier wild = come(named({t10("SIM     wild")}), "wild");
  SharedField(only_file().header().last_place).store(~std::uint64_t{0});
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(old_, "second");
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, WhoHasWritesUnderWayWhenTheTwoMeetIsWaitedFor) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(new_, "second");
  second.set_outstanding(3, true);
  ASSERT_TRUE(first.learn(both_, kTarget) && first.follow_file());
  EXPECT_THAT(first.look(kNow).late_writes_of, HasSubstr("second"));
  EXPECT_FALSE(second.look(kNow).may_write());
  second.set_outstanding(3, false);
  expect_one(first, second);
}

TEST_F(BarrierNamesTest, AllDisksOfTheOneFileComeToTheOther) {
  BlockingBarrier first = come(new_, "first");
  BlockingBarrier waiting = come(new_, "waiting");
  BlockingBarrier other = come(old_, "other");
  other.leave();
  BlockingBarrier both = come(both_, "both");
  EXPECT_FALSE(both.look(kNow).may_write()) << "they are still where nobody comes to any more";
  EXPECT_TRUE(first.follow_file());
  EXPECT_TRUE(waiting.follow_file());
  expect_one(first, waiting);
  EXPECT_THAT(both.look(kNow).in_use_by, testing::AnyOf(HasSubstr("first"), HasSubstr("waiting")));
  first.leave();
  expect_one(waiting, both);
  BlockingBarrier later = come(old_, "later");
  EXPECT_FALSE(later.look(kNow).may_write());
  BlockingBarrier latest = come(new_, "latest");
  EXPECT_FALSE(latest.look(kNow).may_write());
}

TEST_F(BarrierNamesTest, TheDeadOfBothFilesAreWaitedFor) {
  BlockingBarrier one = come(old_, "one");
  BlockingBarrier two = come(new_, "two");
  one.set_outstanding(1, true);
  two.set_outstanding(2, true);
  die(one);
  die(two);
  BlockingBarrier later = come(both_, "later");
  EXPECT_THAT(later.look(kNow).dead, SizeIs(2));
  EXPECT_FALSE(later.look(kNow + kQuiesceTime - seconds(1)).may_write());
  EXPECT_TRUE(later.look(kNow + kQuiesceTime).may_write());
}

TEST_F(BarrierNamesTest, ASuspendedGuestsDiskIsOvertakenByWhatWasWrittenInTheOtherFile) {
  BlockingBarrier suspended = come(old_, "suspended");
  write(suspended);
  suspended.set_use(HolderUse::suspended, kGuest, kNow);
  BlockingBarrier other = come(new_, "other");
  write(other);
  other.leave();
  ASSERT_TRUE(suspended.learn(both_, kTarget) && suspended.follow_file());
  suspended.set_use(HolderUse::runs, kGuest, kNow);
  EXPECT_TRUE(suspended.look(kNow).overtaken);
}

// ---- files that are removed

TEST_F(BarrierNamesTest, ADiskIsFoundByEachOfItsNamesWhenTheFilesAreRemoved) {
  BlockingBarrier first = come(old_, "first");
  ASSERT_TRUE(first.learn(both_, kTarget) && first.follow_file());
  clean();
  BlockingBarrier next = come(new_, "next");
  EXPECT_FALSE(next.look(kNow).may_write()) << "the first one has not come yet";
  EXPECT_TRUE(first.follow_file());
  expect_one(first, next);
  BlockingBarrier latest = come(old_, "latest");
  EXPECT_FALSE(latest.look(kNow).may_write());
}

TEST_F(BarrierNamesTest, ADiskIsFoundByNamesThatOnlyTheFileHasToldIt) {
  come(old_, "gone").leave();
  come(both_, "gone, too").leave();
  BlockingBarrier first = come(old_, "first");
  clean();
  BlockingBarrier next = come(new_, "next");
  EXPECT_FALSE(next.look(kNow).may_write());
  EXPECT_TRUE(first.follow_file());
  expect_one(first, next);
}

TEST_F(BarrierNamesTest, DisksOfOtherLunsWithOneNameInCommonAreNotTakenForRemoved) {
  BlockingBarrier first = come(named({t10("SIM     one"), naa(1)}), "first");
  BlockingBarrier second = come(named({t10("SIM     one"), naa(2)}), "second");
  EXPECT_TRUE(second.look(kNow).may_write());
}

TEST_F(BarrierNamesTest, ADiskWhoseFileHasBeenRemovedDoesNotWaitForItself) {
  BlockingBarrier first = come(both_, "first");
  clean();
  EXPECT_TRUE(first.look(kNow).may_write());
}

TEST_F(BarrierNamesTest, OneOfTwoFilesThatIsRemovedIsTheOneThatTheOtherLeadsTo) {
  BlockingBarrier first = come(old_, "first");
  BlockingBarrier second = come(new_, "second");
  ASSERT_TRUE(first.learn(both_, kTarget) && first.follow_file());
  std::filesystem::remove(
      BarrierFile::path_of(folder(), lun_barrier_key(barrier_name_of(new_), kTarget, 0)));
  BlockingBarrier next = come(old_, "next");
  EXPECT_FALSE(next.look(kNow).may_write());
  EXPECT_TRUE(first.follow_file());
  EXPECT_TRUE(second.follow_file());
  expect_one(first, second);
  EXPECT_FALSE(next.look(kNow).may_write());
}

// ---- the file is hostile

TEST_F(BarrierNamesTest, ALongerListThanThereCanBeIsReadAsFarAsItGoes) {
  BlockingBarrier first = come(both_, "first");
  only_file().header().names_used = ~std::uint64_t{0};
  BlockingBarrier second = come(old_, "second");
  expect_one(first, second);
  EXPECT_TRUE(first.learn(named({naa(1), naa(2)}), kTarget)) << "there is no room for it";
  EXPECT_TRUE(first.follow_file());
}

TEST_F(BarrierNamesTest, NamesThatAreNoneArePassedOver) {
  BlockingBarrier first = come(both_, "first");
  const BarrierFile file = only_file();
  ASSERT_EQ(file.header().names_used, 2U);
  struct {
    const char* what;
    std::uint8_t is_serial;
    std::uint8_t type;
    std::uint8_t length_bytes;
    std::string bytes;
  } const cases[] = {
      {"neither a designator nor a serial number", 7, 8, 4, "\x1b[2J"},
      {"a serial number that is not printable", 1, 0, 4, "\x1b[2J"},
      {"a serial number of blanks", 1, 0, 4, "    "},
      {"a designator of no type", 0, 99, 3, "abc"},
      {"a designator of zeros", 0, 3, 16, ""},
      {"an NAA designator of the wrong length", 0, 3, 15, "\x60\x01\x40"},
  };
  for (const auto& test : cases) {
    barrier_layout::Name name{};
    name.is_serial = test.is_serial;
    name.type = test.type;
    name.length_bytes = test.length_bytes;
    test.bytes.copy(name.bytes.data(), test.bytes.size());
    std::fstream(file.path(), std::ios::in | std::ios::out | std::ios::binary)
        .seekp(offsetof(barrier_layout::Contents, names) + 2 * sizeof name)
        .write(reinterpret_cast<const char*>(&name), sizeof name);
    file.header().names_used = 3;
    EXPECT_THAT(file.names().known, SizeIs(2)) << test.what;
  }
}

TEST_F(BarrierNamesTest, AnotherTargetsNameEndsWithItsField) {
  BlockingBarrier first = come(old_, "first", std::string(1000, 'x'));
  EXPECT_THAT(only_file().names().known.at(0).target_name, SizeIs(223));
}

TEST_F(BarrierNamesTest, MoreNamesThanAreRememberedAreLeftOut) {
  BlockingBarrier first = come(old_, "first");
  for (int last = 1; last < 100; ++last) {
    (void)first.learn(named({naa(last)}), kTarget);
    ASSERT_TRUE(first.follow_file());
  }
  EXPECT_THAT(only_file().names().known, SizeIs(BarrierNames::kMost));
}

TEST_F(BarrierNamesTest, AFileThatLeadsOutOfTheFolderOrRoundInACircleIsRefusedByName) {
  come(old_, "gone").leave();
  const BarrierFile file = only_file();
  const std::string own_name = std::filesystem::path(file.path()).filename();
  for (const std::string& to : {std::string("../x.5"), std::string("x"), std::string(), own_name}) {
    set_text(file.header().forwarded_to, to);
    file.header().forwarded = 1;
    const auto refused = try_to_enter(old_, "refused");
    ASSERT_FALSE(refused) << to;
    EXPECT_THAT(refused.error().message, HasSubstr(file.path() + " leads to no file"));
  }
}

TEST_F(BarrierNamesTest, AFolderThatSomebodyHasLockedIsAnError) {
  come(old_, "gone").leave();
  {
    const auto locked = BarrierFolder::lock(folder());
    ASSERT_TRUE(locked);
    const auto refused = try_to_enter(old_, "refused");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
    EXPECT_THAT(refused.error().message, HasSubstr(folder() + " is locked"));
  }
  (void)come(old_, "next");
}

TEST_F(BarrierNamesTest, AFileOfAnotherLayoutIsNoConcern) {
  (void)come(old_, "first");
  std::ofstream(folder() + "/36001405102030405060708090a0b0c01.3") << "of another version";
  (void)come(new_, "second");
}

// ---- LUNs that come and go

TEST_F(BarrierNamesTest, FilesThatNoDiskUsesAreForgottenTheOldestFirst) {
  const auto path_of = [this](const LunNames& names) {
    return BarrierFile::path_of(folder(), lun_barrier_key(barrier_name_of(names), kTarget, 0));
  };
  const LunNames used = named({t10("SIM     used")});
  const LunNames dead = named({t10("SIM     dead")});
  const LunNames kept = named({t10("SIM     kept")});
  BlockingBarrier runs = come(used, "runs");
  BlockingBarrier dies = come(dead, "dies");
  dies.set_outstanding(0, true);
  die(dies);
  come(kept, "saved").leave_place(kNow);
  const auto key_of = [](std::size_t number) { return "gone " + std::to_string(number); };
  for (std::size_t number = 0; number < BarrierFolder::kMostFiles; ++number) {
    const auto file = BarrierFile::open(folder(), key_of(number));
    SharedField(file->header().last_place).store((std::uint64_t{1} << 40) + number);
  }
  BlockingBarrier next = come(named({t10("SIM     next")}), "next");
  EXPECT_THAT(files(), SizeIs(BarrierFolder::kMostFiles + 1));
  EXPECT_FALSE(std::filesystem::exists(BarrierFile::path_of(folder(), key_of(2))));
  EXPECT_TRUE(std::filesystem::exists(BarrierFile::path_of(folder(), key_of(3))));
  for (const LunNames* names : {&used, &dead, &kept}) {
    EXPECT_TRUE(std::filesystem::exists(path_of(*names))) << barrier_name_of(*names);
  }
}

// ---- several at the same time

TEST_F(BarrierNamesTest, DisksThatComeAtTheSameTimeByDifferentNamesSeeEachOther) {
  constexpr int kDisks = 6;
  for (int round = 0; round < 20; ++round) {
    std::filesystem::remove_all(folder());
    std::vector<BlockingBarrier> disks(kDisks);
    std::vector<std::thread> threads;
    for (int disk = 0; disk < kDisks; ++disk) {
      threads.emplace_back([&, disk] {
        const LunNames& names = disk % 3 == 0 ? old_ : disk % 3 == 1 ? both_ : new_;
        auto entered = try_to_enter(names, "disk");
        while (!entered) {
          entered = try_to_enter(names, "disk");
        }
        disks[static_cast<std::size_t>(disk)] = std::move(*entered);
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    int writers = 0;
    for (BlockingBarrier& disk : disks) {
      ASSERT_TRUE(disk.follow_file());
    }
    for (BlockingBarrier& disk : disks) {
      writers += disk.look(kNow).may_write() ? 1 : 0;
    }
    EXPECT_EQ(writers, 1);
  }
}

}  // namespace
}  // namespace iscsi_blkback
