// The inside of Session; included by session*.cpp only. Reactor thread.
//
//   session.cpp           life: start, stop, connection, failure, clean-up
//   session_timers.cpp    back-off between logins, keep-alive
//   session_recovery.cpp  stuck commands, task management functions
//   session_receive.cpp   what arrives, and when more is received
//   session_pdus.cpp      what each PDU of the target means: login, data, status, R2T
//   session_messages.cpp  likewise: pings, asynchronous messages, rejects, logout
//   session_transmit.cpp  what goes into the one send of a reactor turn
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/reactor.h"
#include "initiator/pdu/pdu.h"
#include "initiator/pdu/pdu_receiver.h"
#include "initiator/session/command_answers.h"
#include "initiator/session/command_queue.h"
#include "initiator/session/command_watchdog.h"
#include "initiator/session/keep_alive.h"
#include "initiator/session/login_phase.h"
#include "initiator/session/logout_sequence.h"
#include "initiator/session/pdu_sender.h"
#include "initiator/session/receive_pacer.h"
#include "initiator/session/redirect_chain.h"
#include "initiator/session/relogin_backoff.h"
#include "initiator/session/session.h"
#include "initiator/session/session_numbers.h"
#include "initiator/session/session_tags.h"
#include "initiator/session/task_manager.h"
#include "initiator/session/task_table.h"
#include "initiator/session/tolerated.h"

namespace iscsi_blkback {

class Session::Impl final : public ByteStream::Owner, public TaskManager::Owner {
 public:
  Impl(Session& session, Reactor& reactor, SessionOptions options, NameResolver& resolver,
       ChapMemory& chap_memory);
  ~Impl();

  void start();
  void stop(void (*on_stopped)(void* owner) noexcept, void* owner);
  void submit(ScsiTask& task);
  [[nodiscard]] std::uint32_t commands_in_flight() const { return queue_.in_flight(); }
  void take_back_unsent(bool (*is_callers)(const ScsiTask& task, const void* caller) noexcept,
                        const void* caller) {
    queue_.withdraw_unsent(is_callers, caller);
  }
  void manage(TaskManagement& function);
  void abandon(TaskManagement& function) { functions_.abandon(function); }
  void doubt_commands(std::uint64_t lun);
  [[nodiscard]] bool may_reset(std::uint64_t lun) noexcept override;
  void ping();
  [[nodiscard]] bool discard(ScsiTask& task);
  void drop(const Error& why);
  void retry_now();
  [[nodiscard]] bool keeps_ending() const;
  [[nodiscard]] bool still_trying() const;

  IntrusiveList<SessionObserver> observers_;
  SessionState state_ = SessionState::free;
  const SessionOptions options_;
  NegotiatedParameters negotiated_;
  SocketAddress portal_address_ = options_.portal;  // of the last login that succeeded
  SocketAddress peer_;                              // likewise
  std::uint64_t login_epoch_ = 0;
  Error last_error_{ErrorCode::unavailable, ""};
  SessionStatistics statistics_;
  Reactor& reactor_;
  KeepAlive keep_alive_{
      reactor_, options_,
      [](void* owner) noexcept { static_cast<Impl*>(owner)->on_keep_alive_due(); }, this};

 private:
  // ByteStream::Owner
  void on_connected() noexcept override;
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  // session.cpp
  [[nodiscard]] bool connection_active() const;
  [[nodiscard]] bool full_feature_phase() const;
  void connect();
  void on_login_overdue();
  void on_address_found(const Result<void>& found);
  void fail_connection(Error why);
  void fail_protocol(const std::string& what);
  void fail_unless(const Result<void>& taken);
  void leave_connection(Error why);
  void process_events();
  void deliver_session_down();
  void clean_up_connection();
  void log_failure(const Error& why);
  void begin_logout(const Error& why, const LogoutSequence::Limits& limits);
  void on_logout_due();
  void stop_watching();
  [[nodiscard]] std::string where() const;

  // session_timers.cpp
  void on_keep_alive_due();
  void ask_for_peer();
  [[nodiscard]] KeepAlive::Silence silence();
  void note_end_of_silence();
  void ping_answered();
  void deliver_ping_answered();
  void schedule_retry();

  void on_scan_due();
  void scan_for_stuck_commands();
  void function_answered(std::uint32_t tag, FunctionOutcome outcome);
  void handle_task_management_response(const TaskManagementResponsePdu& pdu);

  // TaskManager::Owner
  void end_task(TaskSlot& slot) noexcept override { answers_.finish(slot); }
  void warn(const std::string& text) noexcept override;
  void give_up(const Error& why) noexcept override;

  // session_receive.cpp
  void receive(std::size_t limit_bytes);
  void take_received();
  [[nodiscard]] bool begin_large_data_in(const IncomingPdu& pdu);
  void fail_digest(const char* which, Opcode opcode);

  // session_pdus.cpp
  void handle_pdu(const IncomingPdu& pdu);
  void handle_login_pdu(const IncomingPdu& pdu);
  void send_login_request();
  void redirect();
  void enter_full_feature_phase();
  void handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data);

  // session_messages.cpp
  void handle_nop_in(const NopInPdu& pdu);
  void handle_async_message(const AsyncMessagePdu& pdu, const std::byte* data);
  void logout_as_asked(const char* what, std::uint16_t limit_seconds);
  void handle_reject(const RejectPdu& pdu, const std::byte* data);
  void handle_logout_response(const LogoutResponsePdu& pdu);

  void pass_status_gaps();
  void tell_tolerated(Tolerated rule, std::string_view details);

  // session_transmit.cpp
  void schedule_flush();
  void flush();
  void send_batch();
  void queue_ping();

  Session& session_;
  std::unique_ptr<ByteStream> stream_;
  Deferred events_;
  Deferred flush_;
  Timer retry_timer_;  // in transport_wait: the next try

  // Life.
  bool closed_ = false;                // the stream has called on_closed
  bool session_down_pending_ = false;  // observers have heard up and are to hear down
  bool stopping_ = false;
  void (*on_stopped_)(void* owner) noexcept = nullptr;
  void* on_stopped_owner_ = nullptr;
  ReloginBackoff backoff_{options_};
  ToleratedRules tolerated_{[](void* owner, Tolerated rule, std::string_view details) noexcept {
                              static_cast<Impl*>(owner)->tell_tolerated(rule, details);
                            },
                            this};

  RedirectChain redirects_;
  LoginPhase login_;
  LogLimiter log_limiter_;
  std::string logged_failure_;  // the last that was

  LogoutSequence logout_{
      reactor_, [](void* owner) noexcept { static_cast<Impl*>(owner)->on_logout_due(); }, this};
  CommandQueue queue_;
  SessionNumbers numbers_;

  CommandWatchdog watchdog_{reactor_, options_, keep_alive_,
                            [](void* owner) noexcept { static_cast<Impl*>(owner)->on_scan_due(); },
                            this};
  PduSender sender_{options_, negotiated_, numbers_, queue_, watchdog_};
  CommandAnswers answers_{queue_, sender_, numbers_, watchdog_, negotiated_, tolerated_, flush_};
  TaskManager functions_{*this,    reactor_,  options_, queue_.table(),
                         numbers_, watchdog_, flush_,   events_};

  PduReceiver receiver_;
  ReceivePacer pacer_{
      reactor_, [](void* owner) noexcept { static_cast<Impl*>(owner)->stream_->set_low_water(1); },
      this};
};

}  // namespace iscsi_blkback
