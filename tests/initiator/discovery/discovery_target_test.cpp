// Discovery at a real target: our engine and libiscsi, which is the second opinion, say the same of
// it.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <csignal>

#include "initiator/discovery/discovery.h"
#include "tests/initiator/targets/target_fixture.h"
#include "tests/support/libiscsi_discovery.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class DiscoveryTargetTest : public TgtTest {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);  // for libiscsi
    TgtTest::SetUp();
  }
  void administer(const std::vector<std::string>& arguments) {
    const auto done = tgt.administer(arguments);
    ASSERT_TRUE(done) << done.error().message;
  }
  DiscoveryOptions question() {
    DiscoveryOptions asked;
    asked.initiator_name = "iqn.2026-01.test:initiator";
    asked.addresses = {address()};
    asked.portal_name = address().to_string();
    asked.timeout = milliseconds{30000};
    return asked;
  }
  Result<Discovery> ours(const ChapOptions& chap = {}) {
    DiscoveryOptions asked = question();
    asked.chap = chap;
    return discover(std::move(asked));
  }
  Result<std::vector<DiscoveredTarget>> theirs(const ChapOptions& chap = {}) {
    return libiscsi_discover(address(), "iqn.2026-01.test:initiator", milliseconds{30000}, chap);
  }
  void expect_agreement(std::size_t targets) {
    const auto our = ours();
    ASSERT_TRUE(our) << our.error().message;
    const auto their = theirs();
    ASSERT_TRUE(their) << their.error().message;
    EXPECT_EQ(our->targets, *their);
    EXPECT_EQ(our->left_out, "");
    EXPECT_EQ(our->targets.size(), targets);
  }
};

TEST_F(DiscoveryTargetTest, OneTarget) {
  ASSERT_NO_FATAL_FAILURE(expect_agreement(1));
  const auto found = ours();
  EXPECT_EQ(found->targets.front().name, TgtProcess::kTargetName);
  const DiscoveredPortal portal{.host = "127.0.0.1", .port = tgt.port(), .group_tag = 1};
  EXPECT_EQ(found->targets.front().portals, std::vector{portal});
}

// More than one PDU holds.
TEST_F(DiscoveryTargetTest, ManyTargetsWithLongNames) {
  for (int number = 2; number <= 120; ++number) {
    ASSERT_NO_FATAL_FAILURE(
        administer({"--mode", "target", "--op", "new", "--tid", std::to_string(number),
                    "--targetname", fmt::format("iqn.2026-01.test:{:0>180}", number)}));
    ASSERT_NO_FATAL_FAILURE(administer({"--mode", "target", "--op", "bind", "--tid",
                                        std::to_string(number), "--initiator-address", "ALL"}));
  }
  expect_agreement(120);
}

TEST_F(DiscoveryTargetTest, ATargetThatHidesItself) {
  ASSERT_NO_FATAL_FAILURE(administer(
      {"--mode", "target", "--op", "unbind", "--tid", "1", "--initiator-address", "ALL"}));
  expect_agreement(0);
}

TEST_F(DiscoveryTargetTest, SeveralPortals) {
  TgtProcess other;
  ASSERT_TRUE(other.start({.disk_bytes = kDiskBytes, .portals = 3}));
  for (std::size_t portal = 0; portal < 3; ++portal) {
    DiscoveryOptions asked = question();
    asked.addresses = {SocketAddress::parse("127.0.0.1", other.port(portal)).value()};
    const auto our = discover(asked);
    ASSERT_TRUE(our) << our.error().message;
    const auto their =
        libiscsi_discover(asked.addresses.front(), asked.initiator_name, milliseconds{30000});
    ASSERT_TRUE(their) << their.error().message;
    EXPECT_EQ(our->targets, *their);
  }
}

TEST_F(DiscoveryTargetTest, WithChap) {
  for (const auto& command : std::vector<std::vector<std::string>>{
           {"--mode", "account", "--op", "new", "--user", "finder", "--password",
            "discovery-secret"},
           {"--mode", "account", "--op", "bind", "--user", "finder"},
           {"--mode", "account", "--op", "new", "--user", "array", "--password",
            "the-target-secret"},
           {"--mode", "account", "--op", "bind", "--user", "array", "--outgoing"}}) {
    ASSERT_NO_FATAL_FAILURE(administer(command));
  }
  EXPECT_FALSE(ours()) << "the target must not tell everybody";
  EXPECT_FALSE(theirs());
  ChapOptions chap;
  chap.username = "finder";
  chap.password = "discovery-secret";
  // All algorithms, of which tgt takes the number of SHA-256 for that of SHA-1; SHA-1 by its own
  // number tgt does not know; and the one that libiscsi has.
  for (const bool mutual : {false, true}) {
    if (mutual) {
      chap.username_in = "array";
      chap.password_in = "the-target-secret";
    }
    for (const std::vector<ChapAlgorithm>& algorithms :
         {std::vector<ChapAlgorithm>{}, {ChapAlgorithm::md5}}) {
      chap.algorithms = algorithms;
      const auto our = ours(chap);
      ASSERT_TRUE(our) << our.error().message;
      const auto their = theirs(chap);
      ASSERT_TRUE(their) << their.error().message;
      EXPECT_EQ(our->targets, *their);
    }
  }
  chap.password_in = "what-the-target-is-not";
  const auto impostor = ours(chap);
  ASSERT_FALSE(impostor);
  EXPECT_THAT(impostor.error().message, HasSubstr("the target does not know the secret"));
  EXPECT_THAT(impostor.error().message, Not(HasSubstr("what-the-target-is-not")));
  chap.username_in.clear();
  chap.password_in.clear();
  chap.password = "another-secret-1";
  EXPECT_FALSE(ours(chap));
  EXPECT_FALSE(theirs(chap));
}

TEST_F(DiscoveryTargetTest, WithDigests) {
  // By default tgt does none: what a session demands is only preferred here.
  for (const DigestOffer offer : {DigestOffer::none, DigestOffer::crc32c_or_none,
                                  DigestOffer::none_or_crc32c, DigestOffer::crc32c}) {
    SessionOptions demanding = options;
    demanding.header_digest = demanding.data_digest = offer;
    const auto found = discover(discovery_options(demanding, {address()}, address().to_string()));
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->targets.size(), 1U);
  }
}

TEST_F(DiscoveryTargetTest, AnotherAddressOfTheNameIsTried) {
  DiscoveryOptions asked = question();
  asked.addresses = {SocketAddress::parse("::1", tgt.port()).value(),
                     SocketAddress::parse("127.0.0.9", 1).value(), address()};
  const auto found = discover(std::move(asked));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->targets.size(), 1U);
}

TEST_F(DiscoveryTargetTest, FromASourceAddress) {
  DiscoveryOptions asked = question();
  asked.interface_binding.address = "127.0.0.44";
  EXPECT_TRUE(discover(std::move(asked)));
}

TEST_F(DiscoveryTargetTest, AtADeadPortalItEnds) {
  tgt.kill();
  const auto found = ours();
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::unavailable);
  EXPECT_THAT(found.error().message, HasSubstr("Connection refused"));
}

TEST_F(DiscoveryTargetTest, AtAHungPortalItEnds) {
  tgt.signal(SIGSTOP);
  DiscoveryOptions asked = question();
  asked.timeout = milliseconds{300};
  const auto found = discover(std::move(asked));
  tgt.signal(SIGCONT);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::timed_out);
}

}  // namespace
}  // namespace iscsi_blkback
