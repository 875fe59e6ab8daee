#include "base/base64.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace iscsi_blkback {

std::string to_base64(std::span<const std::byte> bytes) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve(base64_length(bytes.size()));
  for (; !bytes.empty(); bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), 3))) {
    std::uint32_t group = 0;
    for (std::size_t at = 0; at < 3; ++at) {
      group = group << 8 | (at < bytes.size() ? std::to_integer<std::uint32_t>(bytes[at]) : 0);
    }
    for (std::size_t at = 0; at < 4; ++at) {
      text += at <= bytes.size() ? kLetters[group >> (18 - 6 * at) & 0x3f] : '=';
    }
  }
  return text;
}

}  // namespace iscsi_blkback
