#include "initiator/session/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "initiator/session/session_impl.h"
#include "initiator/session/session_tags.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint16_t kMaxOutstandingR2ts = 8;
SessionOptions within_bounds(SessionOptions options) {
  options.max_commands = static_cast<std::uint16_t>(
      std::clamp<std::uint32_t>(options.max_commands, 1, TaskTable::kMaxSlots));
  options.max_outstanding_r2t =
      std::clamp<std::uint16_t>(options.max_outstanding_r2t, 1, kMaxOutstandingR2ts);
  options.max_recv_data_segment_length =
      std::clamp<std::uint32_t>(options.max_recv_data_segment_length, 512, kMaxDataSegmentBytes);
  options.max_burst_length =
      std::clamp<std::uint32_t>(options.max_burst_length, 512, kMaxDataSegmentBytes);
  options.first_burst_length =
      std::clamp<std::uint32_t>(options.first_burst_length, 512, options.max_burst_length);
  for (std::chrono::milliseconds* timeout :
       {&options.abort_timeout, &options.lu_reset_timeout, &options.tgt_reset_timeout}) {
    *timeout = std::max(*timeout, std::chrono::milliseconds{1});
  }
  options.relogin_backoff_min = std::max(options.relogin_backoff_min, std::chrono::milliseconds{1});
  options.relogin_backoff_max = std::max(options.relogin_backoff_max, options.relogin_backoff_min);
  return options;
}

}  // namespace

const char* to_string(SessionState state) {
  switch (state) {
    case SessionState::free:
      return "free";
    case SessionState::connecting:
      return "connecting";
    case SessionState::in_login:
      return "in_login";
    case SessionState::logged_in:
      return "logged_in";
    case SessionState::in_logout:
      return "in_logout";
    case SessionState::cleanup_wait:
      return "cleanup_wait";
    case SessionState::transport_wait:
      return "transport_wait";
  }
  return "unknown";
}

Session::Impl::Impl(Session& session, Reactor& reactor, SessionOptions options,
                    NameResolver& resolver, ChapMemory& chap_memory)
    : options_(within_bounds(std::move(options))),
      reactor_(reactor),
      session_(session),
      events_(
          reactor, [](void* owner) noexcept { static_cast<Impl*>(owner)->process_events(); }, this),
      flush_(
          reactor, [](void* owner) noexcept { static_cast<Impl*>(owner)->flush(); }, this),
      retry_timer_(
          reactor, [](void* owner) noexcept { static_cast<Impl*>(owner)->connect(); }, this),
      redirects_(
          reactor, options_, resolver,
          [](void* owner, Result<void> found) noexcept {
            static_cast<Impl*>(owner)->on_address_found(found);
          },
          this),
      login_(
          reactor, options_, chap_memory,
          [](void* owner) noexcept { static_cast<Impl*>(owner)->on_login_overdue(); }, this),
      queue_(options_.max_commands, logout_, flush_, events_),
      receiver_(options_.max_recv_data_segment_length) {}

Session::Impl::~Impl() {
  ISCSI_BLKBACK_ASSERT(state_ == SessionState::free && !stream_);
}

void Session::Impl::start() {
  ISCSI_BLKBACK_ASSERT(state_ == SessionState::free && !stopping_);
  backoff_.start(reactor_.now());
  login_.start();
  redirects_.start();
  connect();
}

void Session::Impl::stop(void (*on_stopped)(void* owner) noexcept, void* owner) {
  ISCSI_BLKBACK_ASSERT(!stopping_);
  stopping_ = true;
  on_stopped_ = on_stopped;
  on_stopped_owner_ = owner;
  const Error why{ErrorCode::unavailable, "stopped"};
  switch (state_) {
    case SessionState::free:
    case SessionState::cleanup_wait:
      break;
    case SessionState::transport_wait:
      retry_timer_.stop();
      redirects_.stop_looking_up();
      break;
    case SessionState::connecting:
    case SessionState::in_login:
      leave_connection(why);
      break;
    case SessionState::logged_in:
      begin_logout(why, LogoutSequence::of_stop(options_.logout_timeout));
      break;
    case SessionState::in_logout:  // the target asked for it a moment ago, and may wait longer
      logout_.hasten(reactor_.now(), LogoutSequence::of_stop(options_.logout_timeout));
      break;
  }
  events_.schedule();
}

void Session::Impl::submit(ScsiTask& task) {
  if (state_ != SessionState::logged_in) {
    queue_.refuse(task);
    return;
  }
  if (queue_.submit(task)) {
    const TimePoint now = reactor_.turn_time();
    keep_alive_.on_busy(now);
    watchdog_.on_busy(now);
  }
}

bool Session::Impl::discard(ScsiTask& task) {
  if (receiver_.in_large_data_in()) {
    const TaskSlot* slot = queue_.find(receiver_.large_data_in().initiator_task_tag);
    if (slot != nullptr && slot->task == &task) {
      return false;
    }
  }
  task.data = nullptr;
  return true;
}

void Session::Impl::drop(const Error& why) {
  fail_connection(why);
}

void Session::Impl::retry_now() {
  if (state_ == SessionState::transport_wait && !stopping_ && !redirects_.looking_up()) {
    retry_timer_.stop();
    connect();
  }
}

bool Session::Impl::still_trying() const {
  return state_ != SessionState::logged_in && backoff_.still_trying(reactor_.now());
}

bool Session::Impl::connection_active() const {
  return state_ == SessionState::in_login || full_feature_phase();
}

bool Session::Impl::full_feature_phase() const {
  return state_ == SessionState::logged_in || state_ == SessionState::in_logout;
}

std::string Session::Impl::where() const {
  const std::string address = redirects_.login_address().to_string();
  std::string text =
      options_.portal_name.empty() || options_.portal_name == address
          ? fmt::format("{} at {}", options_.target_name, address)
          : fmt::format("{} at {} ({})", options_.target_name, options_.portal_name, address);
  if (!options_.interface_binding.empty()) {
    text += fmt::format(" through {}", options_.interface_binding.to_string());
  }
  return text;
}

void Session::Impl::connect() {
  state_ = SessionState::connecting;
  backoff_.connecting();
  login_.connecting();
  stream_ = reactor_.connect({.address = redirects_.login_address(),
                              .interface_binding = options_.interface_binding,
                              .tcp_user_timeout = options_.tcp_user_timeout},
                             *this);
}

void Session::Impl::on_connected() noexcept {
  if (state_ != SessionState::connecting) {
    return;  // given up meanwhile; on_closed follows
  }
  state_ = SessionState::in_login;
  numbers_.cmd_sn = options_.initial_cmd_sn;
  receiver_.start(kMaxLoginDataBytes);
  if (const Result<void> checked = login_.connected(numbers_.cmd_sn); !checked) {
    fail_connection(checked.error());
    return;
  }
  send_login_request();
  receive(ReceivePacer::part_bytes(0));
}

void Session::Impl::on_sent() noexcept {
  sender_.on_sent();
  queue_.complete_referred_to();
  if (state_ == SessionState::in_login && login_.take_due()) {
    send_login_request();
  } else if (full_feature_phase()) {
    schedule_flush();
  }
}

void Session::Impl::on_closed(const Error& error) noexcept {
  closed_ = true;
  if (state_ == SessionState::connecting || connection_active()) {
    if (state_ == SessionState::logged_in && error.code == ErrorCode::unavailable) {
      backoff_.blame(RepeatedEnds::Cause::ended_by_target);
    }
    leave_connection(
        {error.code,
         fmt::format("the connection to {} {}: {}", where(),
                     state_ == SessionState::connecting ? "failed" : "was lost", error.message)});
  }
  events_.schedule();
}

void Session::Impl::fail_protocol(const std::string& what) {
  backoff_.blame(RepeatedEnds::Cause::broken_rule);
  fail_connection(
      {ErrorCode::protocol, fmt::format("{} broke the iSCSI protocol: {}", where(), what)});
}

void Session::Impl::fail_connection(Error why) {
  if (state_ == SessionState::connecting || connection_active()) {
    leave_connection(std::move(why));
  }
}

// From any state with a connection to cleanup_wait. After a failure and after a logout alike, the
// connection is reset: nothing that is still on its way may reach the target.
void Session::Impl::leave_connection(Error why) {
  const bool was_up = full_feature_phase();
  if (was_up) {
    ++statistics_.connection_losses;
    backoff_.lost(reactor_.now());
  } else if (!redirects_.redirected()) {
    login_.failed(why);
    if (login_.has_another_offer()) {
      redirects_.failed_elsewhere();
    } else {
      redirects_.failed(why);
    }
    ++statistics_.login_failures;
  }
  const std::chrono::seconds time2wait{negotiated_.default_time2wait};
  if (!redirects_.redirected() && !stopping_ && backoff_.ended(reactor_.now(), was_up, time2wait)) {
    why = backoff_.that_it_keeps_ending(why, where());
  }
  log_failure(why);
  session_down_pending_ = session_down_pending_ || state_ == SessionState::logged_in;
  last_error_ = std::move(why);
  keep_alive_.stop_waiting();
  state_ = SessionState::cleanup_wait;
  stop_watching();
  login_.stop_waiting();
  logout_.forget_connection();
  flush_.cancel();
  pacer_.forget_connection();
  if (!closed_) {
    stream_->reset();
  }
  events_.schedule();
}

bool Session::Impl::keeps_ending() const {
  return backoff_.keeps_ending(reactor_.now(), full_feature_phase());
}

// A portal that stays away fails the same way every second: once is enough. A login that failed by
// its offer of CHAP algorithms, or by its address, is no trouble while there is another one.
void Session::Impl::log_failure(const Error& why) {
  if (stopping_ || redirects_.redirected() || redirects_.has_another_address()) {
    return;
  }
  if (!full_feature_phase() && login_.has_another_offer()) {
    if (!login_.every_offer_failed()) {
      log_limited(log_limiter_, reactor_.now(), LogLevel::info, "session",
                  "{}; the next login offers other algorithms", why.message);
    }
    return;
  }
  if (state_ == SessionState::logged_in || why.message != logged_failure_) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}", why.message);
    logged_failure_ = why.message;
  }
}

// Everything that tells others of a change of state happens here, in one place and never from
// inside a call of theirs.
void Session::Impl::process_events() {
  deliver_session_down();
  deliver_ping_answered();
  if (closed_) {
    clean_up_connection();
  }
  queue_.complete_refused();
  functions_.complete_unsent();
  if (!stopping_ || stream_ || queue_.has_refused() || functions_.has_unsent() ||
      events_.scheduled()) {
    return;
  }
  retry_timer_.stop();
  stopping_ = false;
  state_ = SessionState::free;
  on_stopped_(on_stopped_owner_);  // may delete the session
}

void Session::Impl::deliver_session_down() {
  if (!std::exchange(session_down_pending_, false)) {
    return;
  }
  observers_.for_each(
      [this](SessionObserver& observer) { observer.on_session_down(session_, last_error_); });
}

void Session::Impl::clean_up_connection() {
  closed_ = false;
  stream_.reset();
  login_.forget_connection();
  sender_.forget_connection();
  keep_alive_.forget_connection();
  // The state for the callbacks below is that of a session without a connection.
  schedule_retry();

  queue_.connection_lost();
  functions_.connection_lost();
}

void Session::Impl::begin_logout(const Error& why, const LogoutSequence::Limits& limits) {
  if (state_ != SessionState::logged_in) {
    return;
  }
  state_ = SessionState::in_logout;
  last_error_ = why;
  session_down_pending_ = true;
  logout_.begin(reactor_.now(), limits);
  events_.schedule();
  schedule_flush();
}

Session::Session(Reactor& reactor, SessionOptions options, NameResolver& resolver,
                 ChapMemory& chap_memory)
    : impl_(std::make_unique<Impl>(*this, reactor, std::move(options), resolver, chap_memory)) {}

Session::~Session() = default;

void Session::add_observer(SessionObserver& observer) {
  impl_->observers_.push_back(observer);
}

void Session::remove_observer(SessionObserver& observer) {
  static_cast<ListHook<SessionObserver>&>(observer).unlink();
}

void Session::start() {
  impl_->start();
}
void Session::stop(void (*on_stopped)(void* owner) noexcept, void* owner) {
  impl_->stop(on_stopped, owner);
}
void Session::submit(ScsiTask& task) {
  impl_->submit(task);
}
void Session::take_back_unsent(bool (*is_callers)(const ScsiTask& task,
                                                  const void* caller) noexcept,
                               const void* caller) {
  impl_->take_back_unsent(is_callers, caller);
}
void Session::manage(TaskManagement& function) {
  impl_->manage(function);
}
void Session::abandon(TaskManagement& function) {
  impl_->abandon(function);
}
void Session::doubt_commands(std::uint64_t lun) {
  impl_->doubt_commands(lun);
}
bool Session::may_reset(std::uint64_t lun) const {
  return impl_->may_reset(lun);
}
void Session::ping() {
  impl_->ping();
}
bool Session::discard(ScsiTask& task) {
  return impl_->discard(task);
}
void Session::drop(const Error& why) {
  impl_->drop(why);
}
void Session::retry_now() {
  impl_->retry_now();
}
SessionState Session::state() const {
  return impl_->state_;
}
const SessionOptions& Session::options() const {
  return impl_->options_;
}
const NegotiatedParameters& Session::negotiated() const {
  return impl_->negotiated_;
}
const SocketAddress& Session::portal_address() const {
  return impl_->portal_address_;
}
const SocketAddress& Session::peer() const {
  return impl_->peer_;
}
std::uint64_t Session::login_epoch() const {
  return impl_->login_epoch_;
}
bool Session::still_trying() const {
  return impl_->still_trying();
}
const Error& Session::last_error() const {
  return impl_->last_error_;
}
bool Session::keeps_ending() const {
  return impl_->keeps_ending();
}
std::uint32_t Session::commands_in_flight() const {
  return impl_->commands_in_flight();
}
TimePoint Session::last_received() const {
  return impl_->keep_alive_.last_received();
}
const SessionStatistics& Session::statistics() const {
  return impl_->statistics_;
}

}  // namespace iscsi_blkback
