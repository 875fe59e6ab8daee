// A disk of 512-byte sectors over one of blocks of 4 KiB.
#include "blkback/ring/block_aligner.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "tests/support/faulty_disk.h"
#include "tests/support/memory_disk.h"
#include "tests/support/sim_random.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::microseconds;
using testing::ElementsAre;

class BlockAlignerTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kSectors = 512;
  static constexpr std::size_t kMostBytes = std::size_t{64} * 4096;
  static constexpr BlockOperation kRead = BlockOperation::read;
  static constexpr BlockOperation kWrite = BlockOperation::write;
  static constexpr BlockOperation kDiscard = BlockOperation::discard;

  struct Asked {
    BlockRequest request;
    std::vector<std::byte> data;
    std::optional<IoStatus> status;
  };
  struct Seen {
    BlockOperation operation;
    std::uint64_t sector;
    std::uint32_t count;
    bool operator==(const Seen&) const = default;
  };

  BlockAlignerTest()
      : memory_(reactor_, geometry()),
        disk_(reactor_, memory_),
        made_(BlockAligner::make(reactor_, disk_, kMostBytes).value()) {
    disk_.set_plan([this](const BlockRequest& request, std::uint64_t) {
      seen_.push_back({request.operation, request.sector, request.sector_count});
      return plan_;
    });
  }

  static Geometry geometry() {
    Geometry geometry;
    geometry.sector_count = kSectors;
    geometry.logical_block_bytes = geometry.physical_block_bytes = 4096;
    geometry.discard_granularity_bytes = 4096;
    return geometry;
  }

  Asked& ask(BlockOperation operation, std::uint64_t sector, std::uint32_t count, int fill = 0) {
    Asked& asked = *asked_.emplace_back(std::make_unique<Asked>());
    asked.request.operation = operation;
    asked.request.sector = sector;
    asked.request.sector_count = count;
    if (operation == BlockOperation::read || operation == BlockOperation::write) {
      asked.data.assign(count * kSectorBytes, static_cast<std::byte>(fill));
      asked.request.data = asked.data.data();
    }
    asked.request.owner = &asked;
    asked.request.on_complete = [](BlockRequest& request, IoStatus status) noexcept {
      Asked& done = *static_cast<Asked*>(request.owner);
      EXPECT_FALSE(done.status) << "completed twice";
      done.status = status;
    };
    aligner_.submit(asked.request);
    EXPECT_FALSE(asked.status) << "completed from inside submit";
    return asked;
  }
  Asked& done(Asked& asked) {
    reactor_.run_until_idle();
    EXPECT_TRUE(asked.status);
    return asked;
  }
  Asked& write(std::uint64_t sector, std::uint32_t count, int fill) {
    return ask(BlockOperation::write, sector, count, fill);
  }
  Asked& read(std::uint64_t sector, std::uint32_t count) {
    return ask(BlockOperation::read, sector, count, 0xee);
  }
  int at(std::uint64_t sector) {
    return static_cast<int>(memory_.contents()[sector * kSectorBytes]);
  }
  void hold(bool on) {
    plan_.kind = on ? FaultyDisk::Action::Kind::hold : FaultyDisk::Action::Kind::pass;
  }
  void release(std::size_t count) {
    disk_.release(count);
    reactor_.run_until_idle();
  }

  SimReactor reactor_{1};
  MemoryDisk memory_;
  FaultyDisk disk_;
  std::unique_ptr<BlockAligner> made_;
  BlockAligner& aligner_ = *made_;
  std::vector<Seen> seen_;
  FaultyDisk::Action plan_;
  std::deque<std::unique_ptr<Asked>> asked_;
};

TEST_F(BlockAlignerTest, TellsSectorsAndPhysicalBlocks) {
  EXPECT_EQ(aligner_.geometry().logical_block_bytes, 512U);
  EXPECT_EQ(aligner_.geometry().physical_block_bytes, 4096U);
  EXPECT_EQ(aligner_.geometry().sector_count, kSectors);
}

TEST_F(BlockAlignerTest, WholeBlocksGoAsTheyAre) {
  done(write(8, 16, 1));
  EXPECT_EQ(done(read(8, 8)).data[0], std::byte{1});
  done(ask(BlockOperation::flush, 0, 0));
  EXPECT_THAT(seen_, ElementsAre(Seen{kWrite, 8, 16}, Seen{kRead, 8, 8},
                                 Seen{BlockOperation::flush, 0, 0}));
}

TEST_F(BlockAlignerTest, PartsAreReadOutOfTheirBlocks) {
  done(write(8, 8, 1));
  done(write(16, 8, 2));
  seen_.clear();
  const Asked& asked = done(read(15, 2));
  EXPECT_THAT(seen_, ElementsAre(Seen{kRead, 8, 16}));
  EXPECT_EQ(asked.data[0], std::byte{1});
  EXPECT_EQ(asked.data[512], std::byte{2});
}

TEST_F(BlockAlignerTest, PartsAreWrittenIntoTheirBlocks) {
  done(write(0, 32, 1));
  struct Case {
    std::uint64_t sector;
    std::uint32_t count;
    std::vector<Seen> seen;
  };
  const Case cases[] = {
      {9, 2, {{kRead, 8, 8}, {kWrite, 8, 8}}},                    // inside of one
      {8, 3, {{kRead, 8, 8}, {kWrite, 8, 8}}},                    // its begin
      {13, 3, {{kRead, 8, 8}, {kWrite, 8, 8}}},                   // its end
      {12, 12, {{kRead, 8, 8}, {kWrite, 8, 16}}},                 // an end and a whole one
      {8, 12, {{kRead, 16, 8}, {kWrite, 8, 16}}},                 // a whole one and a begin
      {15, 2, {{kRead, 8, 8}, {kRead, 16, 8}, {kWrite, 8, 16}}},  // an end and a begin
      {7, 18, {{kRead, 0, 8}, {kRead, 24, 8}, {kWrite, 0, 32}}},
  };
  for (const Case& one : cases) {
    done(write(0, 32, 1));
    seen_.clear();
    EXPECT_EQ(done(write(one.sector, one.count, 7)).status, IoStatus::ok);
    EXPECT_EQ(seen_, one.seen) << one.sector << "+" << one.count;
    for (std::uint64_t sector = 0; sector < 32; ++sector) {
      const bool inside = sector >= one.sector && sector < one.sector + one.count;
      EXPECT_EQ(at(sector), inside ? 7 : 1) << one.sector << "+" << one.count << ": " << sector;
    }
  }
}

TEST_F(BlockAlignerTest, TwoPartsOfOneBlockDoNotUndoEachOther) {
  hold(true);
  Asked& first = write(8, 1, 1);
  Asked& second = write(9, 1, 2);
  Asked& whole = write(8, 8, 3);
  Asked& third = write(15, 1, 4);
  Asked& elsewhere = write(17, 1, 5);
  EXPECT_THAT(seen_, ElementsAre(Seen{kRead, 8, 8}, Seen{kRead, 16, 8}));
  hold(false);
  release(1);
  reactor_.run_until_idle();
  disk_.release();
  reactor_.run_until_idle();
  for (Asked* asked : {&first, &second, &whole, &third, &elsewhere}) {
    EXPECT_EQ(asked->status, IoStatus::ok);
  }
  EXPECT_EQ(at(8), 3);
  EXPECT_EQ(at(9), 3);
  EXPECT_EQ(at(15), 4);
  EXPECT_EQ(at(17), 5);
}

TEST_F(BlockAlignerTest, APartWaitsForAWholeBlockThatIsUnderWay) {
  hold(true);
  write(8, 8, 1);
  write(9, 1, 2);
  EXPECT_EQ(seen_.size(), 1U) << "it would read what is there before";
  hold(false);
  release(1);
  EXPECT_EQ(at(8), 1);
  EXPECT_EQ(at(9), 2);
}

TEST_F(BlockAlignerTest, WholeBlocksGoBesideEachOther) {
  hold(true);
  write(8, 8, 1);
  write(8, 16, 2);
  EXPECT_EQ(seen_.size(), 2U);
  hold(false);
  release(2);
}

TEST_F(BlockAlignerTest, ADiscardTakesWholeBlocksOnly) {
  done(write(0, 32, 1));
  seen_.clear();
  EXPECT_EQ(done(ask(kDiscard, 3, 26)).status, IoStatus::ok);
  EXPECT_THAT(seen_, ElementsAre(Seen{kDiscard, 8, 16}));
  EXPECT_EQ(at(7), 1);
  EXPECT_EQ(at(8), 0xdd);
  EXPECT_EQ(at(23), 0xdd);
  EXPECT_EQ(at(24), 1);
  seen_.clear();
  EXPECT_EQ(done(ask(kDiscard, 9, 7)).status, IoStatus::ok);
  EXPECT_EQ(done(ask(kDiscard, 12, 8)).status, IoStatus::ok);
  EXPECT_TRUE(seen_.empty());
}

TEST_F(BlockAlignerTest, ErrorsEndARequestWhereTheyAre) {
  plan_.kind = FaultyDisk::Action::Kind::fail;
  plan_.status = IoStatus::medium_error;
  EXPECT_EQ(done(write(9, 1, 1)).status, IoStatus::medium_error);
  EXPECT_THAT(seen_, ElementsAre(Seen{kRead, 8, 8})) << "nothing is written";
  EXPECT_EQ(done(read(9, 1)).status, IoStatus::medium_error);
  EXPECT_EQ(done(write(8, 8, 1)).status, IoStatus::medium_error);
  hold(false);
  EXPECT_EQ(done(write(9, 1, 1)).status, IoStatus::ok);
  EXPECT_EQ(aligner_.under_way(), 0U);
}

TEST_F(BlockAlignerTest, WhatHasNoRoomWaits) {
  hold(true);
  std::vector<Asked*> all;
  for (std::size_t i = 0; i < BlockAligner::kMaxPartial + 10; ++i) {
    all.push_back(&write(i * 8 + 1, 1, static_cast<int>(i)));
  }
  all.push_back(&write(400, 8, 9));
  EXPECT_EQ(seen_.size(), BlockAligner::kMaxPartial) << "nor does what comes behind overtake";
  hold(false);
  disk_.release();
  reactor_.run_until_idle();
  for (const Asked* asked : all) {
    EXPECT_EQ(asked->status, IoStatus::ok);
  }
  EXPECT_EQ(at(8 * 40 + 1), 40);
}

// Random requests side by side, whole and partial; those under way together do not share a sector,
// but often a block.
TEST_F(BlockAlignerTest, EachSectorHoldsWhatWasWrittenLast) {
  SimRandom random(11);
  memory_.set_delay([&] { return microseconds(random.below(500)); });
  std::vector<int> expected(kSectors, 0);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::pair<Asked*, std::vector<int>>> reads;
    std::set<std::uint64_t> taken;
    for (int i = 0; i < 40; ++i) {
      const auto count = static_cast<std::uint32_t>(1 + random.below(12));
      const std::uint64_t sector = random.below(96 - count);
      bool free = true;
      for (std::uint64_t s = sector; s < sector + count; ++s) {
        free = free && !taken.contains(s);
      }
      if (!free) {
        continue;
      }
      for (std::uint64_t s = sector; s < sector + count; ++s) {
        taken.insert(s);
      }
      if (random.one_in(3)) {
        reads.emplace_back(
            &read(sector, count),
            std::vector<int>(expected.begin() + static_cast<std::ptrdiff_t>(sector),
                             expected.begin() + static_cast<std::ptrdiff_t>(sector + count)));
      } else {
        const int fill = static_cast<int>(random.below(250));
        write(sector, count, fill);
        std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(sector), count, fill);
      }
    }
    reactor_.run_for(std::chrono::seconds(1));
    for (const auto& [asked, values] : reads) {
      for (std::size_t s = 0; s < values.size(); ++s) {
        ASSERT_EQ(static_cast<int>(asked->data[s * kSectorBytes]), values[s]);
      }
    }
    for (const auto& asked : asked_) {
      ASSERT_EQ(asked->status, IoStatus::ok);
    }
    asked_.clear();
  }
  for (std::uint64_t sector = 0; sector < 96; ++sector) {
    EXPECT_EQ(at(sector), expected[sector]) << sector;
  }
}

}  // namespace
}  // namespace iscsi_blkback
