// A network of a test's own, in a namespace that is gone with the test, and a connection of the real
// reactor in it.
#pragma once

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "base/uring_reactor.h"

namespace iscsi_blkback {

class LinkOwner final : public ByteStream::Owner {
 public:
  void on_connected() noexcept override { connected = true; }
  void on_sent() noexcept override {}
  void on_received(std::size_t) noexcept override {}
  void on_closed(const Error& error) noexcept override { closed = error; }

  bool connected = false;
  std::optional<Error> closed;
};

// Runs test in a network namespace of its own.
inline void isolated(void (*test)()) {
  bool isolated = false;
  std::thread thread([&] {
    isolated = unshare(CLONE_NEWNET) == 0;
    if (isolated) {
      test();
    }
  });
  thread.join();
  if (!isolated) {
    GTEST_SKIP() << "no network namespace without root";
  }
}

inline bool set_up(const char* interface, bool up) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, interface);
  if (ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) {
    return false;
  }
  request.ifr_flags =
      static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  return ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0;
}

inline bool ip(const std::string& arguments) {
  return std::system(("ip " + arguments + " 2>/dev/null").c_str()) == 0;
}

// A connection to an address of this host.
struct Connection {
  explicit Connection(const char* address,
                      std::chrono::milliseconds user_timeout = std::chrono::seconds(10)) {
    const auto at = SocketAddress::parse(address, 3260).value();
    EXPECT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&at.storage), at.length_bytes),
              0);
    EXPECT_EQ(listen(listener.get(), 1), 0);
    stream = reactor->connect(
        {.address = at, .interface_binding = {}, .tcp_user_timeout = user_timeout}, owner);
    EXPECT_TRUE(run_until([&] { return owner.connected || owner.closed; }) && owner.connected);
  }
  ~Connection() {
    stream->reset();
    EXPECT_TRUE(run_until([&] { return owner.closed.has_value(); }));
  }
  bool run_until(const std::function<bool()>& done) {
    const TimePoint patience = reactor->now() + std::chrono::seconds(20);
    while (!done() && reactor->now() < patience) {
      reactor->run_once(std::chrono::milliseconds(100));
    }
    return done();
  }
  const UniqueFd listener{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const std::unique_ptr<UringReactor> reactor = std::move(UringReactor::create().value());
  LinkOwner owner;
  std::unique_ptr<ByteStream> stream;
};

}  // namespace iscsi_blkback
