#include "tools/lunex/lunex_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/byte_order.h"
#include "base/crc32c.h"
#include "base/result.h"

namespace iscsi_blkback {
namespace {

// Header: mark, block, run (8 bytes each), generation, checksum (4 each).
constexpr std::array<char, 8> kMark = {'L', 'U', 'N', 'E', 'X', ' ', '0', '1'};
constexpr std::size_t kBlockAt = 8;
constexpr std::size_t kRunAt = 16;
constexpr std::size_t kGenerationAt = 24;
constexpr std::size_t kChecksumAt = 28;
constexpr std::size_t kChecksumEnd = kChecksumAt + 4;
static_assert(kChecksumEnd == kPatternHeaderBytes);
constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;

std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

// Of everything but the checksum's own place.
std::uint32_t checksum_of(std::span<const std::byte> block) {
  return crc32c(block.subspan(kChecksumEnd), crc32c(block.first(kChecksumAt)));
}

}  // namespace

void fill_pattern(std::span<std::byte> block, const PatternStamp& stamp) {
  ISCSI_BLKBACK_ASSERT(block.size() >= kPatternHeaderBytes && block.size() % 8 == 0);
  std::memcpy(block.data(), kMark.data(), kMark.size());
  store_be64(block.data() + kBlockAt, stamp.block);
  store_be64(block.data() + kRunAt, stamp.run);
  store_be32(block.data() + kGenerationAt, stamp.generation);
  // Different in every word, so that a piece of another block or generation shows; cheap, so that
  // making it costs less than sending it.
  std::uint64_t word = mixed(stamp.run ^ mixed(stamp.block * kStep + stamp.generation));
  for (std::size_t at = kPatternHeaderBytes; at < block.size(); at += sizeof word) {
    word += kStep;
    std::memcpy(block.data() + at, &word, sizeof word);
  }
  store_be32(block.data() + kChecksumAt, checksum_of(block));
}

std::optional<PatternMismatch> check_pattern(std::span<const std::byte> block,
                                             const PatternStamp& expected) {
  ISCSI_BLKBACK_ASSERT(block.size() >= kPatternHeaderBytes && block.size() % 8 == 0);
  PatternMismatch mismatch;
  mismatch.is_pattern = std::memcmp(block.data(), kMark.data(), kMark.size()) == 0;
  mismatch.found.block = load_be64(block.data() + kBlockAt);
  mismatch.found.run = load_be64(block.data() + kRunAt);
  mismatch.found.generation = load_be32(block.data() + kGenerationAt);
  mismatch.found_checksum = load_be32(block.data() + kChecksumAt);
  mismatch.computed_checksum = checksum_of(block);
  if (mismatch.is_pattern && mismatch.found == expected &&
      mismatch.found_checksum == mismatch.computed_checksum) {
    return std::nullopt;
  }
  mismatch.expected = expected;
  std::vector<std::byte> right(block.size());
  fill_pattern(right, expected);
  mismatch.expected_checksum = load_be32(right.data() + kChecksumAt);
  return mismatch;
}

std::string PatternMismatch::describe() const {
  const std::string wanted = fmt::format("block {}: expected generation {}, checksum {:#010x}",
                                         expected.block, expected.generation, expected_checksum);
  if (!is_pattern) {
    const bool blank = found == PatternStamp{} && found_checksum == 0;
    return fmt::format("{}, found {}, checksum of the contents {:#010x}", wanted,
                       blank ? "zeroes" : "no pattern of lunex", computed_checksum);
  }
  std::string text = fmt::format("{}; found generation {}, checksum {:#010x}", wanted,
                                 found.generation, found_checksum);
  if (found_checksum != computed_checksum) {
    text += fmt::format(", but its contents have checksum {:#010x}: it is torn or damaged",
                        computed_checksum);
  } else if (found.run != expected.run) {
    text += ", of another run of lunex: this run's write is missing";
  } else if (found.block != expected.block) {
    text += fmt::format(", of block {}: it was written or read at the wrong place", found.block);
  } else {
    text += found.generation < expected.generation ? ": a newer write is missing"
                                                   : ": a write from the future";
  }
  return text;
}

}  // namespace iscsi_blkback
