#include "tools/program/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/result.h"

namespace iscsi_blkback {
namespace {

bool print(std::FILE* stream, std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stream) == text.size() &&
         std::fflush(stream) == 0;
}

// What is wanted in a pipe or file is wanted whole: what comes after a piece that is missing does
// not make it right.
bool print_to_output(std::string_view program, std::string_view text) {
  if (std::ferror(stdout) != 0) {
    return false;
  }
  if (print(stdout, text)) {
    return true;
  }
  const Error why = system_error("standard output cannot be written", errno);
  print_complaint(program, why.message);
  return false;
}

}  // namespace

void keep_standard_streams() {
  struct Stream {
    int number;
    int mode;
  };
  constexpr std::array kStreams = {Stream{STDIN_FILENO, O_RDONLY},
                                   Stream{STDOUT_FILENO, O_RDONLY},  // results are not to be lost
                                   Stream{STDERR_FILENO, O_WRONLY}};
  for (const Stream& stream : kStreams) {
    if (::fcntl(stream.number, F_GETFD) < 0) {
      // The lowest number that is free is this one.
      (void)::open("/dev/null", stream.mode);
    }
  }
}

bool print_lines(std::string_view program, const PrintableLines& lines) {
  return print_to_output(program, lines.text());
}

bool print_json(std::string_view program, const nlohmann::json& document) {
  return print_to_output(program, json_text(document, 2) + "\n");
}

void print_complaint(std::string_view program, std::string_view sentence) {
  PrintableLines lines;
  lines.add(fmt::format("{}{}{}", program, program.empty() ? "" : ": ", sentence));
  static_cast<void>(print(stderr, lines.text()));
}

void complain_in_signal_handler(std::string_view line) {
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) {
    // nobody reads it
  }
}

}  // namespace iscsi_blkback
