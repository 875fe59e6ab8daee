#include "base/link_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstring>
#include <span>
#include <string>

#include "tests/base/isolated_network.h"

namespace iscsi_blkback {
namespace {

constexpr unsigned kLowerUp = 1U << 16;

std::vector<std::byte> message(std::uint16_t type, int index, unsigned flags,
                               unsigned char family = AF_UNSPEC) {
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof(ifinfomsg));
  header.nlmsg_type = type;
  ifinfomsg link{};
  link.ifi_family = family;
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

TEST(LinkWatchMessages, ABridgesMessagesAboutItsPortsAreNotTheInterfacesOwn) {
  const auto messages = message(RTM_DELLINK, 3, IFF_UP | kLowerUp, AF_BRIDGE) +
                        message(RTM_NEWLINK, 4, IFF_UP, AF_BRIDGE) +
                        message(RTM_NEWLINK, 5, IFF_UP, AF_INET6) +
                        message(RTM_DELLINK, 6, IFF_UP | kLowerUp);
  EXPECT_EQ(links_down(messages), (Indexes{6}));
}

// What Linux 6.18 sends when interface 3 (v0, up, with a carrier) leaves bridge 4.
TEST(LinkWatchMessages, AnInterfaceThatLeavesItsBridgeIsInGoodHealth) {
  // clang-format off
  constexpr unsigned char kLeaves[] = {
      0x54, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,         // nlmsghdr: RTM_DELLINK
      7, 0, 1, 0, 3, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0,         // ifinfomsg: AF_BRIDGE
      7, 0, 3, 0, 'v', '0', 0, 0,                                   // IFLA_IFNAME
      8, 0, 10, 0, 4, 0, 0, 0,                                      // IFLA_MASTER
      8, 0, 4, 0, 0xdc, 5, 0, 0,                                    // IFLA_MTU
      5, 0, 16, 0, 6, 0, 0, 0,                                      // IFLA_OPERSTATE
      10, 0, 1, 0, 0x22, 0xd4, 0xd8, 0x84, 0x3a, 0xdd, 0, 0,        // IFLA_ADDRESS
      8, 0, 5, 0, 2, 0, 0, 0};                                      // IFLA_LINK
  // clang-format on
  EXPECT_EQ(links_down(std::as_bytes(std::span(kLeaves))), Indexes{});
  auto gone = std::to_array(kLeaves);
  gone[16] = AF_UNSPEC;
  EXPECT_EQ(links_down(std::as_bytes(std::span(gone))), Indexes{3});
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

void expect_lost(Connection& connection) {
  ASSERT_TRUE(connection.run_until([&] { return connection.owner.closed.has_value(); }));
  EXPECT_THAT(connection.owner.closed->message,
              testing::HasSubstr("the network interface has lost its link"));
}

TEST(LinkWatch, EndsConnectionsThroughALinkThatIsLost) {
  isolated([] {
    ASSERT_TRUE(set_up("lo", true));
    Connection connection("127.0.0.1");
    EXPECT_TRUE(set_up("lo", false));
    expect_lost(connection);
    EXPECT_EQ(connection.owner.closed->message,
              "connection to 127.0.0.1:3260: the network interface has lost its link");
  });
}

// The socket has room for some hundred messages, and says ENOBUFS when there were more.
TEST(LinkWatch, EndsConnectionsThroughALinkWhoseMessageWasLost) {
  isolated([] {
    if (!ip("link add v0 type veth peer name v1") || !ip("link set v0 up")) {
      GTEST_SKIP() << "no veth interfaces here";
    }
    ASSERT_TRUE(set_up("lo", true));
    Connection connection("127.0.0.1");
    for (int change = 0; change < 1000; ++change) {
      ASSERT_TRUE(set_up("v1", change % 2 == 0));
    }
    EXPECT_TRUE(set_up("lo", false));
    expect_lost(connection);
  });
}

TEST(LinkWatch, AnInterfaceThatJoinsAndLeavesABridgeKeepsItsConnections) {
  isolated([] {
    if (!ip("link add v0 type veth peer name v1") || !ip("link add b0 type bridge")) {
      GTEST_SKIP() << "no veth interfaces or bridges here";
    }
    ASSERT_TRUE(set_up("lo", true) && set_up("v0", true) && set_up("v1", true) &&
                set_up("b0", true));
    ASSERT_TRUE(ip("address add 192.0.2.1/24 dev v0"));
    Connection connection("192.0.2.1");
    ASSERT_TRUE(ip("link set v0 master b0") && ip("link set v0 nomaster"));
    for (int turn = 0; turn < 5; ++turn) {
      connection.reactor->run_once(std::chrono::milliseconds(20));
    }
    EXPECT_FALSE(connection.owner.closed) << connection.owner.closed->message;
    EXPECT_TRUE(set_up("v0", false));
    expect_lost(connection);
  });
}

}  // namespace
}  // namespace iscsi_blkback
