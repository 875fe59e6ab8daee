// The doors: whatever the bytes are, what leaves is printable, within its bound, and one line; a
// LUN's identity is told from every other one, and can be typed as it is shown.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json_text.h"
#include "base/printable_text.h"
#include "blkback/control/control_protocol.h"
#include "initiator/login/target_address.h"
#include "initiator/scsi/vpd.h"
#include "multipath/attach/disk_url.h"

namespace {

using namespace iscsi_blkback;

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

bool is_printable_ascii(std::string_view text) {
  for (const char c : text) {
    if (c < ' ' || c > '~') {
      return false;
    }
  }
  return true;
}

// What of it is not ASCII, json's own decoder must take for UTF-8.
void require_printable(const std::string& text) {
  for (const char c : text) {
    require(static_cast<unsigned char>(c) >= ' ' && c != 0x7f);
  }
  const nlohmann::json in_json = text;
  require(nlohmann::json::parse(in_json.dump(), nullptr, false) == in_json);
  require(text.find("\u202e") == std::string::npos && text.find("\u009b") == std::string::npos);
}

void try_identity(const std::string& bytes) {
  const std::string shown = printable_identity(bytes);
  require(is_printable_ascii(shown));
  require(printable_identity_as_written(shown) == shown);
  require(printable_identity_as_written(bytes).size() <= 4 * bytes.size());
  require(printable_text(shown, 4 * bytes.size() + 3) == shown);
  // As a target tells it.
  if (bytes.empty() || bytes.size() > 250) {
    return;
  }
  std::vector<std::byte> page = {std::byte{0}, std::byte{0x83}, std::byte{0},
                                 static_cast<std::byte>(bytes.size() + 4)};
  page.insert(page.end(),
              {std::byte{2}, std::byte{1}, std::byte{0}, static_cast<std::byte>(bytes.size())});
  for (const char c : bytes) {
    page.push_back(static_cast<std::byte>(c));
  }
  const auto designators = parse_designators(page);
  require(designators.has_value() && designators->size() == 1);
  const LunNames names{.designators = *designators, .vendor = "VENDOR", .product = "PRODUCT"};
  const std::string wwid = wwid_of(names);
  require(is_printable_ascii(wwid) && is_printable_ascii(barrier_name_of(names)));
  require(!difference(names, names, SerialNumberIs::the_luns));
  if (!wwid.empty()) {
    require(parse_wwid(wwid) == wwid && is_called(names, wwid));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::size_t bound = 3 + data[0];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string out = printable_text(text, bound);
  require(out.size() <= bound);
  require_printable(out);
  require(printable_text(out, bound) == out);
  require_printable(printable_text(text, 4 * text.size() + 3));

  try_identity(text);
  try_identity(text.substr(0, data[0]));

  const std::string refusal = control_refusal(text);
  require(is_printable_ascii(refusal));
  const nlohmann::json read = nlohmann::json::parse(refusal, nullptr, false);
  require(read.is_object() && read["error"] == printable_text(text, kMaxJsonStringBytes));
  require(is_printable_ascii(json_text({{text, {text}}})));

  PrintableLines lines;
  lines.add(text);
  require(lines.text().find('\n') == lines.text().size() - 1);

  if (const auto address = parse_target_address(text)) {
    require(is_printable_ascii(address->host));
  }
  return 0;
}
