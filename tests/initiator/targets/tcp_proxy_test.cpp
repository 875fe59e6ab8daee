// TcpProxy itself: what goes in at one end comes out at the other, except when it is told
// otherwise.
#include "tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

using Way = TcpProxy::Way;

constexpr int kProxyDeadlineMs = 30000;  // generous: only bounds a hang

sockaddr_in proxied_address(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Two ends of a connection through the proxy.
class TcpProxyTest : public testing::Test {
 protected:
  struct Pair {
    UniqueFd initiator;
    UniqueFd target;
  };

  void SetUp() override {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = proxied_address(0);
    socklen_t length = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    ASSERT_EQ(::bind(listener_.get(), generic, length), 0);
    ASSERT_EQ(::listen(listener_.get(), 8), 0);
    ASSERT_EQ(::getsockname(listener_.get(), generic, &length), 0);
    auto started = TcpProxy::start(ntohs(address.sin_port));
    ASSERT_TRUE(started) << started.error().message;
    proxy = std::move(*started);
  }

  UniqueFd dial() const {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = proxied_address(proxy->port());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  Pair connect() const {
    Pair pair;
    pair.initiator = dial();
    pair.target.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(pair.target.valid());
    return pair;
  }

  static void write(const UniqueFd& fd, const std::string& text) {
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  static bool readable(const UniqueFd& fd, int timeout_ms) {
    pollfd polled{.fd = fd.get(), .events = POLLIN, .revents = 0};
    return ::poll(&polled, 1, timeout_ms) == 1;
  }
  // Until so many bytes, the end of the stream ("|end") or an error ("|error").
  static std::string read(const UniqueFd& fd, std::size_t count) {
    std::string text;
    while (text.size() < count) {
      if (!readable(fd, kProxyDeadlineMs)) {
        return text + "|nothing";
      }
      std::string piece(count - text.size(), '\0');
      const ssize_t got = ::recv(fd.get(), piece.data(), piece.size(), 0);
      if (got <= 0) {
        return text + (got == 0 ? "|end" : "|error");
      }
      text += piece.substr(0, static_cast<std::size_t>(got));
    }
    return text;
  }
  template <class Condition>
  static bool wait_for(Condition condition) {
    for (int i = 0; i < kProxyDeadlineMs; ++i) {
      if (condition()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  std::unique_ptr<TcpProxy> proxy;

 private:
  UniqueFd listener_;
};

TEST_F(TcpProxyTest, PassesBytesBothWaysAndTheEnd) {
  Pair pair = connect();
  write(pair.initiator, "command");
  EXPECT_EQ(read(pair.target, 7), "command");
  write(pair.target, "response");
  EXPECT_EQ(read(pair.initiator, 8), "response");
  EXPECT_EQ(proxy->forwarded(Way::to_target), 7U);
  EXPECT_EQ(proxy->forwarded(Way::to_initiator), 8U);
  pair.target.reset();
  EXPECT_EQ(read(pair.initiator, 1), "|end");
}

TEST_F(TcpProxyTest, PassesOnAReset) {
  Pair pair = connect();
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.initiator.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  pair.initiator.reset();
  EXPECT_EQ(read(pair.target, 1), "|error");
}

TEST_F(TcpProxyTest, StallsOneWayUntilReleased) {
  const Pair pair = connect();
  proxy->stall(Way::to_target);
  write(pair.initiator, "late");
  write(pair.target, "prompt");
  EXPECT_EQ(read(pair.initiator, 6), "prompt");
  EXPECT_TRUE(wait_for([this] { return proxy->stalled(Way::to_target) == 4; }));
  EXPECT_FALSE(readable(pair.target, 0));
  proxy->release();
  EXPECT_EQ(read(pair.target, 4), "late");
}

TEST_F(TcpProxyTest, ReleasesBytesOfAConnectionThatItsSenderHasLeft) {
  Pair pair = connect();
  proxy->stall(Way::to_target);
  write(pair.initiator, "stale");
  EXPECT_TRUE(wait_for([this] { return proxy->stalled(Way::to_target) == 5; }));
  pair.initiator.reset();
  const Pair second = connect();  // is not stalled
  write(second.initiator, "new");
  EXPECT_EQ(read(second.target, 3), "new");
  EXPECT_FALSE(readable(pair.target, 0));
  proxy->release();
  EXPECT_EQ(read(pair.target, 6), "stale|end");
}

TEST_F(TcpProxyTest, DelaysBytes) {
  const Pair pair = connect();
  constexpr std::chrono::milliseconds kDelay{50};
  proxy->set_delay(kDelay);
  const auto began = std::chrono::steady_clock::now();
  write(pair.initiator, "slow");
  EXPECT_EQ(read(pair.target, 4), "slow");
  EXPECT_GE(std::chrono::steady_clock::now() - began, kDelay);
}

TEST_F(TcpProxyTest, CutsAfterANumberOfBytesWithFin) {
  const Pair pair = connect();
  proxy->cut_after(Way::to_initiator, 3, TcpProxy::Ending::fin);
  write(pair.target, "12345");
  EXPECT_EQ(read(pair.initiator, 5), "123|end");
}

TEST_F(TcpProxyTest, CutsAfterANumberOfBytesWithReset) {
  const Pair pair = connect();
  proxy->cut_after(Way::to_target, 5, TcpProxy::Ending::reset);
  write(pair.initiator, "123");
  EXPECT_EQ(read(pair.target, 3), "123");
  write(pair.initiator, "456");
  const std::string rest = read(pair.target, 3);  // a reset may overtake the last bytes
  EXPECT_TRUE(rest == "45|error" || rest == "|error") << rest;
  EXPECT_EQ(read(pair.initiator, 1), "|error");
}

TEST_F(TcpProxyTest, ResetsBothEnds) {
  const Pair pair = connect();
  proxy->reset();
  EXPECT_EQ(read(pair.initiator, 1), "|error");
  EXPECT_EQ(read(pair.target, 1), "|error");
  EXPECT_TRUE(wait_for([this] { return proxy->open() == 0; }));
}

TEST_F(TcpProxyTest, RefusesConnections) {
  proxy->set_refusing(true);
  const UniqueFd refused = dial();
  EXPECT_EQ(read(refused, 1), "|error");
  proxy->set_refusing(false);
  const Pair pair = connect();
  write(pair.initiator, "again");
  EXPECT_EQ(read(pair.target, 5), "again");
  EXPECT_EQ(proxy->accepted(), 2U);
}

}  // namespace
}  // namespace iscsi_blkback
