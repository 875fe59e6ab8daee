#include "tools/config/toml_mistake.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/split.h"
#include "tools/config/config_options.h"

namespace iscsi_blkback {
namespace {

constexpr std::string_view kQuotes = "\"'";

bool has_part(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Without the quotation marks that a name may have.
std::string_view unquoted(std::string_view key) {
  return trimmed(key, " \t\"'");
}

bool is_bare(std::string_view key) {
  return key.find_first_of(kQuotes) == std::string_view::npos;
}

// Neither a text in quotation marks nor a list.
std::string of_bare_value(std::string_view key) {
  const ConfigOption* const option = find_option(unquoted(key), ~0U);
  switch (option == nullptr ? ConfigOption::Kind::text : option->kind) {
    case ConfigOption::Kind::yes_no:
      return fmt::format("{} must be true, false, \"Yes\" or \"No\", with the quotation marks",
                         key);
    case ConfigOption::Kind::seconds:
      return fmt::format("{} must be a number of seconds, with nothing else before or behind it",
                         key);
    case ConfigOption::Kind::whole:
      return fmt::format("{} must be a whole number, with nothing else before or behind it", key);
    case ConfigOption::Kind::text:
      break;
  }
  return fmt::format("the text behind {} must stand in quotation marks: {} = \"...\"", key, key);
}

// A value that begins with a quotation mark.
std::string of_quoted_value(std::string_view key, std::string_view value, std::string_view words) {
  const std::size_t end = value.find(value.front(), 1);
  if (end == std::string_view::npos) {
    return fmt::format("the text behind {} has no closing quotation mark", key);
  }
  if (value.front() == '"' && has_part(words, "escape")) {
    return fmt::format(
        "in the text behind {} a backslash begins an escape: between single quotes it does not",
        key);
  }
  const std::string_view behind = trimmed(value.substr(end + 1));
  if (!behind.empty() && !behind.starts_with('#')) {
    return fmt::format("something stands behind the text of {}: several are [\"...\", \"...\"]",
                       key);
  }
  return {};
}

// "KEY = VALUE". Empty: it says nothing better than the parser.
std::string of_option(std::string_view key, std::string_view value, std::string_view words) {
  if (is_bare(key) && key.find_first_of("[]") != std::string_view::npos) {
    return fmt::format("a name with brackets must stand in quotation marks: \"{}\" = ...", key);
  }
  if (is_bare(key) && key.find_first_of(" \t{}") != std::string_view::npos) {
    return {};
  }
  if (value.empty() || value.starts_with('#')) {
    return fmt::format("{} has no value", key);
  }
  if (kQuotes.find(value.front()) != std::string_view::npos) {
    return of_quoted_value(key, value, words);
  }
  if (value.front() == '[') {
    return fmt::format(
        "in the list of {} each text must stand in quotation marks, with commas between them: "
        "[\"...\", \"...\"]",
        key);
  }
  return value.front() == '{' ? std::string() : of_bare_value(key);
}

}  // namespace

TomlMistake explain_toml_mistake(std::string_view line, std::size_t column,
                                 std::string_view words) {
  const std::string_view text = trimmed(line);
  const auto column_of = [&](std::string_view part) {
    return static_cast<std::size_t>(part.data() - line.data()) + 1;
  };
  const std::size_t first = text.empty() ? column : column_of(text);
  if (const std::size_t name = words.find('\'');
      has_part(words, "redefine existing") && name != std::string_view::npos) {
    return {first, fmt::format("{} is in this file twice",
                               words.substr(name + 1, words.rfind('\'') - name - 1))};
  }
  if (text.starts_with(';') || text.starts_with("//")) {
    return {first, "a comment begins with #"};
  }
  if (text.starts_with('[')) {
    return {
        first,
        "a section begins with its name in brackets, with quotation marks around what has other "
        "characters than letters, digits, - and _, as in [targets.\"iqn.2009-02.com.example:t\"]"};
  }
  const std::size_t equals = text.find('=');
  if (equals != std::string_view::npos) {
    const std::string_view key = trimmed(text.substr(0, equals));
    const std::string_view value = trimmed(text.substr(equals + 1));
    if (std::string sentence = of_option(key, value, words); !sentence.empty()) {
      const bool of_value = !value.empty() && !(is_bare(key) && has_part(key, "["));
      return {of_value ? column_of(value) : first, std::move(sentence)};
    }
  } else if (has_part(text, "{") || text == "}") {
    return {first, "a section begins with [NAME], and has no { and }"};
  } else if (has_part(words, "expected '='")) {
    return {first, fmt::format("between an option and its value stands =: {} = ...",
                               text.substr(0, text.find_first_of(" \t\"'")))};
  } else if (has_part(words, "parsing value")) {
    return {column, "a text must stand in quotation marks"};
  }
  return {column, fmt::format("{}; this file is TOML: texts, and names with brackets, stand in "
                              "quotation marks, and a section begins with [NAME]",
                              words)};
}

}  // namespace iscsi_blkback
