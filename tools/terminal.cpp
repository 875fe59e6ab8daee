#include "tools/terminal.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "blkback/json_text.h"

namespace iscsi_blkback {
namespace {

bool print(std::FILE* stream, std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stream) == text.size() &&
         std::fflush(stream) == 0;
}

}  // namespace

bool print_lines(const PrintableLines& lines) {
  return print(stdout, lines.text());
}

bool print_json(const nlohmann::json& document) {
  return print(stdout, json_text(document, 2) + "\n");
}

void print_complaint(std::string_view program, std::string_view sentence) {
  PrintableLines lines;
  lines.add(fmt::format("{}{}{}", program, program.empty() ? "" : ": ", sentence));
  static_cast<void>(print(stderr, lines.text()));
}

}  // namespace iscsi_blkback
