#include "initiator/login/login_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::string_view kInitiatorName = "INITIATOR";

constexpr std::array kStatuses = {
    LoginStatus{kMovedTemporarily, ErrorCode::unavailable, "the target has moved temporarily"},
    LoginStatus{kMovedPermanently, ErrorCode::unavailable, "the target has moved permanently"},
    LoginStatus{0x0200, ErrorCode::protocol,
                "the target calls the login wrong without saying why; its log should say more"},
    LoginStatus{kAuthenticationFailed, ErrorCode::permission_denied,
                "authentication failed: compare the CHAP users and secrets of both sides"},
    LoginStatus{0x0202, ErrorCode::permission_denied,
                "the target does not allow this initiator; add its name to the target's access "
                "list: INITIATOR"},
    LoginStatus{0x0203, ErrorCode::not_found,
                "there is no target of this name at this portal, or it does not show itself to "
                "INITIATOR; check the IQN, and the target's access list"},
    LoginStatus{0x0204, ErrorCode::not_found,
                "the target was removed from this portal for good; take the portal out of the "
                "configuration"},
    LoginStatus{0x0205, ErrorCode::unsupported,
                "the target does not support this iSCSI version (0)"},
    LoginStatus{0x0206, ErrorCode::unavailable,
                "the target has too many connections; close some or raise its limit"},
    LoginStatus{0x0207, ErrorCode::protocol,
                "the target misses a parameter in the login; it may want CHAP, which is not set up "
                "here"},
    LoginStatus{0x0208, ErrorCode::protocol,
                "the target cannot include this connection in the session; another host may use "
                "the same initiator name"},
    LoginStatus{0x0209, ErrorCode::unsupported,
                "the target does not support this type of session; check that the portal is not "
                "for discovery only"},
    LoginStatus{0x020a, ErrorCode::protocol,
                "the target does not know the session any more; the next login makes a new one"},
    LoginStatus{0x020b, ErrorCode::protocol,
                "the target calls the login request invalid; its log should say why"},
    LoginStatus{0x0300, ErrorCode::unavailable,
                "the target has an internal error; its log should say more"},
    LoginStatus{0x0301, ErrorCode::unavailable,
                "the target's service is not available now; check that the target is enabled at "
                "this portal"},
    LoginStatus{0x0302, ErrorCode::unavailable,
                "the target is out of resources; close sessions or raise its limits"},
};

}  // namespace

std::span<const LoginStatus> all_login_statuses() {
  return kStatuses;
}

Error describe_login_status(std::uint16_t status, std::string_view initiator_name) {
  const auto found = std::find_if(kStatuses.begin(), kStatuses.end(),
                                  [&](const LoginStatus& entry) { return entry.status == status; });
  if (found != kStatuses.end()) {
    std::string sentence(found->sentence);
    if (const auto name = sentence.find(kInitiatorName); name != std::string::npos) {
      sentence.replace(name, kInitiatorName.size(), initiator_name);
    }
    return {found->code, std::move(sentence)};
  }
  switch (status >> 8) {
    case 2:
      return {ErrorCode::protocol,
              fmt::format("the target calls the login wrong (status 0x{:04x}, which no standard "
                          "defines); its log should say more",
                          status)};
    case 3:
      return {ErrorCode::unavailable,
              fmt::format("the target cannot log anybody in now (status 0x{:04x}, which no "
                          "standard defines); its log should say more",
                          status)};
    default:
      return {ErrorCode::protocol,
              fmt::format("the target refuses the login with status 0x{:04x}", status)};
  }
}

}  // namespace iscsi_blkback
