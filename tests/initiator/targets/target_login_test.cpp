// Logins at a real target on loopback: CHAP both ways, digests, redirects.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/initiator/targets/target_fixture.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using ::testing::HasSubstr;

class TgtLoginTest : public TgtTest {
 protected:
  // The target lets only those in who know this, and proves itself with the other.
  void demand_chap() {
    disconnect();
    for (const auto& command : std::vector<std::vector<std::string>>{
             {"--mode", "account", "--op", "new", "--user", "host1", "--password",
              "initiator-secret"},
             {"--mode", "account", "--op", "bind", "--tid", "1", "--user", "host1"},
             {"--mode", "account", "--op", "new", "--user", "array", "--password",
              "the-target-secret"},
             {"--mode", "account", "--op", "bind", "--tid", "1", "--user", "array",
              "--outgoing"}}) {
      const auto done = tgt.administer(command);
      ASSERT_TRUE(done) << done.error().message;
    }
    options.chap.username = "host1";
    options.chap.password = "initiator-secret";
  }
  void set_target(const std::string& name, const std::string& value) {
    const auto done = tgt.administer(
        {"--mode", "target", "--op", "update", "--tid", "1", "--name", name, "--value", value});
    ASSERT_TRUE(done) << done.error().message;
  }
  bool fails() {
    return run_until([this] { return session->statistics().login_failures != 0; });
  }
  void write_and_read_back(std::size_t bytes) {
    Io write;
    write.data.resize(bytes);
    SimRandom random(bytes);
    for (std::byte& byte : write.data) {
      byte = static_cast<std::byte>(random.next());
    }
    write.submit(*unit, BlockOperation::write, 16);
    ASSERT_TRUE(run_until([&] { return write.done; }));
    ASSERT_TRUE(write.task.succeeded()) << bytes;
    Io read;
    read.data.resize(bytes);
    read.submit(*unit, BlockOperation::read, 16);
    ASSERT_TRUE(run_until([&] { return read.done; }));
    ASSERT_TRUE(read.task.succeeded()) << bytes;
    EXPECT_EQ(read.data, write.data);
  }
};

TEST_F(TgtLoginTest, OneWayChap) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
}

TEST_F(TgtLoginTest, MutualChap) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap.username_in = "array";
  options.chap.password_in = "the-target-secret";
  options.chap.algorithms = {ChapAlgorithm::md5};
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  EXPECT_EQ(session->statistics().login_failures, 0U);
  ASSERT_TRUE(identify());
}

// tgt takes the number of SHA-256 for that of SHA-1.
TEST_F(TgtLoginTest, MutualChapWithTheDefaultAlgorithms) {
  process_chap_memory().remember(options.target_name, std::nullopt, reactor->now());
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap.username_in = "array";
  options.chap.password_in = "the-target-secret";
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  EXPECT_EQ(session->statistics().login_failures, 1U);
  ASSERT_TRUE(identify());
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  EXPECT_EQ(session->statistics().login_failures, 0U) << "what has worked is remembered";
}

TEST_F(TgtLoginTest, WrongSecretWithTheDefaultAlgorithmsIsSaidSo) {
  process_chap_memory().remember(options.target_name, std::nullopt, reactor->now());
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap.password = "another-secret-1";
  connect(tgt.port());
  ASSERT_TRUE(run_until([this] { return session->statistics().login_failures == 6; }));
  EXPECT_THAT(session->last_error().message, HasSubstr("compare username and password"));
  options.chap.password = "initiator-secret";
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
}

TEST_F(TgtLoginTest, WrongSecretOfOursIsSaidSo) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap.password = "another-secret-1";
  options.chap.algorithms = {ChapAlgorithm::md5};
  connect(tgt.port());
  ASSERT_TRUE(fails());
  EXPECT_THAT(session->last_error().message, HasSubstr("compare username and password"));
}

TEST_F(TgtLoginTest, MissingSecretIsSaidSo) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap = {};
  connect(tgt.port());
  ASSERT_TRUE(fails());
  EXPECT_THAT(session->last_error().message, HasSubstr("set username and password (CHAP)"));
}

// tgt refuses the initiator that asks for a proof.
TEST_F(TgtLoginTest, ATargetWithoutAnOutgoingUserIsSaidToNeedOne) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  ASSERT_TRUE(tgt.administer(
      {"--mode", "account", "--op", "unbind", "--tid", "1", "--user", "array", "--outgoing"}));
  options.chap.username_in = "array";
  options.chap.password_in = "the-target-secret";
  options.chap.algorithms = {ChapAlgorithm::md5};
  connect(tgt.port());
  ASSERT_TRUE(fails());
  EXPECT_THAT(session->last_error().message, HasSubstr("outgoing user for username_in"));
}

TEST_F(TgtLoginTest, WrongSecretOfTheTargetsIsSaidSo) {
  ASSERT_NO_FATAL_FAILURE(demand_chap());
  options.chap.username_in = "array";
  options.chap.password_in = "what-the-target-is-not";
  options.chap.algorithms = {ChapAlgorithm::md5};
  connect(tgt.port());
  ASSERT_TRUE(fails());
  EXPECT_THAT(session->last_error().message, HasSubstr("the target does not know the secret"));
}

TEST_F(TgtLoginTest, BothDigests) {
  disconnect();
  set_target("HeaderDigest", "CRC32C");
  set_target("DataDigest", "CRC32C");
  options.header_digest = options.data_digest = DigestOffer::crc32c;
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  EXPECT_TRUE(session->negotiated().digests.header && session->negotiated().digests.data);
  ASSERT_TRUE(identify());
  for (const std::size_t bytes : {512U, 4096U, 65536U, 524288U}) {
    ASSERT_NO_FATAL_FAILURE(write_and_read_back(bytes));
  }
  EXPECT_EQ(session->statistics().connection_losses, 0U);
}

TEST_F(TgtLoginTest, DigestsThatTheTargetDoesNotWant) {
  disconnect();
  options.header_digest = options.data_digest = DigestOffer::crc32c_or_none;
  set_target("HeaderDigest", "None");
  set_target("DataDigest", "None");
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
}

TEST_F(TgtLoginTest, SeveralSessionsToOnePortal) {
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  SessionOptions second = options;
  second.isid[5] = 2;
  Session other(*reactor, second);
  other.start();
  EXPECT_TRUE(run_until([&] { return other.state() == SessionState::logged_in; }));
  EXPECT_EQ(session->state(), SessionState::logged_in);
  bool stopped = false;
  other.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &stopped);
  EXPECT_TRUE(run_until([&] { return stopped; }));
  EXPECT_EQ(session->statistics().connection_losses, 0U);
}

TEST_F(TgtLoginTest, ComesFromTheSourceAddress) {
  disconnect();
  options.interface_binding.address = "127.0.0.44";
  connect(tgt.port());
  ASSERT_TRUE(logged_in()) << session->last_error().message;
  ASSERT_TRUE(identify());
}

}  // namespace
}  // namespace iscsi_blkback
