#include "multipath/path/path_access.h"

#include <fmt/format.h>

namespace iscsi_blkback {

AccessState PathAccess::state_of(const LogicalUnitAccess& access) {
  if (access.refused) {
    return *access.refused;
  }
  if (const TargetPortGroup* group = access.group()) {
    return group->state;
  }
  if (access.rdac) {
    const RdacVolumeAccess& rdac = *access.rdac;
    if (rdac.state == AccessState::unavailable) {
      return AccessState::unavailable;
    }
    if (rdac.state == AccessState::transitioning) {
      // Both: a transfer is under way. This one alone: the controller is starting.
      return rdac.other_state == AccessState::transitioning ? AccessState::transitioning
                                                            : AccessState::unavailable;
    }
    if (!rdac.owned && !rdac.shared && !rdac.automatic_transfer) {
      return AccessState::standby;
    }
  }
  return AccessState::active_optimized;
}

bool PathAccess::serves(const LogicalUnitAccess& access) {
  const AccessState state = state_of(access);
  return state == AccessState::active_optimized || state == AccessState::active_non_optimized ||
         state == AccessState::block_dependent;
}

void PathAccess::note(const LogicalUnitAccess& access) {
  told_ = access;
  new_ = new_ || !std::exchange(is_told_, true);
}

bool PathAccess::take_port_groups(const LogicalUnitAccess& told) {
  const TargetPortGroup* before = told_.group();
  if (before == nullptr) {
    return false;
  }
  const AccessState state_before = before->state;
  told_.groups = told.groups;
  const TargetPortGroup* now = told_.group();
  return now == nullptr || now->state != state_before;
}

PathAccess::Verdict PathAccess::judge(const LogicalUnitAccess& access, TimePoint now) {
  const AccessState state = state_of(access);
  if (state != AccessState::transitioning) {
    changing_until_.reset();
  }
  switch (state) {
    case AccessState::active_optimized:
    case AccessState::active_non_optimized:
    case AccessState::block_dependent:
      return {};
    case AccessState::standby:
      return {PathState::ghost, "the LUN is not served here until this is made the active side"};
    case AccessState::transitioning:
      if (!changing_until_) {
        changing_until_ = now + kTransitionTimeout;
      }
      if (now < *changing_until_) {
        return {PathState::pending, "the target port is changing its access state"};
      }
      break;
    case AccessState::unavailable:
    case AccessState::offline:
      break;
  }
  // Reserved values too, as the byte is the target's.
  return {PathState::down, fmt::format("the target port's access state is {}", to_string(state)),
          CheckerFinding::access_state};
}

}  // namespace iscsi_blkback
