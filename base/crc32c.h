// CRC32C (Castagnoli), the checksum of iSCSI's header and data digests (RFC 7143 13.1), by the
// fastest method that the processor has, chosen once when the program starts. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace iscsi_blkback {

// The checksum of bytes; with the checksum of what came before them, that of both together:
// crc32c(b, crc32c(a)) == crc32c(a then b).
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

// From the slowest to the fastest: tables; the crc32 instruction on three streams side by side; 256
// bytes at a time by carry-less multiplication.
enum class Crc32cMethod : std::uint8_t { tables, sse42, avx512 };

// The one that crc32c() uses; this processor has those before it, too.
[[nodiscard]] Crc32cMethod best_crc32c_method();
// For tests and measurements of each.
[[nodiscard]] std::uint32_t crc32c_by(Crc32cMethod method, std::span<const std::byte> bytes,
                                      std::uint32_t before = 0);

}  // namespace iscsi_blkback
