#include "initiator/pdu/transmit_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/initiator/session/session_fixture.h"

namespace iscsi_blkback {
namespace {

constexpr Digests kBothDigests{.header = true, .data = true};

// Everything that the batch would send.
std::vector<std::byte> sent_by(const TransmitBatch& batch) {
  std::vector<std::byte> all;
  for (const iovec& part : batch.parts()) {
    const auto* begin = static_cast<const std::byte*>(part.iov_base);
    all.insert(all.end(), begin, begin + part.iov_len);
  }
  EXPECT_EQ(all.size(), batch.total_bytes());
  return all;
}

void add_pdu(TransmitBatch& batch, std::span<const std::byte> data) {
  encode(DataOutPdu{.data_bytes = static_cast<std::uint32_t>(data.size())}, batch.add_header());
  static_cast<void>(batch.add_data(data.data(), data.size()));
}

TEST(TransmitBatch, PadsWithZerosWhateverItCarriedBefore) {
  TransmitBatch batch;
  batch.clear();
  add_pdu(batch, std::vector<std::byte>(64, std::byte{0xff}));
  batch.seal();
  batch.clear();
  add_pdu(batch, std::vector<std::byte>(13, std::byte{0x77}));
  batch.seal();
  const std::vector<std::byte> sent = sent_by(batch);
  ASSERT_EQ(sent.size(), kBhsBytes + 16);
  EXPECT_TRUE(
      std::all_of(sent.end() - 3, sent.end(), [](std::byte b) { return b == std::byte{0}; }));
}

// Of every length around the one from which data is referred to, odd ones too.
TEST(TransmitBatch, DigestsCoverHeaderDataAndPadding) {
  const std::vector<std::byte> data = test_pattern(TransmitBatch::kReferBytes + 8, 3);
  TransmitBatch batch;
  for (std::size_t bytes = TransmitBatch::kReferBytes - 8; bytes <= data.size(); ++bytes) {
    batch.clear(kBothDigests);
    add_pdu(batch, std::span{data}.first(bytes));
    batch.seal();
    const std::vector<std::byte> sent = sent_by(batch);
    ASSERT_EQ(sent.size(), kBhsBytes + 4 + padded(bytes) + 4) << bytes;
    EXPECT_TRUE(digest_follows(std::span{sent}.first(kBhsBytes))) << bytes;
    EXPECT_TRUE(digest_follows(std::span{sent}.subspan(kBhsBytes + 4, padded(bytes)))) << bytes;
    EXPECT_TRUE(std::equal(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(bytes),
                           sent.begin() + kBhsBytes + 4));
  }
}

TEST(TransmitBatch, SaysWhetherItRefersToTheData) {
  const std::vector<std::byte> data(TransmitBatch::kReferBytes + 1, std::byte{1});
  TransmitBatch batch;
  batch.clear();
  for (const auto& [bytes, refers] : {std::pair{TransmitBatch::kReferBytes - 1, false},
                                      {TransmitBatch::kReferBytes, true},
                                      {TransmitBatch::kReferBytes + 1, true}}) {
    encode(DataOutPdu{}, batch.add_header());
    EXPECT_EQ(batch.add_data(data.data(), bytes), refers) << bytes;
    const bool found = std::any_of(batch.parts().begin(), batch.parts().end(),
                                   [&](const iovec& part) { return part.iov_base == data.data(); });
    EXPECT_EQ(found, refers) << bytes;
    batch.clear();
  }
}

// has_room() is the only thing between a session and the end of the staging buffer.
TEST(TransmitBatch, TakesWhatItSaidThatItHasRoomFor) {
  const std::vector<std::byte> data = test_pattern(TransmitBatch::kReferBytes + 1, 4);
  for (const Digests digests : {Digests{}, kBothDigests}) {
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, std::size_t{511}, TransmitBatch::kReferBytes - 1,
          TransmitBatch::kReferBytes, TransmitBatch::kReferBytes + 1}) {
      TransmitBatch batch;
      batch.clear(digests);
      std::size_t pdus = 0;
      while (batch.has_room(bytes)) {
        add_pdu(batch, std::span{data}.first(bytes));
        ++pdus;
      }
      batch.seal();
      EXPECT_GE(pdus, 30U) << bytes;
      EXPECT_LE(batch.total_bytes(), TransmitBatch::kEnoughBytes + 8192);
      EXPECT_EQ(sent_by(batch).size(), pdus * (kBhsBytes + digests.header_bytes() + padded(bytes) +
                                               (bytes != 0 ? digests.data_bytes() : 0)));
    }
  }
}

}  // namespace
}  // namespace iscsi_blkback
