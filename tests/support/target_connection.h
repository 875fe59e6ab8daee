// TargetConnection: a target's side of one iSCSI connection at error recovery level 0 (RFC 7143):
// takes PDUs from the bytes that have arrived; login, sequence numbers, the data of writes,
// answers. It is the core of two shells, each a class that derives from it and is its template's
// argument: SimTargetConnection (simulated network, virtual time, faults) and NullTargetConnection
// (sockets; benchmarks measure with it, therefore no virtual calls).
//
// A shell gives the functions that core calls as shell().X(); those that are at the end of this
// class have a default, the others are
//   bool reads()                      the next PDU may be taken
//   void violate(std::string what)    the initiator broke the protocol
//   void send(const Pdu&, std::span<const std::byte> data)
//   std::uint16_t group_tag()
//   std::uint16_t begin_session()     a login has succeeded; returns the TSIH
//   void execute(const ScsiCommandPdu&, std::byte* place, std::vector<std::byte>&& data)
//                                     with all data of a write, which are at place() or in data;
//                                     calls answer(), now or later
// No clock, no socket; one thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "initiator/pdu/pdu.h"
#include "tests/support/target_answer.h"
#include "tests/support/target_negotiation.h"
#include "tests/support/target_options.h"
#include "tests/support/target_pdu.h"
#include "tests/support/target_sequence.h"

namespace iscsi_blkback {

// A login's end before the negotiation: a status other than 0, with text.
struct LoginDiversion {
  std::uint16_t status = 0;  // class and detail
  std::string text = {};
};

template <class Shell>
class TargetConnection {
 public:
  [[nodiscard]] bool logged_in() const { return logged_in_; }
  [[nodiscard]] const std::string& initiator_name() const { return negotiated_.initiator_name; }
  [[nodiscard]] const Isid& isid() const { return isid_; }
  // Of the same initiator port.
  [[nodiscard]] bool same_initiator(const TargetConnection& other) const {
    return isid_ == other.isid_ && initiator_name() == other.initiator_name();
  }

 protected:
  explicit TargetConnection(const TargetOptions& options)
      : options_(options), sequence_(options.initial_stat_sn) {}
  ~TargetConnection() = default;
  TargetConnection(const TargetConnection&) = delete;
  TargetConnection& operator=(const TargetConnection&) = delete;

  // Takes whole PDUs from the front of input; returns how many bytes it took. may_go_direct: it may
  // take the data of a large incomplete PDU, too, and set direct() for the rest.
  [[nodiscard]] std::size_t consume(std::span<const std::byte> input, bool may_go_direct) {
    std::size_t taken = 0;
    while (direct_.empty() && shell().reads()) {
      const std::span<const std::byte> rest = input.subspan(taken);
      if (rest.size() < kBhsBytes) {
        break;
      }
      const BhsBytes bytes = rest.first<kBhsBytes>();
      const PduHeader header = decode_header(bytes);
      if (header.data_bytes > options_.max_recv_data_segment_length) {
        shell().violate("a data segment larger than MaxRecvDataSegmentLength");
        break;
      }
      const std::size_t data_at = header.data_offset(digests_);
      const bool whole = rest.size() >= header.total_bytes(digests_);
      const bool writes =
          header.opcode == Opcode::scsi_command || header.opcode == Opcode::data_out;
      // With a digest behind them, data are looked at before they go anywhere.
      const bool direct = may_go_direct && writes && !digests_.data &&
                          header.data_bytes >= kDirectBytes && header.data_bytes % 4 == 0 &&
                          rest.size() >= data_at;
      if (!whole && !direct) {
        break;
      }
      if ((digests_.header || digests_.data) && !digests_match(rest, header, digests_)) {
        shell().violate(fmt::format("a {} with a wrong digest", to_string(header.opcode)));
        break;
      }
      const std::size_t here = std::min<std::size_t>(header.data_bytes, rest.size() - data_at);
      taken += whole ? header.total_bytes(digests_) : rest.size();
      if (shell().admits()) {
        handle(bytes, header, rest.subspan(data_at, here));
      }
    }
    return taken;
  }
  // Where the next bytes of the stream go: the rest of a large data segment that is under way;
  // consume() gets what comes after them. Empty mostly.
  [[nodiscard]] std::span<std::byte> direct() const { return direct_; }
  void received_direct(std::size_t count) {
    direct_ = direct_.subspan(count);
    if (direct_.empty()) {
      const auto write = find_write(direct_tag_);
      ISCSI_BLKBACK_ASSERT(write != writes_.end());
      data_arrived(*write, direct_bytes_);
    }
  }

  // Ends a command. What the connection itself knows of an answer is filled in.
  void answer(TargetAnswer answer) {
    sequence_.finish();
    answer.status_with_data = options_.status_with_data;
    answer.data_in_bytes = negotiated_.data_in_bytes(options_);
    send_answer(
        answer, [this](bool advances_stat_sn) { return numbers(advances_stat_sn); },
        [this](const auto& pdu, std::span<const std::byte> data) { shell().send(pdu, data); });
  }
  // A command that is never answered is over.
  void command_aborted() { sequence_.finish(); }
  // A write whose data are still arriving is over; false: there is none.
  [[nodiscard]] bool abort_write(std::uint32_t tag) {
    const auto found = find_write(tag);
    if (found == writes_.end()) {
      return false;
    }
    remove(*found);
    sequence_.finish();
    write_was_aborted_ = true;
    return true;
  }

  [[nodiscard]] TargetNumbers numbers(bool advances_stat_sn) {
    return sequence_.numbers(advances_stat_sn, shell().window());
  }
  [[nodiscard]] std::uint32_t expected_cmd_sn() const { return sequence_.exp_cmd_sn(); }
  [[nodiscard]] std::uint32_t new_transfer_tag() { return next_transfer_tag_++; }
  [[nodiscard]] Digests digests() const { return digests_; }  // none until the login has ended
  [[nodiscard]] const std::string& chap_name() const { return negotiated_.chap_name; }
  // A login was refused or the initiator has logged out: close after what was sent.
  [[nodiscard]] bool finished() const { return finished_; }

  // What a shell may hide by its own.
  [[nodiscard]] bool admits() { return true; }  // a whole PDU; false: the connection is gone
  [[nodiscard]] LoginDiversion divert_login() { return {}; }
  [[nodiscard]] std::uint32_t window() { return std::max(options_.window, 1U); }
  // Where in the medium the data of a READ or WRITE are; null: nowhere, they go by a buffer.
  [[nodiscard]] std::byte* place(const ScsiCommandPdu&) { return nullptr; }
  // A PDU that the core does not know.
  [[nodiscard]] bool handle_other(Opcode, BhsBytes) { return false; }
  void on_ping_answered() {}
  void on_logout() {}

 private:
  struct Write {
    ScsiCommandPdu command;
    std::byte* place = nullptr;
    std::vector<std::byte> data;  // where there is no place
    std::uint32_t arrived = 0;
    std::uint32_t burst_end = 0;  // of the burst that is under way
    std::uint32_t data_sn = 0;
    std::uint32_t r2t_sn = 0;
    std::uint32_t transfer_tag = kReservedTag;
  };

  // Data of a write that has not arrived whole goes where it belongs from this size on.
  static constexpr std::size_t kDirectBytes = 16 * 1024;

  [[nodiscard]] Shell& shell() { return static_cast<Shell&>(*this); }
  [[nodiscard]] auto find_write(std::uint32_t tag) {
    return std::find_if(writes_.begin(), writes_.end(), [tag](const Write& write) {
      return write.command.initiator_task_tag == tag;
    });
  }
  void remove(Write& write) {
    if (&write != &writes_.back()) {
      write = std::move(writes_.back());
    }
    writes_.pop_back();
  }

  void handle(BhsBytes bytes, const PduHeader& header, std::span<const std::byte> data) {
    if (!logged_in_ && header.opcode != Opcode::login_request) {
      shell().violate(fmt::format("a {} before the end of the login", to_string(header.opcode)));
      return;
    }
    switch (header.opcode) {
      case Opcode::login_request:
        handle_login(decode_login_request(bytes), data);
        return;
      case Opcode::scsi_command:
        handle_command(decode_scsi_command(bytes), data);
        return;
      case Opcode::data_out:
        handle_data_out(decode_data_out(bytes), data);
        return;
      case Opcode::nop_out:
        handle_ping(decode_nop_out(bytes));
        return;
      case Opcode::logout_request:
        handle_logout(decode_logout_request(bytes));
        return;
      default:
        if (!shell().handle_other(header.opcode, bytes)) {
          shell().violate(
              fmt::format("a {}, which this target does not know", to_string(header.opcode)));
        }
    }
  }

  void handle_login(const LoginRequestPdu& request, std::span<const std::byte> data) {
    if (logged_in_) {
      shell().violate("a Login Request in the full feature phase");
      return;
    }
    login_text_.append(reinterpret_cast<const char*>(data.data()), data.size());
    sequence_.begin(request.cmd_sn);
    isid_ = request.isid;
    auto [status, text] = shell().divert_login();
    if (status == 0 && !request.more) {
      auto answer = negotiated_.answer(login_text_, options_, shell().group_tag());
      login_text_.clear();
      if (answer) {
        text = std::move(*answer);
      } else if (answer.error().code == ErrorCode::not_found) {
        status = 0x0203;
      } else if (answer.error().code == ErrorCode::permission_denied) {
        status = 0x0201;
      } else {
        shell().violate(std::move(answer.error().message));
        return;
      }
    }
    const bool transit = status == 0 && request.transit;
    const bool complete = transit && request.next_stage == LoginStage::full_feature_phase;
    finished_ = finished_ || status != 0;
    std::uint16_t tsih = 0;
    if (complete) {
      tsih = shell().begin_session();
      logged_in_ = true;
    }
    shell().send(LoginResponsePdu{.transit = transit,
                                  .current_stage = request.current_stage,
                                  .next_stage = request.next_stage,
                                  .data_bytes = static_cast<std::uint32_t>(text.size()),
                                  .isid = request.isid,
                                  .tsih = tsih,
                                  .initiator_task_tag = request.initiator_task_tag,
                                  .numbers = numbers(true),
                                  .status_class = static_cast<std::uint8_t>(status >> 8),
                                  .status_detail = static_cast<std::uint8_t>(status & 0xff)},
                 std::as_bytes(std::span{text}));
    if (complete) {
      digests_ = negotiated_.digests;
    }
  }

  void handle_ping(const NopOutPdu& ping) {
    if (!ping.immediate || ping.cmd_sn != sequence_.exp_cmd_sn()) {
      shell().violate("a NOP-Out that is not immediate or has a wrong CmdSN");
    } else if (ping.initiator_task_tag == kReservedTag) {
      shell().on_ping_answered();
    } else {
      shell().send(NopInPdu{.lun = ping.lun,
                            .initiator_task_tag = ping.initiator_task_tag,
                            .numbers = numbers(true)},
                   {});
    }
  }

  void handle_logout(const LogoutRequestPdu& logout) {
    finished_ = true;
    logged_in_ = false;
    shell().on_logout();
    shell().send(LogoutResponsePdu{.initiator_task_tag = logout.initiator_task_tag,
                                   .numbers = numbers(true)},
                 {});
  }

  void handle_command(const ScsiCommandPdu& command, std::span<const std::byte> data) {
    if (!sequence_.take(command.cmd_sn)) {
      shell().violate(sequence_.refusal(command.cmd_sn));
    } else if (command.write) {
      begin_write(command, data);
    } else {
      shell().execute(command, shell().place(command), {});
    }
  }

  void begin_write(const ScsiCommandPdu& command, std::span<const std::byte> data) {
    const std::uint32_t unasked = std::min(negotiated_.first_burst, command.expected_data_bytes);
    if ((command.data_bytes != 0 && !negotiated_.immediate_data) || command.data_bytes > unasked ||
        (!command.final && negotiated_.initial_r2t)) {
      shell().violate("immediate or unsolicited data that was not negotiated");
      return;
    }
    std::byte* place = shell().place(command);
    if (place != nullptr && data.size() == command.expected_data_bytes && command.final) {
      // All of it is here: what most writes are.
      std::memcpy(place, data.data(), data.size());
      shell().execute(command, place, {});
      return;
    }
    if (find_write(command.initiator_task_tag) != writes_.end()) {
      shell().violate("an initiator task tag that is in use");
      return;
    }
    Write& write = writes_.emplace_back();
    write.command = command;
    write.place = place;
    if (place == nullptr) {
      write.data.resize(command.expected_data_bytes);
    }
    write.burst_end = command.final ? command.data_bytes : unasked;
    take_data(write, command.data_bytes, data);
  }

  void handle_data_out(const DataOutPdu& pdu, std::span<const std::byte> data) {
    const auto found = find_write(pdu.initiator_task_tag);
    if (found == writes_.end()) {
      if (!write_was_aborted_) {
        shell().violate("a Data-Out for no write");
      }
      return;
    }
    Write& write = *found;
    if (pdu.target_transfer_tag != write.transfer_tag || pdu.buffer_offset != write.arrived ||
        pdu.data_sn != write.data_sn || pdu.data_bytes > write.burst_end - write.arrived ||
        pdu.lun != write.command.lun) {
      shell().violate("a Data-Out with wrong tag, offset, DataSN, length or LUN");
      return;
    }
    if (pdu.final != (write.arrived + pdu.data_bytes == write.burst_end)) {
      shell().violate("a Data-Out whose F bit is in the wrong place");
      return;
    }
    ++write.data_sn;
    take_data(write, pdu.data_bytes, data);
  }

  // arrived: the first bytes of a data segment of data_bytes; the rest, if any, comes directly.
  void take_data(Write& write, std::uint32_t data_bytes, std::span<const std::byte> arrived) {
    std::byte* to = (write.place != nullptr ? write.place : write.data.data()) + write.arrived;
    if (!arrived.empty()) {
      std::memcpy(to, arrived.data(), arrived.size());
    }
    if (arrived.size() < data_bytes) {
      direct_ = {to + arrived.size(), data_bytes - arrived.size()};
      direct_tag_ = write.command.initiator_task_tag;
      direct_bytes_ = data_bytes;
      return;
    }
    data_arrived(write, data_bytes);
  }

  void data_arrived(Write& write, std::uint32_t bytes) {
    write.arrived += bytes;
    if (write.arrived != write.burst_end) {
      return;
    }
    const ScsiCommandPdu& command = write.command;
    if (write.arrived == command.expected_data_bytes) {
      shell().execute(command, write.place, std::move(write.data));
      remove(write);
      return;
    }
    const std::uint32_t desired =
        std::min(negotiated_.max_burst, command.expected_data_bytes - write.arrived);
    write.burst_end = write.arrived + desired;
    write.data_sn = 0;
    write.transfer_tag = new_transfer_tag();
    shell().send(R2tPdu{.lun = command.lun,
                        .initiator_task_tag = command.initiator_task_tag,
                        .target_transfer_tag = write.transfer_tag,
                        .numbers = numbers(false),
                        .r2t_sn = write.r2t_sn++,
                        .buffer_offset = write.arrived,
                        .desired_bytes = desired},
                 {});
  }

  const TargetOptions& options_;
  bool logged_in_ = false;
  bool finished_ = false;
  std::string login_text_;
  TargetNegotiation negotiated_;
  Isid isid_{};
  Digests digests_;
  TargetSequence sequence_;
  std::uint32_t next_transfer_tag_ = 1;
  std::vector<Write> writes_;  // whose data are arriving
  bool write_was_aborted_ = false;
  std::span<std::byte> direct_;
  std::uint32_t direct_tag_ = 0;    // of the write that it belongs to
  std::uint32_t direct_bytes_ = 0;  // of the whole data segment
};

}  // namespace iscsi_blkback
