#include "multipath/fencing/fence_carrier.h"

#include <algorithm>

namespace iscsi_blkback {
namespace {

const FencePath* find(const FencePaths& known, std::uint32_t index) {
  const auto found = std::find_if(known.paths.begin(), known.paths.end(),
                                  [&](const FencePath& path) { return path.index == index; });
  return found == known.paths.end() ? nullptr : &*found;
}

bool may_carry(const FencePath& path) {
  return path.answering && path.logged_in && !path.identifying && path.allowed;
}

bool reaches(const FencePaths& known, const FencePath& carrier, const UnfencedWrite& write) {
  if (known.one_target) {
    return true;
  }
  const FencePath* const lost = find(known, write.path);
  if (lost == nullptr) {
    return false;  // of several paths
  }
  return lost->session->target_name == carrier.session->target_name &&
         ((lost->session->interface_binding == carrier.session->interface_binding &&
           same_nexus(write.nexus, carrier.nexus, false)) ||
          (write.login_epoch == lost->login_epoch && lost->space != 0 &&
           lost->space == carrier.space));
}

}  // namespace

bool fenced_by_reset(const FencePaths& known, std::uint32_t carrier, const UnfencedWrite& write,
                     TimePoint settled) {
  const FencePath* const by = find(known, carrier);
  return by != nullptr && write.harmless_at <= settled && reaches(known, *by, write);
}

std::optional<std::uint32_t> carrier_of_reset(const FencePaths& known,
                                              const UnfencedWrites& unfenced, TimePoint settled) {
  for (const FencePath& path : known.paths) {
    if (may_carry(path) && unfenced.any_of([&](const UnfencedWrite& write) {
          return fenced_by_reset(known, path.index, write, settled);
        })) {
      return path.index;
    }
  }
  return std::nullopt;
}

std::optional<Preemption> choose_preemption(const FencePaths& known, const UnfencedWrites& unfenced,
                                            TimePoint settled) {
  for (const FencePath& lost : known.paths) {
    if (lost.logged_in || !lost.key || !unfenced.all_until(lost.index, *lost.key, settled)) {
      continue;
    }
    const auto carrier =
        std::find_if(known.paths.begin(), known.paths.end(), [&](const FencePath& path) {
          return may_carry(path) && !unfenced.any_of([&](const UnfencedWrite& write) {
            return write.path == lost.index && !reaches(known, path, write);
          });
        });
    if (carrier != known.paths.end()) {
      return Preemption{.lost = lost.index, .carrier = carrier->index};
    }
  }
  return std::nullopt;
}

LunFence::Command::Ready ready_for_reset(const FencePaths& known, std::uint32_t carrier,
                                         bool activating) {
  using Ready = LunFence::Command::Ready;
  const FencePath* const by = find(known, carrier);
  if (by == nullptr || !by->up) {
    return Ready::no_path;
  }
  const bool busy =
      activating || std::any_of(known.paths.begin(), known.paths.end(), [](const FencePath& path) {
        return path.logged_in && (path.busy || path.identifying);
      });
  return busy ? Ready::busy : Ready::yes;
}

}  // namespace iscsi_blkback
