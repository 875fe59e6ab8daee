// ByteStream::peer_silence() where the way to the peer ends, with the real kernel in a network of its own.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdlib>
#include <optional>
#include <thread>

#include "base/unique_fd.h"
#include "base/uring_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

class Owner final : public ByteStream::Owner {
 public:
  void on_connected() noexcept override { connected = true; }
  void on_sent() noexcept override {}
  void on_received(std::size_t) noexcept override {}
  void on_closed(const Error& error) noexcept override { closed = error; }
  bool connected = false;
  std::optional<Error> closed;
};

void lose_the_way() {
  ASSERT_EQ(std::system("ip link set lo up"), 0);
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(3260);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  auto reactor = UringReactor::create();
  ASSERT_TRUE(reactor) << reactor.error().message;
  Owner owner;
  const auto stream = (*reactor)->connect(
      {.address = SocketAddress::parse("127.0.0.1", 3260).value(),
       .interface_binding = {},
       .tcp_user_timeout = seconds(60)},
      owner);
  const TimePoint patience = (*reactor)->now() + seconds(60);
  const auto run_until = [&](auto predicate) {
    while (!predicate() && !owner.closed && (*reactor)->now() < patience) {
      (*reactor)->run_once(std::chrono::milliseconds(100));
    }
    return predicate();
  };
  ASSERT_TRUE(run_until([&] { return owner.connected; }));
  EXPECT_LT(stream->peer_silence(), seconds(1));
  ASSERT_EQ(std::system("ip addr del 127.0.0.1/8 dev lo"), 0);
  EXPECT_TRUE(run_until([&] { return stream->peer_silence() >= seconds(3); }));
  stream->reset();
  while (!owner.closed) {
    (*reactor)->run_once(std::chrono::milliseconds(100));
  }
}

TEST(PeerSilence, GrowsWhenTheWayToThePeerEnds) {
  bool isolated = false;
  std::thread thread([&] {
    isolated = unshare(CLONE_NEWNET) == 0;
    if (isolated) {
      lose_the_way();
    }
  });
  thread.join();
  if (!isolated) {
    GTEST_SKIP() << "no network namespace without root";
  }
}

}  // namespace
}  // namespace iscsi_blkback
