// Header and data digests (RFC 7143 11.2.3, 13.1): which of them a connection has, and the four
// bytes that each puts on the wire. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/crc32c.h"

namespace iscsi_blkback {

inline constexpr std::size_t kDigestBytes = 4;

struct Digests {
  bool header = false;  // behind the header and its additional segments
  bool data = false;    // behind the padded data segment, when there is one

  [[nodiscard]] std::size_t header_bytes() const { return header ? kDigestBytes : 0; }
  [[nodiscard]] std::size_t data_bytes() const { return data ? kDigestBytes : 0; }
};

// The checksum goes onto the wire with its lowest byte first.
inline void put_digest(std::uint32_t checksum, std::byte* to) {
  for (std::size_t i = 0; i < kDigestBytes; ++i) {
    to[i] = static_cast<std::byte>(checksum >> (8 * i) & 0xff);
  }
}

[[nodiscard]] inline bool digest_is(std::uint32_t checksum, const std::byte* digest) {
  std::uint32_t stated = 0;
  for (std::size_t i = 0; i < kDigestBytes; ++i) {
    stated |= std::to_integer<std::uint32_t>(digest[i]) << (8 * i);
  }
  return stated == checksum;
}

// Whether the digest right behind the bytes is theirs.
[[nodiscard]] inline bool digest_follows(std::span<const std::byte> bytes) {
  return digest_is(crc32c(bytes), bytes.data() + bytes.size());
}

}  // namespace iscsi_blkback
