// The 48 bytes of a basic header segment (RFC 7143 11.2.1): where its fields lie, and how one is read
// or written. Of pdu.h, which has the PDUs. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/byte_order.h"

namespace iscsi_blkback {

inline constexpr std::size_t kBhsBytes = 48;
using BhsBytes = std::span<const std::byte, kBhsBytes>;
using BhsBuffer = std::span<std::byte, kBhsBytes>;

enum class Opcode : std::uint8_t;

namespace bhs_fields {

inline constexpr std::uint8_t kImmediateBit = 0x40;
inline constexpr std::uint8_t kOpcodeMask = 0x3f;
inline constexpr std::uint8_t kFinalBit = 0x80;
inline constexpr std::uint8_t kContinueBit = 0x40;
inline constexpr std::uint8_t kOverflowBit = 0x04;  // of the residual count
inline constexpr std::uint8_t kUnderflowBit = 0x02;

// Where the fields lie, in bytes from the start of the header.
inline constexpr std::size_t kFlags = 1;
inline constexpr std::size_t kAhsLength = 4;
inline constexpr std::size_t kLun = 8;
inline constexpr std::size_t kInitiatorTaskTag = 16;
inline constexpr std::size_t kTargetTransferTag = 20;
inline constexpr std::size_t kReferencedTaskTag = 20;
inline constexpr std::size_t kStatSn = 24;
inline constexpr std::size_t kCmdSn = 24;
inline constexpr std::size_t kExpStatSn = 28;
inline constexpr std::size_t kExpCmdSn = 28;
inline constexpr std::size_t kMaxCmdSn = 32;
inline constexpr std::size_t kRefCmdSn = 32;
inline constexpr std::size_t kCdb = 32;
inline constexpr std::size_t kDataSn = 36;
inline constexpr std::size_t kBufferOffset = 40;
inline constexpr std::size_t kResidual = 44;

[[nodiscard]] inline std::uint8_t byte_at(BhsBytes bytes, std::size_t at) {
  return std::to_integer<std::uint8_t>(bytes[at]);
}
[[nodiscard]] inline std::uint16_t u16_at(BhsBytes bytes, std::size_t at) {
  return load_be16(bytes.data() + at);
}
[[nodiscard]] inline std::uint32_t u32_at(BhsBytes bytes, std::size_t at) {
  return load_be32(bytes.data() + at);
}
[[nodiscard]] inline std::uint64_t u64_at(BhsBytes bytes, std::size_t at) {
  return load_be64(bytes.data() + at);
}
[[nodiscard]] inline std::uint32_t data_length(BhsBytes bytes) {
  return u32_at(bytes, kAhsLength) & 0xffffff;
}

inline void put(BhsBuffer bytes, std::size_t at, std::uint8_t value) {
  bytes[at] = std::byte{value};
}
inline void put(BhsBuffer bytes, std::size_t at, std::uint16_t value) {
  store_be16(bytes.data() + at, value);
}
inline void put(BhsBuffer bytes, std::size_t at, std::uint32_t value) {
  store_be32(bytes.data() + at, value);
}
inline void put(BhsBuffer bytes, std::size_t at, std::uint64_t value) {
  store_be64(bytes.data() + at, value);
}

[[nodiscard]] inline std::uint8_t bit(bool set, std::uint8_t mask) {
  return set ? mask : std::uint8_t{0};
}

// Flags are combined in int by the language; each is a byte.
template <class... Bits>
[[nodiscard]] std::uint8_t all_of(Bits... bits) {
  return static_cast<std::uint8_t>((bits | ...));
}

inline void begin(BhsBuffer bytes, Opcode opcode, bool immediate, std::uint8_t flags,
                  std::uint32_t data_bytes) {
  std::memset(bytes.data(), 0, kBhsBytes);
  put(bytes, 0, all_of(static_cast<std::uint8_t>(opcode), bit(immediate, kImmediateBit)));
  put(bytes, kFlags, flags);
  put(bytes, kAhsLength, data_bytes & 0xffffff);  // no additional header segment
}

}  // namespace bhs_fields
}  // namespace iscsi_blkback
