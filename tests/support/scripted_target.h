// ScriptedTarget: a target that does exactly what a test tells it to, right or wrong: it collects
// what the initiator sends and sends any bytes. Delays are the test's (SimReactor::run_for), cuts
// within PDUs the network's (SimNetwork::set_split, set_boundaries). For good behaviour see
// SimTarget.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "initiator/pdu/pdu.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_stream.h"
#include "tests/support/target_pdu.h"

namespace iscsi_blkback {

struct ReceivedPdu {
  std::vector<std::byte> bytes;  // header, additional headers, data, padding
  PduHeader header;
  Digests digests;  // that it has, and that were right

  [[nodiscard]] BhsBytes bhs() const { return BhsBytes{bytes.data(), kBhsBytes}; }
  [[nodiscard]] std::span<const std::byte> data() const {
    return std::span{bytes}.subspan(header.data_offset(digests), header.data_bytes);
  }
};

class ScriptedTarget final : private SimListener::Owner, private ByteStream::Owner {
 public:
  ScriptedTarget(SimReactor& reactor, const SocketAddress& address);
  ~ScriptedTarget();

  // Connections so far; the last one is the one that is spoken to.
  [[nodiscard]] int connections() const { return connections_; }
  [[nodiscard]] bool connected() const { return stream_ != nullptr && !stream_->closed(); }
  // Why the last connection ended, empty when it did not.
  [[nodiscard]] const std::string& close_reason() const { return close_reason_; }

  // What the initiator has sent and nobody has taken yet.
  std::deque<ReceivedPdu> received;
  // Runs the reactor until the next PDU is there (at most a minute) and takes it; false when none
  // comes or it has another opcode.
  [[nodiscard]] bool next(Opcode opcode, ReceivedPdu& pdu);

  template <class Pdu>
  void send(const Pdu& pdu, std::span<const std::byte> data = {}) {
    send_bytes(pdu_bytes(pdu, data, digests));
  }
  void send_bytes(std::span<const std::byte> bytes);
  void reset();
  void finish();  // end of the stream after what was sent

  // Goes through a login: answers the security stage, then the operational stage with this text on
  // top of the usual answers. first_stat_sn: of the first response. False: the initiator did not
  // play along.
  [[nodiscard]] bool accept_login(std::vector<std::pair<std::string, std::string>> keys = {},
                                  std::uint32_t first_stat_sn = 1, std::uint32_t window = 64);

  // Of the connection; accept_login() sets them as it answers. What arrives with a wrong digest, or
  // without one, counts as an error and is not delivered.
  Digests digests;
  int digest_errors = 0;

  // Sequence numbers of the connection, kept by accept_login() and for the test to use and change.
  std::uint32_t stat_sn = 1;  // of the next PDU with a status
  std::uint32_t exp_cmd_sn = 1;
  std::uint32_t max_cmd_sn = 64;
  [[nodiscard]] TargetNumbers numbers() const { return {stat_sn, exp_cmd_sn, max_cmd_sn}; }
  // numbers(), and counts stat_sn up.
  [[nodiscard]] TargetNumbers status_numbers() {
    const TargetNumbers now = numbers();
    ++stat_sn;
    return now;
  }

 private:
  void on_accept(std::unique_ptr<SimStream> stream) noexcept override;
  void on_connected() noexcept override {}
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;
  void receive();
  void pump();

  SimReactor& reactor_;
  std::unique_ptr<SimListener> listener_;
  std::unique_ptr<SimStream> stream_;
  std::vector<std::unique_ptr<SimStream>> old_streams_;
  int connections_ = 0;
  std::string close_reason_;
  std::vector<std::byte> buffer_;
  std::vector<std::byte> inbox_;
  std::vector<std::byte> outbox_;
  std::vector<std::byte> sending_;
  bool finish_after_send_ = false;
};

}  // namespace iscsi_blkback
