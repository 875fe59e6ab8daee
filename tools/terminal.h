// The door to a terminal: everything that the programs print goes through here. What is printed may
// come from targets, guests and processes that a guest has taken over; see base/printable_text.h.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/printable_text.h"

namespace iscsi_blkback {

// To standard output. False: it cannot be written.
[[nodiscard]] bool print_lines(const PrintableLines& lines);
[[nodiscard]] bool print_json(const nlohmann::json& document);
// To standard error, as one line: "PROGRAM: SENTENCE", or without a program (empty) the sentence.
void print_complaint(std::string_view program, std::string_view sentence);

}  // namespace iscsi_blkback
