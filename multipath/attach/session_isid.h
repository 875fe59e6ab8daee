// The ISID of a session (RFC 7143 11.12.5): fixed by what the session is, so that a restarted
// process of the same guest comes to the same one, whatever disk is there first, and its login ends
// what the old process has left at the target (6.3.5). Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/domain_id.h"
#include "initiator/login/session_options.h"

namespace iscsi_blkback {

// Tells the sessions of disks with settings of their own from the one that is as the configuration
// has it for the whole target: a number made of what differs; 0: nothing does. Where a session
// leads and what it is called is no setting, and secrets are left out, because an ISID can be read
// on the network.
[[nodiscard]] std::uint32_t session_variant(const SessionOptions& session,
                                            const SessionOptions& of_target);

// Of the reactors of a process, each of which has sessions of its own.
struct ReactorPlace {
  std::uint32_t number = 0;
  std::uint32_t of = 1;
};
inline constexpr std::uint32_t kMaxReactors = 16;

// Type "random" (0x80): a 24-bit hash of the host (host_id.h; empty: it has no id), of what the
// session leads to, of its variant where there is one, then the guest's number as qualifier, so
// that two guests of a host never share one, and those of two hosts with one initiator name hardly.
// attempt: 0, then 1, 2 ... while the ISID is taken by another session of the reactor. Where there
// are several reactors, the last bits of the hash are the reactor's number: no two of a process ever
// have one, though each knows its own sessions only.
[[nodiscard]] Isid make_isid(DomainId own_domain, DomainId guest, const SessionOptions& session,
                             std::uint32_t variant, std::uint32_t attempt,
                             std::string_view host_id = {}, ReactorPlace place = {});

}  // namespace iscsi_blkback
