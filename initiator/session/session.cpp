#include "initiator/session/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

Session::Session(Reactor& reactor, SessionOptions options, NameResolver& resolver,
                 ChapMemory& chap_memory)
    : options_(within_bounds(std::move(options))),
      reactor_(reactor),
      events_(
          reactor, [](void* self) noexcept { static_cast<Session*>(self)->process_events(); },
          this),
      flush_(
          reactor, [](void* self) noexcept { static_cast<Session*>(self)->flush(); }, this),
      tolerated_(
          [](void* self, Tolerated rule, std::string_view details) noexcept {
            static_cast<Session*>(self)->tell_tolerated(rule, details);
          },
          this),
      retry_timer_(
          reactor, [](void* self) noexcept { static_cast<Session*>(self)->connect(); }, this),
      redirects_(
          reactor, options_, options_.target_name, resolver,
          [](void* self, const Result<void>& found) noexcept {
            static_cast<Session*>(self)->on_address_found(found);
          },
          this),
      login_(
          reactor, options_, chap_memory,
          [](void* self) noexcept { static_cast<Session*>(self)->on_login_overdue(); }, this),
      logout_(
          reactor, [](void* self) noexcept { static_cast<Session*>(self)->on_logout_due(); }, this),
      queue_(reactor_, options_.max_commands, logout_, flush_, events_),
      keep_alive_(
          reactor, options_,
          [](void* self) noexcept { static_cast<Session*>(self)->on_keep_alive_due(); }, this),
      watchdog_(
          reactor, options_, keep_alive_,
          [](void* self) noexcept { static_cast<Session*>(self)->on_scan_due(); }, this),
      receiver_(options_.max_recv_data_segment_length),
      pacer_(
          reactor,
          [](void* self) noexcept { static_cast<Session*>(self)->stream_->set_low_water(1); },
          this) {}

Session::~Session() {
  ISCSI_BLKBACK_ASSERT(state_ == SessionState::free && !stream_);
}

void Session::start() {
  ISCSI_BLKBACK_ASSERT(state_ == SessionState::free && !stopping_);
  backoff_.start(reactor_.now());
  login_.start();
  redirects_.start();
  connect();
}

void Session::stop(void (*on_stopped)(void* owner) noexcept, void* owner) {
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

bool Session::still_trying() const {
  return state_ != SessionState::logged_in && backoff_.still_trying(reactor_.now());
}

std::string Session::where() const {
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

void Session::connect() {
  state_ = SessionState::connecting;
  backoff_.connecting();
  login_.connecting();
  stream_ = reactor_.connect({.address = redirects_.login_address(),
                              .interface_binding = options_.interface_binding,
                              .tcp_user_timeout = options_.tcp_user_timeout},
                             *this);
}

void Session::on_connected() noexcept {
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

void Session::on_sent() noexcept {
  sender_.on_sent();
  queue_.complete_referred_to();
  if (state_ == SessionState::in_login && login_.take_due()) {
    send_login_request();
  } else if (full_feature_phase()) {
    schedule_flush();
  }
}

void Session::on_closed(const Error& error) noexcept {
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

void Session::fail_protocol(const std::string& what) {
  backoff_.blame(RepeatedEnds::Cause::broken_rule);
  fail_connection(
      {ErrorCode::protocol, fmt::format("{} broke the iSCSI protocol: {}", where(), what)});
}

void Session::fail_connection(Error why) {
  if (state_ == SessionState::connecting || connection_active()) {
    leave_connection(std::move(why));
  }
}

// From any state with a connection to cleanup_wait. After a failure and after a logout alike, the
// connection is reset: nothing that is still on its way may reach the target.
void Session::leave_connection(Error why) {
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
  if (!redirects_.redirected() && !stopping_ && backoff_.ended(reactor_.now(), was_up, time2wait) &&
      why.code != ErrorCode::permission_denied) {  // of another algorithm of CHAP, and says it all
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

bool Session::keeps_ending() const {
  return backoff_.keeps_ending(reactor_.now(), full_feature_phase());
}

// A portal that stays away fails the same way every second: once is enough. A login that failed by
// its offer of CHAP algorithms, or by its address, is no trouble while there is another one.
void Session::log_failure(const Error& why) {
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
void Session::process_events() {
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

void Session::deliver_session_down() {
  if (!std::exchange(session_down_pending_, false)) {
    return;
  }
  observers_.for_each(
      [this](SessionObserver& observer) { observer.on_session_down(*this, last_error_); });
}

void Session::clean_up_connection() {
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

void Session::begin_logout(const Error& why, const LogoutSequence::Limits& limits) {
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

void Session::on_login_overdue() {
  fail_connection({ErrorCode::timed_out,
                   where() + (state_ == SessionState::connecting
                                  ? " does not answer; check the address, cable and firewall"
                                  : " accepts the connection but does not answer the login")});
}

void Session::on_logout_due() {
  if (logout_.over(reactor_.now())) {
    fail_connection(
        {ErrorCode::timed_out, fmt::format("{} did not finish the logout in time", where())});
    return;
  }
  logout_.end_drain();
  schedule_flush();
}

void Session::on_address_found(const Result<void>& found) {
  if (found) {
    connect();
    return;
  }
  ++statistics_.login_failures;
  Error why{found.error().code, fmt::format("{} {}", where(), found.error().message)};
  if (why.message != last_error_.message) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}", why.message);
  }
  last_error_ = std::move(why);
  schedule_retry();
}

void Session::schedule_retry() {
  if (stopping_) {
    return;  // process_events finishes the stop
  }
  state_ = SessionState::transport_wait;
  switch (redirects_.next()) {
    case RedirectChain::Next::looking_up:
      return;
    case RedirectChain::Next::at_once:
      retry_timer_.start_after(Duration::zero());
      return;
    case RedirectChain::Next::after_back_off:
      break;
  }
  retry_timer_.start_after(backoff_.next_wait(reactor_.random(), login_.take_another_offer()));
}

void Session::add_observer(SessionObserver& observer) {
  observers_.push_back(observer);
}

void Session::remove_observer(SessionObserver& observer) {
  static_cast<ListHook<SessionObserver>&>(observer).unlink();
}

}  // namespace iscsi_blkback
