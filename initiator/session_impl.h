// The inside of Session; included by session*.cpp only.
//
//   session.cpp           life: start, stop, connection, failure, clean-up
//   session_timers.cpp    back-off between logins, keep-alive
//   session_receive.cpp   bytes to PDUs: staging buffer, direct reception of large Data-In
//   session_pdus.cpp      what each PDU of the target means
//   session_transmit.cpp  what goes into the one send of a reactor turn
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/reactor.h"
#include "initiator/fixed_queue.h"
#include "initiator/login.h"
#include "initiator/pdu.h"
#include "initiator/session.h"
#include "initiator/task_table.h"
#include "initiator/transmit_batch.h"

namespace iscsi_blkback {

class Session::Impl final : public ByteStream::Owner {
 public:
  Impl(Session& session, Reactor& reactor, SessionOptions options);
  ~Impl();

  void start();
  void stop(void (*on_stopped)(void* owner) noexcept, void* owner);
  void submit(ScsiTask& task);
  void drop(const Error& why);
  void retry_now();

  IntrusiveList<SessionObserver> observers_;
  SessionState state_ = SessionState::free;
  const SessionOptions options_;
  NegotiatedParameters negotiated_;
  std::uint64_t login_epoch_ = 0;
  Error last_error_{ErrorCode::unavailable, ""};
  std::uint32_t commands_in_flight_ = 0;
  TimePoint last_received_{};
  SessionStatistics statistics_;

 private:
  // Data of one burst that is still to be sent: unsolicited, or asked for by an R2T.
  struct DataOutBurst {
    std::uint32_t initiator_task_tag = 0;
    std::uint32_t target_transfer_tag = kReservedTag;
    std::uint32_t offset = 0;
    std::uint32_t end = 0;
    std::uint32_t data_sn = 0;
  };
  struct PingReply {
    std::uint64_t lun = 0;
    std::uint32_t target_transfer_tag = 0;
  };
  // A Data-In whose data goes from the socket straight to the task's buffer.
  struct DirectReception {
    std::byte* destination = nullptr;
    std::size_t remaining_bytes = 0;  // 0: none under way
    std::size_t padding_bytes = 0;
    DataInPdu pdu;
  };

  // ByteStream::Owner
  void on_connected() noexcept override;
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  // session.cpp
  [[nodiscard]] bool connection_active() const;
  [[nodiscard]] bool full_feature_phase() const;
  void connect();
  void fail_connection(Error why);
  void fail_protocol(std::string what);
  void leave_connection(Error why);
  void process_events();
  void deliver_session_down();
  void clean_up_connection();
  void complete_refused();
  void begin_logout(const Error& why, Duration limit);
  void redirect();
  [[nodiscard]] std::string where() const;

  // session_timers.cpp
  void on_timer();
  void tick();
  void start_tick();
  void schedule_retry();

  // session_receive.cpp
  void receive_more();
  void parse_received();
  [[nodiscard]] bool begin_direct_reception(BhsBytes bytes, const PduHeader& header,
                                            std::size_t available);

  // session_pdus.cpp
  void handle_pdu(BhsBytes bytes, const PduHeader& header, const std::byte* data);
  void handle_login_pdu(BhsBytes bytes, const PduHeader& header, const std::byte* data);
  void send_login_request();
  void enter_full_feature_phase();
  void handle_data_in(const DataInPdu& pdu, const std::byte* data);
  [[nodiscard]] TaskSlot* accept_data_in(const DataInPdu& pdu);
  void finish_data_in(const DataInPdu& pdu);
  void handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data);
  void handle_r2t(const R2tPdu& pdu);
  void handle_nop_in(const NopInPdu& pdu);
  void handle_async_message(const AsyncMessagePdu& pdu, const std::byte* data);
  void handle_reject(const RejectPdu& pdu, const std::byte* data);
  void handle_logout_response(const LogoutResponsePdu& pdu);
  void take_numbers(const TargetNumbers& numbers, bool advances_stat_sn);
  void set_transferred(TaskSlot& slot, bool underflow, bool overflow, std::uint32_t residual);
  void finish(TaskSlot& slot);
  void complete(ScsiTask& task);

  // session_transmit.cpp
  void schedule_flush();
  void flush();
  void stage_control_pdus();
  void stage_bursts();
  [[nodiscard]] bool stage_burst(DataOutBurst& burst);
  void stage_commands();
  void stage_command(ScsiTask& task);
  void queue_ping();

  Session& session_;
  Reactor& reactor_;
  std::unique_ptr<ByteStream> stream_;
  Deferred events_;
  Deferred flush_;
  Timer timer_;  // its meaning depends on state_

  // Life.
  bool closed_ = false;                // the stream has called on_closed
  bool session_down_pending_ = false;  // observers have heard up and are to hear down
  bool stopping_ = false;
  void (*on_stopped_)(void* owner) noexcept = nullptr;
  void* on_stopped_owner_ = nullptr;
  std::uint32_t failures_ = 0;  // in a row; decides the back-off
  TimePoint up_since_{};
  TimePoint login_deadline_{};
  Duration wait_demanded_{};  // the target's Time2Wait for the next try
  std::optional<SocketAddress> redirected_to_;
  std::uint32_t redirect_hops_ = 0;
  bool redirecting_ = false;
  LogLimiter log_limiter_;

  // Login.
  std::optional<Login> login_;
  std::vector<std::byte> login_request_;
  bool login_request_due_ = false;

  // Commands.
  TaskTable table_;
  IntrusiveList<ScsiTask> waiting_;    // no byte of them was sent
  IntrusiveList<ScsiTask> finishing_;  // answered, but a send still refers to their data
  IntrusiveList<ScsiTask> refused_;    // submitted while not logged in
  std::uint32_t cmd_sn_ = 0;           // of the next command
  std::uint32_t max_cmd_sn_ = 0;
  std::uint32_t exp_stat_sn_ = 0;

  // Sending.
  TransmitBatch batch_;
  std::uint64_t batch_number_ = 0;
  bool sending_ = false;
  FixedQueue<DataOutBurst> bursts_;
  FixedQueue<PingReply> ping_replies_;
  bool ping_queued_ = false;
  bool logout_queued_ = false;

  // Keep-alive.
  bool ping_outstanding_ = false;  // queued or sent, not answered
  TimePoint ping_since_{};
  TimePoint busy_since_{};  // when commands_in_flight_ last left 0
  bool idle_tick_ = false;  // the timer waits for noop_out_interval

  // Receiving: [received_begin_, received_end_) of the staging buffer is not parsed yet.
  std::vector<std::byte> received_;
  std::size_t received_begin_ = 0;
  std::size_t received_end_ = 0;
  std::size_t skip_bytes_ = 0;  // padding of a direct reception that is still to come
  DirectReception direct_;
};

}  // namespace iscsi_blkback
