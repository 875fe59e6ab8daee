#include "initiator/session/login_phase.h"

#include <algorithm>

#include "initiator/session/session_tags.h"

namespace iscsi_blkback {

LoginPhase::LoginPhase(Reactor& reactor, const SessionOptions& options, ChapMemory& chap_memory,
                       Overdue overdue, void* owner)
    : reactor_(reactor),
      options_(options),
      overdue_(overdue),
      owner_(owner),
      chap_logins_(chap_memory, options.target_name),
      timer_(
          reactor, [](void* self) noexcept { static_cast<LoginPhase*>(self)->on_timer(); }, this) {}

void LoginPhase::start() {
  slow_logins_ = 0;
  chap_logins_.start();
}

void LoginPhase::connecting() {
  since_ = reactor_.now();
  timer_.start_after(std::min(options_.connect_timeout, options_.login_timeout));
}

Result<void> LoginPhase::connected(std::uint32_t cmd_sn) {
  timer_.start_at(since_ + Duration{options_.login_timeout} * (1U << slow_logins_));
  login_.emplace(options_, kLoginTag, cmd_sn, chap_logins_.offer(options_.chap, reactor_.now()));
  return login_->check_options();
}

std::span<std::byte> LoginPhase::next_request() {
  login_->next_request(request_);
  return request_;
}

void LoginPhase::succeeded() {
  const TimePoint now = reactor_.now();
  timer_.stop();
  chap_logins_.succeeded(*login_, now);
  chap_next_ = ChapNext::same;
  login_.reset();
  if (now - since_ < options_.login_timeout) {
    slow_logins_ = 0;
  }
}

void LoginPhase::failed(Error& why) {
  chap_next_ = login_ ? chap_logins_.failed(*login_, why) : ChapNext::same;
}

void LoginPhase::forget_connection() {
  login_.reset();
  request_due_ = false;
}

void LoginPhase::on_timer() {
  if (login_) {
    slow_logins_ = std::min(slow_logins_ + 1, kMostSlowLogins);
  }
  overdue_(owner_);
}

}  // namespace iscsi_blkback
