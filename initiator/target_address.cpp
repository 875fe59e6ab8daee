#include "initiator/target_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "initiator/login_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035 2.3.4, as text

// Of names, of addresses, and of the interface behind a link-local address.
bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._:%").find(c) != std::string_view::npos;
}

}  // namespace

Result<TargetAddress> parse_target_address(const std::string& text) {
  const auto wrong = [&] {
    return fail(ErrorCode::protocol, fmt::format("{} is not a target address", text));
  };
  TargetAddress portal;
  std::string rest = text;
  if (const std::size_t comma = rest.rfind(','); comma != std::string::npos) {
    const auto tag = parse_text_number(rest.substr(comma + 1), 0, 65535);
    if (!tag) {
      return wrong();
    }
    portal.group_tag = static_cast<std::uint16_t>(*tag);
    rest.erase(comma);
  }
  std::string port;
  if (rest.starts_with('[')) {
    const std::size_t bracket = rest.find(']');
    if (bracket == std::string::npos) {
      return wrong();
    }
    portal.host = rest.substr(1, bracket - 1);
    rest.erase(0, bracket + 1);
    if (!rest.empty() && rest[0] != ':') {
      return wrong();
    }
    port = rest.empty() ? rest : rest.substr(1);
  } else {
    const std::size_t colon = rest.find(':');
    portal.host = rest.substr(0, colon);
    port = colon == std::string::npos ? std::string() : rest.substr(colon + 1);
  }
  if (portal.host.empty() || portal.host.size() > kMaxHostBytes ||
      !std::all_of(portal.host.begin(), portal.host.end(), is_host_character)) {
    return wrong();
  }
  if (!port.empty()) {
    const auto number = parse_text_number(port, 1, 65535);
    if (!number) {
      return wrong();
    }
    portal.port = static_cast<std::uint16_t>(*number);
  }
  return portal;
}

}  // namespace iscsi_blkback
