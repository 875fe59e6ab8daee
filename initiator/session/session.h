// Session: one iSCSI session over one connection at error recovery level 0, shared by the logical
// units behind one portal. It logs in, keeps the connection alive with NOP-Outs, and after a
// failure logs in again for ever (backoff with jitter, same ISID), ever more seldom where that ends
// the same way each time. Reactor thread.
//
// After a failure: observers hear on_session_down at once (so that no new command is sent here);
// the connection is reset; when the kernel holds nothing of it any more, the tasks complete with
// not_sent or connection_lost. A command never moves by itself to the next connection.
//
// A command that is stuck on a live connection (command_timeout) is never given up locally: ABORT
// TASK asks the target to, LOGICAL UNIT RESET does where the LUN's disks allow it, and where
// neither is answered the connection is dropped. A command's buffer is its submitter's again only
// when the target has answered or the connection is gone for good.
//
// What it decides, it has machines for, each with its own state and, where it waits, its own timer:
//   ReloginBackoff, RedirectChain, LoginPhase    when, where and how the next login is tried
//   PduSender, PduReceiver, ReceivePacer         PDUs to bytes and back; SessionNumbers is between them
//   CommandQueue, CommandAnswers                 commands from submit to completion
//   KeepAlive, CommandWatchdog, TaskManager      whether the target lives, and what is stuck
//   LogoutSequence                               the end in order
// Session itself has the state, the stream and the observers, and tells each machine what happens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/intrusive_list.h"
#include "base/log.h"
#include "base/reactor.h"
#include "initiator/login/chap_ladder.h"
#include "initiator/login/redirect_chain.h"
#include "initiator/login/resolve.h"
#include "initiator/login/session_options.h"
#include "initiator/pdu/pdu_receiver.h"
#include "initiator/scsi/scsi_task.h"
#include "initiator/session/command_answers.h"
#include "initiator/session/command_queue.h"
#include "initiator/session/command_watchdog.h"
#include "initiator/session/keep_alive.h"
#include "initiator/session/login_phase.h"
#include "initiator/session/logout_sequence.h"
#include "initiator/session/pdu_sender.h"
#include "initiator/session/receive_pacer.h"
#include "initiator/session/relogin_backoff.h"
#include "initiator/session/session_numbers.h"
#include "initiator/session/session_state.h"
#include "initiator/session/task_management.h"
#include "initiator/session/task_manager.h"
#include "initiator/session/tolerated.h"

namespace iscsi_blkback {

class Session;

// What an observer says to a reset of a LUN.
enum class ResetConsent : std::uint8_t {
  not_concerned,  // the LUN is another disk's
  allowed,        // nobody else's commands can be at the LUN
  refused,
};

// Calls come from the reactor, never from inside a call to the session. An observer may submit
// tasks from on_session_up, and may remove itself from any of them.
class SessionObserver : public ListHook<SessionObserver> {
 public:
  // A login succeeded; whatever an earlier connection of this session left there has been
  // terminated by the target (session reinstatement), if both led to the same portal: see peer().
  virtual void on_session_up(Session& session) noexcept = 0;
  // The session was up and is not any more; comes before its tasks complete.
  virtual void on_session_down(Session& session, const Error& why) noexcept = 0;
  // After ping(): the target has answered a NOP-Out; the connection lives.
  virtual void on_ping_answered(Session& /*session*/) noexcept {}
  // The target tells of a LUN: by a SCSI event without a command (RFC 7143 11.9.1, event 0), or by
  // a unit attention that ends a command, whoever's command that is; it completes after this.
  virtual void on_scsi_event(Session& /*session*/, std::uint64_t /*lun*/,
                             const SenseData& /*sense*/) noexcept {}
  // See Session::may_reset().
  [[nodiscard]] virtual ResetConsent may_reset(std::uint64_t /*lun*/) const noexcept {
    return ResetConsent::not_concerned;
  }

 protected:
  ~SessionObserver() = default;
};

struct SessionStatistics {
  std::uint64_t logins = 0;
  std::uint64_t login_failures = 0;
  std::uint64_t connection_losses = 0;
  std::uint64_t commands = 0;
  std::uint64_t stuck_commands = 0;  // those that were at the target for command_timeout
  std::uint64_t sends = 0;           // ByteStream::send calls
  std::uint64_t receives = 0;        // completed ByteStream::receive calls
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
};

class Session final : private ByteStream::Owner, private TaskManager::Owner {
 public:
  // resolver: for redirects to a host name; chap_memory: what CHAP has come to at this target. Both
  // outlive the session.
  Session(Reactor& reactor, SessionOptions options, NameResolver& resolver = system_name_resolver(),
          ChapMemory& chap_memory = process_chap_memory());
  ~Session();  // state free only

  void add_observer(SessionObserver& observer);  // does not replay an earlier on_session_up
  void remove_observer(SessionObserver& observer);

  // From state free.
  void start();
  // Logs out when logged in (bounded by logout_timeout), else drops the connection; outstanding
  // tasks complete first where the target answers within four fifths of that. on_stopped(owner)
  // comes exactly once, from the reactor, when nothing is left; then the session may be started
  // again or deleted.
  void stop(void (*on_stopped)(void* owner) noexcept, void* owner);

  // Never completes from inside. Commands beyond the target's window (MaxCmdSN) wait here in order.
  // While the session is not logged in, a task completes with not_sent.
  void submit(ScsiTask& task);
  // Takes back the commands that wait here, no byte of them sent, and are the caller's: they
  // complete with not_sent, later in this turn.
  void withdraw_unsent(bool (*is_callers)(const ScsiTask& task, const void* caller) noexcept,
                       const void* caller) {
    queue_.withdraw_unsent(is_callers, caller);
  }

  // Sends a task management function, at once and past the command window. The tasks that it aborts
  // complete with aborted before it does. Never completes from inside. A command that was not sent
  // yet is only taken back (not_sent). A target that does not answer within abort_timeout,
  // lu_reset_timeout or tgt_reset_timeout loses the connection, unless it has no_deadline.
  void submit(TaskManagement& function);
  // Nobody waits for it any more: it is its owner's again and does not complete. The target may
  // still execute it, if it was sent.
  void abandon(TaskManagement& function) { functions_.abandon(function); }
  // Commands for the LUN that are at the target now may have been ended there without an answer (by
  // a reset): those that are not answered in an eighth of command_timeout are stuck.
  void hasten_timeout(std::uint64_t lun);

  // Whether the LUN may be reset, which ends everybody's commands there (SAM-5 7.7): an observer
  // allows it and none refuses. Where it may not, the connection is dropped for a command that
  // cannot be aborted.
  [[nodiscard]] bool may_reset(std::uint64_t lun) noexcept override;

  // Asks at once, with a NOP-Out, whether the connection lives; one that is under way already
  // serves. Observers hear on_ping_answered. Without an answer and anything else from the target
  // within path_timeout the connection is dropped, commands outstanding or not. Logged in only;
  // else nothing happens.
  void ping();
  // Takes the buffer of a command that reads away from it while it is outstanding: what still
  // arrives for it is thrown away. False: the connection is just receiving into the buffer, which
  // stays the task's.
  [[nodiscard]] bool detach_buffer(ScsiTask& task);

  // Treats the connection as failed (a checker's verdict); as after any other failure the session
  // then logs in again.
  void drop(const Error& why) { fail_connection(why); }

  [[nodiscard]] SessionState state() const { return state_; }
  [[nodiscard]] const SessionOptions& options() const { return options_; }
  [[nodiscard]] const NegotiatedParameters& negotiated() const {  // of the last login
    return negotiated_;
  }
  // Of the portal's addresses the one by which that login came in. Before a first login it is the
  // first address.
  [[nodiscard]] const SocketAddress& portal_address() const { return portal_address_; }
  // Where that login led: to portal_address(), or by redirects to another one.
  [[nodiscard]] const SocketAddress& peer() const { return peer_; }
  [[nodiscard]] std::uint64_t login_epoch() const {  // counts successful logins
    return login_epoch_;
  }
  // While it is not logged in: what last_error() says is not the end of it. A redirect is followed,
  // and a target that is just being started, or with which another CHAP algorithm is tried next,
  // lets us in at the second or third try. Not any more after some tries: see ReloginBackoff.
  [[nodiscard]] bool still_trying() const;
  // Why it is not logged in; an empty message before a first failure.
  [[nodiscard]] const Error& last_error() const { return last_error_; }
  // Its connections end for the same reason again and again (see repeated_ends.h): one that is
  // logged in has not lasted long enough yet to be believed.
  [[nodiscard]] bool keeps_ending() const;
  [[nodiscard]] std::uint32_t commands_in_flight() const {  // submitted, not completed
    return queue_.in_flight();
  }
  [[nodiscard]] TimePoint last_received() const {  // when a PDU last arrived
    return keep_alive_.last_received();
  }
  [[nodiscard]] const SessionStatistics& statistics() const { return statistics_; }

 private:
  // ByteStream::Owner
  void on_connected() noexcept override;
  void on_sent() noexcept override;
  void on_received(std::size_t count) noexcept override;
  void on_closed(const Error& error) noexcept override;

  // Life: session.cpp.
  [[nodiscard]] bool full_feature_phase() const {
    return state_ == SessionState::logged_in || state_ == SessionState::in_logout;
  }
  [[nodiscard]] bool connection_active() const {
    return state_ == SessionState::in_login || full_feature_phase();
  }
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
  void schedule_retry();
  [[nodiscard]] std::string where() const;

  // Commands and what watches over them: session_commands.cpp.
  void on_keep_alive_due();
  void ask_for_peer();
  [[nodiscard]] KeepAlive::Silence silence();
  void note_end_of_silence();
  void ping_answered();
  void deliver_ping_answered();
  void on_scan_due();
  void scan_for_stuck_commands();
  void function_answered(std::uint32_t tag, FunctionOutcome outcome);
  void queue_ping();

  // TaskManager::Owner
  void end_task(TaskSlot& slot) noexcept override { answers_.finish(slot); }
  void warn(const std::string& text) noexcept override;
  void give_up(const Error& why) noexcept override;

  // What is sent and received: session_pdus.cpp.
  // Even while a send is under way: in the turn of that send this keeps the reactor from waiting
  // before on_sent has come. Later flush() finds nothing to do, and on_sent schedules it again.
  void schedule_flush() { flush_.schedule(); }
  void flush();
  void send_batch();
  void receive(std::size_t limit_bytes);
  void take_received();
  [[nodiscard]] bool begin_large_data_in(const IncomingPdu& pdu);
  void fail_digest(const char* which, Opcode opcode);
  void handle_pdu(const IncomingPdu& pdu);
  void handle_login_pdu(const IncomingPdu& pdu);
  void send_login_request();
  void redirect();
  void enter_full_feature_phase();
  void handle_scsi_response(const ScsiResponsePdu& pdu, const std::byte* data);
  void handle_nop_in(const NopInPdu& pdu);
  void handle_async_message(const AsyncMessagePdu& pdu, const std::byte* data);
  void logout_as_asked(const char* what, std::uint16_t limit_seconds);
  void handle_reject(const RejectPdu& pdu, const std::byte* data);
  void handle_logout_response(const LogoutResponsePdu& pdu);
  void handle_task_management_response(const TaskManagementResponsePdu& pdu);
  void pass_status_gaps();
  void tell_tolerated(Tolerated rule, std::string_view details);

  IntrusiveList<SessionObserver> observers_;
  const SessionOptions options_;
  Reactor& reactor_;
  std::unique_ptr<ByteStream> stream_;
  Deferred events_;  // process_events()
  Deferred flush_;   // what is to be sent and received goes to the stream once in a turn

  // Life.
  SessionState state_ = SessionState::free;
  bool closed_ = false;                // the stream has called on_closed
  bool session_down_pending_ = false;  // observers have heard up and are to hear down
  bool stopping_ = false;
  void (*on_stopped_)(void* owner) noexcept = nullptr;
  void* on_stopped_owner_ = nullptr;
  Error last_error_{ErrorCode::unavailable, ""};
  LogLimiter log_limiter_;
  std::string logged_failure_;  // the last that was
  ToleratedRules tolerated_;
  SessionStatistics statistics_;

  // Of the last login that succeeded.
  NegotiatedParameters negotiated_;
  SocketAddress portal_address_ = options_.portal;
  SocketAddress peer_;
  std::uint64_t login_epoch_ = 0;

  // From one connection to the next.
  Timer retry_timer_;  // in transport_wait
  ReloginBackoff backoff_{options_};
  RedirectChain redirects_;
  LoginPhase login_;
  LogoutSequence logout_;

  // Commands on the connection, and whether they get on.
  SessionNumbers numbers_;
  CommandQueue queue_;
  KeepAlive keep_alive_;
  CommandWatchdog watchdog_;
  PduSender sender_{options_, negotiated_, numbers_, queue_, watchdog_};
  PduReceiver receiver_;
  ReceivePacer pacer_;
  CommandAnswers answers_{queue_, sender_, numbers_, watchdog_, negotiated_, tolerated_, flush_};
  TaskManager functions_{*this,    reactor_,  options_, queue_.table(),
                         numbers_, watchdog_, flush_,   events_};
};

}  // namespace iscsi_blkback
