// GhostPaths: what PathActivator asks of a disk's paths, and has them do: all of them at once.
// Owned by MultipathDevice. Reactor thread.
#pragma once

#include <cstdint>

#include "multipath/groups/path_activator.h"
#include "multipath/path/path_mask.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class GhostPaths final : public PathActivator::Ghosts {
 public:
  explicit GhostPaths(const PathSet& paths) : paths_(paths) {}  // which outlives it

  [[nodiscard]] PathMask tellable() const override;
  [[nodiscard]] PathMask awaiting_answer() const override;
  [[nodiscard]] bool answer_is_near(bool reads_count) const override;
  void activate(std::uint32_t path) override { paths_[path].activate(); }
  void withdraw() override;
  void refresh_access(PathMask paths) override;

 private:
  const PathSet& paths_;
};

}  // namespace iscsi_blkback
