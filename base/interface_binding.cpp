#include "base/interface_binding.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>

#include "base/byte_stream.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kHardwareAddressBytes = 6;

std::string hardware_address_of(const sockaddr* address) {
  sockaddr_ll link{};
  std::memcpy(&link, address, sizeof link);
  if (link.sll_halen != kHardwareAddressBytes) {
    return {};
  }
  std::string text;
  for (std::size_t i = 0; i < kHardwareAddressBytes; ++i) {
    text += fmt::format("{}{:02x}", i == 0 ? "" : ":", link.sll_addr[i]);
  }
  return text;
}

using Interfaces = std::unique_ptr<ifaddrs, void (*)(ifaddrs*)>;

Result<Interfaces> list_interfaces() {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) {
    return tl::unexpected(system_error("cannot list the network interfaces", errno));
  }
  return Interfaces(first, &::freeifaddrs);
}

bool same_host(const sockaddr& one, const SocketAddress& other) {
  if (one.sa_family != other.storage.ss_family) {
    return false;
  }
  if (one.sa_family == AF_INET) {
    sockaddr_in a{};
    sockaddr_in b{};
    std::memcpy(&a, &one, sizeof a);
    std::memcpy(&b, &other.storage, sizeof b);
    return a.sin_addr.s_addr == b.sin_addr.s_addr;
  }
  if (one.sa_family == AF_INET6) {
    sockaddr_in6 a{};
    sockaddr_in6 b{};
    std::memcpy(&a, &one, sizeof a);
    std::memcpy(&b, &other.storage, sizeof b);
    return std::memcmp(&a.sin6_addr, &b.sin6_addr, sizeof a.sin6_addr) == 0;
  }
  return false;
}

}  // namespace

std::string InterfaceBinding::to_string() const {
  std::string text;
  for (const std::string* part : {&name, &hardware_address, &address}) {
    if (!part->empty()) {
      text += (text.empty() ? "" : "/") + *part;
    }
  }
  return text;
}

bool is_interface_name(std::string_view text) {
  return !text.empty() && text.size() < IFNAMSIZ &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c > ' ' && c != '/' && c != ':' && c != 0x7f; });
}

std::optional<std::string> parse_hardware_address(std::string_view text) {
  if (text.size() != kHardwareAddressBytes * 3 - 1) {
    return std::nullopt;
  }
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char folded = static_cast<char>(text[at] | 0x20);
    if (at % 3 == 2) {
      if (text[at] != ':' && text[at] != '-') {
        return std::nullopt;
      }
      result.push_back(':');
    } else if ((text[at] >= '0' && text[at] <= '9') || (folded >= 'a' && folded <= 'f')) {
      result.push_back(text[at] <= '9' ? text[at] : folded);
    } else {
      return std::nullopt;
    }
  }
  return result;
}

Result<std::string> find_interface(const std::string& hardware_address) {
  const Result<Interfaces> interfaces = list_interfaces();
  if (!interfaces) {
    return tl::unexpected(interfaces.error());
  }
  std::set<std::string> having;
  std::set<std::string> with_ip;
  for (const ifaddrs* entry = interfaces->get(); entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) {
      continue;
    }
    if (entry->ifa_addr->sa_family != AF_PACKET) {
      with_ip.insert(entry->ifa_name);
    } else if (hardware_address_of(entry->ifa_addr) == hardware_address) {
      having.insert(entry->ifa_name);
    }
  }
  if (having.size() > 1) {
    std::erase_if(having, [&](const std::string& name) { return !with_ip.contains(name); });
    if (having.size() != 1) {
      return fail(ErrorCode::conflict,
                  fmt::format("several network interfaces have the hardware address {}; name the "
                              "interface instead",
                              hardware_address));
    }
  }
  if (having.empty()) {
    return fail(ErrorCode::not_found,
                fmt::format("no network interface has the hardware address {}", hardware_address));
  }
  return *having.begin();
}

Result<std::string> interface_of(const InterfaceBinding& binding) {
  if (!binding.name.empty()) {
    return binding.name;
  }
  if (!binding.hardware_address.empty()) {
    return find_interface(binding.hardware_address);
  }
  const Result<SocketAddress> wanted = SocketAddress::parse(binding.address, 0);
  if (!wanted) {
    return tl::unexpected(wanted.error());
  }
  return interface_having(*wanted);
}

Result<std::string> interface_having(const SocketAddress& address) {
  const Result<Interfaces> interfaces = list_interfaces();
  if (!interfaces) {
    return tl::unexpected(interfaces.error());
  }
  for (const ifaddrs* entry = interfaces->get(); entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr != nullptr && same_host(*entry->ifa_addr, address)) {
      return std::string(entry->ifa_name);
    }
  }
  return fail(ErrorCode::not_found, "no network interface has the address " + address.to_string());
}

}  // namespace iscsi_blkback
