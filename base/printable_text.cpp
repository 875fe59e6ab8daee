#include "base/printable_text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

namespace iscsi_blkback {
namespace {

constexpr std::string_view kCutMark = "...";
constexpr char kHexDigits[] = "0123456789abcdef";

struct Range {
  char32_t first;
  char32_t last;
};

// In order, beyond ASCII. Unicode 15: Cc; Zl and Zp; Default_Ignorable_Code_Point; Co.
// Noncharacters at the end of each plane are found by their number.
constexpr std::array<Range, 22> kNotShown{{
    {0x0080, 0x009f},     // C1 controls
    {0x00ad, 0x00ad},     // soft hyphen
    {0x034f, 0x034f},     // combining grapheme joiner
    {0x061c, 0x061c},     // Arabic letter mark
    {0x115f, 0x1160},     // Hangul fillers
    {0x17b4, 0x17b5},     // Khmer inherent vowels
    {0x180b, 0x180f},     // Mongolian selectors
    {0x200b, 0x200f},     // zero width, left-to-right and right-to-left marks
    {0x2028, 0x2029},     // line and paragraph separator
    {0x202a, 0x202e},     // embeddings and overrides of direction
    {0x2060, 0x206f},     // invisible operators, isolates of direction
    {0x3164, 0x3164},     // Hangul filler
    {0xe000, 0xf8ff},     // private use
    {0xfdd0, 0xfdef},     // noncharacters
    {0xfe00, 0xfe0f},     // variation selectors
    {0xfeff, 0xfeff},     // zero width no-break space, the byte order mark
    {0xffa0, 0xffa0},     // halfwidth Hangul filler
    {0xfff0, 0xfffb},     // not assigned; interlinear annotation
    {0x1bca0, 0x1bca3},   // shorthand format
    {0x1d173, 0x1d17a},   // musical format
    {0xe0000, 0xe0fff},   // tags, variation selectors
    {0xf0000, 0x10ffff},  // private use
}};

bool is_shown(char32_t character) {
  if ((character & 0xfffe) == 0xfffe) {
    return false;
  }
  const auto* range = std::lower_bound(
      kNotShown.begin(), kNotShown.end(), character,
      [](const Range& candidate, char32_t value) { return candidate.last < value; });
  return range == kNotShown.end() || character < range->first;
}

bool is_printable_ascii(char c) {
  return c >= ' ' && c <= '~';
}

// How many bytes at the beginning of text (not empty, not ASCII) are one character in UTF-8 that is
// shown; 0: there is none. Overlong forms and surrogates are no UTF-8 (RFC 3629).
std::size_t shown_utf8(std::string_view text) {
  const auto byte = [text](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned first = byte(0);
  const std::size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                             : first >= 0xe0 && first <= 0xef ? 3
                             : first >= 0xf0 && first <= 0xf4 ? 4
                                                              : 0;
  if (length == 0 || text.size() < length) {
    return 0;
  }
  char32_t character = first & (0x7fU >> length);
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xc0U) != 0x80) {
      return 0;
    }
    character = character << 6 | (byte(at) & 0x3fU);
  }
  constexpr std::array<char32_t, 5> kLeastOfLength{0, 0, 0x80, 0x800, 0x10000};
  const bool valid = character >= kLeastOfLength[length] && character <= 0x10ffff &&
                     !(character >= 0xd800 && character <= 0xdfff);
  return valid && is_shown(character) ? length : 0;
}

void append_escaped(std::string& out, char c) {
  const auto byte = static_cast<unsigned char>(c);
  out += "\\x";
  out += kHexDigits[byte >> 4];
  out += kHexDigits[byte & 0x0f];
}

constexpr std::size_t kEscapedBytes = 4;

int hex_digit(char c) {
  const auto* const found = std::find(std::begin(kHexDigits), std::end(kHexDigits) - 1,
                                      c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c);
  return found == std::end(kHexDigits) - 1 ? -1 : static_cast<int>(found - kHexDigits);
}

}  // namespace

std::string printable_text(std::string_view text, std::size_t most_bytes) {
  std::string out;
  out.reserve(std::min(text.size(), most_bytes));
  std::size_t cut_at = 0;  // so much is left when something does not fit
  while (!text.empty()) {
    if (out.size() + kCutMark.size() <= most_bytes) {
      cut_at = out.size();
    }
    const std::size_t shown = is_printable_ascii(text.front())                   ? 1
                              : static_cast<unsigned char>(text.front()) >= 0x80 ? shown_utf8(text)
                                                                                 : 0;
    if (out.size() + (shown != 0 ? shown : kEscapedBytes) > most_bytes) {
      out.resize(cut_at);
      out += kCutMark;
      return out;
    }
    if (shown != 0) {
      out += text.substr(0, shown);
      text.remove_prefix(shown);
    } else {
      append_escaped(out, text.front());
      text.remove_prefix(1);
    }
  }
  return out;
}

std::string printable_identity(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (const char c : bytes) {
    if (is_printable_ascii(c) && c != '\\') {
      out += c;
    } else {
      append_escaped(out, c);
    }
  }
  return out;
}

std::string printable_identity_as_written(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    if (text.starts_with("\\x") && text.size() >= kEscapedBytes && hex_digit(text[2]) >= 0 &&
        hex_digit(text[3]) >= 0) {
      bytes += static_cast<char>(hex_digit(text[2]) * 16 + hex_digit(text[3]));
      text.remove_prefix(kEscapedBytes);
    } else {
      bytes += text.front();
      text.remove_prefix(1);
    }
  }
  return printable_identity(bytes);
}

}  // namespace iscsi_blkback
