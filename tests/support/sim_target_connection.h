// The inside of SimTarget: one connection of an initiator: login, sequence numbers, data transfer.
// Included by sim_target*.cpp only.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/scripted_target.h"
#include "tests/support/sim_connection.h"
#include "tests/support/sim_target.h"
#include "tests/support/target_negotiation.h"
#include "tests/support/target_sequence.h"

namespace iscsi_blkback {

struct SimTarget::Task {
  SimCommand command;
  std::uint64_t lun_field = 0;
  std::uint32_t initiator_task_tag = 0;
  bool read = false;
  bool write = false;
  std::uint16_t group_tag = 0;
  std::vector<std::byte> data;  // of a write
  std::weak_ptr<SimTargetConnection> connection;
  std::shared_ptr<const SimConnection> wire;  // that it came by
  std::optional<SimFault> fault;
  bool lingered = false;
  bool terminated = false;
};

class SimTarget::Portal final : public SimListener::Owner {
 public:
  Portal(SimTarget& target, std::size_t index) : target_(target), index_(index) {}
  void open();
  void close();
  void on_accept(std::unique_ptr<SimStream> stream) noexcept override;

  std::uint16_t login_status = 0;
  std::string redirect;
  std::uint16_t redirect_status = 0x0101;
  std::vector<std::shared_ptr<SimTargetConnection>> connections;

 private:
  SimTarget& target_;
  std::size_t index_;
  std::unique_ptr<SimListener> listener_;
};

class SimTargetConnection final : public ByteStream::Owner,
                                  public std::enable_shared_from_this<SimTargetConnection> {
 public:
  SimTargetConnection(SimTarget& target, std::size_t portal, std::unique_ptr<SimStream> stream);

  void begin();
  // RST, and nothing more comes of this connection.
  void kill();
  void resume();  // after a hang
  void answer(const SimTarget::Task& task, const SimScsiResult& result);
  void ping();
  void send_async_message(AsyncEvent event, std::uint16_t parameter1, std::uint16_t parameter2,
                          std::uint16_t parameter3);
  void send_scsi_event(std::uint16_t lun, SenseKey key, std::uint16_t code);
  void task_aborted() { sequence_.finish(); }
  // A write whose data is still arriving; false: there is none.
  [[nodiscard]] bool forget_write(std::uint32_t tag);

  [[nodiscard]] std::uint64_t number() const { return wire_->number(); }
  [[nodiscard]] bool client_gone() const { return wire_->client_gone_since().has_value(); }
  [[nodiscard]] bool logged_in() const { return logged_in_ && !dead_; }
  [[nodiscard]] bool dead() const { return dead_; }
  [[nodiscard]] const std::string& initiator_name() const { return negotiated_.initiator_name; }

  Isid isid{};
  const std::size_t portal;
  std::map<std::uint16_t, std::deque<std::uint16_t>> unit_attentions;

 private:
  struct Write {
    std::shared_ptr<SimTarget::Task> task;
    std::uint32_t arrived = 0;
    std::uint32_t burst_end = 0;  // of the burst that is under way
    std::uint32_t data_sn = 0;
    std::uint32_t r2t_sn = 0;
    std::uint32_t transfer_tag = kReservedTag;
  };

  void on_connected() noexcept override {}
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  void parse();
  void handle(BhsBytes bytes, const PduHeader& header, std::span<const std::byte> data);
  void handle_login(const LoginRequestPdu& request, std::span<const std::byte> data);
  void handle_command(const ScsiCommandPdu& command, std::span<const std::byte> data);
  void handle_function(const TaskManagementRequestPdu& request);
  void execute_function(const TaskManagementRequestPdu& request, const SimFunctionFault& fault);
  void handle_data_out(const DataOutPdu& pdu, std::span<const std::byte> data);
  void burst_done(std::uint32_t tag, Write& write);
  void violation(std::string what);
  [[nodiscard]] TargetNumbers numbers(bool advances_stat_sn);
  template <class Pdu>
  void send(const Pdu& pdu, std::span<const std::byte> data = {}) {
    const std::size_t at = outbox_.size();
    const std::vector<std::byte> bytes = pdu_bytes(pdu, data, digests_);
    outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
    if (!data.empty() && std::exchange(target_.damage_next_data_, false)) {
      outbox_[at + kBhsBytes + digests_.header_bytes() + data.size() / 2] ^= std::byte{0x10};
    }
    pump();
  }
  void pump();

  void gone();

  SimTarget& target_;
  std::unique_ptr<SimStream> stream_;
  std::shared_ptr<const SimConnection> wire_;
  bool dead_ = false;
  bool logged_in_ = false;
  bool finish_after_send_ = false;
  std::vector<std::byte> receive_buffer_;
  std::vector<std::byte> inbox_;
  bool receiving_ = false;
  std::vector<std::byte> outbox_;
  std::vector<std::byte> sending_;
  std::string login_text_;
  TargetNegotiation negotiated_;
  Digests digests_;  // none until the login has ended
  TargetSequence sequence_;
  std::uint32_t next_transfer_tag_ = 1;
  std::map<std::uint32_t, Write> writes_;
};

}  // namespace iscsi_blkback
