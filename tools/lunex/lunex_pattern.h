// What lunex writes into a logical block to know it again: which block it is, which run and which
// generation wrote it, and a checksum over all of it; and the look at a block that was read back.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace iscsi_blkback {

// What a block ought to contain.
struct PatternStamp {
  std::uint64_t run = 0;    // a random number of the run that wrote it
  std::uint64_t block = 0;  // its number, in logical blocks of the LUN
  std::uint32_t generation = 0;

  bool operator==(const PatternStamp&) const = default;
};

inline constexpr std::size_t kPatternHeaderBytes = 32;

// block: at least kPatternHeaderBytes, a multiple of 8.
void fill_pattern(std::span<std::byte> block, const PatternStamp& stamp);

// A block that is not what it ought to be.
struct PatternMismatch {
  PatternStamp expected;
  std::uint32_t expected_checksum = 0;
  // What its header says, when it has one.
  bool is_pattern = false;
  PatternStamp found;
  std::uint32_t found_checksum = 0;
  std::uint32_t computed_checksum = 0;  // of what was read

  // One sentence: which block, what was expected, what was found, and what that means.
  [[nodiscard]] std::string describe() const;
};

[[nodiscard]] std::optional<PatternMismatch> check_pattern(std::span<const std::byte> block,
                                                           const PatternStamp& expected);

}  // namespace iscsi_blkback
