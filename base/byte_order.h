// Big-endian loads and stores on raw bytes, for the wire formats of iSCSI and SCSI. Written as
// shifts: no alignment, aliasing or host byte order to think of, and both compilers make one bswap
// of each. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iscsi_blkback {

namespace byte_order_detail {

template <std::size_t kBytes>
[[nodiscard]] constexpr std::uint64_t load_be(const std::byte* from) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < kBytes; ++i) {
    value = value << 8 | std::to_integer<std::uint64_t>(from[i]);
  }
  return value;
}

template <std::size_t kBytes>
constexpr void store_be(std::byte* to, std::uint64_t value) {
  for (std::size_t i = 0; i < kBytes; ++i) {
    to[i] = static_cast<std::byte>(value >> (8 * (kBytes - 1 - i)) & 0xff);
  }
}

}  // namespace byte_order_detail

[[nodiscard]] inline std::uint8_t load_u8(const std::byte* from) {
  return std::to_integer<std::uint8_t>(*from);
}
[[nodiscard]] constexpr std::uint16_t load_be16(const std::byte* from) {
  return static_cast<std::uint16_t>(byte_order_detail::load_be<2>(from));
}
[[nodiscard]] constexpr std::uint32_t load_be24(const std::byte* from) {
  return static_cast<std::uint32_t>(byte_order_detail::load_be<3>(from));
}
[[nodiscard]] constexpr std::uint32_t load_be32(const std::byte* from) {
  return static_cast<std::uint32_t>(byte_order_detail::load_be<4>(from));
}
[[nodiscard]] constexpr std::uint64_t load_be48(const std::byte* from) {
  return byte_order_detail::load_be<6>(from);
}
[[nodiscard]] constexpr std::uint64_t load_be64(const std::byte* from) {
  return byte_order_detail::load_be<8>(from);
}

// What does not fit into the field is cut off; callers check before.
constexpr void store_be16(std::byte* to, std::uint16_t value) {
  byte_order_detail::store_be<2>(to, value);
}
constexpr void store_be24(std::byte* to, std::uint32_t value) {
  byte_order_detail::store_be<3>(to, value);
}
constexpr void store_be32(std::byte* to, std::uint32_t value) {
  byte_order_detail::store_be<4>(to, value);
}
constexpr void store_be48(std::byte* to, std::uint64_t value) {
  byte_order_detail::store_be<6>(to, value);
}
constexpr void store_be64(std::byte* to, std::uint64_t value) {
  byte_order_detail::store_be<8>(to, value);
}

}  // namespace iscsi_blkback
