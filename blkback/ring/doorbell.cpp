#include "blkback/ring/doorbell.h"

#include <utility>

namespace iscsi_blkback {

Doorbell::Doorbell(Reactor& reactor, EventDispatcher& events)
    : events_(events),
      rest_(
          reactor,
          [](void* self) noexcept {
            Doorbell& bell = *static_cast<Doorbell*>(self);
            bell.masked_ = false;
            bell.events_.unmask(bell.port_);
          },
          this) {}

Result<void> Doorbell::bind(DomainId domain, std::uint32_t remote_port,
                            EventDispatcher::Handler& handler) {
  const Result<LocalPort> port = events_.bind(domain, remote_port, handler);
  if (!port) {
    return tl::unexpected(port.error());
  }
  port_ = *port;
  bound_ = true;
  return {};
}

void Doorbell::unbind() {
  rest_.stop();
  if (std::exchange(bound_, false)) {
    events_.unbind(port_);
  }
}

void Doorbell::unmask() {
  if (!bound_ || !masked_ || rest_.armed()) {
    return;
  }
  if (++for_nothing_ > kMostForNothing) {
    rest_.start_after(kRest);
    return;
  }
  masked_ = false;
  events_.unmask(port_);
}

}  // namespace iscsi_blkback
