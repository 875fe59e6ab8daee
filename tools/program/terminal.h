// The door to a terminal: everything that the programs print goes through here. What is printed may
// come from targets, guests and processes that a guest has taken over; see base/printable_text.h. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/printable_text.h"

namespace iscsi_blkback {

// As the first thing that a program does: standard streams that were closed before it was started
// are there again; that of results cannot be written. Else a socket or the reactor itself would
// have their numbers, and get what is printed.
void keep_standard_streams();

// To standard output. False: it cannot be written, or could not before, which was said.
[[nodiscard]] bool print_lines(std::string_view program, const PrintableLines& lines);
[[nodiscard]] bool print_json(std::string_view program, const nlohmann::json& document);
// To standard error, as one line: "PROGRAM: SENTENCE", or without a program (empty) the sentence.
void print_complaint(std::string_view program, std::string_view sentence);
// For a signal's handler: a whole line of the program's own words.
void complain_in_signal_handler(std::string_view line);

}  // namespace iscsi_blkback
