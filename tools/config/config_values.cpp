#include "tools/config/config_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;

void collect(const ConfigEntry& parent, const std::string& prefix, bool join,
             std::vector<ConfigEntry>& entries) {
  for (auto&& [key, value] : *parent.value->as_table()) {
    ConfigEntry entry{parent.file, prefix + std::string(key.str()), key.source().begin.line,
                      &value};
    if (const toml::table* inner = value.as_table(); join && inner != nullptr && !inner->empty()) {
      collect(entry, entry.name + ".", join, entries);
    } else {
      entries.push_back(std::move(entry));
    }
  }
}

const char* described(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a decimal number";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

}  // namespace

void ConfigEntry::refuse(std::string_view sentence) const {
  if (!file->mistake) {
    file->mistake =
        Error{ErrorCode::invalid_argument, fmt::format("{}:{}: {}", file->name, line, sentence)};
  }
}

void ConfigEntry::refuse_type(std::string_view wanted) const {
  refuse(fmt::format("{} must be {}, not {}", name, wanted, described(*value)));
}

std::vector<ConfigEntry> entries_of(const ConfigEntry& table, bool join_dotted_keys) {
  std::vector<ConfigEntry> entries;
  collect(table, {}, join_dotted_keys, entries);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& left, const auto& right) { return left.line < right.line; });
  return entries;
}

std::vector<ConfigEntry> elements_of(const ConfigEntry& array) {
  std::vector<ConfigEntry> elements;
  if (const toml::array* nodes = array.value->as_array()) {
    for (const toml::node& node : *nodes) {
      elements.push_back({array.file, array.name, node.source().begin.line, &node});
    }
  }
  return elements;
}

std::string text_of(const ConfigEntry& entry) {
  if (const auto* value = entry.value->as_string()) {
    return value->get();
  }
  entry.refuse_type("a string");
  return {};
}

std::vector<std::string> texts_of(const ConfigEntry& entry) {
  if (entry.value->is_string()) {
    return {text_of(entry)};
  }
  if (!entry.value->is_array()) {
    entry.refuse_type("a string or an array of strings");
  }
  std::vector<std::string> texts;
  for (const ConfigEntry& element : elements_of(entry)) {
    texts.push_back(text_of(element));
  }
  return texts;
}

std::string word_or_number_of(const ConfigEntry& entry, std::string_view wanted) {
  if (const auto* number = entry.value->as_integer()) {
    return fmt::format("{}", number->get());
  }
  if (!entry.value->is_string()) {
    entry.refuse_type(wanted);
  }
  return text_of(entry);
}

std::int64_t whole_of(const ConfigEntry& entry, std::int64_t least, std::int64_t most) {
  const auto* value = entry.value->as_integer();
  const std::string wanted = fmt::format("a whole number from {} to {}", least, most);
  if (value == nullptr) {
    entry.refuse_type(wanted);
    return least;
  }
  if (value->get() < least || value->get() > most) {
    entry.refuse("{} must be {}, not {}", entry.name, wanted, value->get());
    return least;
  }
  return value->get();
}

Milliseconds seconds_of(const ConfigEntry& entry, Milliseconds least, Milliseconds most) {
  double value = 0;
  if (const auto* number = entry.value->as_integer()) {
    value = static_cast<double>(number->get());
  } else if (const auto* decimal = entry.value->as_floating_point()) {
    value = decimal->get();
  } else {
    entry.refuse_type("a number of seconds");
  }
  // Written so that not-a-number is refused too.
  if (!(value * 1000 >= static_cast<double>(least.count()) &&
        value * 1000 <= static_cast<double>(most.count()))) {
    entry.refuse("{} must be a number of seconds from {} to {}, not {}", entry.name,
                 in_seconds(least), in_seconds(most), value);
    return least;
  }
  return Milliseconds(std::llround(value * 1000));
}

bool yes_no_of(const ConfigEntry& entry) {
  if (const auto* value = entry.value->as_boolean()) {
    return value->get();
  }
  if (!entry.value->is_string()) {
    entry.refuse_type("true, false, \"Yes\" or \"No\"");
  }
  const auto value = parse_yes_no(text_of(entry));
  if (!value) {
    entry.refuse("{} must be true, false, \"Yes\" or \"No\"", entry.name);
  }
  return value.value_or(false);
}

std::string iscsi_name_of(const ConfigEntry& entry) {
  std::string name = text_of(entry);
  if (auto checked = check_iscsi_name(entry.name, name); !checked) {
    entry.refuse(checked.error().message);
  }
  return name;
}

std::string in_seconds(Milliseconds time) {
  return time.count() % 1000 == 0 ? fmt::format("{}", time.count() / 1000)
                                  : fmt::format("{}", static_cast<double>(time.count()) / 1000.0);
}

}  // namespace iscsi_blkback
