#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

std::vector<std::byte> random_bytes(std::size_t count, unsigned seed) {
  SimRandom random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random.next());
  }
  return bytes;
}

// One bit after the other, straight from the definition.
std::uint32_t bit_by_bit(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
    }
  }
  return ~crc;
}

TEST(Crc32c, MatchesTheVectorsOfRfc7143AppendixA4) {
  std::vector<std::byte> bytes(32, std::byte{0});
  EXPECT_EQ(crc32c(bytes), 0x8a9136aaU);
  bytes.assign(32, std::byte{0xff});
  EXPECT_EQ(crc32c(bytes), 0x62a8ab43U);
  for (std::size_t i = 0; i < 32; ++i) {
    bytes[i] = static_cast<std::byte>(i);
  }
  EXPECT_EQ(crc32c(bytes), 0x46dd794eU);
  for (std::size_t i = 0; i < 32; ++i) {
    bytes[i] = static_cast<std::byte>(31 - i);
  }
  EXPECT_EQ(crc32c(bytes), 0x113fdb5cU);
}

class EveryCrc32c : public ::testing::TestWithParam<Crc32cMethod> {
 protected:
  void SetUp() override {
    if (GetParam() > best_crc32c_method()) {
      GTEST_SKIP() << "not on this processor";
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Crc32c, EveryCrc32c,
                         ::testing::Values(Crc32cMethod::tables, Crc32cMethod::sse42,
                                           Crc32cMethod::avx512));

TEST_P(EveryCrc32c, IsTheDefinitionAtEveryLengthAndAlignment) {
  const std::vector<std::byte> bytes = random_bytes(8500, 1);
  const std::span<const std::byte> all{bytes};
  for (std::size_t length = 0; length < 1100; ++length) {
    const auto piece = all.subspan(length % 9, length);
    ASSERT_EQ(crc32c_by(GetParam(), piece), bit_by_bit(piece)) << length;
  }
  for (const std::size_t length : {4079U, 4080U, 4081U, 4096U, 4199U, 8159U, 8160U, 8192U, 8500U}) {
    ASSERT_EQ(crc32c_by(GetParam(), all.first(length)), bit_by_bit(all.first(length))) << length;
  }
}

TEST_P(EveryCrc32c, AgreesWithTheOthersOnLargeData) {
  const std::vector<std::byte> bytes = random_bytes(300'001, 2);
  EXPECT_EQ(crc32c_by(GetParam(), bytes), crc32c(bytes));
  EXPECT_EQ(crc32c_by(GetParam(), bytes, 77), crc32c(bytes, 77));
}

TEST(Crc32c, GoesOnFromWhatCameBefore) {
  const std::vector<std::byte> bytes = random_bytes(10'000, 3);
  const std::span<const std::byte> all{bytes};
  for (const std::size_t cut : {0U, 1U, 7U, 48U, 4096U, 9'999U, 10'000U}) {
    EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all)) << cut;
  }
}

}  // namespace
}  // namespace iscsi_blkback
