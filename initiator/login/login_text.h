// The key=value text of login negotiation (RFC 7143 section 6): building and parsing, with bounds
// on everything that a target can send. Pure functions and a builder; no thread of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

inline constexpr std::size_t kMaxTextKeyBytes = 63;                // 6.1
inline constexpr std::size_t kMaxTextValueBytes = 255;             // 6.1; but CHAP_C and CHAP_R:
inline constexpr std::size_t kMaxLargeBinaryBytes = 2 + 2 * 1024;  // 12.1.3, in hexadecimal
inline constexpr std::size_t kMaxTextPairs = 128;                  // ours
inline constexpr std::size_t kMaxLoginDataBytes = 8192;   // one login PDU, both ways (13.12)
inline constexpr std::size_t kMaxLoginTextBytes = 65536;  // ours: all PDUs that the C bit joins

struct TextPair {
  std::string_view key;
  std::string_view value;
};

// Takes what stands before the first `end`, and that, off the text; all of it where there is none.
// The values of a list are taken with ',', the pairs of a text with NUL.
[[nodiscard]] std::string_view take_up_to(std::string_view& text, char end);

// The pairs point into text; the last one may lack its NUL. A pair that is repeated as it is counts
// once; what to make of a key with several values is for whoever knows the key, and so is a value
// of more than kMaxTextValueBytes. Refuses a pair without '=', with a key or value that is far too
// long, and more pairs than kMaxTextPairs. Error: protocol.
[[nodiscard]] Result<std::vector<TextPair>> parse_login_text(std::string_view text);

inline constexpr std::size_t kMaxIscsiNameBytes = 223;  // 4.2.7.1

// Whether a login can carry this: not too long, without bytes below lowest and DEL.
[[nodiscard]] bool is_usable_text(std::string_view text, std::size_t max_bytes, char lowest);
// The same for the name of an initiator or target: not empty, without blanks and control
// characters.
[[nodiscard]] bool is_usable_name(std::string_view name);

// A decimal or 0x-prefixed number within [low, high], else nothing.
[[nodiscard]] std::optional<std::uint32_t> parse_text_number(std::string_view value,
                                                             std::uint32_t low, std::uint32_t high);
// "Yes" or "No", in whatever case, else nothing.
[[nodiscard]] std::optional<bool> parse_text_boolean(std::string_view value);

class LoginText {
 public:
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, std::uint32_t value);
  void add(std::string_view key, bool value);
  void add(std::string_view key, const char* value) = delete;  // it would be taken for a bool

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool empty() const { return text_.empty(); }
  void clear() { text_.clear(); }

 private:
  std::string text_;
};

}  // namespace iscsi_blkback
