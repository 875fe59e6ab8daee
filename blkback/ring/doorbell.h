// Doorbell: a queue's event channel. The frontend rings it, after which it is masked until the queue has looked at its
// ring: a guest that floods it throttles itself (XSA-332). And one that rings again and again although nothing is in its
// ring is heard once in kRest only, since each ring costs dom0 two system calls and an interrupt: a good frontend rings
// for what it has put there, or at most once for what was found without. Owned by VbdQueue. Reactor thread.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/reactor.h"
#include "blkback/ring/event_dispatcher.h"

namespace iscsi_blkback {

class Doorbell {
 public:
  // For nothing, one after the other.
  static constexpr std::uint32_t kMostForNothing = 16;
  static constexpr std::chrono::milliseconds kRest{1};

  Doorbell(Reactor& reactor, EventDispatcher& events);
  ~Doorbell() { unbind(); }
  Doorbell(const Doorbell&) = delete;
  Doorbell& operator=(const Doorbell&) = delete;

  // As EventDispatcher::bind().
  [[nodiscard]] Result<void> bind(DomainId domain, std::uint32_t remote_port,
                                  EventDispatcher::Handler& handler);
  void unbind();

  // From the handler's on_event().
  void rang() { masked_ = true; }
  // A request was in the ring.
  void brought_something() { for_nothing_ = 0; }
  // The ring is empty: it may ring again.
  void unmask();
  // The frontend's.
  void notify() { events_.notify(port_); }

 private:
  EventDispatcher& events_;
  LocalPort port_ = 0;
  bool bound_ = false;
  bool masked_ = false;
  std::uint32_t for_nothing_ = 0;
  Timer rest_;
};

}  // namespace iscsi_blkback
