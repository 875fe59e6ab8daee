// Requests that go to a path in pieces.
#include "multipath/requests/request_piece.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

struct Whole : BlockRequest {
  Whole(BlockOperation of, std::uint64_t first, std::uint32_t sectors) {
    operation = of;
    sector = first;
    sector_count = sectors;
  }
};

TEST(RequestPiece, EachGoesOnWhereTheOneBeforeHasEnded) {
  std::array<std::byte, 20 * kSectorBytes> data{};
  for (const BlockOperation operation : {BlockOperation::read, BlockOperation::write}) {
    Whole whole(operation, 1000, 20);
    whole.data = data.data();
    struct Row {
      std::uint32_t done_sectors;
      std::uint32_t expected_sectors;
    };
    for (const Row& row : {Row{0, 8}, Row{8, 8}, Row{16, 4}}) {
      BlockRequest piece;
      cut_piece(whole, row.done_sectors, 8, {}, piece);
      EXPECT_EQ(piece.operation, operation);
      EXPECT_EQ(piece.sector, 1000 + row.done_sectors);
      EXPECT_EQ(piece.sector_count, row.expected_sectors);
      EXPECT_EQ(piece.data, data.data() + row.done_sectors * kSectorBytes);
    }
  }
}

TEST(RequestPiece, OfADiscardItHasTheSizeOfItsUnitsAndNoData) {
  constexpr DiscardLimits kLimits{
      .form = DiscardForm::unmap, .most_sectors = 100, .granularity_sectors = 8};
  const Whole whole(BlockOperation::discard, 4, 150);
  BlockRequest first;
  cut_piece(whole, 0, 16, kLimits, first);
  EXPECT_EQ(first.operation, BlockOperation::discard);
  EXPECT_EQ(first.sector, 4U);
  EXPECT_EQ(first.sector_count, 100U);
  EXPECT_EQ(first.data, nullptr);
  BlockRequest last;
  cut_piece(whole, 100, 16, kLimits, last);
  EXPECT_EQ(last.sector, 104U);
  EXPECT_EQ(last.sector_count, 50U);
}

TEST(RequestPiece, AWriteIsLostAsAWholeAndOfADiscardWhatWasSent) {
  SimReactor reactor{1};
  struct Row {
    BlockOperation operation;
    std::uint64_t first;
    std::uint64_t end;
  };
  for (const Row& row :
       {Row{BlockOperation::write, 1000, 1020}, Row{BlockOperation::discard, 1008, 1012}}) {
    Whole whole(row.operation, 1000, 20);
    Request lost(
        reactor, [](void* /*request*/) noexcept {}, nullptr, true);
    lost.block = &whole;
    lost.done_sectors = 8;
    lost.sent_sectors = 4;
    EXPECT_EQ(unfenced_sectors(lost).first, row.first);
    EXPECT_EQ(unfenced_sectors(lost).end, row.end);
  }
}

}  // namespace
}  // namespace iscsi_blkback
