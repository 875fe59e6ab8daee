// Text that other programs may be given: a terminal, a log, JSON, xenstore. Targets and guests
// choose what they say, and it may be meant for the reader's terminal (escape sequences), for the
// reader's eye (marks that turn the direction of writing) or for nobody (bytes that are no UTF-8).
// Pure functions; any thread.
//
// The one form: printable ASCII and valid UTF-8 stay as they are; every byte of anything else is
// written as \xNN, two lower-case hexadecimal digits. Anything else is: control characters (of
// ASCII and C1), line and paragraph separators, characters that Unicode has as invisible
// (Default_Ignorable_Code_Point: direction, joiners, tags, selectors), as of private use or as
// none, and what is not UTF-8.
//
// Two functions, because no one can be both: text may pass several doors, so that the doors' one
// changes nothing in what it has made; and identities must be told apart, so that theirs has
// another result for every other input.
//
// Where the doors are:
//   log         log_message() (base/log.h)
//   xenstore    XenbusNode (blkback/guest/xenbus_node.h), the only one there that writes
//   JSON        json_text() (base/json_text.h): control sockets, lunex, iscsi-blkctl
//   terminal    print_lines(), print_json() and print_complaint() (tools/program/terminal.h)
// Nothing else writes text that is not our own; tests/base/one_door_test.cpp looks for it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace iscsi_blkback {

// The doors' function. The result has at most most_bytes bytes; what does not fit is cut off, and
// "..." stands for it (most_bytes: at least 3). Applied to its own result, it changes nothing.
[[nodiscard]] std::string printable_text(std::string_view text, std::size_t most_bytes);

// For what is compared: the result is printable ASCII, complete, and no other bytes have the same.
// A backslash is \x5c.
[[nodiscard]] std::string printable_identity(std::string_view bytes);
// The same of what somebody has typed who has seen such a result: both \xNN and the byte itself
// stand for the byte.
[[nodiscard]] std::string printable_identity_as_written(std::string_view text);

// Lines for a terminal, one after the other. What is added as one line stays one.
class PrintableLines {
 public:
  static constexpr std::size_t kMaxLineBytes = 4096;

  void add(std::string_view line) {
    text_ += printable_text(line, kMaxLineBytes);
    text_ += '\n';
  }
  void add(const PrintableLines& lines) { text_ += lines.text_; }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace iscsi_blkback
