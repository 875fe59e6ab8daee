// EventChannels: a guest's doorbells. Real: libxenevtchn. In memory: tests. One per reactor thread.
// A port stays masked from its event until unmask(), which is the end-of-interrupt: unmask only
// after the work is done, so that a flooding guest throttles itself (XSA-332). Errors: the hypercall's, as a sentence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/domain_id.h"
#include "base/result.h"

namespace iscsi_blkback {

using LocalPort = std::uint32_t;

class EventChannels {
 public:
  virtual ~EventChannels() = default;

  // Readable (level) while a bound port is pending and not yet fetched.
  [[nodiscard]] virtual int fd() const = 0;

  // Binding always makes the local port pending once: no doorbell rung before the bind is lost.
  [[nodiscard]] virtual Result<LocalPort> bind_interdomain(DomainId domain,
                                                           std::uint32_t remote_port) = 0;
  virtual void unbind(LocalPort port) = 0;

  // The pending ports, now masked, as many as there is room for; 0: there is none. Never blocks.
  [[nodiscard]] virtual Result<std::size_t> take_pending(std::span<LocalPort> into) = 0;
  [[nodiscard]] virtual Result<void> unmask(LocalPort port) = 0;
  [[nodiscard]] virtual Result<void> notify(LocalPort port) = 0;
};

// /dev/xen/evtchn; the error says what is missing (not a Xen domain, no permission). only: no other domain's
// channels can be bound through it, whatever the process asks for.
[[nodiscard]] Result<std::unique_ptr<EventChannels>> open_event_channels(
    std::optional<DomainId> only = std::nullopt);

}  // namespace iscsi_blkback
