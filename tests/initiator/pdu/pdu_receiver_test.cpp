// PduReceiver: the same PDUs come out, in whatever pieces their bytes arrive.
#include "initiator/pdu/pdu_receiver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace iscsi_blkback {
namespace {

class PduReceiverTest : public testing::Test {
 protected:
  using Next = PduReceiver::Next;
  static constexpr std::size_t kMaxData = 65536;

  static std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
    std::vector<std::byte> data(bytes);
    for (std::size_t at = 0; at < bytes; ++at) {
      data[at] = static_cast<std::byte>(at * 7 + seed);
    }
    return data;
  }
  // A Data-In with so much data, as it is on the wire.
  static std::vector<std::byte> data_in(std::size_t bytes, unsigned seed, const Digests& digests) {
    DataInPdu pdu;
    pdu.final = true;
    pdu.data_bytes = static_cast<std::uint32_t>(bytes);
    pdu.initiator_task_tag = seed;
    std::vector<std::byte> wire(kBhsBytes);
    encode(pdu, BhsBuffer{wire.data(), kBhsBytes});
    const auto put = [&wire](std::size_t from) {
      const std::uint32_t checksum = crc32c(std::span(wire).subspan(from));
      wire.resize(wire.size() + kDigestBytes);
      put_digest(checksum, wire.data() + wire.size() - kDigestBytes);
    };
    if (digests.header) {
      put(0);
    }
    const std::size_t data_at = wire.size();
    const auto data = pattern(bytes, seed);
    wire.insert(wire.end(), data.begin(), data.end());
    wire.resize(data_at + padded(bytes));
    if (digests.data && bytes != 0) {
      put(data_at);
    }
    return wire;
  }

  static std::vector<std::byte> beginning(std::vector<std::byte> wire, std::size_t bytes) {
    wire.resize(bytes);
    return wire;
  }

  // Gives the receiver as much of the bytes as it takes at once, at most piece.
  std::size_t give(std::span<const std::byte> bytes, std::size_t piece) {
    std::array<iovec, 2> parts;
    std::size_t given = 0;
    for (const iovec& part : receiver.room(piece, parts)) {
      const std::size_t count = std::min({part.iov_len, bytes.size() - given, piece - given});
      if (count != 0) {
        std::memcpy(part.iov_base, bytes.data() + given, count);
      }
      given += count;
    }
    receiver.arrived(given);
    return given;
  }
  // What comes out: "tag:bytes" of each PDU with the right data, or what is wrong.
  std::string out() {
    std::string text;
    IncomingPdu pdu;
    for (;;) {
      switch (receiver.next(pdu)) {
        case Next::needs_more:
          return text;
        case Next::pdu: {
          const auto data = pattern(pdu.header.data_bytes, pdu.header.initiator_task_tag);
          const bool right = std::equal(data.begin(), data.end(), pdu.data);
          text += described(pdu.header, right);
          break;
        }
        case Next::large_data_in:
          if (!takes_large) {
            receiver.keep_staged();
            return text;
          }
          destination.assign(pdu.header.data_bytes, std::byte{0xee});
          large = pdu.header;
          receiver.receive_into(destination.data());
          ++larges;
          break;
        case Next::large_data_in_complete:
          EXPECT_EQ(receiver.large_data_in().initiator_task_tag, large.initiator_task_tag);
          text +=
              described(large, destination == pattern(large.data_bytes, large.initiator_task_tag));
          break;
        case Next::too_long:
          return text + "too long";
        case Next::wrong_header_digest:
          return text + "header digest";
        case Next::wrong_data_digest:
          return text + "data digest";
      }
    }
  }
  std::string all_of(std::span<const std::byte> wire, std::size_t piece) {
    std::string text;
    while (!wire.empty()) {
      wire = wire.subspan(give(wire, piece));
      text += out();
    }
    return text;
  }
  static std::string described(const PduHeader& header, bool right) {
    return std::to_string(header.initiator_task_tag) + ":" + std::to_string(header.data_bytes) +
           (right ? " " : "! ");
  }

  PduReceiver receiver{kMaxData};
  bool takes_large = true;
  int larges = 0;
  PduHeader large;
  std::vector<std::byte> destination;
};

TEST_F(PduReceiverTest, InWhateverPiecesTheBytesArrive) {
  for (const Digests digests :
       {Digests{}, Digests{.header = true, .data = true}, Digests{.header = false, .data = true}}) {
    std::vector<std::byte> wire;
    std::string expected;
    unsigned tag = 0;
    for (const std::size_t bytes : {0UL, 1UL, 511UL, 4096UL, 16384UL, 16387UL, 0UL, 65536UL, 5UL}) {
      const auto pdu = data_in(bytes, ++tag, digests);
      wire.insert(wire.end(), pdu.begin(), pdu.end());
      expected += std::to_string(tag) + ":" + std::to_string(bytes) + " ";
    }
    for (const std::size_t piece :
         {1UL, 3UL, 47UL, 48UL, 49UL, 4100UL, 16384UL, 40960UL, 500000UL}) {
      receiver.start(kMaxData);
      receiver.enter_full_feature_phase(digests, kMaxData);
      ASSERT_EQ(all_of(wire, piece), expected) << piece;
    }
  }
}

TEST_F(PduReceiverTest, LargeDataGoesStraightToItsDestinationOnlyWhereSomeIsMissing) {
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase({}, kMaxData);
  const auto wire = data_in(16384, 1, {});
  EXPECT_EQ(all_of(wire, wire.size()), "1:16384 ");
  EXPECT_EQ(larges, 0);
  EXPECT_EQ(all_of(wire, wire.size() - 1), "1:16384 ");
  EXPECT_EQ(larges, 1);
  EXPECT_EQ(all_of(data_in(16383, 2, {}), 1000), "2:16383 ");
  EXPECT_EQ(larges, 1);
}

TEST_F(PduReceiverTest, WhatIsNotWantedThereComesWhole) {
  takes_large = false;
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase({}, kMaxData);
  EXPECT_EQ(all_of(data_in(50000, 1, {}), 1000), "1:50000 ");
}

TEST_F(PduReceiverTest, BehindALargeOneLittleIsReceivedWithIt) {
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase({}, kMaxData);
  const auto wire = data_in(65536, 1, {});
  give(std::span(wire).first(100), 100);
  out();
  std::array<iovec, 2> parts;
  const auto room = receiver.room(500000, parts);
  ASSERT_EQ(room.size(), 2U);
  EXPECT_EQ(room[0].iov_len, 65536U - 52U);
  EXPECT_EQ(room[1].iov_len, 4608U);
}

TEST_F(PduReceiverTest, ATooLongDataSegmentIsRefusedByItsHeader) {
  receiver.start(1000);
  EXPECT_EQ(all_of(data_in(1001, 1, {}), 48).substr(0, 8), "too long");
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase({}, 2000);
  EXPECT_EQ(all_of(beginning(data_in(2001, 1, {}), 48), 48), "too long");
}

TEST_F(PduReceiverTest, DuringTheLoginNothingIsLarge) {
  receiver.start(kMaxData);
  EXPECT_EQ(all_of(data_in(50000, 1, {}), 1000), "1:50000 ");
  EXPECT_EQ(larges, 0);
}

TEST_F(PduReceiverTest, EveryDamagedByteIsNoticed) {
  const Digests digests{.header = true, .data = true};
  const auto wire = data_in(6, 1, digests);
  for (std::size_t at = 0; at < wire.size(); ++at) {
    auto damaged = wire;
    damaged[at] ^= std::byte{0x10};
    damaged.resize(500);  // what a damaged length might wait for
    receiver.start(kMaxData);
    receiver.enter_full_feature_phase(digests, kMaxData);
    EXPECT_EQ(all_of(damaged, damaged.size()),
              at < kBhsBytes + kDigestBytes ? "header digest" : "data digest")
        << at;
  }
}

TEST_F(PduReceiverTest, ADamagedHeaderIsNoticedBeforeItsDataIsThere) {
  const Digests digests{.header = true, .data = false};
  auto wire = data_in(4096, 1, digests);
  wire[7] ^= std::byte{0x01};
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase(digests, kMaxData);
  EXPECT_EQ(all_of(std::span(wire).first(kBhsBytes + kDigestBytes), 100), "header digest");
}

TEST_F(PduReceiverTest, DamagedLargeDataIsNoticed) {
  const Digests digests{.header = false, .data = true};
  for (const std::size_t bytes : {20000UL, 20001UL}) {
    for (const std::size_t at : {kBhsBytes, kBhsBytes + 10000, kBhsBytes + bytes - 1}) {
      auto wire = data_in(bytes, 1, digests);
      wire[at] ^= std::byte{0x80};
      receiver.start(kMaxData);
      receiver.enter_full_feature_phase(digests, kMaxData);
      EXPECT_EQ(all_of(wire, 5000).substr(0, 11), "data digest") << at;
    }
  }
}

TEST_F(PduReceiverTest, ANewConnectionBeginsWithNothingOfTheOldOne) {
  const Digests digests{.header = true, .data = true};
  receiver.start(kMaxData);
  receiver.enter_full_feature_phase(digests, kMaxData);
  all_of(beginning(data_in(4096, 1, digests), 1000), 1000);
  receiver.start(kMaxData);
  EXPECT_EQ(all_of(data_in(100, 2, {}), 1000), "2:100 ");
  receiver.enter_full_feature_phase({}, kMaxData);
  all_of(beginning(data_in(50000, 3, {}), 1000), 1000);
  ASSERT_TRUE(receiver.in_large_data_in());
  receiver.start(kMaxData);
  EXPECT_FALSE(receiver.in_large_data_in());
  EXPECT_EQ(all_of(data_in(100, 4, {}), 1000), "4:100 ");
}

}  // namespace
}  // namespace iscsi_blkback
