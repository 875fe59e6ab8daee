#include "base/byte_stream.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <charconv>
#include <cstring>

namespace iscsi_blkback {
namespace {

// Copied out and in, not cast: sockaddr_storage holds no object of these types.
template <class T>
T read_as(const sockaddr_storage& storage) {
  T address;
  std::memcpy(&address, &storage, sizeof address);
  return address;
}

template <class T>
SocketAddress store(const T& address) {
  SocketAddress result;
  std::memcpy(&result.storage, &address, sizeof address);
  result.length_bytes = sizeof address;
  return result;
}

// The zone of a link-local address ("eth0" or "3"); 0: no such interface.
std::uint32_t scope_of(const std::string& zone) {
  std::uint32_t number = 0;
  const char* end = zone.data() + zone.size();
  if (const auto [at, error] = std::from_chars(zone.data(), end, number);
      error == std::errc() && at == end) {
    return number;
  }
  return if_nametoindex(zone.c_str());
}

}  // namespace

Result<SocketAddress> SocketAddress::parse(const std::string& host, std::uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    return store(v4);
  }
  const std::size_t percent = host.find('%');
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (inet_pton(AF_INET6, host.substr(0, percent).c_str(), &v6.sin6_addr) != 1) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" is not a numeric IPv4 or IPv6 address", host));
  }
  if (percent != std::string::npos) {
    v6.sin6_scope_id = scope_of(host.substr(percent + 1));
    if (v6.sin6_scope_id == 0) {
      return fail(
          ErrorCode::not_found,
          fmt::format("the address {} names a network interface that does not exist", host));
    }
  }
  return store(v6);
}

std::string SocketAddress::host() const {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.ss_family == AF_INET) {
    const auto v4 = read_as<sockaddr_in>(storage);
    return inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
  }
  if (storage.ss_family == AF_INET6) {
    const auto v6 = read_as<sockaddr_in6>(storage);
    inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
    return v6.sin6_scope_id == 0 ? std::string(text.data())
                                 : fmt::format("{}%{}", text.data(), v6.sin6_scope_id);
  }
  return "(no address)";
}

std::uint16_t SocketAddress::port() const {
  return storage.ss_family == AF_INET    ? ntohs(read_as<sockaddr_in>(storage).sin_port)
         : storage.ss_family == AF_INET6 ? ntohs(read_as<sockaddr_in6>(storage).sin6_port)
                                         : std::uint16_t{0};
}

std::string SocketAddress::to_string() const {
  return storage.ss_family == AF_INET    ? fmt::format("{}:{}", host(), port())
         : storage.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host(), port())
                                         : host();
}

bool SocketAddress::operator==(const SocketAddress& other) const {
  if (storage.ss_family != other.storage.ss_family) {
    return false;
  }
  if (storage.ss_family == AF_INET) {
    const auto a = read_as<sockaddr_in>(storage);
    const auto b = read_as<sockaddr_in>(other.storage);
    return a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr;
  }
  if (storage.ss_family == AF_INET6) {
    const auto a = read_as<sockaddr_in6>(storage);
    const auto b = read_as<sockaddr_in6>(other.storage);
    return a.sin6_port == b.sin6_port && a.sin6_scope_id == b.sin6_scope_id &&
           std::memcmp(&a.sin6_addr, &b.sin6_addr, sizeof a.sin6_addr) == 0;
  }
  return true;
}

}  // namespace iscsi_blkback
