// The inside of SimTarget: one connection of an initiator, the simulated shell of TargetConnection:
// its bytes come from the simulated network, its commands are the target's tasks, with their delays
// and faults. Included by sim_target*.cpp only.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/sim_connection.h"
#include "tests/support/sim_target.h"
#include "tests/support/target_connection.h"

namespace iscsi_blkback {

struct SimTarget::Task {
  SimCommand command;
  std::uint32_t initiator_task_tag = 0;
  bool read = false;
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

class SimTargetConnection final : public TargetConnection<SimTargetConnection>,
                                  public ByteStream::Owner,
                                  public std::enable_shared_from_this<SimTargetConnection> {
 public:
  SimTargetConnection(SimTarget& target, std::size_t portal, std::unique_ptr<SimStream> stream);

  void begin();
  // RST, and nothing more comes of this connection.
  void kill();
  void resume();  // after a hang
  void answer_task(const SimTarget::Task& task, const SimScsiResult& result);
  void ping();
  void send_async_message(AsyncEvent event, std::uint16_t parameter1, std::uint16_t parameter2,
                          std::uint16_t parameter3);
  void send_scsi_event(std::uint16_t lun, SenseKey key, std::uint16_t code);
  void task_aborted() { command_aborted(); }
  // A write whose data is still arriving; false: there is none.
  [[nodiscard]] bool forget_write(std::uint32_t tag);

  [[nodiscard]] std::uint64_t number() const { return wire_->number(); }
  [[nodiscard]] bool client_gone() const { return wire_->client_gone_since().has_value(); }
  [[nodiscard]] bool logged_in() const { return TargetConnection::logged_in() && !dead_; }
  [[nodiscard]] bool dead() const { return dead_; }

  const std::size_t portal;
  std::map<std::uint16_t, std::deque<std::uint16_t>> unit_attentions;

 private:
  friend class TargetConnection<SimTargetConnection>;

  void on_connected() noexcept override {}
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  // For TargetConnection.
  [[nodiscard]] bool reads() const { return !dead_ && !target_.hung_; }
  [[nodiscard]] bool admits();
  void violate(std::string what);
  [[nodiscard]] std::uint16_t group_tag() const {
    return target_.options_.portals[portal].group_tag;
  }
  [[nodiscard]] LoginDiversion divert_login() const;
  [[nodiscard]] std::uint16_t begin_session();
  void on_logout() { ++target_.counters.logouts; }
  void on_ping_answered() { ++target_.counters.pings_answered; }
  [[nodiscard]] std::uint32_t window() {
    return target_.window_closed_ ? 0 : TargetConnection::window();
  }
  void execute(const ScsiCommandPdu& command, std::byte* place, std::vector<std::byte>&& data);
  [[nodiscard]] bool handle_other(Opcode opcode, BhsBytes bytes);
  template <class Pdu>
  void send(const Pdu& pdu, std::span<const std::byte> data) {
    const std::size_t at = outbox_.size();
    const std::vector<std::byte> bytes = pdu_bytes(pdu, data, digests());
    outbox_.insert(outbox_.end(), bytes.begin(), bytes.end());
    if (!data.empty() && std::exchange(target_.damage_next_data_, false)) {
      outbox_[at + kBhsBytes + digests().header_bytes() + data.size() / 2] ^= std::byte{0x10};
    }
    pump();
  }

  void execute_function(const TaskManagementRequestPdu& request, const SimFunctionFault& fault);
  void pump();
  void gone();

  SimTarget& target_;
  std::unique_ptr<SimStream> stream_;
  std::shared_ptr<const SimConnection> wire_;
  bool dead_ = false;
  std::vector<std::byte> receive_buffer_;
  std::vector<std::byte> inbox_;
  bool receiving_ = false;
  std::vector<std::byte> outbox_;
  std::vector<std::byte> sending_;
};

}  // namespace iscsi_blkback
