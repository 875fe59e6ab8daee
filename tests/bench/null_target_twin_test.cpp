// The null target and the simulated target say the same, byte for byte: one suite of requests, each
// sent to both, on a SimReactor and without any reactor.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/byte_order.h"
#include "bench/null_target_connection.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/pdu/digest.h"
#include "initiator/scsi/cdb.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {
namespace {

using Bytes = std::vector<std::byte>;

struct Variant {
  std::string name;
  std::function<void(SimTargetOptions&)> change;
};
void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

// A client's end that says what it is told and keeps what it hears.
class RawClient final : public ByteStream::Owner {
 public:
  RawClient(SimReactor& reactor, const SocketAddress& address) : reactor_(reactor) {
    ConnectOptions options;
    options.address = address;
    stream_ = reactor.connect(options, *this);
    EXPECT_TRUE(reactor.run_until([this] { return connected_; }));
  }
  ~RawClient() {
    if (!closed_) {
      stream_->reset();
      EXPECT_TRUE(reactor_.run_until([this] { return closed_; }));
    }
  }
  // What comes back until nothing more does.
  Bytes exchange(const Bytes& bytes) {
    heard_.clear();
    sent_ = bytes;
    const iovec part{.iov_base = sent_.data(), .iov_len = sent_.size()};
    stream_->send({&part, 1});
    reactor_.run_for(std::chrono::seconds(1));
    return heard_;
  }
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  void on_connected() noexcept override {
    connected_ = true;
    receive();
  }
  void on_sent() noexcept override {}
  void on_received(std::size_t count) noexcept override {
    heard_.insert(heard_.end(), buffer_.begin(),
                  buffer_.begin() + static_cast<std::ptrdiff_t>(count));
    receive();
  }
  void on_closed(const Error&) noexcept override { closed_ = true; }
  void receive() {
    const iovec part{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
    stream_->receive({&part, 1});
  }

  SimReactor& reactor_;
  std::unique_ptr<ByteStream> stream_;
  bool connected_ = false;
  bool closed_ = false;
  Bytes sent_;
  Bytes buffer_ = Bytes(65536);
  Bytes heard_;
};

class NullTargetTwin : public testing::TestWithParam<Variant> {
 protected:
  static constexpr std::uint64_t kBlocks = 4096;

  NullTargetTwin() {
    SimTargetOptions options;
    options.portals = {{SocketAddress::parse("10.0.0.1", 3260).value(), 1}};
    GetParam().change(options);
    settings.protocol = options;
    digests = {.header = options.header_digest, .data = options.data_digest};
    sim = std::make_unique<SimTarget>(reactor, options);
    sim_lun = std::make_shared<SimLun>(SimLunOptions{.block_count = kBlocks});
    sim->add_lun(0, sim_lun);
    client = std::make_unique<RawClient>(reactor, sim->address(0));
    null = std::make_unique<NullTargetConnection>(settings, null_lun, 1, 1);
  }

  // The bytes of the null target's answer, however its input is cut.
  Bytes ask_null(const Bytes& bytes) {
    Bytes answer;
    Bytes input;
    std::size_t next = 0;
    while (next < bytes.size() && !null->finished()) {
      const std::size_t count =
          std::min<std::size_t>(bytes.size() - next, 1 + random.below(cut_bytes));
      std::size_t piece = count;
      ReplyBatch replies;
      if (const std::span<std::byte> direct = null->direct(); !direct.empty()) {
        piece = std::min(piece, direct.size());
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(next), piece, direct.begin());
        null->received_direct(piece, replies, {});
      } else {
        const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(next);
        input.insert(input.end(), from, from + static_cast<std::ptrdiff_t>(piece));
        const std::size_t taken = null->consume(input, true, replies, {});
        input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(taken));
      }
      next += piece;
      for (const iovec& part : replies.parts()) {
        const auto* data = static_cast<const std::byte*>(part.iov_base);
        answer.insert(answer.end(), data, data + part.iov_len);
      }
    }
    return answer;
  }

  // Both answer the same; returns it.
  Bytes ask(const Bytes& bytes) {
    const Bytes from_sim = client->exchange(bytes);
    const Bytes from_null = ask_null(bytes);
    EXPECT_EQ(from_null.size(), from_sim.size());
    const auto [at, other] =
        std::mismatch(from_null.begin(), from_null.end(), from_sim.begin(), from_sim.end());
    EXPECT_TRUE(at == from_null.end() && other == from_sim.end())
        << "first difference at byte " << at - from_null.begin();
    return from_sim;
  }

  template <class Pdu>
  Bytes pdu(const Pdu& fields, const Bytes& data = {}) const {
    const Digests now = logged_in ? digests : Digests{};
    Bytes bytes(kBhsBytes + now.header_bytes());
    encode(fields, BhsBuffer{bytes.data(), kBhsBytes});
    if (now.header) {
      put_digest(crc32c({bytes.data(), kBhsBytes}), bytes.data() + kBhsBytes);
    }
    if (!data.empty()) {
      const std::size_t begin = bytes.size();
      bytes.insert(bytes.end(), data.begin(), data.end());
      bytes.resize(begin + padded(data.size()), std::byte{0});
      const std::uint32_t checksum = crc32c(std::span{bytes}.subspan(begin));
      bytes.resize(bytes.size() + now.data_bytes());
      if (now.data) {
        put_digest(checksum, bytes.data() + bytes.size() - kDigestBytes);
      }
    }
    return bytes;
  }

  static Bytes text(std::initializer_list<std::string> pairs) {
    Bytes bytes;
    for (const std::string& pair : pairs) {
      for (const char letter : pair) {
        bytes.push_back(static_cast<std::byte>(letter));
      }
      bytes.push_back(std::byte{0});
    }
    return bytes;
  }

  Bytes login_request(LoginStage from, LoginStage to, const Bytes& data) const {
    LoginRequestPdu request;
    request.transit = true;
    request.current_stage = from;
    request.next_stage = to;
    request.isid = {0x80, 1, 2, 3, 4, 5};
    request.initiator_task_tag = 77;
    request.cmd_sn = cmd_sn;
    request.data_bytes = static_cast<std::uint32_t>(data.size());
    return pdu(request, data);
  }

  void login() {
    ask(login_request(LoginStage::security_negotiation, LoginStage::operational_negotiation,
                      text({"InitiatorName=iqn.2026-01.test:twin", "SessionType=Normal",
                            "TargetName=" + settings.protocol.name, "AuthMethod=None"})));
    const Bytes reply = ask(
        login_request(LoginStage::operational_negotiation, LoginStage::full_feature_phase,
                      text({digests.header ? "HeaderDigest=CRC32C,None" : "HeaderDigest=None",
                            digests.data ? "DataDigest=CRC32C" : "DataDigest=None",
                            "MaxRecvDataSegmentLength=32768", "InitialR2T=No", "ImmediateData=Yes",
                            "MaxBurstLength=131072", "FirstBurstLength=65536", "DefaultTime2Wait=2",
                            "DefaultTime2Retain=0", "MaxOutstandingR2T=1", "MaxConnections=1",
                            "ErrorRecoveryLevel=0", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes",
                            "X-com.example.Unknown=1"})));
    ASSERT_GE(reply.size(), kBhsBytes);
    const LoginResponsePdu response = decode_login_response(BhsBytes{reply.data(), kBhsBytes});
    ASSERT_EQ(response.status_class, 0);
    ASSERT_TRUE(response.transit);
    logged_in = true;
  }

  ScsiCommandPdu command(const Cdb& cdb, std::uint32_t bytes, DataDirection direction) {
    ScsiCommandPdu command;
    command.read = direction == DataDirection::in;
    command.write = direction == DataDirection::out;
    command.expected_data_bytes = bytes;
    command.initiator_task_tag = 1000 + cmd_sn;
    command.cmd_sn = cmd_sn++;
    command.cdb = cdb;
    return command;
  }
  Bytes read(const Cdb& cdb, std::uint32_t bytes) {
    return ask(pdu(command(cdb, bytes, DataDirection::in)));
  }

  // A write with so much of its data immediate; the rest is sent as both ask for it.
  void write(const Cdb& cdb, const Bytes& data, std::size_t immediate) {
    ScsiCommandPdu fields =
        command(cdb, static_cast<std::uint32_t>(data.size()), DataDirection::out);
    const std::uint32_t tag = fields.initiator_task_tag;
    fields.data_bytes = static_cast<std::uint32_t>(immediate);
    Bytes reply = ask(
        pdu(fields, Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(immediate))));
    while (reply.size() >= kBhsBytes &&
           decode_header(BhsBytes{reply.data(), kBhsBytes}).opcode == Opcode::r2t) {
      const R2tPdu r2t = decode_r2t(BhsBytes{reply.data(), kBhsBytes});
      Bytes burst;
      std::uint32_t data_sn = 0;
      for (std::uint32_t offset = 0; offset < r2t.desired_bytes; offset += 8192) {
        const std::uint32_t count = std::min(8192U, r2t.desired_bytes - offset);
        DataOutPdu out;
        out.final = offset + count == r2t.desired_bytes;
        out.data_bytes = count;
        out.initiator_task_tag = tag;
        out.target_transfer_tag = r2t.target_transfer_tag;
        out.data_sn = data_sn++;
        out.buffer_offset = r2t.buffer_offset + offset;
        const auto from = data.begin() + static_cast<std::ptrdiff_t>(out.buffer_offset);
        const Bytes bytes = pdu(out, Bytes(from, from + static_cast<std::ptrdiff_t>(count)));
        burst.insert(burst.end(), bytes.begin(), bytes.end());
      }
      reply = ask(burst);
    }
    EXPECT_GE(reply.size(), kBhsBytes);
    EXPECT_TRUE(sim_lun->medium() == null_lun.medium());
  }

  Bytes pattern(std::size_t bytes) {
    Bytes data(bytes);
    for (std::byte& byte : data) {
      byte = static_cast<std::byte>(random.next());
    }
    return data;
  }

  SimReactor reactor{1};
  SimRandom random{7};
  std::uint64_t cut_bytes = 40000;
  NullTargetSettings settings;
  std::unique_ptr<SimTarget> sim;
  std::shared_ptr<SimLun> sim_lun;
  std::unique_ptr<RawClient> client;
  SimLun null_lun{SimLunOptions{.block_count = kBlocks}};
  std::unique_ptr<NullTargetConnection> null;
  Digests digests;
  bool logged_in = false;
  std::uint32_t cmd_sn = 5;
};

TEST_P(NullTargetTwin, SaysWhoTheLunIs) {
  login();
  read(inquiry_cdb(-1, 255), 255);
  if (settings.protocol.power_on_unit_attention) {
    read(test_unit_ready_cdb(), 0);
  }
  read(test_unit_ready_cdb(), 0);
  for (const int page : {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2, 0xc0}) {
    read(inquiry_cdb(page, 255), 255);
  }
  read(inquiry_cdb(-1, 255), 20);
  read(read_capacity10_cdb(), 8);
  read(read_capacity16_cdb(32), 32);
  read(report_luns_cdb(64), 64);
  read(mode_sense6_cdb(0x3f, 192), 192);
}

TEST_P(NullTargetTwin, ReadsAndWrites) {
  login();
  read(test_unit_ready_cdb(), 0);
  const std::size_t at_most =
      settings.protocol.immediate_data ? settings.protocol.first_burst_length : 0;
  std::uint64_t block = 3;
  for (const std::size_t bytes : {512U, 4096U, 32768U, 66048U, 300032U}) {
    const auto blocks = static_cast<std::uint32_t>(bytes / 512);
    write(write16_cdb(block, blocks), pattern(bytes), std::min(bytes, at_most));
    read(read16_cdb(block, blocks), static_cast<std::uint32_t>(bytes));
    read(read10_cdb(static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(blocks)),
         static_cast<std::uint32_t>(bytes));
    block += blocks;
  }
  write(write10_cdb(9, 8), pattern(4096), 0);
  read(synchronize_cache16_cdb(), 0);
}

TEST_P(NullTargetTwin, TellsResiduals) {
  login();
  read(test_unit_ready_cdb(), 0);
  read(read16_cdb(0, 8), 8192);
  read(read16_cdb(0, 8), 2048);
  write(write16_cdb(0, 8), pattern(8192), 0);
  write(write16_cdb(0, 8), pattern(2048), 0);
}

// Its status has no Data-In PDU to go with.
TEST_P(NullTargetTwin, AnswersAReadOfNothing) {
  login();
  read(test_unit_ready_cdb(), 0);
  const Bytes reply = read(report_luns_cdb(64), 0);
  ASSERT_EQ(reply.size(), kBhsBytes + digests.header_bytes());
  const ScsiResponsePdu response = decode_scsi_response(BhsBytes{reply.data(), kBhsBytes});
  EXPECT_TRUE(response.overflow);
  EXPECT_EQ(response.residual_bytes, 16U);
}

TEST_P(NullTargetTwin, RefusesTheSame) {
  login();
  read(test_unit_ready_cdb(), 0);
  read(read16_cdb(kBlocks, 1), 512);
  write(write16_cdb(kBlocks - 1, 2), pattern(1024), 0);
  Cdb unknown{};
  unknown[0] = 0xc7;
  read(unknown, 512);
  ScsiCommandPdu elsewhere = command(read16_cdb(0, 1), 512, DataDirection::in);
  elsewhere.lun = encode_lun(9);
  ask(pdu(elsewhere));
  ScsiCommandPdu inquiry = command(inquiry_cdb(-1, 36), 36, DataDirection::in);
  inquiry.lun = encode_lun(9);
  ask(pdu(inquiry));
}

TEST_P(NullTargetTwin, AnswersPingsAndLogsOut) {
  login();
  NopOutPdu ping;
  ping.initiator_task_tag = 4711;
  ping.cmd_sn = cmd_sn;
  ask(pdu(ping));
  LogoutRequestPdu logout;
  logout.initiator_task_tag = 9;
  logout.cmd_sn = cmd_sn;
  ask(pdu(logout));
  EXPECT_TRUE(client->closed());
  EXPECT_TRUE(null->finished());
}

TEST_P(NullTargetTwin, KnowsNoOtherTarget) {
  ask(login_request(LoginStage::security_negotiation, LoginStage::operational_negotiation,
                    text({"InitiatorName=iqn.2026-01.test:twin", "SessionType=Normal",
                          "TargetName=iqn.2026-01.test:other", "AuthMethod=None"})));
  EXPECT_TRUE(client->closed());
  EXPECT_TRUE(null->finished());
}

TEST_P(NullTargetTwin, EndsALoginWhoseTextHasNoEnd) {
  Bytes data = text({"InitiatorName=iqn.2026-01.test:twin"});
  data.pop_back();
  EXPECT_TRUE(ask(login_request(LoginStage::security_negotiation,
                                LoginStage::operational_negotiation, data))
                  .empty());
  EXPECT_TRUE(client->closed());
  EXPECT_TRUE(null->finished());
  EXPECT_EQ(sim->violations, std::vector<std::string>{null->violation()});
  sim->violations.clear();
}

TEST_P(NullTargetTwin, EndsAConnectionThatBreaksTheProtocol) {
  login();
  ScsiCommandPdu skipped = command(test_unit_ready_cdb(), 0, DataDirection::none);
  skipped.cmd_sn += 7;
  EXPECT_TRUE(ask(pdu(skipped)).empty());
  EXPECT_TRUE(client->closed());
  EXPECT_TRUE(null->finished());
  EXPECT_EQ(sim->violations, std::vector<std::string>{null->violation()});
  sim->violations.clear();
}

const std::vector<Variant> kVariants = {
    {"Usual", [](SimTargetOptions&) {}},
    {"NoAttention", [](SimTargetOptions& o) { o.power_on_unit_attention = false; }},
    {"InitialR2T", [](SimTargetOptions& o) { o.initial_r2t = true; }},
    {"NoImmediateData", [](SimTargetOptions& o) { o.immediate_data = false; }},
    {"SeparateStatus", [](SimTargetOptions& o) { o.status_with_data = false; }},
    {"SmallDataIn", [](SimTargetOptions& o) { o.max_data_in_bytes = 1000; }},
    {"SmallBursts", [](SimTargetOptions& o) { o.max_burst_length = o.first_burst_length = 16384; }},
    {"SmallWindow", [](SimTargetOptions& o) { o.window = 2; }},
    {"Digests", [](SimTargetOptions& o) { o.header_digest = o.data_digest = true; }},
};

INSTANTIATE_TEST_SUITE_P(All, NullTargetTwin, testing::ValuesIn(kVariants),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace iscsi_blkback
