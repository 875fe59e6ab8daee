// BarrierNexus: how to log in to where a path of a disk has led, as the disk tells it to those that
// come after its process has died. Values, and how they stand in a BarrierFile. Any thread; no
// system calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "initiator/session/session.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/path/login_nexus.h"

namespace iscsi_blkback {

// With the ISID that the path had.
struct BarrierNexus {
  Isid isid{};
  std::uint16_t session_number = 0;
  std::string initiator_name;
  std::string target_name;
  SocketAddress portal;  // Session::portal_address() of its last login
  InterfaceBinding interface_binding;
  LoginNexus login;  // the last
};

// nullopt: it is not in use, or what it says is no nexus. Whoever has written it is not trusted.
[[nodiscard]] std::optional<BarrierNexus> read_nexus(barrier_layout::Nexus& stored);
// By its holder.
void write_nexus(barrier_layout::Nexus& stored, const BarrierNexus& nexus);

}  // namespace iscsi_blkback
