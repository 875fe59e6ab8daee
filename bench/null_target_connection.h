// NullTargetConnection: what the null target says on one connection: bytes in, replies out, no
// socket and no clock. The shell of TargetConnection that is written for speed: a read refers to
// the medium, a write lands in it, and everything that is not a plain transfer goes to SimLun. One
// thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/clock.h"
#include "bench/reply_batch.h"
#include "tests/support/sim_lun.h"
#include "tests/support/target_connection.h"

namespace iscsi_blkback {

struct NullTargetSettings {
  TargetOptions protocol;
  std::uint16_t lun_number = 0;
  bool one_at_a_time = false;  // a batch is one reply
  // Each command takes a random time between these; longer than zero reorders.
  Duration latency_min{};
  Duration latency_max{};
  Duration busy{};  // with each read of blocks, and nothing else happens meanwhile
};

class NullTargetConnection : public TargetConnection<NullTargetConnection> {
 public:
  NullTargetConnection(const NullTargetSettings& settings, SimLun& lun, std::uint16_t group_tag,
                       std::uint16_t tsih);

  // As TargetConnection's, until the batch has enough. What is answered later comes from
  // answer_due. may_go_direct: no receive is under way.
  [[nodiscard]] std::size_t consume(std::span<const std::byte> input, bool may_go_direct,
                                    TimePoint now);
  void received_direct(std::size_t count, TimePoint now);
  using TargetConnection::direct;
  void answer_due(TimePoint now);
  [[nodiscard]] bool waits() const { return !delayed_.empty(); }

  // The initiator broke the protocol, or left: close after what is in the batch.
  [[nodiscard]] bool finished() const {
    return TargetConnection::finished() || !violation_.empty();
  }
  [[nodiscard]] const std::string& violation() const { return violation_; }
  // Of the same nexus: a login on one terminates the other.
  [[nodiscard]] bool same_nexus(const NullTargetConnection& other) const {
    return logged_in() && other.logged_in() && group_tag_ == other.group_tag_ &&
           same_initiator(other);
  }
  void add_unit_attention(std::uint16_t code) { unit_attentions_.push_back(code); }

  ReplyBatch replies;

 private:
  friend class TargetConnection<NullTargetConnection>;
  struct Answer {
    TimePoint due{};
    std::uint64_t order = 0;
    std::uint32_t initiator_task_tag = 0;
    std::uint32_t expected_bytes = 0;
    bool read = false;
    const std::byte* data = nullptr;  // of a plain read; the rest is in result
    SimScsiResult result;
  };

  // For TargetConnection.
  [[nodiscard]] bool reads() const { return !finished() && !has_enough(); }
  void violate(std::string what) { violation_ = std::move(what); }
  [[nodiscard]] std::uint16_t group_tag() const { return group_tag_; }
  [[nodiscard]] std::uint16_t begin_session();
  // The bytes of the medium that a READ or WRITE of exactly the expected bytes names, else nothing.
  [[nodiscard]] std::byte* place(const ScsiCommandPdu& command) const;
  void execute(const ScsiCommandPdu& command, std::byte* place, std::vector<std::byte>&& data);
  template <class Pdu>
  void send(const Pdu& pdu, std::span<const std::byte> data);

  [[nodiscard]] bool has_enough() const {
    return replies.enough() || (settings_.one_at_a_time && !replies.empty());
  }
  [[nodiscard]] SimScsiResult perform(const ScsiCommandPdu& command,
                                      std::span<const std::byte> data);
  void finish(Answer& finished);

  const NullTargetSettings& settings_;
  SimLun& lun_;
  const std::uint16_t group_tag_;
  const std::uint16_t tsih_;
  TimePoint now_{};
  std::string violation_;
  std::deque<std::uint16_t> unit_attentions_;
  std::vector<Answer> delayed_;  // a heap, the next to be answered in front
  std::uint64_t order_ = 0;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
};

}  // namespace iscsi_blkback
