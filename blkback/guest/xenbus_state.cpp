#include "blkback/guest/xenbus_state.h"

namespace iscsi_blkback {
namespace {

// The disk ends here: the device is closed before state 6 says that nothing of it is left.
XenbusAction end(const XenbusView& view) {
  if (view.ring == RingPhase::connected) {
    return XenbusAction::disconnect;
  }
  if (view.device_open) {
    return XenbusAction::close_device;
  }
  if (view.device_closing) {
    return XenbusAction::none;
  }
  if (view.backend != XenbusState::closed) {
    return XenbusAction::write_closed;
  }
  return XenbusAction::finish;
}

// The frontend is closed or gone, but the toolstack keeps the disk: it may come back.
XenbusAction rest(const XenbusView& view) {
  if (view.ring == RingPhase::connected) {
    return XenbusAction::disconnect;
  }
  return view.backend == XenbusState::closed ? XenbusAction::none : XenbusAction::write_closed;
}

XenbusAction frontend_starts(const XenbusView& view) {
  if (view.ring == RingPhase::connected) {
    return XenbusAction::disconnect;  // it restarted without closing: kexec, crash, Windows
  }
  if (!view.online) {
    return end(view);
  }
  if (view.announced && view.backend == XenbusState::init_wait) {
    return XenbusAction::none;
  }
  return XenbusAction::announce;
}

XenbusAction frontend_waits(const XenbusView& view) {
  if (view.ring == RingPhase::connected) {
    return XenbusAction::none;
  }
  if (!view.online) {
    return end(view);
  }
  return view.announced ? XenbusAction::none : XenbusAction::announce;
}

XenbusAction frontend_connects(const XenbusView& view) {
  const bool before_connected =
      view.backend == XenbusState::init_wait || view.backend == XenbusState::initialised;
  if (view.ring == RingPhase::connected) {
    if (before_connected) {
      return XenbusAction::publish;
    }
    return view.size_changed && view.backend == XenbusState::connected &&
                   view.frontend == XenbusState::connected
               ? XenbusAction::tell_size
               : XenbusAction::none;
  }
  switch (view.backend) {
    case XenbusState::initialising:
      return XenbusAction::announce;
    case XenbusState::init_wait:
    case XenbusState::initialised:
      if (!view.announced) {
        return XenbusAction::announce;
      }
      if (view.refused) {
        return XenbusAction::write_closing;
      }
      return view.device_ready ? XenbusAction::connect : XenbusAction::none;
    case XenbusState::connected:
      // The ring broke, or its process died: requests in it cannot be told from answered ones, so
      // nothing but a new handshake is safe.
      return XenbusAction::write_closing;
    case XenbusState::closed:
      // It closed and came back before we saw it start. Without our own 6 the toolstack closed it.
      return view.wrote_closed && view.online ? XenbusAction::announce : XenbusAction::none;
    case XenbusState::unknown:
    case XenbusState::closing:
    case XenbusState::reconfiguring:
    case XenbusState::reconfigured:
      break;
  }
  return XenbusAction::none;
}

}  // namespace

const char* to_string(XenbusState state) {
  switch (state) {
    case XenbusState::unknown:
      return "Unknown";
    case XenbusState::initialising:
      return "Initialising";
    case XenbusState::init_wait:
      return "InitWait";
    case XenbusState::initialised:
      return "Initialised";
    case XenbusState::connected:
      return "Connected";
    case XenbusState::closing:
      return "Closing";
    case XenbusState::closed:
      return "Closed";
    case XenbusState::reconfiguring:
      return "Reconfiguring";
    case XenbusState::reconfigured:
      return "Reconfigured";
  }
  return "Unknown";
}

XenbusState parse_xenbus_state(std::string_view text) {
  if (text.size() == 1 && text[0] >= '1' && text[0] <= '8') {
    return static_cast<XenbusState>(text[0] - '0');
  }
  return XenbusState::unknown;
}

const char* to_string(XenbusAction action) {
  switch (action) {
    case XenbusAction::none:
      return "none";
    case XenbusAction::announce:
      return "announce";
    case XenbusAction::connect:
      return "connect";
    case XenbusAction::publish:
      return "publish";
    case XenbusAction::tell_size:
      return "tell_size";
    case XenbusAction::write_closing:
      return "write_closing";
    case XenbusAction::disconnect:
      return "disconnect";
    case XenbusAction::close_device:
      return "close_device";
    case XenbusAction::write_closed:
      return "write_closed";
    case XenbusAction::finish:
      return "finish";
    case XenbusAction::replace:
      return "replace";
  }
  return "none";
}

XenbusAction next_action(const XenbusView& view) {
  if (view.ring == RingPhase::connecting || view.ring == RingPhase::disconnecting) {
    return XenbusAction::none;  // its end is an event of its own
  }
  const bool ring_connected = view.ring == RingPhase::connected;
  if (view.backend == XenbusState::unknown) {
    return ring_connected ? XenbusAction::disconnect : XenbusAction::finish;
  }
  if (view.announced && view.backend == XenbusState::initialising) {
    return ring_connected ? XenbusAction::disconnect : XenbusAction::replace;
  }
  if (!view.guest_runs) {
    return end(view);
  }
  if (view.backend == XenbusState::closed &&
      (!view.online || (view.announced && !view.wrote_closed))) {
    return end(view);  // libxl closes the disk of a dying or paused guest itself
  }
  switch (view.frontend) {
    case XenbusState::unknown:
    case XenbusState::closed:
      return view.online ? rest(view) : end(view);
    case XenbusState::closing: {
      // A Linux frontend that has failed before it was connected stays in this state for ever.
      if (!view.online && !ring_connected) {
        return end(view);
      }
      // Linux before 5.14 goes on using a disk that it has open, so the ring is served until
      // Closed.
      const bool told = view.backend == XenbusState::closing || view.backend == XenbusState::closed;
      return told ? XenbusAction::none : XenbusAction::write_closing;
    }
    case XenbusState::initialising:
      return frontend_starts(view);
    case XenbusState::init_wait:
      return frontend_waits(view);
    case XenbusState::initialised:
    case XenbusState::connected:
      return frontend_connects(view);
    case XenbusState::reconfiguring:
    case XenbusState::reconfigured:
      break;  // a guest may write anything
  }
  return XenbusAction::none;
}

Adoption adoption(XenbusState backend, XenbusState frontend, bool online) {
  if (backend == XenbusState::unknown) {
    return Adoption::no;
  }
  if (backend != XenbusState::closed) {
    return Adoption::yes;
  }
  const bool connects = frontend == XenbusState::initialised || frontend == XenbusState::connected;
  return online && !connects ? Adoption::while_guest_runs : Adoption::no;
}

}  // namespace iscsi_blkback
