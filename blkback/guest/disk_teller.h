// DiskTeller: what the I/O side has to tell of one disk goes by this to the control thread, and from
// there to whoever listens then; when nobody does any more, it is dropped. A copy tells the same
// listeners.
#pragma once

#include <memory>
#include <utility>

#include "base/reactor.h"
#include "blkback/guest/data_plane.h"

namespace iscsi_blkback {

class DiskTeller {
 public:
  // Control thread, as are the next two. events and control outlive every event, or end() comes.
  DiskTeller(Reactor& control, DiskEvents& events)
      : control_(control), listeners_(std::make_shared<Listeners>(Listeners{.disk = &events})) {}
  void set_ring_events(RingEvents& events) { listeners_->ring = &events; }
  void end() { *listeners_ = {}; }

  // Any thread. event: called with the listener.
  template <class Event>
  void tell_disk(Event&& event) const {
    tell(&Listeners::disk, std::forward<Event>(event));
  }
  template <class Event>
  void tell_ring(Event&& event) const {
    tell(&Listeners::ring, std::forward<Event>(event));
  }

 private:
  struct Listeners {  // the control thread's
    DiskEvents* disk = nullptr;
    RingEvents* ring = nullptr;
  };

  template <class Events, class Event>
  void tell(Events* Listeners::*which, Event&& event) const {
    control_.post([listeners = listeners_, which, event = std::forward<Event>(event)] {
      if (Events* events = (*listeners).*which; events != nullptr) {
        event(*events);
      }
    });
  }

  Reactor& control_;
  std::shared_ptr<Listeners> listeners_;
};

}  // namespace iscsi_blkback
