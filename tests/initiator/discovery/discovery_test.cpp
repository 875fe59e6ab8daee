#include "initiator/discovery/discovery.h"

#include <gtest/gtest.h>

#include "initiator/login/resolve.h"
#include "tests/support/hostile_text.h"

namespace iscsi_blkback {
namespace {

TEST(TargetAddress, ParsesHostPortAndTag) {
  const auto full = parse_target_address("192.0.2.1:3261,7");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->host, "192.0.2.1");
  EXPECT_EQ(full->port, 3261);
  EXPECT_EQ(full->group_tag, 7);
  const auto plain = parse_target_address("san.example");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "san.example");
  EXPECT_EQ(plain->port, 3260);
  EXPECT_FALSE(plain->group_tag);
  EXPECT_FALSE(parse_target_address("192.0.2.1:3260,-1")->group_tag);
  const auto v6 = parse_target_address("[2001:db8::1]:3260,1");
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->host, "2001:db8::1");
  EXPECT_TRUE(parse_target_address("[2001:db8::1],1"));
}

TEST(TargetAddress, RefusesWhatIsNone) {
  for (const char* text : {"", ",1", ":3260", "host:0", "host:65536", "host:x", "host,x",
                           "host,70000", "[::1", "[::1]x", "[]:3260", "::1::"}) {
    EXPECT_FALSE(parse_target_address(text)) << text;
  }
  EXPECT_TRUE(parse_target_address("[fe80::1%eth0]:3260,1"));
}

TEST(TargetAddress, RefusesHostsThatAreNone) {
  for (const HostileText& hostile : hostile_texts()) {
    EXPECT_FALSE(parse_target_address(hostile.text + "-host:3260,1")) << hostile.name;
    EXPECT_FALSE(parse_target_address("[" + hostile.text + "]:3260,1")) << hostile.name;
  }
  for (const char* text : {"a b", "a;b", "$(a)", "a/b", "a@b", "caf\u00e9"}) {
    EXPECT_FALSE(parse_target_address(text)) << text;
  }
  EXPECT_FALSE(parse_target_address(std::string(254, 'a')));
}

TEST(Resolve, NumericAddressesNeedNoNameServer) {
  const auto v4 = resolve("127.0.0.1", 3260);
  ASSERT_TRUE(v4);
  ASSERT_EQ(v4->size(), 1U);
  EXPECT_EQ(v4->front().to_string(), "127.0.0.1:3260");
  const auto v6 = resolve("::1", 3261);
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->front().to_string(), "[::1]:3261");
}

TEST(Resolve, UnknownHostSaysSo) {
  const auto nothing = resolve("no-such-host.invalid", 3260);
  ASSERT_FALSE(nothing);
  EXPECT_NE(nothing.error().message.find("no-such-host.invalid"), std::string::npos);
}

}  // namespace
}  // namespace iscsi_blkback
