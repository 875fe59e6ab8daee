// Words and what they stand for, as tables that both directions are read from. Pure functions.
#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>

namespace iscsi_blkback {

template <class Value>
struct Word {
  const char* word;
  Value value;
};

// What a table has for a word; nothing: it has not that word.
template <const auto& kWords>
[[nodiscard]] auto named(std::string_view text) -> std::optional<decltype(kWords[0].value)> {
  const auto found = std::find_if(std::begin(kWords), std::end(kWords),
                                  [&](const auto& one) { return one.word == text; });
  return found == std::end(kWords) ? std::nullopt : std::optional(found->value);
}

// The first word that a table has for a value.
template <const auto& kWords>
[[nodiscard]] const char* word_for(decltype(kWords[0].value) value) {
  const auto found = std::find_if(std::begin(kWords), std::end(kWords),
                                  [&](const auto& one) { return one.value == value; });
  return found == std::end(kWords) ? "unknown" : found->word;
}

}  // namespace iscsi_blkback
