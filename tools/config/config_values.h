// Values of the configuration file, read as what they must be. Any thread; entries point into the
// parsed document.
#pragma once

// toml++ reports errors as values then, and needs no exceptions. Some of its assertions, which a
// release build of Clang takes as promises, are about the file ("[" at the end of a line violates
// one), and the code behind them copes: they are left out in every build.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_EXCEPTIONS 0
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

// A file while it is read. Its first mistake is the one that is reported: whoever finds a later one
// need not know of it, and a value that is refused is read as an empty one.
struct ConfigFile {
  std::string name;
  std::optional<Error> mistake = std::nullopt;
};

// One key of a table, or one element of an array under that key's name.
struct ConfigEntry {
  ConfigFile* file = nullptr;
  std::string name;  // dotted when the key is
  std::uint32_t line = 0;
  const toml::node* value = nullptr;

  // "FILE:LINE: sentence"
  void refuse(std::string_view sentence) const;
  template <class First, class... Rest>
  void refuse(fmt::format_string<First, Rest...> sentence, First&& first, Rest&&... rest) const {
    refuse(fmt::format(sentence, std::forward<First>(first), std::forward<Rest>(rest)...));
  }
  // "NAME must be WANTED, not a string"
  void refuse_type(std::string_view wanted) const;
  // An error's sentence is the refusal.
  template <class Value>
  [[nodiscard]] Value taken(Result<Value> result) const {
    if (!result) {
      refuse(result.error().message);
      return Value{};
    }
    return *std::move(result);
  }
};

// Of a table, in the order of the file. join_dotted_keys: keys like node.session.cmds_max, which
// TOML takes for tables in tables, are one entry.
[[nodiscard]] std::vector<ConfigEntry> entries_of(const ConfigEntry& table, bool join_dotted_keys);
// Of an array; of anything else none.
[[nodiscard]] std::vector<ConfigEntry> elements_of(const ConfigEntry& array);

[[nodiscard]] std::string text_of(const ConfigEntry& entry);
// A string or an array of strings.
[[nodiscard]] std::vector<std::string> texts_of(const ConfigEntry& entry);
// A string, or a whole number in its place. wanted: for the sentence about what is neither.
[[nodiscard]] std::string word_or_number_of(const ConfigEntry& entry, std::string_view wanted);
[[nodiscard]] std::int64_t whole_of(const ConfigEntry& entry, std::int64_t least,
                                    std::int64_t most);
// A number of seconds, decimals allowed, to the millisecond.
[[nodiscard]] std::chrono::milliseconds seconds_of(const ConfigEntry& entry,
                                                   std::chrono::milliseconds least,
                                                   std::chrono::milliseconds most);
// true and false, "Yes" and "No" as in iscsid.conf, or "yes" and "no" as in multipath.conf.
[[nodiscard]] bool yes_no_of(const ConfigEntry& entry);
// A string that is an iSCSI name.
[[nodiscard]] std::string iscsi_name_of(const ConfigEntry& entry);
// One to most values, each another one, of what singular says. wanted: for the sentence about what
// is no array.
template <class Value>
[[nodiscard]] std::vector<Value> list_of(const ConfigEntry& entry,
                                         Value (*read)(const ConfigEntry& element),
                                         const char* wanted, const char* singular,
                                         std::size_t most) {
  if (!entry.value->is_array()) {
    entry.refuse_type(wanted);
  }
  std::vector<Value> result;
  for (const ConfigEntry& element : elements_of(entry)) {
    Value one = read(element);
    if (std::find(result.begin(), result.end(), one) != result.end()) {
      element.refuse("{} names {} twice", entry.name, one.to_string());
    }
    if (result.size() == most) {
      element.refuse("{} names more than {} {}s", entry.name, most, singular);
      break;
    }
    result.push_back(std::move(one));
  }
  if (result.empty()) {
    entry.refuse("{} names no {}", entry.name, singular);
  }
  return result;
}

[[nodiscard]] std::string in_seconds(std::chrono::milliseconds time);  // "1.5"

}  // namespace iscsi_blkback
