#include "base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/result.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected: bit 31 is x^0

// tables[n][b]: the checksum of byte b with n zero bytes behind it, without the inversions.
constexpr auto kTables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
    }
    tables[0][byte] = crc;
  }
  for (std::size_t n = 1; n < tables.size(); ++n) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t shorter = tables[n - 1][byte];
      tables[n][byte] = shorter >> 8 ^ tables[0][shorter & 0xff];
    }
  }
  return tables;
}();

// Little-endian whatever the machine is; one load where it is that.
std::uint64_t load_le64(const std::byte* from) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    value |= std::to_integer<std::uint64_t>(from[i]) << (8 * i);
  }
  return value;
}

std::uint32_t by_table(const std::byte* at, std::size_t bytes, std::uint32_t crc) {
  for (; bytes >= 8; bytes -= 8, at += 8) {
    const std::uint64_t word = load_le64(at) ^ crc;
    crc = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      crc ^= kTables[7 - i][word >> (8 * i) & 0xff];
    }
  }
  for (; bytes != 0; --bytes, ++at) {
    crc = crc >> 8 ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(*at)) & 0xff];
  }
  return crc;
}

#if defined(__x86_64__)

// x^n modulo the polynomial, reflected.
constexpr std::uint32_t power_of_x(std::size_t n) {
  std::uint32_t value = 0x80000000;
  for (; n != 0; --n) {
    value = value >> 1 ^ ((value & 1) != 0 ? kPolynomial : 0);
  }
  return value;
}

// The checksum crc with kBytes zero bytes behind it. The product of two reflected 32-bit values
// lacks one bit of shift, and the crc32 instruction multiplies by another x^32.
template <std::size_t kBytes>
__attribute__((target("sse4.2,pclmul"))) std::uint32_t shifted(std::uint32_t crc) {
  constexpr std::uint32_t kFactor = power_of_x(kBytes * 8 - 33);
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128(static_cast<int>(crc)),
                                               _mm_cvtsi32_si128(static_cast<int>(kFactor)), 0);
  const auto low = static_cast<std::uint64_t>(_mm_cvtsi128_si64(product));
  return static_cast<std::uint32_t>(_mm_crc32_u64(0, low));
}

std::uint64_t load_u64(const std::byte* from) {
  std::uint64_t value = 0;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The instruction takes a cycle but its result three: three streams side by side keep it busy.
template <std::size_t kStreamBytes>
__attribute__((target("sse4.2,pclmul"))) std::uint32_t three_streams(const std::byte*& at,
                                                                     std::size_t& bytes,
                                                                     std::uint32_t crc) {
  static_assert(kStreamBytes % 8 == 0);
  while (bytes >= 3 * kStreamBytes) {
    std::uint64_t first = crc;
    std::uint64_t second = 0;
    std::uint64_t third = 0;
    for (const std::byte* end = at + kStreamBytes; at != end; at += 8) {
      first = _mm_crc32_u64(first, load_u64(at));
      second = _mm_crc32_u64(second, load_u64(at + kStreamBytes));
      third = _mm_crc32_u64(third, load_u64(at + 2 * kStreamBytes));
    }
    crc = shifted<2 * kStreamBytes>(static_cast<std::uint32_t>(first)) ^
          shifted<kStreamBytes>(static_cast<std::uint32_t>(second)) ^
          static_cast<std::uint32_t>(third);
    at += 2 * kStreamBytes;
    bytes -= 3 * kStreamBytes;
  }
  return crc;
}

__attribute__((target("sse4.2,pclmul"))) std::uint32_t by_sse42(const std::byte* at,
                                                                std::size_t bytes,
                                                                std::uint32_t crc) {
  crc = three_streams<1360>(at, bytes, crc);  // 4080 of the 4096 bytes that most data have
  crc = three_streams<168>(at, bytes, crc);   // 504 of 512
  std::uint64_t wide = crc;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    wide = _mm_crc32_u64(wide, load_u64(at));
  }
  crc = static_cast<std::uint32_t>(wide);
  for (; bytes != 0; --bytes, ++at) {
    crc = _mm_crc32_u8(crc, std::to_integer<std::uint8_t>(*at));
  }
  return crc;
}

// What folds 128 bits of a message into the 128 bits that come kBits later: their first half times
// the low half, their second half times the high half.
template <std::size_t kBits>
__attribute__((target("avx512f,vpclmulqdq,sse4.2,pclmul"))) __m512i fold(__m512i earlier,
                                                                         __m512i later) {
  constexpr auto kOfFirst = static_cast<long long>(power_of_x(kBits + 31));
  constexpr auto kOfSecond = static_cast<long long>(power_of_x(kBits - 33));
  const __m512i by = _mm512_set4_epi64(kOfSecond, kOfFirst, kOfSecond, kOfFirst);
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(earlier, by, 0x00),
                                   _mm512_clmulepi64_epi128(earlier, by, 0x11), later, 0x96);
}

// 256 bytes at a time in four registers of 64.
__attribute__((target("avx512f,vpclmulqdq,sse4.2,pclmul"))) std::uint32_t by_avx512(
    const std::byte* at, std::size_t bytes, std::uint32_t crc) {
  constexpr std::size_t kStep = 256;
  if (bytes < 2 * kStep) {
    return by_sse42(at, bytes, crc);
  }
  __m512i first = _mm512_xor_si512(
      _mm512_loadu_si512(at), _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(crc))));
  __m512i second = _mm512_loadu_si512(at + 64);
  __m512i third = _mm512_loadu_si512(at + 128);
  __m512i fourth = _mm512_loadu_si512(at + 192);
  for (at += kStep, bytes -= kStep; bytes >= kStep; at += kStep, bytes -= kStep) {
    first = fold<8 * kStep>(first, _mm512_loadu_si512(at));
    second = fold<8 * kStep>(second, _mm512_loadu_si512(at + 64));
    third = fold<8 * kStep>(third, _mm512_loadu_si512(at + 128));
    fourth = fold<8 * kStep>(fourth, _mm512_loadu_si512(at + 192));
  }
  std::array<std::byte, 64> folded;
  _mm512_storeu_si512(folded.data(), fold<512>(fold<512>(fold<512>(first, second), third), fourth));
  return by_sse42(at, bytes, by_sse42(folded.data(), folded.size(), 0));
}

#endif

using Implementation = std::uint32_t (*)(const std::byte*, std::size_t, std::uint32_t);

Implementation implementation_of(Crc32cMethod method) {
#if defined(__x86_64__)
  if (method != Crc32cMethod::tables) {
    return method == Crc32cMethod::sse42 ? by_sse42 : by_avx512;
  }
#endif
  ISCSI_BLKBACK_ASSERT(method == Crc32cMethod::tables);
  return by_table;
}

Crc32cMethod choose_method() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0) {
    const bool wide =
        __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("vpclmulqdq") != 0;
    return wide ? Crc32cMethod::avx512 : Crc32cMethod::sse42;
  }
#endif
  return Crc32cMethod::tables;
}

const Crc32cMethod kBestMethod = choose_method();
const Implementation kImplementation = implementation_of(kBestMethod);

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) {
  return ~kImplementation(bytes.data(), bytes.size(), ~before);
}

Crc32cMethod best_crc32c_method() {
  return kBestMethod;
}

std::uint32_t crc32c_by(Crc32cMethod method, std::span<const std::byte> bytes,
                        std::uint32_t before) {
  ISCSI_BLKBACK_ASSERT(method <= kBestMethod);
  return ~implementation_of(method)(bytes.data(), bytes.size(), ~before);
}

}  // namespace iscsi_blkback
