// The core of both targets, through the null target's shell: what it answers, byte by byte, however
// its input is cut, with the ways that targets differ in.
#include "bench/null_target_connection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "initiator/lun/logical_unit.h"
#include "initiator/scsi/cdb.h"
#include "tests/support/scripted_target.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using Bytes = std::vector<std::byte>;

using TargetWay = std::pair<const char*, void (*)(TargetOptions&)>;

// What a command's initiator was told in the end.
struct Ending {
  std::uint8_t status = 0xff;
  bool overflow = false;
  bool underflow = false;
  std::uint32_t residual_bytes = 0;
  Bytes data = {};   // of all Data-Ins
  Bytes sense = {};  // with SenseLength

  bool operator==(const Ending&) const = default;
};
Ending good(Bytes data = {}) {
  return {.status = 0, .data = std::move(data)};
}
Ending refused(SenseKey key, std::uint16_t code) {
  return {.status = static_cast<std::uint8_t>(ScsiStatus::check_condition),
          .sense = sense_segment(make_sense(key, code))};
}

class NullTargetConnectionTest : public testing::TestWithParam<TargetWay> {
 protected:
  static constexpr std::uint64_t kBlocks = 4096;

  NullTargetConnectionTest() {
    GetParam().second(settings.protocol);
    connection = std::make_unique<NullTargetConnection>(settings, lun, 1, 77);
  }

  // What comes back.
  std::vector<ReceivedPdu> ask(const Bytes& bytes) {
    Bytes answer;
    Bytes input;
    for (std::size_t next = 0; next < bytes.size() && !connection->finished();) {
      std::size_t count = std::min<std::size_t>(bytes.size() - next, 1 + random.below(40000));
      const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(next);
      if (const std::span<std::byte> direct = connection->direct(); !direct.empty()) {
        count = std::min(count, direct.size());
        std::copy_n(from, count, direct.begin());
        connection->received_direct(count, {});
      } else {
        input.insert(input.end(), from, from + static_cast<std::ptrdiff_t>(count));
        const std::size_t taken = connection->consume(input, true, {});
        input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(taken));
      }
      next += count;
      for (const iovec& part : connection->replies.parts()) {
        const auto* data = static_cast<const std::byte*>(part.iov_base);
        answer.insert(answer.end(), data, data + part.iov_len);
      }
      connection->replies.clear();
    }
    return replies_in(answer);
  }
  std::vector<ReceivedPdu> replies_in(std::span<const std::byte> bytes) const {
    std::vector<ReceivedPdu> replies;
    while (bytes.size() >= kBhsBytes) {
      const PduHeader header = decode_header(bytes.first<kBhsBytes>());
      const auto pdu = bytes.first(std::min(bytes.size(), header.total_bytes(digests)));
      EXPECT_EQ(pdu.size(), header.total_bytes(digests));
      EXPECT_TRUE(digests_match(pdu, header, digests));
      replies.push_back({.bytes = {pdu.begin(), pdu.end()}, .header = header, .digests = digests});
      bytes = bytes.subspan(pdu.size());
    }
    EXPECT_TRUE(bytes.empty());
    return replies;
  }

  [[nodiscard]] LoginResponsePdu login_step(LoginStage from, LoginStage to, const Bytes& text) {
    const auto replies =
        ask(pdu_bytes(LoginRequestPdu{.transit = true,
                                      .current_stage = from,
                                      .next_stage = to,
                                      .data_bytes = static_cast<std::uint32_t>(text.size()),
                                      .isid = {0x80, 1, 2, 3, 4, 5},
                                      .initiator_task_tag = 9,
                                      .cmd_sn = cmd_sn},
                      text));
    if (replies.empty()) {
      return {.numbers = {}, .status_class = 0xff};
    }
    return decode_login_response(replies.front().bhs());
  }
  [[nodiscard]] LoginResponsePdu begin_login(const std::string& target_name) {
    return login_step(LoginStage::security_negotiation, LoginStage::operational_negotiation,
                      text_bytes({"InitiatorName=iqn.2026-01.test:initiator", "SessionType=Normal",
                                  "TargetName=" + target_name, "AuthMethod=None"}));
  }
  void login() {
    ASSERT_EQ(begin_login(settings.protocol.name).status_class, 0);
    const LoginResponsePdu response = login_step(
        LoginStage::operational_negotiation, LoginStage::full_feature_phase,
        text_bytes({"HeaderDigest=CRC32C,None", "DataDigest=CRC32C,None",
                    "MaxRecvDataSegmentLength=32768", "InitialR2T=No", "ImmediateData=Yes",
                    "MaxBurstLength=131072", "FirstBurstLength=65536"}));
    ASSERT_EQ(response.status_class, 0);
    ASSERT_TRUE(response.transit);
    EXPECT_EQ(response.tsih, 77);
    EXPECT_TRUE(connection->logged_in());
    digests = {settings.protocol.header_digest, settings.protocol.data_digest};
    stat_sn = response.numbers.stat_sn + 1;
    if (settings.protocol.power_on_unit_attention) {
      EXPECT_EQ(command(test_unit_ready_cdb(), 0), refused(SenseKey::unit_attention, 0x2900));
    }
  }

  ScsiCommandPdu command_pdu(const Cdb& cdb, std::uint32_t bytes) {
    ScsiCommandPdu command;
    command.read = bytes != 0;
    command.expected_data_bytes = bytes;
    command.initiator_task_tag = 1000 + cmd_sn;
    command.cmd_sn = cmd_sn++;
    command.cdb = cdb;
    return command;
  }
  // A read, or without data.
  Ending command(const Cdb& cdb, std::uint32_t bytes, std::uint16_t lun_number = 0) {
    ScsiCommandPdu fields = command_pdu(cdb, bytes);
    fields.lun = encode_lun(lun_number);
    return ending_of(ask(pdu_bytes(fields, {}, digests)));
  }

  // The rules of Data-In and status that hold for each command.
  Ending ending_of(const std::vector<ReceivedPdu>& replies) {
    Ending ending;
    const auto end = [&](const auto& pdu) {
      ending.status = pdu.status;
      ending.overflow = pdu.overflow;
      ending.underflow = pdu.underflow;
      ending.residual_bytes = pdu.residual_bytes;
      EXPECT_EQ(pdu.numbers.stat_sn, stat_sn++);
    };
    std::uint32_t data_sn = 0;
    for (const ReceivedPdu& reply : replies) {
      EXPECT_EQ(ending.status, 0xff) << "a PDU behind the status";
      if (reply.header.opcode == Opcode::data_in) {
        const DataInPdu pdu = decode_data_in(reply.bhs());
        EXPECT_EQ(pdu.data_sn, data_sn++);
        EXPECT_EQ(pdu.buffer_offset, ending.data.size());
        const std::uint32_t limit = settings.protocol.max_data_in_bytes;
        EXPECT_LE(reply.data().size(), limit != 0 ? limit : 32768U);
        ending.data.insert(ending.data.end(), reply.data().begin(), reply.data().end());
        EXPECT_TRUE(settings.protocol.status_with_data || !pdu.has_status);
        if (pdu.has_status) {
          end(pdu);
        }
      } else {
        EXPECT_EQ(reply.header.opcode, Opcode::scsi_response);
        const ScsiResponsePdu pdu = decode_scsi_response(reply.bhs());
        EXPECT_EQ(pdu.response, 0);
        EXPECT_EQ(pdu.exp_data_sn, data_sn);
        ending.sense.assign(reply.data().begin(), reply.data().end());
        end(pdu);
      }
      const TargetNumbers numbers = decode_target_numbers(reply.bhs());
      EXPECT_EQ(numbers.exp_cmd_sn, cmd_sn);
      EXPECT_EQ(numbers.max_cmd_sn, cmd_sn + settings.protocol.window - 1);
    }
    return ending;
  }

  // With so much of its data immediate; the rest as the target asks for it.
  Ending write(const Cdb& cdb, const Bytes& data, std::size_t immediate) {
    ScsiCommandPdu fields = command_pdu(cdb, static_cast<std::uint32_t>(data.size()));
    fields.read = false;
    fields.write = true;
    fields.data_bytes = static_cast<std::uint32_t>(immediate);
    auto replies = ask(pdu_bytes(fields, std::span(data).first(immediate), digests));
    std::uint32_t r2t_sn = 0;
    std::size_t asked = immediate;
    while (!replies.empty() && replies.front().header.opcode == Opcode::r2t) {
      const R2tPdu r2t = decode_r2t(replies.front().bhs());
      EXPECT_EQ(r2t.r2t_sn, r2t_sn++);
      EXPECT_EQ(r2t.buffer_offset, asked);
      EXPECT_EQ(r2t.desired_bytes,
                std::min<std::size_t>(std::min(settings.protocol.max_burst_length, 131072U),
                                      data.size() - asked));
      EXPECT_EQ(r2t.numbers.stat_sn, stat_sn);
      asked += r2t.desired_bytes;
      Bytes burst;
      for (std::uint32_t offset = 0; offset < r2t.desired_bytes; offset += 24576) {
        const std::uint32_t count = std::min(24576U, r2t.desired_bytes - offset);
        const Bytes pdu =
            pdu_bytes(DataOutPdu{.final = offset + count == r2t.desired_bytes,
                                 .data_bytes = count,
                                 .initiator_task_tag = fields.initiator_task_tag,
                                 .target_transfer_tag = r2t.target_transfer_tag,
                                 .data_sn = offset / 24576,
                                 .buffer_offset = r2t.buffer_offset + offset},
                      std::span(data).subspan(r2t.buffer_offset + offset, count), digests);
        burst.insert(burst.end(), pdu.begin(), pdu.end());
      }
      replies = ask(burst);
    }
    return ending_of(replies);
  }

  Bytes pattern(std::size_t bytes) {
    Bytes data(bytes);
    for (std::byte& byte : data) {
      byte = static_cast<std::byte>(random.next());
    }
    return data;
  }
  void expect_end(const std::string& violation) {
    EXPECT_TRUE(connection->finished());
    EXPECT_EQ(connection->violation(), violation);
  }

  SimRandom random{7};
  NullTargetSettings settings;
  SimLun lun{SimLunOptions{.block_count = kBlocks}};
  std::unique_ptr<NullTargetConnection> connection;
  Digests digests;
  std::uint32_t cmd_sn = 5;
  std::uint32_t stat_sn = 0;  // of the next status
};

TEST_P(NullTargetConnectionTest, LetsTheLunSayWhatItIs) {
  login();
  for (const Cdb& cdb : {inquiry_cdb(-1, 255), inquiry_cdb(0x00, 255), inquiry_cdb(0x80, 255),
                         inquiry_cdb(0x83, 255), inquiry_cdb(0xb0, 255), read_capacity10_cdb(),
                         read_capacity16_cdb(32), mode_sense6_cdb(0x3f, 192)}) {
    const Bytes data = lun.execute(cdb, {}).data;
    EXPECT_FALSE(data.empty());
    EXPECT_EQ(command(cdb, static_cast<std::uint32_t>(data.size())), good(data));
  }
  EXPECT_EQ(command(inquiry_cdb(0xc0, 255), 255), refused(SenseKey::illegal_request, 0x2400));
  EXPECT_EQ(command(report_luns_cdb(64), 16),
            good(report_luns(report_luns_cdb(64), std::vector<std::uint16_t>{0}).data));
}

TEST_P(NullTargetConnectionTest, ReadsWhatWasWritten) {
  login();
  const std::size_t at_most =
      settings.protocol.immediate_data ? settings.protocol.first_burst_length : 0;
  std::uint64_t block = 3;
  for (const std::size_t bytes : {512U, 4096U, 32768U, 66048U, 300032U}) {
    const auto blocks = static_cast<std::uint32_t>(bytes / 512);
    for (const std::size_t immediate : {std::min(bytes, at_most), std::size_t{0}}) {
      const Bytes data = pattern(bytes);
      EXPECT_EQ(write(write16_cdb(block, blocks), data, immediate), good());
      EXPECT_TRUE(std::equal(data.begin(), data.end(),
                             lun.medium().begin() + static_cast<std::ptrdiff_t>(block * 512)));
      EXPECT_EQ(command(read16_cdb(block, blocks), static_cast<std::uint32_t>(bytes)), good(data));
      EXPECT_EQ(
          command(read10_cdb(static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(blocks)),
                  static_cast<std::uint32_t>(bytes)),
          good(data));
    }
    block += blocks;
  }
  EXPECT_EQ(command(synchronize_cache16_cdb(), 0), good());
  EXPECT_TRUE(connection->violation().empty());
}

TEST_P(NullTargetConnectionTest, TellsResiduals) {
  login();
  const Bytes data = pattern(4096);
  EXPECT_EQ(write(write10_cdb(0, 8), data, 0), good());
  EXPECT_EQ(command(read16_cdb(0, 8), 8192),
            (Ending{.status = 0, .underflow = true, .residual_bytes = 4096, .data = data}));
  EXPECT_EQ(command(read16_cdb(0, 8), 2048),
            (Ending{.status = 0,
                    .overflow = true,
                    .residual_bytes = 2048,
                    .data = Bytes(data.begin(), data.begin() + 2048)}));
  // Less than the command wants.
  EXPECT_EQ(write(write16_cdb(0, 8), pattern(2048), 0), refused(SenseKey::aborted_command, 0x0c02));
}

// Its status has no Data-In PDU to go with.
TEST_P(NullTargetConnectionTest, AnswersAReadOfNothing) {
  login();
  ScsiCommandPdu fields = command_pdu(report_luns_cdb(64), 0);
  fields.read = true;
  EXPECT_EQ(ending_of(ask(pdu_bytes(fields, {}, digests))),
            (Ending{.status = 0, .overflow = true, .residual_bytes = 16}));
}

TEST_P(NullTargetConnectionTest, RefusesWhatIsNotThere) {
  login();
  const Bytes before = lun.medium();
  EXPECT_EQ(command(read16_cdb(kBlocks, 1), 512), refused(SenseKey::illegal_request, 0x2100));
  EXPECT_EQ(write(write16_cdb(kBlocks - 1, 2), pattern(1024), 0),
            refused(SenseKey::illegal_request, 0x2100));
  EXPECT_EQ(command(Cdb{0xc7}, 512), refused(SenseKey::illegal_request, 0x2000));
  EXPECT_EQ(command(read16_cdb(0, 1), 512, 9), refused(SenseKey::illegal_request, 0x2500));
  Bytes nothing(36);
  nothing[0] = std::byte{0x7f};
  EXPECT_EQ(command(inquiry_cdb(-1, 36), 36, 9), good(nothing));
  EXPECT_TRUE(lun.medium() == before);
}

TEST_P(NullTargetConnectionTest, AnswersPingsAndLogsOut) {
  login();
  const auto pings =
      ask(pdu_bytes(NopOutPdu{.initiator_task_tag = 4711, .cmd_sn = cmd_sn}, {}, digests));
  ASSERT_EQ(pings.size(), 1U);
  const NopInPdu ping = decode_nop_in(pings[0].bhs());
  EXPECT_EQ(ping.initiator_task_tag, 4711U);
  EXPECT_EQ(ping.target_transfer_tag, kReservedTag);
  EXPECT_EQ(ping.numbers.stat_sn, stat_sn++);
  const auto goodbyes =
      ask(pdu_bytes(LogoutRequestPdu{.initiator_task_tag = 9, .cmd_sn = cmd_sn}, {}, digests));
  ASSERT_EQ(goodbyes.size(), 1U);
  const LogoutResponsePdu goodbye = decode_logout_response(goodbyes[0].bhs());
  EXPECT_EQ(goodbye.response, 0);
  EXPECT_EQ(goodbye.initiator_task_tag, 9U);
  EXPECT_EQ(goodbye.numbers.stat_sn, stat_sn);
  EXPECT_FALSE(connection->logged_in());
  expect_end("");
}

TEST_P(NullTargetConnectionTest, KnowsNoOtherTarget) {
  const LoginResponsePdu response = begin_login("iqn.2026-01.test:other");
  EXPECT_EQ(response.status_class, 2);
  EXPECT_EQ(response.status_detail, 3);
  EXPECT_FALSE(response.transit);
  expect_end("");
}

TEST_P(NullTargetConnectionTest, EndsALoginWhoseTextHasNoEnd) {
  Bytes text = text_bytes({"InitiatorName=iqn.2026-01.test:initiator"});
  text.pop_back();
  EXPECT_EQ(login_step(LoginStage::security_negotiation, LoginStage::operational_negotiation, text)
                .status_class,
            0xff);
  expect_end("the login text does not end in a NUL byte");
}

TEST_P(NullTargetConnectionTest, EndsAConnectionThatSkipsACommand) {
  login();
  ScsiCommandPdu skipped = command_pdu(test_unit_ready_cdb(), 0);
  skipped.cmd_sn += 7;
  EXPECT_TRUE(ask(pdu_bytes(skipped, {}, digests)).empty());
  EXPECT_TRUE(connection->finished());
  EXPECT_EQ(connection->violation().find("CmdSN "), 0U);
}

TEST_P(NullTargetConnectionTest, EndsAConnectionThatSendsDataOfNoWrite) {
  login();
  EXPECT_TRUE(ask(pdu_bytes(DataOutPdu{.final = true, .data_bytes = 512, .initiator_task_tag = 3},
                            pattern(512), digests))
                  .empty());
  expect_end("a Data-Out for no write");
}

TEST_P(NullTargetConnectionTest, EndsAConnectionThatSendsMoreThanWasNegotiated) {
  settings.protocol.max_recv_data_segment_length = 1024 * 1024;
  login();
  const std::size_t too_much =
      4 + (settings.protocol.immediate_data ? settings.protocol.first_burst_length : 0);
  static_cast<void>(write(write16_cdb(0, 256), pattern(128 * 1024), too_much));
  expect_end("immediate or unsolicited data that was not negotiated");
}

const std::vector<TargetWay> kTargetWays = {
    {"Usual", [](TargetOptions&) {}},
    {"NoAttention", [](TargetOptions& o) { o.power_on_unit_attention = false; }},
    {"InitialR2T", [](TargetOptions& o) { o.initial_r2t = true; }},
    {"NoImmediateData", [](TargetOptions& o) { o.immediate_data = false; }},
    {"SeparateStatus", [](TargetOptions& o) { o.status_with_data = false; }},
    {"SmallDataIn", [](TargetOptions& o) { o.max_data_in_bytes = 1000; }},
    {"SmallBursts", [](TargetOptions& o) { o.max_burst_length = o.first_burst_length = 16384; }},
    {"SmallWindow", [](TargetOptions& o) { o.window = 2; }},
    {"Digests", [](TargetOptions& o) { o.header_digest = o.data_digest = true; }},
};

INSTANTIATE_TEST_SUITE_P(All, NullTargetConnectionTest, testing::ValuesIn(kTargetWays),
                         [](const auto& way) { return way.param.first; });

}  // namespace
}  // namespace iscsi_blkback
