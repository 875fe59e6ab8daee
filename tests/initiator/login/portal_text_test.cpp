// Portals as text: what is taken, as what, and what is refused.
#include "initiator/login/portal_text.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "initiator/login/target_address.h"
#include "tests/support/hostile_text.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string understood(std::string_view text, UnbracketedPort rule) {
  const auto portal = parse_portal_text(text, rule);
  if (!portal) {
    return portal.error().message;
  }
  std::string result = portal->host;
  if (portal->port) {
    result += fmt::format(" port {}", *portal->port);
  }
  if (portal->group_tag) {
    result += fmt::format(" group {}", *portal->group_tag);
  }
  return result;
}

TEST(PortalText, IsTaken) {
  struct Case {
    const char* text;
    const char* meaning;
  };
  const Case cases[] = {
      {"192.0.2.1", "192.0.2.1"},
      {"192.0.2.1:3261", "192.0.2.1 port 3261"},
      {"192.0.2.1:3260,1", "192.0.2.1 port 3260 group 1"},
      {"192.0.2.1,0", "192.0.2.1 group 0"},
      {"192.0.2.1:860,65535", "192.0.2.1 port 860 group 65535"},
      {"192.0.2.1:3260,-1", "192.0.2.1 port 3260"},
      {"192.0.2.1:3260,4294967295", "192.0.2.1 port 3260"},
      {"192.0.2.1:3260,0x0001", "192.0.2.1 port 3260 group 1"},
      {"san-1.example", "san-1.example"},
      {"san_1.example.:3261,2", "san_1.example. port 3261 group 2"},
      {"1.san.example", "1.san.example"},
      {"2001:db8::1", "2001:db8::1"},
      {"2001:DB8::1,1", "2001:DB8::1 group 1"},
      {"::1", "::1"},
      {"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
      {"2001:db8::10:1", "2001:db8::10:1"},
      {"2001:db8:1:2:3:4:5:3260", "2001:db8:1:2:3:4:5:3260"},
      {"2001:db8:1:2:3:4:5:6:3260", "2001:db8:1:2:3:4:5:6 port 3260"},
      {"[2001:db8::1]", "2001:db8::1"},
      {"[2001:db8::1]:3261", "2001:db8::1 port 3261"},
      {"[2001:db8::1]:3260,1", "2001:db8::1 port 3260 group 1"},
      {"[2001:db8::1],4294967295", "2001:db8::1"},
      {"[2001:db8::1:3260]", "2001:db8::1:3260"},
      {"fe80::1%eth1", "fe80::1%eth1"},
      {"fe80::1%2,1", "fe80::1%2 group 1"},
      {"fe80::1%eth1:3261", "fe80::1%eth1 port 3261"},
      {"[fe80::1%eth1]", "fe80::1%eth1"},
      {"[fe80::1%br-san.100]:3260,1", "fe80::1%br-san.100 port 3260 group 1"},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(understood(one.text, UnbracketedPort::refuse), one.meaning) << one.text;
    EXPECT_EQ(understood(one.text, UnbracketedPort::take), one.meaning) << one.text;
  }
}

TEST(PortalText, IsRefusedByName) {
  struct Case {
    const char* text;
    const char* why;
  };
  const Case cases[] = {
      {"", "no host name or address"},
      {":3260", "no host name or address"},
      {",1", "no host name or address"},
      {"192.0.2.1:", "port is not a number"},
      {"192.0.2.1:0", "port is not a number"},
      {"192.0.2.1:65536", "port is not a number"},
      {"192.0.2.1:3260:1", "neither a valid IPv6 address"},
      {"192.0.2.1:3260 ", "port is not a number"},
      {"192.0.2.1:+3260", "port is not a number"},
      {"192.0.2.1,", "group tag"},
      {"192.0.2.1,65536", "group tag"},
      {"192.0.2.1,1,2", "group tag"},
      {"192.0.2.1, 1", "group tag"},
      {"192.0.2.1,-2", "group tag"},
      {"192.0.2.1%eth1", "IPv4 address has a zone"},
      {"san.example%eth1", "character that host names do not have"},
      {"3260", "host is a number"},
      {"[2001:db8::1", "no closing bracket"},
      {"[]", "no valid IPv6 address within its brackets"},
      {"[]:3260", "no valid IPv6 address within its brackets"},
      {"[2001:db8::1]x", "only :PORT or ,TAG"},
      {"[2001:db8::1]3260", "only :PORT or ,TAG"},
      {"[2001:db8::1]:", "port is not a number"},
      {"[2001:db8::1::2]", "no valid IPv6 address within its brackets"},
      {"[fe80::1%]", "zone"},
      {"[fe80::1%an-interface-too-long]", "zone"},
      {"[fe80::1%e/1]", "zone"},
      {"fe80::1%", "zone"},
      {"fe80::1%eth1:", "port is not a number"},
      {"2001:db8::1::2", "neither a valid IPv6 address"},
      {"a b", "character that host names do not have"},
      {" 192.0.2.1", "character that host names do not have"},
      {"iscsi://192.0.2.1", "port is not a number"},
      {"192.0.2.1/32", "character that host names do not have"},
      {"joe@192.0.2.1", "character that host names do not have"},
  };
  for (const Case& one : cases) {
    EXPECT_FALSE(parse_portal_text(one.text, UnbracketedPort::take)) << one.text;
    EXPECT_THAT(understood(one.text, UnbracketedPort::refuse), HasSubstr(one.why)) << one.text;
  }
  EXPECT_FALSE(parse_portal_text(std::string_view("::1\0x", 5), UnbracketedPort::take));
  EXPECT_FALSE(parse_portal_text(std::string(254, 'a'), UnbracketedPort::take));
}

// An operator has to say which of the two is meant.
TEST(PortalText, APortBehindAnIpv6AddressWithoutBracketsIsTheTargetsOnly) {
  for (const char* port : {"860", "1024", "3260", "3261", "9999"}) {
    const std::string text = std::string("2001:db8::1:") + port;
    EXPECT_THAT(understood(text, UnbracketedPort::refuse), HasSubstr("write [ADDRESS]:PORT"))
        << text;
    EXPECT_EQ(understood(text, UnbracketedPort::take), std::string("2001:db8::1 port ") + port);
  }
  for (const char* bracketed : {"[localhost]:3261", "[192.0.2.1]"}) {
    EXPECT_THAT(understood(bracketed, UnbracketedPort::refuse), HasSubstr("nothing else has"));
    EXPECT_TRUE(parse_portal_text(bracketed, UnbracketedPort::take)) << bracketed;
  }
}

TEST(PortalText, NoRefusalRepeatsWhatItWasGiven) {
  for (const char* text : {"hunter2 ", "[hunter2]", "h:hunter2", "h,hunter2", "[::1]hunter2",
                           "[::1%hunter2/]", "::1%hunter2/", "192.0.2.1%hunter2"}) {
    EXPECT_THAT(understood(text, UnbracketedPort::refuse), Not(HasSubstr("hunter2"))) << text;
  }
}

TEST(PortalText, ALinkLocalAddressGetsTheZoneOfWhoeverTold) {
  EXPECT_EQ(with_zone_of("fe80::1%eth1", "fe80::2"), "fe80::2%eth1");
  EXPECT_EQ(with_zone_of("fe80::1%eth1", "fe80::2%3"), "fe80::2%3");
  EXPECT_EQ(with_zone_of("fe80::1%eth1", "2001:db8::2"), "2001:db8::2");
  EXPECT_EQ(with_zone_of("fe80::1%eth1", "192.0.2.1"), "192.0.2.1");
  EXPECT_EQ(with_zone_of("fe80::1%eth1", "san.example"), "san.example");
  EXPECT_EQ(with_zone_of("2001:db8::1", "fe80::2"), "fe80::2");
}

}  // namespace
}  // namespace iscsi_blkback
