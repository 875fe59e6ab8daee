// Which LUN a disk is and how large, by what its paths tell one after the other.
#include "multipath/disk_identity.h"

#include <gtest/gtest.h>

#include "multipath/requests/loss_notice.h"
#include "multipath/requests/write_cache_view.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

LogicalUnitIdentity lun(const std::string& name, std::uint64_t blocks = 1000) {
  LogicalUnitIdentity told;
  told.names.designators = {{.code_set = 1, .type = 3, .bytes = "\x60" + name}};
  told.wwid = wwid_of(told.names);
  told.block_count = blocks;
  return told;
}

// Which the vendor has chosen, so that others may have the same one.
const Designator kVendorName{.code_set = 2, .type = 1, .bytes = "Vendor  disk-1"};

class DiskIdentityTest : public testing::Test {
 protected:
  // What the LUN behind a portal tells; empty: it is the disk's.
  static std::string error(DiskIdentity& disk, const LogicalUnitIdentity& told,
                           const std::string& portal = "a", const std::string& target = "iqn.t",
                           std::uint16_t number = 0) {
    const Result<void> checked =
        disk.check({portal, target, number}, told, SerialNumberIs::the_luns);
    return checked ? "" : checked.error().message;
  }

  const LogicalUnitIdentity one_ = lun("aaaaaaaaaaaaaaa");
  const LogicalUnitIdentity other_ = lun("bbbbbbbbbbbbbbb");
  DiskIdentity disk_{{}};
};

TEST_F(DiskIdentityTest, TheFirstPathThatTellsASizeDecides) {
  LogicalUnitIdentity standby = other_;
  standby.block_count = 0;
  EXPECT_EQ(error(disk_, standby), "");
  EXPECT_FALSE(disk_.known());
  EXPECT_EQ(error(disk_, one_), "");
  EXPECT_TRUE(disk_.known());
  EXPECT_EQ(disk_.geometry().sector_count, 1000U);
  EXPECT_NE(error(disk_, standby, "b").find("leads to another LUN than portal a"),
            std::string::npos);
}

TEST_F(DiskIdentityTest, BeforeItIsInUseAPathThatTellsAnotherLunIsAConflict) {
  EXPECT_EQ(error(disk_, one_), "");
  EXPECT_EQ(disk_.conflict(), "");
  EXPECT_NE(error(disk_, other_, "b"), "");
  EXPECT_EQ(disk_.conflict().find("portal b leads to another LUN than portal a"), 0U);
}

TEST_F(DiskIdentityTest, OnceItIsInUseWhatAPathTellsConcernsThatPath) {
  EXPECT_EQ(error(disk_, one_), "");
  disk_.set_in_use();
  EXPECT_NE(error(disk_, other_, "b"), "");
  EXPECT_EQ(disk_.conflict(), "");
}

TEST_F(DiskIdentityTest, ALargerLunIsTheSameAndGrowsWhenToldSo) {
  EXPECT_EQ(error(disk_, one_), "");
  disk_.set_in_use();
  EXPECT_EQ(error(disk_, lun("aaaaaaaaaaaaaaa", 2000), "b"), "");
  EXPECT_EQ(disk_.geometry().sector_count, 1000U);
  EXPECT_FALSE(disk_.grow_to(1000));
  EXPECT_FALSE(disk_.take_grown());
  EXPECT_TRUE(disk_.grow_to(2000));
  EXPECT_EQ(disk_.geometry().sector_count, 2000U);
  EXPECT_TRUE(disk_.take_grown());
  EXPECT_FALSE(disk_.take_grown());
}

TEST_F(DiskIdentityTest, ASmallerLunAndOneWithOtherBlocksAreRefused) {
  EXPECT_EQ(error(disk_, one_), "");
  EXPECT_NE(error(disk_, lun("aaaaaaaaaaaaaaa", 999), "b").find("smaller than the disk"),
            std::string::npos);
  LogicalUnitIdentity blocks = one_;
  blocks.logical_block_bytes = 4096;
  EXPECT_NE(error(disk_, blocks, "b").find("logical blocks are 4096"), std::string::npos);
}

TEST_F(DiskIdentityTest, WhatCannotBeServedDecidesNothing) {
  for (const std::uint32_t block_bytes : {0U, 256U, 513U, 8192U}) {
    LogicalUnitIdentity odd = one_;
    odd.logical_block_bytes = block_bytes;
    EXPECT_NE(error(disk_, odd), "") << block_bytes;
  }
  EXPECT_NE(error(disk_, lun("aaaaaaaaaaaaaaa", ~std::uint64_t{0})), "");
  EXPECT_FALSE(disk_.known());
}

TEST_F(DiskIdentityTest, ALunWithoutNamesIsKnownByItsPlaceOnly) {
  LogicalUnitIdentity nameless;
  nameless.block_count = 1000;
  EXPECT_EQ(error(disk_, nameless), "");
  EXPECT_EQ(error(disk_, nameless, "b"), "");
  const auto refused = [](const std::string& text) {
    return text.find("the LUN reports no identity") == 0;
  };
  EXPECT_TRUE(refused(error(disk_, nameless, "b", "iqn.other")));
  EXPECT_TRUE(refused(error(disk_, nameless, "b", "iqn.t", 1)));
  nameless.block_count = 2000;
  EXPECT_NE(error(disk_, nameless, "b"), "") << "nor does it grow";
}

TEST_F(DiskIdentityTest, OnlyTheLunThatIsWantedIsServed) {
  DiskIdentity disk({.wwid = one_.wwid, .same_lun = std::nullopt});
  EXPECT_NE(error(disk, other_).find("the disk's wwid is"), std::string::npos);
  EXPECT_EQ(error(disk, one_), "");
  DiskIdentity former({.wwid = std::nullopt, .same_lun = one_.names});
  EXPECT_NE(error(former, other_).find("leads to another LUN"), std::string::npos);
  EXPECT_EQ(error(former, one_), "");
}

TEST_F(DiskIdentityTest, ThroughAnotherTargetOnlyANameUnlikeAllOthersTells) {
  LogicalUnitIdentity both = one_;
  both.names.designators.push_back(kVendorName);
  LogicalUnitIdentity vendors = one_;
  vendors.names.designators = {kVendorName};
  EXPECT_EQ(error(disk_, both), "");
  EXPECT_EQ(error(disk_, one_, "b", "iqn.other"), "");
  EXPECT_EQ(error(disk_, vendors, "c"), "") << "of the disk's own target";
  EXPECT_NE(error(disk_, vendors, "d", "iqn.other").find("none that is unlike all others"),
            std::string::npos);
  DiskIdentity by_vendor({});
  EXPECT_EQ(error(by_vendor, vendors), "");
  EXPECT_NE(error(by_vendor, both, "b", "iqn.other"), "") << "nor is the disk's such a one";
}

TEST_F(DiskIdentityTest, NamesThatOnePathTellsMoreAreTheDisksFromThen) {
  LogicalUnitIdentity both = one_;
  both.names.designators.push_back(other_.names.designators.front());
  EXPECT_EQ(error(disk_, one_), "");
  EXPECT_EQ(error(disk_, both, "b"), "");
  EXPECT_EQ(error(disk_, other_, "c"), "") << "it has lost its former name";
}

TEST_F(DiskIdentityTest, SerialNumbersAreComparedWhereTheyAreTheLuns) {
  for (const SerialNumberIs serial : {SerialNumberIs::the_luns, SerialNumberIs::the_paths}) {
    DiskIdentity disk({});
    for (const std::string number : {"1", "2"}) {
      LogicalUnitIdentity told = one_;
      told.names.designators = {kVendorName};
      told.names.serial = number;
      EXPECT_EQ(disk.check({number, "iqn.t", 0}, told, serial).has_value(),
                number == "1" || serial == SerialNumberIs::the_paths);
    }
  }
}

TEST_F(DiskIdentityTest, BeforeItIsInUseWhatPathsTellOfItsSizeIsAConflict) {
  struct Row {
    std::uint64_t blocks;
    std::uint32_t block_bytes;
    const char* conflict;
  };
  const Row rows[] = {
      {1000, 512, ""},
      {2000, 512, "by portal b the LUN has 2000 blocks, by portal a it has 1000"},
      {999, 512, "by portal b the LUN has 999 blocks, by portal a it has 1000"},
      {1000, 4096, "by portal b the LUN has logical blocks of 4096 bytes, by portal a of 512"},
      {0, 4096, ""},  // not served there now
  };
  for (const Row& row : rows) {
    for (const bool in_use : {false, true}) {
      DiskIdentity disk({});
      EXPECT_EQ(error(disk, one_), "");
      if (in_use) {
        disk.set_in_use();
      }
      LogicalUnitIdentity told = one_;
      told.block_count = row.blocks;
      told.logical_block_bytes = row.block_bytes;
      (void)error(disk, told, "b");
      EXPECT_EQ(disk.conflict(), in_use ? "" : row.conflict);
      (void)error(disk, lun("aaaaaaaaaaaaaaa", 5), "c");
      EXPECT_EQ(disk.conflict().find("portal c") != std::string::npos,
                !in_use && *row.conflict == '\0')
          << "the first one counts";
    }
  }
}

TEST_F(DiskIdentityTest, SectorsAreOf512BytesWhateverTheBlocksOfTheLun) {
  LogicalUnitIdentity large = one_;
  large.logical_block_bytes = 4096;
  EXPECT_EQ(error(disk_, large), "");
  EXPECT_EQ(disk_.geometry().sector_count, 8000U);
  EXPECT_EQ(disk_.geometry().logical_block_bytes, 4096U);
  EXPECT_EQ(disk_.geometry().physical_block_bytes, 4096U) << "no less than a logical one";
  EXPECT_EQ(disk_.piece_sectors(), 0xffffffff / 4096 * 8) << "as a command can say";
  EXPECT_TRUE(disk_.grow_to(2000));
  EXPECT_EQ(disk_.geometry().sector_count, 16000U);
}

TEST_F(DiskIdentityTest, ADiskIsReadOnlyWhereItIsWantedOrTheLunIsAndIsNotDiscarded) {
  struct Row {
    bool wanted;
    bool write_protected;
  };
  for (const Row& row : {Row{false, false}, Row{true, false}, Row{false, true}}) {
    DiskIdentity disk({.wwid = std::nullopt, .same_lun = std::nullopt, .read_only = row.wanted});
    LogicalUnitIdentity thin = one_;
    thin.thin_provisioned = thin.provisioning.write_same_unmap = true;
    thin.write_protected = row.write_protected;
    EXPECT_EQ(error(disk, thin), "");
    const bool read_only = row.wanted || row.write_protected;
    EXPECT_EQ(disk.geometry().read_only, read_only);
    EXPECT_EQ(disk.geometry().discard_granularity_bytes, read_only ? 0U : 512U);
  }
}

TEST_F(DiskIdentityTest, APathThatDoesNotServeTheLunNowLimitsNothing) {
  LogicalUnitIdentity thin = one_;
  thin.thin_provisioned = thin.provisioning.write_same_unmap = true;
  EXPECT_EQ(error(disk_, thin), "");
  const std::uint32_t piece_sectors = disk_.piece_sectors();
  EXPECT_EQ(disk_.discards().most_sectors, 0x7fffffU) << "where the LUN does not say";
  thin.block_count = 0;
  thin.max_transfer_blocks = 1;
  thin.limits.max_write_same_blocks = 1;
  EXPECT_EQ(error(disk_, thin, "b"), "");
  EXPECT_EQ(disk_.piece_sectors(), piece_sectors);
  EXPECT_EQ(disk_.discards().most_sectors, 0x7fffffU);
  thin.block_count = 1000;
  thin.limits.max_write_same_blocks = 100;
  EXPECT_EQ(error(disk_, thin, "b"), "");
  EXPECT_EQ(disk_.piece_sectors(), 1U);
  EXPECT_EQ(disk_.discards().most_sectors, 100U);
}

TEST_F(DiskIdentityTest, PiecesAreAsSmallAsAnyPathWantsThem) {
  LogicalUnitIdentity limited = one_;
  limited.max_transfer_blocks = 128;
  EXPECT_EQ(error(disk_, limited), "");
  EXPECT_EQ(disk_.piece_sectors(), 128U);
  EXPECT_EQ(error(disk_, one_, "b"), "");
  EXPECT_EQ(disk_.piece_sectors(), 128U);
  limited.max_transfer_blocks = 64;
  EXPECT_EQ(error(disk_, limited, "c"), "");
  EXPECT_EQ(disk_.piece_sectors(), 64U);
}

TEST_F(DiskIdentityTest, DiscardsAreAsSmallAsAnyPathWantsThem) {
  EXPECT_EQ(disk_.discards().most_sectors, 0U);
  LogicalUnitIdentity thin = one_;
  thin.thin_provisioned = true;
  thin.provisioning.unmap = true;
  thin.logical_block_bytes = 4096;
  thin.physical_block_bytes = 4096;
  thin.limits.max_unmap_blocks = 100;
  thin.limits.max_unmap_ranges = 1;
  thin.limits.unmap_granularity_blocks = 4;
  thin.limits.unmap_alignment_blocks = 9;
  EXPECT_EQ(error(disk_, thin), "");
  EXPECT_EQ(disk_.discards().most_sectors, 800U);
  EXPECT_EQ(disk_.discards().granularity_sectors, 32U);
  EXPECT_EQ(disk_.discards().alignment_sectors, 8U) << "the first whole unit, where it may be";
  EXPECT_EQ(disk_.geometry().discard_granularity_bytes, 16384U);
  EXPECT_EQ(disk_.geometry().discard_alignment_bytes, 4096U);
  thin.limits.max_unmap_blocks = 50;
  EXPECT_EQ(error(disk_, thin, "b"), "");
  EXPECT_EQ(disk_.discards().most_sectors, 400U);
  thin.limits.max_unmap_blocks = 0xffffffff;
  EXPECT_EQ(error(disk_, thin, "c"), "");
  EXPECT_EQ(disk_.discards().most_sectors, 400U);
  thin.provisioning.unmap = false;
  EXPECT_EQ(error(disk_, thin, "d"), "") << "the disk is discarded in one form by all paths";
  EXPECT_EQ(disk_.discards().form, DiscardForm::unmap);
  EXPECT_EQ(disk_.discards().most_sectors, 400U);
}

// A path in trouble may not have said.
TEST_F(DiskIdentityTest, DiscardsAreThoseOfTheFirstPathThatTellsThem) {
  LogicalUnitIdentity thin = one_;
  EXPECT_EQ(error(disk_, thin), "");
  EXPECT_EQ(disk_.geometry().discard_granularity_bytes, 0U);
  thin.thin_provisioned = thin.provisioning.write_same_unmap = true;
  EXPECT_EQ(error(disk_, thin, "b"), "");
  EXPECT_EQ(disk_.discards().form, DiscardForm::write_same);
  EXPECT_EQ(disk_.geometry().discard_granularity_bytes, 512U);
  DiskIdentity in_use({});
  EXPECT_EQ(error(in_use, one_), "");
  in_use.set_in_use();
  EXPECT_EQ(error(in_use, thin, "b"), "");
  EXPECT_EQ(in_use.geometry().discard_granularity_bytes, 0U) << "guests have been told";
}

TEST_F(DiskIdentityTest, DiscardsWithoutLimitsAndUnits) {
  LogicalUnitIdentity thin = one_;
  thin.thin_provisioned = true;
  thin.provisioning.unmap = true;
  thin.limits.max_unmap_blocks = 0xffffffff;
  thin.limits.max_unmap_ranges = 1;
  thin.limits.unmap_granularity_blocks = 0xffffffff;  // no guest could be told
  thin.limits.unmap_alignment_blocks = 77;
  EXPECT_EQ(error(disk_, thin), "");
  EXPECT_EQ(disk_.discards().most_sectors, 0xffffffffU);
  EXPECT_EQ(disk_.geometry().discard_granularity_bytes, 512U);
  EXPECT_EQ(disk_.geometry().discard_alignment_bytes, 0U);
}

TEST(WriteCacheView, TheWorseCountsUntilOneThatWasAskedLaterDeniesIt) {
  const auto at = [](int time) { return TimePoint{} + seconds(time); };
  WriteCacheView cache;
  EXPECT_EQ(cache.state(), WriteCache::untold);
  cache.note(WriteCache::off, at(1), at(2));
  EXPECT_EQ(cache.state(), WriteCache::off);
  cache.note(WriteCache::on, at(3), at(5));
  cache.note(WriteCache::off, at(4), at(6));
  EXPECT_EQ(cache.state(), WriteCache::on) << "it was asked before the other one had told";
  cache.note(WriteCache::untold, at(6), at(7));
  EXPECT_EQ(cache.state(), WriteCache::on);
  cache.note(WriteCache::off, at(8), at(9));
  EXPECT_EQ(cache.state(), WriteCache::off);
  cache.note(WriteCache::untold, at(9), at(10));
  EXPECT_EQ(cache.state(), WriteCache::untold);
}

TEST(LossNotice, NoOlderFlushVouchesAndOneAtLeastFails) {
  LossNotice loss;
  EXPECT_FALSE(loss.fails(1));
  loss.lost(5);
  EXPECT_TRUE(loss.fails(4));
  EXPECT_TRUE(loss.fails(5));
  EXPECT_FALSE(loss.fails(6)) << "an older one has told it";
  loss.lost(7);
  EXPECT_TRUE(loss.fails(9)) << "nobody else has told it";
  EXPECT_FALSE(loss.fails(10));
}

}  // namespace
}  // namespace iscsi_blkback
