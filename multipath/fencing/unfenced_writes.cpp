#include "multipath/fencing/unfenced_writes.h"

#include <algorithm>

#include "base/result.h"

namespace iscsi_blkback {

bool UnfencedWrites::add(const UnfencedWrite& write) {
  ISCSI_BLKBACK_ASSERT(write.first_sector < write.end_sector && write.owner != 0);
  if (writes_.size() < limit_) {
    writes_.push_back(write);
    return true;
  }
  UnfencedWrite& widened = writes_.back();
  widened.first_sector = std::min(widened.first_sector, write.first_sector);
  widened.end_sector = std::max(widened.end_sector, write.end_sector);
  widened.owner = 0;
  widened.path = kNoPath;
  widened.harmless_at = std::max(widened.harmless_at, write.harmless_at);
  return false;
}

bool UnfencedWrites::endangers(std::uint64_t first_sector, std::uint64_t end_sector,
                               std::uint64_t asking) const {
  return std::any_of(writes_.begin(), writes_.end(), [&](const UnfencedWrite& write) {
    return write.owner != asking && write.first_sector < end_sector &&
           first_sector < write.end_sector;
  });
}

bool UnfencedWrites::has_owner(std::uint64_t owner) const {
  return std::any_of(writes_.begin(), writes_.end(),
                     [&](const UnfencedWrite& write) { return write.owner == owner; });
}

bool UnfencedWrites::has_copy(std::uint64_t first_sector, std::uint64_t end_sector,
                              std::uint64_t owner) const {
  return std::any_of(writes_.begin(), writes_.end(), [&](const UnfencedWrite& write) {
    const bool widened = write.owner == 0;
    return write.owner == owner ||
           (widened && write.first_sector < end_sector && first_sector < write.end_sector);
  });
}

bool UnfencedWrites::has_path(std::uint32_t path) const {
  return std::any_of(writes_.begin(), writes_.end(),
                     [&](const UnfencedWrite& write) { return write.path == path; });
}

bool UnfencedWrites::fence(std::uint32_t path, const LoginNexus& nexus, std::uint64_t login_epoch) {
  return std::erase_if(writes_, [&](const UnfencedWrite& write) {
           return is_of(write, path, nexus) && write.login_epoch <= login_epoch;
         }) != 0;
}

bool UnfencedWrites::expire(TimePoint now) {
  return std::erase_if(writes_,
                       [&](const UnfencedWrite& write) { return write.harmless_at <= now; }) != 0;
}

bool UnfencedWrites::fence_until(std::uint32_t path, const LoginNexus& nexus,
                                 TimePoint harmless_at) {
  return std::erase_if(writes_, [&](const UnfencedWrite& write) {
           return is_of(write, path, nexus) && write.harmless_at <= harmless_at;
         }) != 0;
}

bool UnfencedWrites::all_until(std::uint32_t path, const LoginNexus& nexus,
                               TimePoint harmless_at) const {
  bool any = false;
  for (const UnfencedWrite& write : writes_) {
    if (is_of(write, path, nexus)) {
      any = true;
      if (write.harmless_at > harmless_at) {
        return false;
      }
    }
  }
  return any;
}

TimePoint UnfencedWrites::next_expiry() const {
  ISCSI_BLKBACK_ASSERT(!writes_.empty());
  return std::min_element(writes_.begin(), writes_.end(),
                          [](const UnfencedWrite& a, const UnfencedWrite& b) {
                            return a.harmless_at < b.harmless_at;
                          })
      ->harmless_at;
}

}  // namespace iscsi_blkback
