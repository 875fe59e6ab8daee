// LoginNexus: what a login of a session led to, as far as its nexus is concerned: the portal's
// address and the target portal group. A value, made on the reactor's thread.
//
// A target terminates the tasks of an older session (RFC 7143 6.3.5) when it knows that session.
// What tells that it does, for a login of the same session: that it led to the same portal and that
// this is still in the same portal group. The tag alone does not: each node numbers its groups for
// itself, mostly from 1, so that a redirect may lead from one server to another one that serves the
// same disk by a group of the same number and has never heard of the older session. A disk that
// vouches for its target (MultipathOptions::redirected_login_fences) takes the tag alone as proof,
// if it is told. Others that share the session with it do not.
#pragma once

#include <cstdint>
#include <optional>

#include "initiator/session/session.h"

namespace iscsi_blkback {

struct LoginNexus {
  SocketAddress portal;
  std::optional<std::uint16_t> portal_group;  // nullopt: the target has not told
};

// Of the last login that succeeded.
[[nodiscard]] inline LoginNexus login_nexus(const Session& session) {
  const NegotiatedParameters& negotiated = session.negotiated();
  LoginNexus nexus{.portal = session.peer(), .portal_group = std::nullopt};
  if (negotiated.target_portal_group_tag_known) {
    nexus.portal_group = negotiated.target_portal_group_tag;
  }
  return nexus;
}

// Whether both logins of one session belong to the same nexus. redirected_login_fences: as the disk
// has it that asks.
[[nodiscard]] inline bool same_nexus(const LoginNexus& one, const LoginNexus& other,
                                     bool redirected_login_fences) {
  if (!one.portal_group || !other.portal_group) {
    return one.portal == other.portal;
  }
  return *one.portal_group == *other.portal_group &&
         (one.portal == other.portal || redirected_login_fences);
}

// Whether a redirect had a part in the last login, which says less then to a disk that does not
// vouch for its target.
[[nodiscard]] inline bool was_redirected(const Session& session) {
  return !(session.peer() == session.portal_address());
}

}  // namespace iscsi_blkback
