// Header and data digests: on the wire, over every way that data can take, and each one that is
// wrong.
#include <gmock/gmock.h>

#include "tests/initiator/session/session_fixture.h"
#include "tests/support/scripted_target.h"

namespace iscsi_blkback {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

struct DigestCase {
  bool header;
  bool data;
};

SessionOptions digest_options(bool header, bool data) {
  SessionOptions options = test_session_options();
  options.header_digest = header ? DigestOffer::crc32c : DigestOffer::none;
  options.data_digest = data ? DigestOffer::crc32c : DigestOffer::none;
  return options;
}

class EveryDigest : public SessionTest, public ::testing::WithParamInterface<DigestCase> {
 protected:
  EveryDigest() {
    target->options().header_digest = true;
    target->options().data_digest = true;
  }
};

INSTANTIATE_TEST_SUITE_P(Digests, EveryDigest,
                         ::testing::Values(DigestCase{true, false}, DigestCase{false, true},
                                           DigestCase{true, true}),
                         [](const auto& test) -> std::string {
                           return !test.param.data    ? "Header"
                                  : test.param.header ? "HeaderAndData"
                                                      : "Data";
                         });

TEST_P(EveryDigest, DataOfEverySizeGoesBothWays) {
  TestSession initiator(reactor, digest_options(GetParam().header, GetParam().data));
  ASSERT_TRUE(initiator.start());
  EXPECT_EQ(initiator.session.negotiated().digests.header, GetParam().header);
  EXPECT_EQ(initiator.session.negotiated().digests.data, GetParam().data);
  // Copied and referred to, immediate, unsolicited and solicited.
  for (const std::size_t bytes : {512U, 4096U, 16384U, 65536U, 131072U, 1048576U}) {
    TestCommand write;
    write.submit_write(initiator.session, 7, test_pattern(bytes, 5));
    ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
    ASSERT_TRUE(write.task.succeeded()) << bytes;
    TestCommand read;
    read.submit_read(initiator.session, 7, static_cast<std::uint32_t>(bytes / 512));
    ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
    ASSERT_TRUE(read.task.succeeded()) << bytes;
    EXPECT_EQ(read.data, write.data) << bytes;
  }
  EXPECT_EQ(initiator.session.statistics().connection_losses, 0U);
}

TEST_P(EveryDigest, BytesMayArriveInAnyPieces) {
  for (const SimDirection direction : {SimDirection::to_server, SimDirection::to_client}) {
    reactor.network().set_split(test_address(1), direction, 7);
  }
  TestSession initiator(reactor, digest_options(GetParam().header, GetParam().data));
  ASSERT_TRUE(initiator.start());
  TestCommand write;
  write.submit_write(initiator.session, 0, test_pattern(20480, 6));
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
  TestCommand read;
  read.submit_read(initiator.session, 0, 40);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_TRUE(read.task.succeeded());
  EXPECT_EQ(read.data, write.data);
}

class DataThatIsDamaged : public SessionTest, public ::testing::WithParamInterface<unsigned> {};
// Within the staging buffer, and straight to the task's buffer.
INSTANTIATE_TEST_SUITE_P(Digests, DataThatIsDamaged, ::testing::Values(512U, 4096U, 262144U));

TEST_P(DataThatIsDamaged, DropsTheConnection) {
  target->options().data_digest = true;
  TestSession initiator(reactor, digest_options(false, true));
  ASSERT_TRUE(initiator.start());
  target->damage_next_data();
  TestCommand read;
  read.submit_read(initiator.session, 0, GetParam() / 512);
  ASSERT_TRUE(runs_until(reactor, [&] { return read.done; }));
  EXPECT_EQ(read.task.outcome, TaskOutcome::connection_lost);
  EXPECT_THAT(initiator.observer.reason, HasSubstr("wrong data digest"));
  EXPECT_TRUE(initiator.up()) << "and logs in again";
}

class ScriptedDigestTest : public ::testing::Test {
 protected:
  void log_in(bool header, bool data) {
    initiator = std::make_unique<TestSession>(reactor, digest_options(header, data));
    initiator->session.start();
    std::vector<std::pair<std::string, std::string>> keys;
    if (header) {
      keys.emplace_back("HeaderDigest", "CRC32C");
    }
    if (data) {
      keys.emplace_back("DataDigest", "CRC32C");
    }
    ASSERT_TRUE(target.accept_login(keys));
    ASSERT_TRUE(initiator->up());
  }
  // The command's tag.
  std::uint32_t read(TestCommand& command, std::uint32_t blocks) {
    command.submit_read(initiator->session, 0, blocks);
    ReceivedPdu pdu;
    EXPECT_TRUE(target.next(Opcode::scsi_command, pdu));
    ++target.exp_cmd_sn;
    return pdu.header.initiator_task_tag;
  }
  DataInPdu data_in(std::uint32_t tag, std::uint32_t bytes) {
    return {.final = true,
            .has_status = true,
            .data_bytes = bytes,
            .initiator_task_tag = tag,
            .numbers = target.status_numbers()};
  }

  SimReactor reactor{1};
  ScriptedTarget target{reactor, test_address(1)};
  std::unique_ptr<TestSession> initiator;
};

TEST_F(ScriptedDigestTest, RefusesWrongHeaderDigest) {
  log_in(true, false);
  TestCommand command;
  const std::uint32_t tag = read(command, 1);
  auto bytes = pdu_bytes(data_in(tag, 512), test_pattern(512, 1), target.digests);
  bytes[kBhsBytes] ^= std::byte{1};
  target.send_bytes(bytes);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_EQ(command.task.outcome, TaskOutcome::connection_lost);
  EXPECT_THAT(initiator->observer.reason, HasSubstr("wrong header digest"));
}

TEST_F(ScriptedDigestTest, ALengthIsNotBelievedBeforeTheHeaderDigest) {
  log_in(true, true);
  TestCommand command;
  const std::uint32_t tag = read(command, 1);
  auto bytes = pdu_bytes(data_in(tag, 512), test_pattern(512, 1), target.digests);
  bytes[5] ^= std::byte{0x80};  // 8 MiB more, which will never come
  target.send_bytes(bytes);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_THAT(initiator->observer.reason, HasSubstr("wrong header digest"));
}

TEST_F(ScriptedDigestTest, RefusesDamageInThePadding) {
  log_in(false, true);
  TestCommand command;
  const std::uint32_t tag = read(command, 1);
  auto bytes = pdu_bytes(data_in(tag, 510), test_pattern(510, 1), target.digests);
  bytes[kBhsBytes + 511] = std::byte{1};
  target.send_bytes(bytes);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_THAT(initiator->observer.reason, HasSubstr("wrong data digest"));
}

TEST_F(ScriptedDigestTest, TakesDataWhoseDigestComesLate) {
  log_in(true, true);
  TestCommand command;
  const std::uint32_t tag = read(command, 256);
  const auto pattern = test_pattern(131071, 1);
  DataInPdu first = data_in(tag, 131071);
  first.has_status = false;
  --target.stat_sn;
  const auto bytes = pdu_bytes(first, pattern, target.digests);
  const std::span<const std::byte> all{bytes};
  target.send_bytes(all.first(all.size() - 3));
  reactor.run_for(milliseconds(100));
  EXPECT_FALSE(command.done);
  target.send_bytes(all.last(3));
  DataInPdu last = data_in(tag, 1);
  last.data_sn = 1;
  last.buffer_offset = 131071;
  target.send(last, test_pattern(1, 2));
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
  EXPECT_TRUE(std::equal(pattern.begin(), pattern.end(), command.data.begin()));
}

TEST_F(ScriptedDigestTest, AdditionalHeaderSegmentsAreCovered) {
  log_in(true, false);
  TestCommand command;
  const std::uint32_t tag = read(command, 1);
  std::vector<std::byte> bytes(kBhsBytes + 8 + kDigestBytes + 512);
  encode(data_in(tag, 512), BhsBuffer{bytes.data(), kBhsBytes});
  bytes[4] = std::byte{2};
  bytes[kBhsBytes + 3] = std::byte{0x55};
  put_digests(bytes, decode_header(BhsBytes{bytes.data(), kBhsBytes}), target.digests);
  target.send_bytes(bytes);
  ASSERT_TRUE(runs_until(reactor, [&] { return command.done; }));
  EXPECT_TRUE(command.task.succeeded());
}

TEST_F(ScriptedDigestTest, EveryPduOfOursHasRightDigests) {
  log_in(true, true);
  TestCommand write;
  write.submit_write(initiator->session, 0, test_pattern(65536, 3));
  reactor.run_for(milliseconds(10));
  EXPECT_EQ(target.digest_errors, 0);
  EXPECT_EQ(target.received.size(), 8U) << "a command and seven Data-Outs of 8 KiB";
  target.reset();
  ASSERT_TRUE(runs_until(reactor, [&] { return write.done; }));
}

TEST_F(ScriptedDigestTest, LoginAfterALossBeginsWithoutDigests) {
  log_in(true, true);
  target.reset();
  ASSERT_TRUE(target.accept_login({{"HeaderDigest", "CRC32C"}, {"DataDigest", "CRC32C"}}));
  ASSERT_TRUE(initiator->up());
  EXPECT_EQ(initiator->session.login_epoch(), 2U);
}

}  // namespace
}  // namespace iscsi_blkback
