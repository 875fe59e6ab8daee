#include "base/byte_order.h"

#include <gtest/gtest.h>

#include <array>

namespace iscsi_blkback {
namespace {

constexpr std::array<std::byte, 9> kBytes = {std::byte{0xff}, std::byte{0x01}, std::byte{0x82},
                                             std::byte{0x03}, std::byte{0xf4}, std::byte{0x05},
                                             std::byte{0x06}, std::byte{0xe7}, std::byte{0x08}};

TEST(ByteOrder, LoadsTheFirstByteAsTheHighest) {
  const std::byte* unaligned = kBytes.data() + 1;
  EXPECT_EQ(load_be16(unaligned), 0x0182U);
  EXPECT_EQ(load_be32(unaligned), 0x018203f4U);
  EXPECT_EQ(load_be64(unaligned), 0x018203f40506e708U);
  EXPECT_EQ(load_be16(kBytes.data()), 0xff01U);
}

template <std::size_t kSize, class Store, class Value>
void expect_store(Store store, Value value, const std::byte* expected) {
  std::array<std::byte, kSize + 2> to;
  to.fill(std::byte{0xaa});
  store(to.data() + 1, value);
  EXPECT_EQ(to.front(), std::byte{0xaa});
  EXPECT_EQ(to.back(), std::byte{0xaa});
  for (std::size_t i = 0; i < kSize; ++i) {
    EXPECT_EQ(to[i + 1], expected[i]) << i;
  }
}

TEST(ByteOrder, StoresExactlyItsBytes) {
  const std::byte* expected = kBytes.data() + 1;
  expect_store<2>(store_be16, std::uint16_t{0x0182}, expected);
  expect_store<4>(store_be32, std::uint32_t{0x018203f4}, expected);
  expect_store<8>(store_be64, std::uint64_t{0x018203f40506e708}, expected);
}

TEST(ByteOrder, IsUsableInConstantExpressions) {
  static_assert(load_be32(kBytes.data()) == 0xff018203);
}

}  // namespace
}  // namespace iscsi_blkback
