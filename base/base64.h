// Bytes as base64 (RFC 4648, 4), padded. Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace iscsi_blkback {

[[nodiscard]] std::string to_base64(std::span<const std::byte> bytes);

// How many characters that many bytes become.
[[nodiscard]] constexpr std::size_t base64_length(std::size_t bytes) {
  return (bytes + 2) / 3 * 4;
}

}  // namespace iscsi_blkback
