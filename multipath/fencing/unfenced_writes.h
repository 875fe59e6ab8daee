// UnfencedWrites: the writes that a lost connection may have left at a target, which may execute
// them late ("ghost writes") until that connection's nexus is fenced. A set of sector ranges,
// almost always empty, and then asking costs one comparison. Reactor thread; allocates only in
// add().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "multipath/path/login_nexus.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

struct UnfencedWrite {
  std::uint64_t first_sector = 0;
  std::uint64_t end_sector = 0;  // one past the last
  std::uint64_t owner = 0;       // the request that it was sent for; never 0
  std::uint32_t path = 0;
  LoginNexus nexus;               // where the connection had led: a fence is one of that nexus
  std::uint64_t login_epoch = 0;  // of the session, when the write was sent
  TimePoint harmless_at{};        // then the target has given up the connection by itself
};

class UnfencedWrites {
 public:
  // Beyond limit writes, the newest are kept as one range that no fence clears, time alone does:
  // a bound that is safe, not precise. (A session that comes up again fences what it lost before,
  // so that more than one full queue per path takes a target that keeps moving between groups.)
  // redirected_login_fences: see same_nexus().
  explicit UnfencedWrites(std::size_t limit, bool redirected_login_fences = false)
      : limit_(limit), redirected_login_fences_(redirected_login_fences) {}

  // False: it has become part of that range.
  bool add(const UnfencedWrite& write);

  [[nodiscard]] bool empty() const { return writes_.empty(); }
  [[nodiscard]] std::size_t size() const { return writes_.size(); }

  // Whether new data in [first_sector, end_sector) could be overwritten by a late write of another
  // request than asking. Its own late writes carry the same data and do no harm.
  [[nodiscard]] bool endangers(std::uint64_t first_sector, std::uint64_t end_sector,
                               std::uint64_t asking) const;
  [[nodiscard]] bool has_owner(std::uint64_t owner) const;
  // Whether one of them is that request's, with these sectors, or may be.
  [[nodiscard]] bool has_copy(std::uint64_t first_sector, std::uint64_t end_sector,
                              std::uint64_t owner) const;
  // Whether one of them is the path's, so that a fence of its session is still of use.
  [[nodiscard]] bool has_path(std::uint32_t path) const;
  // The paths whose writes they are, as far as these were lost where the path leads now (place_now,
  // by path number); and whether there are others, which were lost elsewhere.
  struct Whereabouts {
    PathMask paths = 0;
    bool elsewhere = false;
  };
  template <class PlaceNow>
  [[nodiscard]] Whereabouts whereabouts(PlaceNow&& place_now) const {
    Whereabouts found;
    for (const UnfencedWrite& write : writes_) {
      if (write.path != kNoPath && is_of(write, write.path, place_now(write.path))) {
        found.paths |= path_bit(write.path);
      } else {
        found.elsewhere = true;
      }
    }
    return found;
  }

  // Removes what the path lost in that nexus in epochs up to and including login_epoch. True when
  // something was removed.
  bool fence(std::uint32_t path, const LoginNexus& nexus, std::uint64_t login_epoch);
  // Removes what is harmless at that time; fence_until: of that path and nexus only.
  bool expire(TimePoint now);
  bool fence_until(std::uint32_t path, const LoginNexus& nexus, TimePoint harmless_at);
  // A path that is no path's number: of several.
  template <class Predicate>
  [[nodiscard]] bool any_of(Predicate&& is) const {
    return std::any_of(writes_.begin(), writes_.end(), is);
  }
  template <class Predicate>
  bool remove_if(Predicate&& is) {
    return std::erase_if(writes_, is) != 0;
  }
  // Whether that path and nexus has any, and all of them are.
  [[nodiscard]] bool all_until(std::uint32_t path, const LoginNexus& nexus,
                               TimePoint harmless_at) const;
  void clear() { writes_.clear(); }

  [[nodiscard]] TimePoint next_expiry() const;  // not empty

 private:
  static constexpr std::uint32_t kNoPath = ~std::uint32_t{0};

  [[nodiscard]] bool is_of(const UnfencedWrite& write, std::uint32_t path,
                           const LoginNexus& nexus) const {
    return write.path == path && same_nexus(write.nexus, nexus, redirected_login_fences_);
  }

  const std::size_t limit_;
  const bool redirected_login_fences_;
  std::vector<UnfencedWrite> writes_;
};

}  // namespace iscsi_blkback
