// The text of a SendTargets answer: what it means, what the RFC adds to it, what is left out and
// said.
#include "initiator/discovery/send_targets.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/support/hostile_text.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const TargetAddress kAsked{.host = "192.0.2.9", .port = 3261, .group_tag = 7};

std::string portal_text(const DiscoveredPortal& portal) {
  return fmt::format("{}:{},{}", portal.host, portal.port,
                     portal.group_tag ? fmt::to_string(*portal.group_tag) : "-");
}

std::string text_of(const Discovery& discovery) {
  std::string text;
  for (const DiscoveredTarget& target : discovery.targets) {
    text += (text.empty() ? "" : " | ") + target.name;
    for (const DiscoveredPortal& portal : target.portals) {
      text += " " + portal_text(portal);
    }
  }
  return text;
}

// pairs: with '\n' for the NULs.
std::string answer_of(std::string pairs) {
  std::replace(pairs.begin(), pairs.end(), '\n', '\0');
  return pairs;
}

Result<Discovery> understood(const std::string& pairs, std::size_t piece_bytes = 0,
                             const TargetAddress& asked = kAsked) {
  const std::string text = answer_of(pairs);
  SendTargetsAnswer answer(asked);
  const std::size_t step = piece_bytes != 0 ? piece_bytes : std::max<std::size_t>(text.size(), 1);
  for (std::size_t at = 0; at < text.size(); at += step) {
    if (auto taken = answer.take(std::string_view(text).substr(at, step)); !taken) {
      return tl::unexpected(taken.error());
    }
  }
  return answer.finish();
}

TEST(SendTargets, MeansThis) {
  struct Case {
    const char* name;
    const char* pairs;
    const char* meaning;
    const char* left_out = "";
  };
  const Case cases[] = {
      {"nothing", "", ""},
      {"padding only", "\n\n\n", ""},
      {"one portal", "TargetName=iqn.a:b\nTargetAddress=192.0.2.1:3260,1\n",
       "iqn.a:b 192.0.2.1:3260,1"},
      {"no address: that of the question", "TargetName=iqn.a:b\n", "iqn.a:b 192.0.2.9:3261,7"},
      {"no address in the middle",
       "TargetName=iqn.a:a\nTargetName=iqn.a:b\nTargetAddress=192.0.2.1,1\nTargetName=iqn.a:c\n",
       "iqn.a:a 192.0.2.9:3261,7 | iqn.a:b 192.0.2.1:3260,1 | iqn.a:c 192.0.2.9:3261,7"},
      {"no port, no group", "TargetName=iqn.a:b\nTargetAddress=192.0.2.1\n",
       "iqn.a:b 192.0.2.1:3260,-"},
      {"group -1", "TargetName=iqn.a:b\nTargetAddress=192.0.2.1:860,-1\n",
       "iqn.a:b 192.0.2.1:860,-"},
      {"group 4294967295", "TargetName=iqn.a:b\nTargetAddress=192.0.2.1:860,4294967295\n",
       "iqn.a:b 192.0.2.1:860,-"},
      {"group 0 and 65535",
       "TargetName=iqn.a:b\nTargetAddress=192.0.2.1,0\nTargetAddress=192.0.2.2,65535\n",
       "iqn.a:b 192.0.2.1:3260,0 192.0.2.2:3260,65535"},
      {"a name", "TargetName=iqn.a:b\nTargetAddress=san-1.example:3260,1\n",
       "iqn.a:b san-1.example:3260,1"},
      {"IPv6", "TargetName=iqn.a:b\nTargetAddress=[2001:db8::1]:3260,1\n",
       "iqn.a:b 2001:db8::1:3260,1"},
      {"IPv6 without brackets",
       "TargetName=iqn.a:b\nTargetAddress=2001:db8::1,1\nTargetAddress=2001:db8::2:3261,1\n",
       "iqn.a:b 2001:db8::1:3260,1 2001:db8::2:3261,1"},
      {"a portal twice",
       "TargetName=iqn.a:b\nTargetAddress=192.0.2.1,1\nTargetAddress=192.0.2.1:3260,1\n",
       "iqn.a:b 192.0.2.1:3260,1"},
      {"a target in two records",
       "TargetName=iqn.a:b\nTargetAddress=192.0.2.1,1\nTargetName=iqn.a:c\nTargetAddress=192.0.2.1,"
       "1\n"
       "TargetName=iqn.a:b\nTargetAddress=192.0.2.2,2\n",
       "iqn.a:b 192.0.2.1:3260,1 192.0.2.2:3260,2 | iqn.a:c 192.0.2.1:3260,1"},
      {"no NUL at the end", "TargetName=iqn.a:b\nTargetAddress=192.0.2.1:3260,1",
       "iqn.a:b 192.0.2.1:3260,1"},
      {"an alias", "TargetName=iqn.a:b\nTargetAlias=disks\nTargetAddress=192.0.2.1,1\n",
       "iqn.a:b 192.0.2.1:3260,1"},
      {"keys that nobody knows",
       "TargetName=iqn.a:b\nX-com.example.foo=1\nTargetAddress=192.0.2.1,1\ntargetname=iqn.a:c\n",
       "iqn.a:b 192.0.2.1:3260,1", "keys that are not known (2, the first is X-com.example.foo)"},
      {"no KEY=VALUE", "TargetName=iqn.a:b\nTargetAddress\n=x\nTargetAddress=192.0.2.1,1\n",
       "iqn.a:b 192.0.2.1:3260,1", "what is no KEY=VALUE (2, the first is TargetAddress)"},
      {"an address that is none",
       "TargetName=iqn.a:b\nTargetAddress=192.0.2.1:0,1\nTargetAddress=192.0.2.2,1\n",
       "iqn.a:b 192.0.2.2:3260,1", "addresses that are none (1, the first is 192.0.2.1:0,1)"},
      {"only an address that is none", "TargetName=iqn.a:b\nTargetAddress=\n", "iqn.a:b",
       "addresses that are none"},
      {"any address",
       "TargetName=iqn.a:b\nTargetAddress=0.0.0.0:3260,1\nTargetAddress=[::]:3260,1\n", "iqn.a:b",
       "addresses that mean any address (2, the first is 0.0.0.0:3260,1)"},
      {"an address of no target", "TargetAddress=192.0.2.1,1\nTargetName=iqn.a:b\n",
       "iqn.a:b 192.0.2.9:3261,7", "addresses before the first target"},
      {"names that are none",
       "TargetName=\nTargetAddress=192.0.2.1,1\nTargetName=iqn.a b\nTargetAddress=192.0.2.2,1\n"
       "TargetName=iqn.a:c\nTargetAddress=192.0.2.3,1\n",
       "iqn.a:c 192.0.2.3:3260,1", "names that are none (2"},
      {"a name that is none behind one that is",
       "TargetName=iqn.a:c\nTargetAddress=192.0.2.3,1\nTargetName=iqn.a b\nTargetAddress=192.0.2.2,"
       "2\n",
       "iqn.a:c 192.0.2.3:3260,1", "names that are none (1"},
      {"a name of another form", "TargetName=disks\nTargetAddress=192.0.2.1,1\n",
       "disks 192.0.2.1:3260,1"},
  };
  for (const Case& one : cases) {
    // However the PDUs cut it.
    for (const std::size_t piece_bytes : {0U, 1U, 2U, 3U, 7U, 16U}) {
      const auto discovery = understood(one.pairs, piece_bytes);
      ASSERT_TRUE(discovery) << one.name << ": " << discovery.error().message;
      EXPECT_EQ(text_of(*discovery), one.meaning) << one.name << " in pieces of " << piece_bytes;
      EXPECT_THAT(discovery->left_out, HasSubstr(one.left_out)) << one.name;
      EXPECT_EQ(discovery->left_out.empty(), std::string_view(one.left_out).empty())
          << one.name << ": " << discovery->left_out;
    }
  }
}

TEST(SendTargets, ATargetThatDoesNotDoItSaysSo) {
  for (const char* word : {"NotUnderstood", "Reject", "Irrelevant"}) {
    const auto discovery = understood(std::string("SendTargets=") + word + "\n");
    ASSERT_FALSE(discovery) << word;
    EXPECT_THAT(discovery.error().message, HasSubstr(word));
  }
}

TEST(SendTargets, LinkLocalAddressesGetTheZoneOfTheQuestion) {
  const auto discovery =
      understood("TargetName=iqn.a:b\nTargetAddress=[fe80::2]:3260,1\nTargetName=iqn.a:c\n", 0,
                 {.host = "fe80::1%2", .port = 3260});
  ASSERT_TRUE(discovery);
  EXPECT_EQ(text_of(*discovery), "iqn.a:b fe80::2%2:3260,1 | iqn.a:c fe80::1%2:3260,-");
}

TEST(SendTargets, HasBounds) {
  std::string targets;
  for (std::size_t at = 0; at <= SendTargetsAnswer::kMaxTargets; ++at) {
    targets += fmt::format("TargetName=iqn.a:{}\nTargetAddress=192.0.2.1,1\n", at);
  }
  const auto many = understood(targets);
  ASSERT_TRUE(many);
  EXPECT_EQ(many->targets.size(), SendTargetsAnswer::kMaxTargets);
  EXPECT_THAT(many->left_out, HasSubstr("targets beyond 4096 (1, the first is iqn.a:4096)"));

  std::string portals = "TargetName=iqn.a:b\n";
  for (std::size_t at = 0; at <= SendTargetsAnswer::kMaxPortalsOfTarget; ++at) {
    portals += fmt::format("TargetAddress=192.0.{}.{},1\n", at / 250, at % 250 + 1);
  }
  const auto wide = understood(portals);
  ASSERT_TRUE(wide);
  EXPECT_EQ(wide->targets.front().portals.size(), SendTargetsAnswer::kMaxPortalsOfTarget);
  EXPECT_THAT(wide->left_out, HasSubstr("portals beyond 256"));

  SendTargetsAnswer endless(kAsked);
  const std::string text(std::size_t{1} << 20, 'x');
  for (std::size_t taken = 0; !endless.ends(); taken += text.size()) {
    ASSERT_LE(taken, SendTargetsAnswer::kMaxTextBytes);
    ASSERT_TRUE(endless.take(text));
  }
  ASSERT_TRUE(endless.take("TargetName=iqn.a:b"));
  const auto end = endless.finish();
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->targets.empty());
  EXPECT_THAT(end->left_out, HasSubstr("all text beyond 16 MiB"));
}

TEST(SendTargets, APairThatIsTooLongIsLeftOutAndTheNextIsTaken) {
  for (const std::size_t piece_bytes : {0U, 1U, 300U}) {
    const auto discovery = understood(
        "TargetName=iqn.a:b\nTargetAddress=" + std::string(100000, '1') +
            "\nTargetAddress=192.0.2.1,1\nTargetName=iqn." + std::string(220, 'a') + "\n",
        piece_bytes);
    ASSERT_TRUE(discovery);
    EXPECT_EQ(text_of(*discovery), "iqn.a:b 192.0.2.1:3260,1");
  }
}

TEST(SendTargets, WhatIsSaidIsPrintable) {
  for (const HostileText& hostile : hostile_texts()) {
    const auto discovery =
        understood("TargetName=" + hostile.text + " \nX" + hostile.text +
                   "=1\nTargetName=iqn.a:b\nTargetAddress=" + hostile.text + "\n");
    ASSERT_TRUE(discovery) << hostile.name;
    for (const char c : discovery->left_out) {
      EXPECT_GE(static_cast<unsigned char>(c), 0x20U) << hostile.name;
    }
    EXPECT_LT(discovery->left_out.size(), 2000U) << hostile.name;
  }
}

TEST(SendTargets, AnAnswerThatIsCutOffIsSaidToBe) {
  SendTargetsAnswer answer(kAsked);
  ASSERT_TRUE(answer.take(std::string_view("TargetName=iqn.a:b\0Target", 25)));
  answer.cut_off();
  const auto discovery = answer.finish();
  ASSERT_TRUE(discovery);
  EXPECT_EQ(text_of(*discovery), "iqn.a:b 192.0.2.9:3261,7");
  EXPECT_THAT(discovery->left_out, HasSubstr("the rest"));
}

}  // namespace
}  // namespace iscsi_blkback
