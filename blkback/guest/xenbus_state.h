// The xenbus handshake of one disk as a pure function: what both ends' state nodes say and what we
// hold now, to the one thing to do next. The caller does it and asks again, until there is nothing
// to do. Order of events does not matter, only what is true now, so lost, repeated and reordered
// watch events are harmless. Sources: xen/io/xenbus.h, Linux xen-blkback xenbus.c
// (frontend_changed), QEMU hw/xen/xen-bus.c, libxl_device.c (generic remove).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace iscsi_blkback {

// The numbers are the protocol's (xen/io/xenbus.h).
enum class XenbusState : std::uint8_t {
  unknown = 0,  // no such node
  initialising = 1,
  init_wait = 2,
  initialised = 3,
  connected = 4,
  closing = 5,
  closed = 6,
  reconfiguring = 7,
  reconfigured = 8,
};

[[nodiscard]] const char* to_string(XenbusState state);
// A state node's text; anything but one of the numbers is unknown.
[[nodiscard]] XenbusState parse_xenbus_state(std::string_view text);

enum class RingPhase : std::uint8_t {
  idle,
  connecting,
  connected,
  disconnecting,
};

struct XenbusView {
  XenbusState frontend = XenbusState::unknown;
  XenbusState backend = XenbusState::unknown;  // our own node, as it is in xenstore now
  bool online = true;                          // the toolstack wants the disk
  bool announced = false;                      // we have written state 2 or later to this node
  bool wrote_closed = false;                   // the backend's 6 is ours, or a former process's
  bool guest_runs = true;                      // not shut down, crashed or dying
  bool device_ready = false;
  bool device_open = false;     // it may hold sessions, nobody has closed it yet
  bool device_closing = false;  // being closed, and the time for that is not over
  bool refused = false;         // the disk can never be used as it is configured
  bool size_changed = false;    // since it was published
  RingPhase ring = RingPhase::idle;
};

enum class XenbusAction : std::uint8_t {
  none,
  announce,       // write the capability nodes and state 2
  connect,        // snapshot the frontend's keys, map, bind
  publish,        // write the sizes and state 4
  tell_size,      // the same again, for a frontend that is connected
  write_closing,  // state 5; the ring goes on being served
  disconnect,     // drain, unmap, unbind
  close_device,   // nobody will use it any more
  write_closed,   // state 6
  finish,         // forget the disk: close the device, drop the watches
  replace,        // the node was made anew under us: forget the disk, then look again
};

[[nodiscard]] const char* to_string(XenbusAction action);

[[nodiscard]] XenbusAction next_action(const XenbusView& view);

enum class Adoption : std::uint8_t {
  no,                // it is over, and waits for the toolstack to remove it
  while_guest_runs,  // closed, and its frontend may start: between two handshakes
  yes,
};

// Whether a node that nobody serves is to be served: what a process would have gone on serving is,
// whenever that process has died. A frontend that is connected while its backend is closed is no
// disk between two handshakes: libxl writes 6 to the disk of a guest that is paused, shut down or
// dying, without online=0, and removes it then (libxl_device.c, device_qemu_timeout).
[[nodiscard]] Adoption adoption(XenbusState backend, XenbusState frontend, bool online);

}  // namespace iscsi_blkback
