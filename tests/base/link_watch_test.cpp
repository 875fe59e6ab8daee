#include "base/link_watch.h"

#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <cstring>
#include <optional>
#include <thread>

#include "base/uring_reactor.h"

namespace iscsi_blkback {
namespace {

constexpr unsigned kLowerUp = 1U << 16;

std::vector<std::byte> message(std::uint16_t type, int index, unsigned flags) {
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof(ifinfomsg));
  header.nlmsg_type = type;
  ifinfomsg link{};
  link.ifi_index = index;
  link.ifi_flags = flags;
  std::vector<std::byte> bytes(NLMSG_ALIGN(header.nlmsg_len));
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(bytes.data() + NLMSG_HDRLEN, &link, sizeof link);
  return bytes;
}

std::vector<std::byte> operator+(std::vector<std::byte> one, const std::vector<std::byte>& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

using Indexes = std::vector<int>;

TEST(LinkWatchMessages, NamesLinksWithoutCarrierDownOrGone) {
  const auto messages = message(RTM_NEWLINK, 2, IFF_UP | kLowerUp) +
                        message(RTM_NEWLINK, 3, IFF_UP) + message(RTM_NEWLINK, 4, kLowerUp) +
                        message(RTM_DELLINK, 5, IFF_UP | kLowerUp) + message(RTM_NEWADDR, 6, 0);
  EXPECT_EQ(links_down(messages), (Indexes{3, 4, 5}));
}

TEST(LinkWatchMessages, AMessageThatIsLongerThanWhatArrivedEndsTheReading) {
  auto messages = message(RTM_NEWLINK, 3, 0) + message(RTM_NEWLINK, 4, 0);
  messages.pop_back();
  EXPECT_EQ(links_down(messages), (Indexes{3}));
}

TEST(LinkWatchMessages, ALengthBelowTheHeaderEndsTheReading) {
  auto messages = message(RTM_NEWLINK, 3, 0) + message(RTM_NEWLINK, 4, 0);
  const std::uint32_t length = 4;
  std::memcpy(messages.data() + messages.size() / 2, &length, sizeof length);
  EXPECT_EQ(links_down(messages), (Indexes{3}));
}

TEST(LinkWatchMessages, AMessageWithoutALinkIsPassedOver) {
  auto shorter = message(RTM_NEWLINK, 3, 0);
  const std::uint32_t length = NLMSG_HDRLEN;
  std::memcpy(shorter.data(), &length, sizeof length);
  shorter.resize(NLMSG_HDRLEN);
  EXPECT_EQ(links_down(shorter + message(RTM_NEWLINK, 4, 0)), (Indexes{4}));
}

class LinkOwner final : public ByteStream::Owner {
 public:
  void on_connected() noexcept override { connected = true; }
  void on_sent() noexcept override {}
  void on_received(std::size_t) noexcept override {}
  void on_closed(const Error& error) noexcept override { closed = error; }

  bool connected = false;
  std::optional<Error> closed;
};

bool set_up(int fd, bool up) {
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
    return false;
  }
  request.ifr_flags =
      static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

// A network namespace of this thread's own, whose only interface goes down under a connection.
void lose_the_link() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(set_up(listener.get(), true));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(3260);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);

  auto reactor = UringReactor::create();
  ASSERT_TRUE(reactor) << reactor.error().message;
  LinkOwner owner;
  const auto stream = (*reactor)->connect(
      {.address = SocketAddress::parse("127.0.0.1", 3260).value(), .interface_binding = {}}, owner);
  const TimePoint patience = (*reactor)->now() + std::chrono::seconds(20);
  while (!owner.connected && !owner.closed && (*reactor)->now() < patience) {
    (*reactor)->run_once(std::chrono::milliseconds(100));
  }
  EXPECT_TRUE(owner.connected);
  EXPECT_TRUE(set_up(listener.get(), false));
  while (!owner.closed && (*reactor)->now() < patience) {
    (*reactor)->run_once(std::chrono::milliseconds(100));
  }
  ASSERT_TRUE(owner.closed);
  EXPECT_EQ(owner.closed->message,
            "connection to 127.0.0.1:3260: the network interface has lost its link");
}

TEST(LinkWatch, EndsConnectionsThroughALinkThatIsLost) {
  bool isolated = false;
  std::thread thread([&] {
    isolated = unshare(CLONE_NEWNET) == 0;
    if (isolated) {
      lose_the_link();
    }
  });
  thread.join();
  if (!isolated) {
    GTEST_SKIP() << "no network namespace without root";
  }
}

}  // namespace
}  // namespace iscsi_blkback
