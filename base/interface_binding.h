// InterfaceBinding: which of this host's network interfaces a connection uses, said as iscsiadm
// says it: by name, by source address or by hardware address. Plain data; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace iscsi_blkback {

struct SocketAddress;

// Empty parts demand nothing. A connection that cannot have what is demanded fails.
struct InterfaceBinding {
  std::string name = {};              // "eth1": SO_BINDTODEVICE
  std::string hardware_address = {};  // "52:54:00:12:34:56": as name, of the interface that has it
  std::string address = {};           // "192.0.2.10": the source address, numeric, without port

  [[nodiscard]] bool empty() const {
    return name.empty() && hardware_address.empty() && address.empty();
  }
  // The parts that there are, joined with '/'. Part of a session's identity: two bindings that
  // differ have different texts.
  [[nodiscard]] std::string to_string() const;
  bool operator==(const InterfaceBinding&) const = default;
};

// The longest name that Linux has (IFNAMSIZ - 1), no blank, '/' or ':'.
[[nodiscard]] bool is_interface_name(std::string_view text);
// Six bytes, "52-54-00-AB-cd-EF" or with colons, in its one spelling: lower case, colons.
[[nodiscard]] std::optional<std::string> parse_hardware_address(std::string_view text);

// The name of the interface with this hardware address (in its one spelling), for now: it is looked
// up again for each connection. Among several, as a bridge and its port are, the one that has an IP
// address. Errors: not_found; conflict, where several are left; the system call's.
[[nodiscard]] Result<std::string> find_interface(const std::string& hardware_address);

// The name of the interface that has the address, whatever its port. Errors: not_found; the system call's.
[[nodiscard]] Result<std::string> interface_having(const SocketAddress& address);

// The name of the interface that a binding which is not empty means: its name, else by hardware
// address, else the interface that has the source address. Errors: as those two.
[[nodiscard]] Result<std::string> interface_of(const InterfaceBinding& binding);

}  // namespace iscsi_blkback
