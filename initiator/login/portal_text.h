// A portal as text, wherever one is written: in a disk line, the configuration, a command, by a
// target in SendTargets or a redirect (RFC 7143 13.8). The one door for it. Pure.
//
//   HOST[:PORT][,TAG]           a name or an IPv4 address
//   [IPV6][:PORT][,TAG]         with a zone for an interface of this host: [fe80::1%eth1]
//   IPV6[,TAG]                  without brackets there is no port; but see UnbracketedPort
//   IPV6%ZONE[:PORT][,TAG]      here the zone ends the address
//
// TAG is the portal group tag, as iscsiadm prints it; -1 and 4294967295 are its "not known".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace iscsi_blkback {

// "2001:db8::1:3260": the whole of it is an address, but 3260 may be meant as the port.
enum class UnbracketedPort : std::uint8_t {
  refuse,  // an operator can write what is meant
  take,    // a target writes as it does; those that forget brackets do not forget the port
};

struct PortalText {
  std::string host;  // a name or a numeric address, without brackets, perhaps with %ZONE
  std::optional<std::uint16_t> port;
  std::optional<std::uint16_t> group_tag;
};

// The error is one sentence that does not repeat the text, which may be a secret at a wrong place.
[[nodiscard]] Result<PortalText> parse_portal_text(std::string_view text, UnbracketedPort rule);

// Whether this is a portal group tag or "not known" as described above.
[[nodiscard]] bool is_group_tag(std::string_view text);

// Link-local addresses need a zone, which the target at asked cannot know: it is that of asked.
[[nodiscard]] std::string with_zone_of(const std::string& asked, std::string host);

}  // namespace iscsi_blkback
