// Big-endian loads and stores on raw bytes, for the wire formats of iSCSI and SCSI: no alignment or
// aliasing to think of. Pure.
//
// Numbers of 2, 4 and 8 bytes are copied whole and swapped. Shifts of bytes say the same, but GCC 12
// sees only some of them as one instruction, and a header of a PDU took 200.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace iscsi_blkback {

namespace byte_order_detail {

template <std::size_t kBytes>
[[nodiscard]] constexpr std::uint64_t load_bytes(const std::byte* from) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kBytes; ++i) {
    value = value << 8 | std::to_integer<std::uint64_t>(from[i]);
  }
  return value;
}

template <std::size_t kBytes>
constexpr void store_bytes(std::byte* to, std::uint64_t value) {
  for (std::size_t i = 0; i < kBytes; ++i) {
    to[i] = static_cast<std::byte>(value >> (8 * (kBytes - 1 - i)) & 0xff);
  }
}

template <std::unsigned_integral Number>
[[nodiscard]] Number big_endian(Number value) {
  if constexpr (std::endian::native == std::endian::big) {
    return value;
  } else if constexpr (sizeof(Number) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(Number) == 4) {
    return __builtin_bswap32(value);
  } else {
    static_assert(sizeof(Number) == 8);
    return __builtin_bswap64(value);
  }
}

template <std::unsigned_integral Number>
[[nodiscard]] constexpr Number load_be(const std::byte* from) {
  if (std::is_constant_evaluated()) {
    return static_cast<Number>(load_bytes<sizeof(Number)>(from));
  }
  Number value = 0;
  std::memcpy(&value, from, sizeof(value));
  return big_endian(value);
}

template <std::unsigned_integral Number>
constexpr void store_be(std::byte* to, Number value) {
  if (std::is_constant_evaluated()) {
    store_bytes<sizeof(Number)>(to, value);
    return;
  }
  value = big_endian(value);
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace byte_order_detail

[[nodiscard]] inline std::uint8_t load_u8(const std::byte* from) {
  return std::to_integer<std::uint8_t>(*from);
}
[[nodiscard]] constexpr std::uint16_t load_be16(const std::byte* from) {
  return byte_order_detail::load_be<std::uint16_t>(from);
}
[[nodiscard]] constexpr std::uint32_t load_be32(const std::byte* from) {
  return byte_order_detail::load_be<std::uint32_t>(from);
}
[[nodiscard]] constexpr std::uint64_t load_be64(const std::byte* from) {
  return byte_order_detail::load_be<std::uint64_t>(from);
}

// What does not fit into the field is cut off; callers check before.
constexpr void store_be16(std::byte* to, std::uint16_t value) {
  byte_order_detail::store_be(to, value);
}
constexpr void store_be32(std::byte* to, std::uint32_t value) {
  byte_order_detail::store_be(to, value);
}
constexpr void store_be64(std::byte* to, std::uint64_t value) {
  byte_order_detail::store_be(to, value);
}

}  // namespace iscsi_blkback
