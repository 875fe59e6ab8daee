// Letters without case, as protocols and file formats compare them: of ASCII only, whatever the
// locale. Pure.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace iscsi_blkback {

[[nodiscard]] constexpr char lower(char letter) {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

[[nodiscard]] inline std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char letter) { return lower(letter); });
  return result;
}

[[nodiscard]] inline bool equal_text(std::string_view one, std::string_view other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](char left, char right) { return lower(left) == lower(right); });
}

}  // namespace iscsi_blkback
