// A command line's words as they were typed. CLI11 takes a word in brackets, like an IPv6 address,
// for a list where an option may have several words: the brackets go, and commas divide what was
// between them. Main thread, before anything else runs.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace iscsi_blkback {

namespace detail {

inline constexpr char kWordEnd = '\x1f';  // the unit separator, which nobody types

inline void take_words_as_they_are(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    option->transform([](std::string word) {
      if (word.ends_with(kWordEnd)) {
        word.pop_back();
      }
      return word;
    });
  }
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    take_words_as_they_are(*command);
  }
}

inline std::vector<const CLI::App*> subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

inline std::string names_of(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (const CLI::App* command : commands) {
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  return names;
}

// The name in a word like -i, -iNAME, --name or --name=VALUE.
inline std::string option_name(std::string_view word) {
  return std::string(word.substr(0, word.starts_with("--") ? word.find('=') : 2));
}

// CLI11 says of these only that something else is missing, or in which order it met the words.
inline void refuse_what_is_no_subcommand(const CLI::App& app,
                                         const std::vector<std::string>& words) {
  const std::vector<const CLI::App*> commands = subcommands(app);
  if (commands.empty()) {
    return;
  }
  const std::string known = names_of(commands);
  for (std::size_t index = 1; index < words.size(); ++index) {
    const std::string& word = words[index];
    if (!word.starts_with('-')) {
      if (std::none_of(commands.begin(), commands.end(),
                       [&word](const CLI::App* command) { return command->get_name() == word; })) {
        throw CLI::ParseError("there is no subcommand \"" + word + "\"; there are " + known,
                              CLI::ExitCodes::ExtrasError);
      }
      return;
    }
    const std::string name = option_name(word);
    if (const CLI::Option* option = app.get_option_no_throw(name)) {
      if (option->get_items_expected_max() == 0) {
        if (name == "--help" || name == "-h" || name == "--version") {
          return;
        }
      } else if (name == word) {
        ++index;  // its value
      }
      continue;
    }
    for (const CLI::App* command : commands) {
      if (command->get_option_no_throw(name) != nullptr) {
        throw CLI::ParseError(name + " follows the subcommand, which is one of " + known,
                              CLI::ExitCodes::ExtrasError);
      }
    }
    throw CLI::ParseError("there is no option " + name, CLI::ExitCodes::ExtrasError);
  }
}

}  // namespace detail

// app.parse(argc, argv), after all options have been added.
inline void parse_words(CLI::App& app, int argc, const char* const* argv) {
  detail::take_words_as_they_are(app);
  std::vector<std::string> words(argv, argv + argc);
  detail::refuse_what_is_no_subcommand(app, words);
  std::vector<const char*> pointers;
  for (std::string& word : words) {
    if (word.starts_with('[') && word.ends_with(']')) {
      word.push_back(detail::kWordEnd);
    }
    pointers.push_back(word.c_str());
  }
  app.parse(argc, pointers.data());
}

}  // namespace iscsi_blkback
