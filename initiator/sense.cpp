#include "initiator/sense.h"

namespace iscsi_blkback {

SenseData parse_sense(std::span<const std::byte> bytes) {
  const auto byte_at = [&](std::size_t at) {
    return at < bytes.size() ? std::to_integer<std::uint8_t>(bytes[at]) : std::uint8_t{0};
  };
  SenseData sense;
  const int response_code = byte_at(0) & 0x7f;
  if (response_code == 0x70 || response_code == 0x71) {
    // Fixed format: the additional length (byte 7) says whether the codes in bytes 12 and 13 exist.
    if (bytes.size() < 3) {
      return sense;
    }
    sense.valid = true;
    sense.key = static_cast<SenseKey>(byte_at(2) & 0x0f);
    const std::size_t end = std::size_t{8} + byte_at(7);
    if (bytes.size() >= 14 && end >= 14) {
      sense.asc = byte_at(12);
      sense.ascq = byte_at(13);
    }
  } else if (response_code == 0x72 || response_code == 0x73) {
    if (bytes.size() < 4) {
      return sense;
    }
    sense.valid = true;
    sense.key = static_cast<SenseKey>(byte_at(1) & 0x0f);
    sense.asc = byte_at(2);
    sense.ascq = byte_at(3);
  }
  return sense;
}

}  // namespace iscsi_blkback
