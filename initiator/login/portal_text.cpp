#include "initiator/login/portal_text.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/decimal.h"
#include "base/interface_binding.h"
#include "initiator/login/login_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035 2.3.4, as text

tl::unexpected<Error> wrong(std::string sentence) {
  return tl::unexpected(Error{ErrorCode::invalid_argument, std::move(sentence)});
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '.' ||
         c == '_';
}
bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

bool is_ipv6(std::string_view text) {
  in6_addr address{};
  return text.find('\0') == std::string_view::npos &&
         inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}
bool is_ipv4(std::string_view text) {
  in_addr address{};
  return inet_pton(AF_INET, std::string(text).c_str(), &address) == 1;
}

bool is_zone(std::string_view text) {
  return is_interface_name(text) && std::all_of(text.begin(), text.end(), is_host_character);
}

// Ports that a target may well listen at; no group of an IPv6 address that is written by hand.
bool may_be_port(std::string_view text) {
  const auto number = parse_decimal<std::uint16_t>(text);
  return number && (*number == 860 || *number >= 1024);
}

Result<std::uint16_t> parse_port(std::string_view text) {
  const auto number = parse_decimal<std::uint16_t>(text);
  if (!number || *number == 0) {
    return wrong("a portal's port is not a number from 1 to 65535");
  }
  return *number;
}

// IPV6[%ZONE]
Result<std::string> parse_ipv6(std::string_view text) {
  const std::size_t percent = text.find('%');
  if (!is_ipv6(text.substr(0, percent))) {
    return wrong(
        "a portal has no valid IPv6 address within its brackets, and nothing else has brackets");
  }
  if (percent != std::string_view::npos && !is_zone(text.substr(percent + 1))) {
    return wrong(
        "a portal's zone, behind the % of its IPv6 address, is no name or number of a network "
        "interface");
  }
  return std::string(text);
}

Result<PortalText> parse_named(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view host = text.substr(0, colon);
  if (host.empty()) {
    return wrong("a portal has no host name or address");
  }
  if (std::count(text.begin(), text.end(), ':') > 1) {
    return wrong("a portal is neither a valid IPv6 address nor HOST:PORT");
  }
  if (const std::size_t percent = host.find('%');
      percent != std::string_view::npos && is_ipv4(host.substr(0, percent))) {
    return wrong("a portal's IPv4 address has a zone behind %, which only IPv6 addresses have");
  }
  if (host.size() > kMaxHostBytes || !std::all_of(host.begin(), host.end(), is_host_character)) {
    return wrong(
        "a portal's host has a character that host names do not have, is no valid address, or is "
        "too long");
  }
  if (all_digits(host)) {
    return wrong("a portal's host is a number, neither a name nor an address");
  }
  PortalText portal{.host = std::string(host), .port = std::nullopt, .group_tag = std::nullopt};
  if (colon != std::string_view::npos) {
    const auto port = parse_port(text.substr(colon + 1));
    if (!port) {
      return tl::unexpected(port.error());
    }
    portal.port = *port;
  }
  return portal;
}

Result<PortalText> parse_bracketed(std::string_view text, UnbracketedPort rule) {
  const std::size_t end = text.find(']');
  if (end == std::string_view::npos) {
    return wrong("a portal's IPv6 address has no closing bracket");
  }
  const std::string_view rest = text.substr(end + 1);
  if (!rest.empty() && rest.front() != ':') {
    return wrong("after a portal's IPv6 address only :PORT or ,TAG may follow");
  }
  const std::string_view within = text.substr(1, end - 1);
  auto host = parse_ipv6(within);
  if (!host) {
    // Some put brackets around whatever host it is, as iscsiadm does when it prints names.
    if (rule == UnbracketedPort::refuse || within.find(':') != std::string_view::npos ||
        !parse_named(within)) {
      return tl::unexpected(host.error());
    }
    host = std::string(within);
  }
  PortalText portal{.host = std::move(*host), .port = std::nullopt, .group_tag = std::nullopt};
  if (!rest.empty()) {
    const auto port = parse_port(rest.substr(1));
    if (!port) {
      return tl::unexpected(port.error());
    }
    portal.port = *port;
  }
  return portal;
}

// An IPv6 address without brackets; nothing when the text is none.
std::optional<Result<PortalText>> parse_bare_ipv6(std::string_view text, UnbracketedPort rule) {
  PortalText portal;
  std::string_view port;
  bool has_port = false;
  if (const std::size_t percent = text.find('%'); percent != std::string_view::npos) {
    if (!is_ipv6(text.substr(0, percent))) {
      return std::nullopt;
    }
    const std::size_t colon = text.find(':', percent);
    has_port = colon != std::string_view::npos;
    port = has_port ? text.substr(colon + 1) : port;
    text = text.substr(0, colon);
  } else {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) {
      return std::nullopt;
    }
    const bool whole = is_ipv6(text);
    const bool without_last = is_ipv6(text.substr(0, colon));
    if (!whole && !without_last) {
      return std::nullopt;
    }
    const bool either = whole && without_last && may_be_port(text.substr(colon + 1));
    if (either && rule == UnbracketedPort::refuse) {
      return wrong(
          "a portal's IPv6 address without brackets ends in what may be its port: write "
          "[ADDRESS]:PORT, or [ADDRESS]");
    }
    if (either || !whole) {
      has_port = true;
      port = text.substr(colon + 1);
      text = text.substr(0, colon);
    }
  }
  auto host = parse_ipv6(text);
  if (!host) {
    return tl::unexpected(host.error());
  }
  portal.host = std::move(*host);
  if (has_port) {
    const auto number = parse_port(port);
    if (!number) {
      return tl::unexpected(number.error());
    }
    portal.port = *number;
  }
  return portal;
}

}  // namespace

bool is_group_tag(std::string_view text) {
  return text == "-1" || text == "4294967295" || parse_text_number(text, 0, 65535);
}

Result<PortalText> parse_portal_text(std::string_view text, UnbracketedPort rule) {
  std::string_view tag;
  if (const std::size_t comma = text.find(','); comma != std::string_view::npos) {
    tag = text.substr(comma + 1);
    text = text.substr(0, comma);
    if (!is_group_tag(tag)) {
      return wrong("a portal's group tag, behind the comma, is not a number from 0 to 65535");
    }
  }
  Result<PortalText> portal;
  if (text.starts_with('[')) {
    portal = parse_bracketed(text, rule);
  } else if (auto bare = parse_bare_ipv6(text, rule)) {
    portal = std::move(*bare);
  } else {
    portal = parse_named(text);
  }
  if (const auto number = parse_text_number(tag, 0, 65535); portal && number) {
    portal->group_tag = static_cast<std::uint16_t>(*number);
  }
  return portal;
}

std::string with_zone_of(const std::string& asked, std::string host) {
  in6_addr address{};
  const std::size_t percent = asked.find('%');
  if (percent != std::string::npos && inet_pton(AF_INET6, host.c_str(), &address) == 1 &&
      IN6_IS_ADDR_LINKLOCAL(&address)) {
    host += asked.substr(percent);
  }
  return host;
}

}  // namespace iscsi_blkback
