// A command line's words as they were typed. CLI11 takes a word in brackets, like an IPv6 address,
// for a list where an option may have several words: the brackets go, and commas divide what was
// between them. Main thread, before anything else runs.
#pragma once

#include <CLI/CLI.hpp>
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

}  // namespace detail

// app.parse(argc, argv), after all options have been added.
inline void parse_words(CLI::App& app, int argc, const char* const* argv) {
  detail::take_words_as_they_are(app);
  std::vector<std::string> words(argv, argv + argc);
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
