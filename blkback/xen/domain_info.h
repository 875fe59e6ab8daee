// DomainInfo: what only the hypervisor knows of a guest: whether it exists, is being destroyed, or
// has shut down and why (a suspend for migration must stop our retries of writes; xenstore does not
// say it). Real: libxenctrl. In memory: tests. Used by a control thread only, since calls block.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/domain_id.h"
#include "base/result.h"

namespace iscsi_blkback {

enum class DomainLife : std::uint8_t {
  running,    // or paused, or blocked
  shut_down,  // ended by itself; shutdown_reason says how. It may be resumed after a suspend.
  dying,      // being destroyed
  gone,       // no such domain
};

// SHUTDOWN_* of xen/include/public/sched.h.
enum class ShutdownReason : std::uint8_t {
  poweroff = 0,
  reboot = 1,
  suspend = 2,
  crash = 3,
  watchdog = 4,
  soft_reset = 5,
};

using DomainHandle = std::array<std::uint8_t, 16>;  // the toolstack's UUID; zeroes: not known

struct DomainStatus {
  DomainLife life = DomainLife::gone;
  // Of one that is shut_down; of one that is dying, too, as far as it had shut down before (a
  // domain that was suspended is destroyed when it has been migrated), else poweroff.
  ShutdownReason shutdown_reason = ShutdownReason::poweroff;
  DomainHandle handle{};
  std::uint64_t cpu_time_ns = 0;  // consumed, by all its processors together

  bool operator==(const DomainStatus&) const = default;
};

[[nodiscard]] const char* to_string(DomainLife life);
[[nodiscard]] const char* to_string(ShutdownReason reason);

// A domain that may not ask Xen about another one never may.
[[nodiscard]] bool is_refusal(ErrorCode code);

class DomainInfo {
 public:
  virtual ~DomainInfo() = default;
  // A domain that does not exist is a status (gone), not an error.
  [[nodiscard]] virtual Result<DomainStatus> status(DomainId domain) = 0;
};

// The error says what is missing (not a Xen control domain, no permission).
[[nodiscard]] Result<std::unique_ptr<DomainInfo>> open_domain_info();

// Opened by the first question; what cannot be opened is tried again by each one.
[[nodiscard]] std::unique_ptr<DomainInfo> open_domain_info_when_asked();

}  // namespace iscsi_blkback
