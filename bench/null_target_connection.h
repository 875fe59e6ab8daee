// NullTargetConnection: what the null target says on one connection: bytes in, replies out, no
// socket and no clock. It is the simulated target's twin (tests/bench compares their bytes),
// written for speed: a read refers to the medium, a write lands in it, and everything that is not a
// plain transfer goes to SimLun, as it does there. One thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "bench/reply_batch.h"
#include "initiator/pdu/pdu.h"
#include "tests/support/sim_lun.h"
#include "tests/support/sim_target.h"
#include "tests/support/target_negotiation.h"
#include "tests/support/target_sequence.h"

namespace iscsi_blkback {

struct NullTargetSettings {
  SimTargetOptions protocol;  // portals, delays: not used
  std::uint16_t lun_number = 0;
  bool one_at_a_time = false;  // a batch is one reply
  // Each command takes a random time between these; longer than zero reorders.
  Duration latency_min{};
  Duration latency_max{};
  Duration busy{};  // with each read of blocks, and nothing else happens meanwhile
};

class NullTargetConnection {
 public:
  NullTargetConnection(const NullTargetSettings& settings, SimLun& lun, std::uint16_t group_tag,
                       std::uint16_t tsih);

  // Takes whole PDUs from the front of input until the batch has enough; returns how many bytes it
  // took. What is answered later comes from answer_due. may_go_direct: no receive is under way, so
  // that it may take the data of a large incomplete PDU, too, and set direct() for the rest.
  [[nodiscard]] std::size_t consume(std::span<const std::byte> input, bool may_go_direct,
                                    ReplyBatch& replies, TimePoint now);
  void answer_due(ReplyBatch& replies, TimePoint now);
  [[nodiscard]] bool waits() const { return !delayed_.empty(); }
  [[nodiscard]] TimePoint next_due() const { return delayed_.front().due; }

  // Where the next bytes of the stream go: the rest of a large data segment that is under way;
  // consume() gets what comes after them. Empty mostly.
  [[nodiscard]] std::span<std::byte> direct() const { return direct_; }
  void received_direct(std::size_t count, ReplyBatch& replies, TimePoint now);

  // The initiator broke the protocol, or left: close after what is in the batch.
  [[nodiscard]] bool finished() const { return finished_; }
  [[nodiscard]] const std::string& violation() const { return violation_; }
  [[nodiscard]] bool logged_in() const { return logged_in_; }
  // Of the same nexus: a login on one terminates the other.
  [[nodiscard]] bool same_nexus(const NullTargetConnection& other) const;
  void add_unit_attention(std::uint16_t code) { unit_attentions_.push_back(code); }

 private:
  struct Answer {
    TimePoint due{};
    std::uint64_t order = 0;
    std::uint32_t initiator_task_tag = 0;
    std::uint32_t expected_bytes = 0;
    bool read = false;
    const std::byte* data = nullptr;  // of a plain read; the rest is in result
    SimScsiResult result;
  };
  struct Write {
    std::uint32_t initiator_task_tag = 0;
    std::uint64_t lun_field = 0;
    Cdb cdb{};
    std::uint32_t expected_bytes = 0;
    std::byte* destination = nullptr;  // in the medium; null: buffer
    std::vector<std::byte> buffer;
    std::uint32_t arrived = 0;
    std::uint32_t burst_end = 0;
    std::uint32_t data_sn = 0;
    std::uint32_t r2t_sn = 0;
    std::uint32_t transfer_tag = kReservedTag;

    [[nodiscard]] std::byte* place() {
      return destination != nullptr ? destination : buffer.data();
    }
  };

  void handle(BhsBytes bytes, const PduHeader& header, std::span<const std::byte> data,
              ReplyBatch& replies, TimePoint now);
  void handle_login(const LoginRequestPdu& request, std::span<const std::byte> data,
                    ReplyBatch& replies);
  void handle_command(const ScsiCommandPdu& command, std::span<const std::byte> data,
                      ReplyBatch& replies, TimePoint now);
  void begin_write(const ScsiCommandPdu& command, std::span<const std::byte> data,
                   ReplyBatch& replies, TimePoint now);
  [[nodiscard]] Write* accept_data_out(const DataOutPdu& pdu);
  void take_write_data(Write& write, std::uint32_t data_bytes, std::span<const std::byte> arrived,
                       ReplyBatch& replies, TimePoint now);
  void write_data_arrived(Write& write, std::uint32_t bytes, ReplyBatch& replies, TimePoint now);
  void burst_done(Write& write, ReplyBatch& replies, TimePoint now);
  // The bytes of the medium that a READ or WRITE of exactly expected_bytes names, else nothing.
  [[nodiscard]] std::byte* plain_transfer(const ScsiCommandPdu& command) const;
  [[nodiscard]] SimScsiResult execute(const Cdb& cdb, std::uint64_t lun_field,
                                      std::span<const std::byte> data);
  void finish(Answer answer, ReplyBatch& replies, TimePoint now);
  void answer(Answer& answer, ReplyBatch& replies);
  [[nodiscard]] TargetNumbers numbers(bool advances_stat_sn);
  void violate(std::string what);

  template <class Pdu>
  void send(const Pdu& pdu, std::span<const std::byte> data, bool refer, ReplyBatch& replies);

  const NullTargetSettings& settings_;
  SimLun& lun_;
  const std::uint16_t group_tag_;
  const std::uint16_t tsih_;
  bool logged_in_ = false;
  bool finished_ = false;
  std::string violation_;
  std::string login_text_;
  TargetNegotiation negotiated_;
  Isid isid_{};
  std::deque<std::uint16_t> unit_attentions_;
  Digests digests_;  // none until the login has ended
  TargetSequence sequence_;
  std::uint32_t next_transfer_tag_ = 1;
  std::vector<Write> writes_;    // that wait for data
  std::vector<Answer> delayed_;  // a heap, the next to be answered in front
  std::uint64_t order_ = 0;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
  std::span<std::byte> direct_;
  std::uint32_t direct_tag_ = 0;    // of the write that it belongs to
  std::uint32_t direct_bytes_ = 0;  // of the whole data segment
};

template <class Pdu>
void NullTargetConnection::send(const Pdu& pdu, std::span<const std::byte> data, bool refer,
                                ReplyBatch& replies) {
  std::byte* header = replies.stage(kBhsBytes + digests_.header_bytes());
  encode(pdu, BhsBuffer{header, kBhsBytes});
  if (digests_.header) {
    put_digest(crc32c({header, kBhsBytes}), header + kBhsBytes);
  }
  if (data.empty()) {
    return;
  }
  if (refer) {
    replies.refer(data.data(), data.size());
  } else {
    std::copy(data.begin(), data.end(), replies.stage(data.size()));
  }
  const std::size_t padding = padded(data.size()) - data.size();
  if (const std::size_t trailer = padding + digests_.data_bytes(); trailer != 0) {
    std::byte* end = replies.stage(trailer);
    std::fill_n(end, padding, std::byte{0});
    if (digests_.data) {
      put_digest(crc32c({end, padding}, crc32c(data)), end + padding);
    }
  }
}

}  // namespace iscsi_blkback
