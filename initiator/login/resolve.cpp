#include "initiator/login/resolve.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "initiator/login/shared_lookups.h"

namespace iscsi_blkback {
namespace {

using Lookups = SharedLookups<std::vector<SocketAddress>>;

class ThreadedLookup final : public NameLookup {
 public:
  explicit ThreadedLookup(std::unique_ptr<Lookups::Interest> interest)
      : interest_(std::move(interest)) {}

 private:
  std::unique_ptr<Lookups::Interest> interest_;
};

class ThreadedNameResolver final : public NameResolver {
 public:
  explicit ThreadedNameResolver(BlockingResolve resolve) : resolve_(std::move(resolve)) {}

  std::unique_ptr<NameLookup> look_up(Reactor& reactor, const std::string& target_name,
                                      const std::string& host, std::uint16_t port, Answer answer,
                                      void* owner) override {
    return std::make_unique<ThreadedLookup>(lookups_.ask(
        reactor, fmt::format("{}:{}", host, port), {"target " + target_name},
        [resolve = resolve_, host, port] { return resolve(host, port); },
        [answer, owner](Result<std::vector<SocketAddress>> addresses) {
          answer(owner, std::move(addresses));
        }));
  }

 private:
  BlockingResolve resolve_;
  LookupThreads threads_;
  Lookups lookups_{threads_};
};

}  // namespace

Result<std::vector<SocketAddress>> resolve(const std::string& host, std::uint16_t port) {
  if (auto numeric = SocketAddress::parse(host, port)) {
    return std::vector{*numeric};
  } else if (numeric.error().code == ErrorCode::not_found) {
    return tl::unexpected(numeric.error());  // no such zone
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), fmt::to_string(port).c_str(), &hints, &found);
  if (status != 0) {
    const std::string why = status == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(status);
    return fail(status == EAI_AGAIN ? ErrorCode::unavailable : ErrorCode::not_found,
                fmt::format("cannot resolve the host name {}: {}; check its spelling and the DNS "
                            "settings of this host",
                            host, why));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  std::vector<SocketAddress> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    SocketAddress address;
    if (entry->ai_addrlen > sizeof(address.storage) ||
        (entry->ai_family != AF_INET && entry->ai_family != AF_INET6)) {
      continue;
    }
    std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length_bytes = entry->ai_addrlen;
    if (addresses.size() < kMaxAddressesOfName &&
        std::find(addresses.begin(), addresses.end(), address) == addresses.end()) {
      addresses.push_back(address);
    }
  }
  if (addresses.empty()) {
    return fail(ErrorCode::not_found,
                fmt::format("the host name {} has no IPv4 or IPv6 address", host));
  }
  return addresses;
}

std::unique_ptr<NameResolver> make_threaded_name_resolver(BlockingResolve resolve) {
  return std::make_unique<ThreadedNameResolver>(std::move(resolve));
}

NameResolver& system_name_resolver() {
  static const auto resolver = make_threaded_name_resolver(resolve);
  return *resolver;
}

}  // namespace iscsi_blkback
