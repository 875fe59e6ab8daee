// Sense data (SPC-4 4.5), both formats, parsed with bounds from whatever the target sent, and its
// words. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace iscsi_blkback {

enum class SenseKey : std::uint8_t {
  no_sense = 0x0,
  recovered_error = 0x1,
  not_ready = 0x2,
  medium_error = 0x3,
  hardware_error = 0x4,
  illegal_request = 0x5,
  unit_attention = 0x6,
  data_protect = 0x7,
  blank_check = 0x8,
  vendor_specific = 0x9,
  copy_aborted = 0xa,
  aborted_command = 0xb,
  reserved = 0xc,
  volume_overflow = 0xd,
  miscompare = 0xe,
  completed = 0xf,
};

[[nodiscard]] const char* to_string(SenseKey key);

struct SenseData {
  bool valid = false;     // a known response code, and key and codes lie within the data
  bool deferred = false;  // about an earlier command, not the one that brings it (response codes
                          // 0x71 and 0x73); that one has not been executed
  SenseKey key = SenseKey::no_sense;
  std::uint8_t asc = 0;   // additional sense code
  std::uint8_t ascq = 0;  // additional sense code qualifier
  // Of 65536; with no_sense and not_ready.
  std::optional<std::uint16_t> progress = std::nullopt;
  // For most errors, the first block that is meant.
  std::optional<std::uint64_t> information = std::nullopt;

  // asc and ascq as one number, e.g. 0x2900.
  [[nodiscard]] std::uint16_t code() const { return static_cast<std::uint16_t>(asc << 8 | ascq); }
};

// bytes: sense data without the 2-byte length of the iSCSI data segment. Never reads past its end.
[[nodiscard]] SenseData parse_sense(std::span<const std::byte> bytes);

// The words of SPC for a code, those of its ASC when only that is known; empty when neither is.
[[nodiscard]] const char* additional_sense_text(std::uint16_t code);

// "2/04/01 (not ready: becoming ready, 45 % done)"
[[nodiscard]] std::string sense_text(const SenseData& sense);

}  // namespace iscsi_blkback
