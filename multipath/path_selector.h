// PathSelector: which of a group's paths takes the next request. Paths are numbered; who may take
// one at all (up, and with room in its queue) is a mask that the caller keeps, so that choosing
// costs no look at the paths. Nothing allocates in select(). Reactor thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace iscsi_blkback {

// The names are multipath.conf's.
enum class PathSelectorKind : std::uint8_t { round_robin };

// Bit i stands for path i of the disk.
using PathMask = std::uint64_t;
inline constexpr std::uint32_t kMaxPaths = 64;

[[nodiscard]] constexpr PathMask path_bit(std::uint32_t index) {
  return PathMask{1} << index;
}

class PathSelector {
 public:
  virtual ~PathSelector() = default;

  // index: below kMaxPaths, not added before.
  virtual void add_path(std::uint32_t index) = 0;
  // eligible: at least one of the paths added; other bits are ignored.
  [[nodiscard]] virtual std::uint32_t select(PathMask eligible) = 0;
};

// Stays with a path for rr_min_io requests, then takes the next one that is eligible (dm-mpath's
// round-robin as it was when it still honoured rr_min_io).
class RoundRobinSelector final : public PathSelector {
 public:
  explicit RoundRobinSelector(std::uint32_t rr_min_io);  // 0 counts as 1

  void add_path(std::uint32_t index) override;
  [[nodiscard]] std::uint32_t select(PathMask eligible) override;

 private:
  const std::uint32_t rr_min_io_;
  std::vector<std::uint32_t> paths_;
  bool started_ = false;
  std::size_t current_ = 0;  // place in paths_, once started
  std::uint32_t left_ = 0;   // requests that the current path still takes in a row
};

[[nodiscard]] std::unique_ptr<PathSelector> make_path_selector(PathSelectorKind kind,
                                                               std::uint32_t rr_min_io);
[[nodiscard]] const char* to_string(PathSelectorKind kind);  // "round-robin"

}  // namespace iscsi_blkback
