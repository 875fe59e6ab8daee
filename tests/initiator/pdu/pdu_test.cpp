#include "initiator/pdu/pdu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using Header = std::array<std::byte, kBhsBytes>;

Header random_header(SimRandom& random) {
  Header header;
  for (std::byte& byte : header) {
    byte = static_cast<std::byte>(random.next());
  }
  return header;
}

std::uint8_t at(const Header& header, std::size_t index) {
  return std::to_integer<std::uint8_t>(header[index]);
}

// One kind of PDU: its first byte, the bits of the second one that are always set and those that
// may be, and the other bytes that are fields of it: from each first one to the last.
struct Kind {
  std::uint8_t first;
  std::uint8_t set;
  std::uint8_t flags;
  std::vector<std::pair<std::size_t, std::size_t>> fields;
  bool answers_nothing = false;  // its initiator task tag is the reserved one
};

// Whatever the fields of a header say, decoding and encoding gives the same header.
template <class Decode>
void expect_round_trip(Decode decode, const Kind& kind) {
  SimRandom random(7);
  for (int i = 0; i < 200; ++i) {
    const Header noise = random_header(random);
    Header original{};
    original[0] = static_cast<std::byte>(kind.first);
    original[1] =
        static_cast<std::byte>(kind.set) | (noise[1] & static_cast<std::byte>(kind.flags));
    for (const auto& [first, last] : kind.fields) {
      std::copy(&noise[first], &noise[last] + 1, &original[first]);
    }
    if (kind.answers_nothing) {
      store_be32(&original[16], kReservedTag);
    }
    Header again;
    encode(decode(BhsBytes{original}), BhsBuffer{again});
    EXPECT_EQ(again, original);
  }
}

TEST(Pdu, EveryKindSurvivesARoundTrip) {
  expect_round_trip(decode_nop_out, {0x40, 0x80, 0, {{5, 31}}});
  expect_round_trip(decode_scsi_command, {0x01, 0x01, 0xe0, {{5, 47}}});
  expect_round_trip(decode_task_management_request, {0x42, 0x80, 0x7f, {{8, 35}}});
  expect_round_trip(decode_login_request, {0x43, 0x80, 0x4f, {{2, 3}, {5, 21}, {24, 31}}});
  expect_round_trip(decode_data_out, {0x05, 0, 0x80, {{5, 23}, {28, 31}, {36, 43}}});
  expect_round_trip(decode_logout_request, {0x46, 0x80, 0x7f, {{16, 21}, {24, 31}}});
  expect_round_trip(decode_nop_in, {0x20, 0x80, 0, {{5, 35}}});
  expect_round_trip(decode_scsi_response,
                    {0x21, 0x80, 0x1e, {{2, 3}, {5, 7}, {16, 19}, {24, 39}, {44, 47}}});
  expect_round_trip(decode_task_management_response, {0x22, 0x80, 0, {{2, 2}, {16, 19}, {24, 35}}});
  expect_round_trip(decode_login_response, {0x23, 0x80, 0x4f, {{2, 3}, {5, 19}, {24, 37}}});
  expect_round_trip(decode_data_in, {0x25, 0, 0xc7, {{3, 3}, {5, 7}, {16, 47}}});
  expect_round_trip(decode_logout_response,
                    {0x26, 0x80, 0, {{2, 2}, {16, 19}, {24, 35}, {40, 43}}});
  expect_round_trip(decode_r2t, {0x31, 0x80, 0, {{8, 47}}});
  expect_round_trip(decode_async_message, {0x32, 0x80, 0, {{5, 15}, {24, 36}, {38, 43}}, true});
  expect_round_trip(decode_reject, {0x3f, 0x80, 0, {{2, 2}, {5, 7}, {24, 35}}, true});
}

TEST(Pdu, ScsiCommandHasTheFieldsOfSection11_3) {
  ScsiCommandPdu pdu{.final = true,
                     .read = false,
                     .write = true,
                     .data_bytes = 0x010203,
                     .lun = 0x0001000000000000,
                     .initiator_task_tag = 0x11223344,
                     .expected_data_bytes = 0x55667788,
                     .cmd_sn = 0x99aabbcc,
                     .exp_stat_sn = 0xddeeff00,
                     .cdb = {0x8a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
  Header header;
  encode(pdu, BhsBuffer{header});
  EXPECT_EQ(at(header, 0), 0x01);
  EXPECT_EQ(at(header, 1), 0x80 | 0x20 | 0x01);
  EXPECT_EQ(load_be32(header.data() + 4), 0x00010203U);
  EXPECT_EQ(load_be64(header.data() + 8), 0x0001000000000000U);
  EXPECT_EQ(load_be32(header.data() + 16), 0x11223344U);
  EXPECT_EQ(load_be32(header.data() + 20), 0x55667788U);
  EXPECT_EQ(load_be32(header.data() + 24), 0x99aabbccU);
  EXPECT_EQ(load_be32(header.data() + 28), 0xddeeff00U);
  EXPECT_EQ(at(header, 32), 0x8a);
  EXPECT_EQ(at(header, 47), 15);
}

TEST(Pdu, LoginRequestIsImmediateAndHasItsStages) {
  Header header;
  encode(LoginRequestPdu{.transit = true,
                         .more = false,
                         .current_stage = LoginStage::operational_negotiation,
                         .next_stage = LoginStage::full_feature_phase,
                         .version_max = 0,
                         .version_min = 0,
                         .data_bytes = 5,
                         .isid = {0x80, 1, 2, 3, 4, 5},
                         .tsih = 0x0607,
                         .initiator_task_tag = 1,
                         .cid = 2,
                         .cmd_sn = 3,
                         .exp_stat_sn = 4},
         BhsBuffer{header});
  EXPECT_EQ(at(header, 0), 0x43);
  EXPECT_EQ(at(header, 1), 0x80 | 1 << 2 | 3);
  EXPECT_EQ(at(header, 8), 0x80);
  EXPECT_EQ(at(header, 13), 5);
  EXPECT_EQ(load_be16(header.data() + 14), 0x0607);
  EXPECT_EQ(load_be16(header.data() + 20), 2);
}

TEST(Pdu, TotalLengthCountsAdditionalHeadersAndPadding) {
  Header header{};
  header[4] = std::byte{3};
  header[7] = std::byte{5};
  const PduHeader decoded = decode_header(BhsBytes{header});
  EXPECT_EQ(decoded.ahs_bytes, 12);
  EXPECT_EQ(decoded.data_bytes, 5U);
  EXPECT_EQ(decoded.total_bytes(), 48U + 12U + 8U);
}

TEST(Pdu, SerialNumbersWrap) {
  EXPECT_TRUE(serial_before(0xffffffff, 0));
  EXPECT_TRUE(serial_before(0xfffffff0, 5));
  EXPECT_FALSE(serial_before(5, 0xfffffff0));
  EXPECT_FALSE(serial_before(7, 7));
}

}  // namespace
}  // namespace iscsi_blkback
