// FailoverTarget: what is behind the proxies of the failover benchmark, a process of its own: a
// target in memory, or tgt. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

class FailoverTarget {
 public:
  virtual ~FailoverTarget() = default;
  [[nodiscard]] virtual std::uint16_t port(std::size_t path) const = 0;
  // Of the target and its LUN: what stands behind the portals in a disk's URL.
  [[nodiscard]] virtual std::string url_end() const = 0;
  virtual void stop() = 0;  // hangs, its kernel goes on
  virtual void go_on() = 0;
  virtual void swap_port_groups() = 0;
};

// another: with another LUN than the first. port_groups: the paths lead to two ALUA port groups,
// one of them standby.
[[nodiscard]] Result<std::unique_ptr<FailoverTarget>> start_memory_target(bool another,
                                                                          bool port_groups);
// At most portals paths. Without ALUA.
[[nodiscard]] Result<std::unique_ptr<FailoverTarget>> start_tgt(bool another, std::size_t portals);

}  // namespace iscsi_blkback
