#include <fmt/format.h>

#include <utility>

#include "initiator/session_impl.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMaxRedirectHops = 10;

}  // namespace

const SocketAddress& Session::Impl::login_address() const {
  return redirected_to_ ? *redirected_to_ : moved_to_ ? *moved_to_ : options_.portal;
}

// The login has ended with a redirect.
void Session::Impl::redirect() {
  const Result<TargetAddress> target = parse_target_address(login_->redirect_address());
  if (!target) {
    fail_connection({ErrorCode::protocol,
                     fmt::format("{} redirects to nowhere: {}", where(), target.error().message)});
    return;
  }
  if (++redirect_hops_ > kMaxRedirectHops) {
    fail_connection({ErrorCode::protocol,
                     fmt::format("{} redirects in a circle, or more than {} times in a row; check "
                                 "the load balancing of the array",
                                 where(), kMaxRedirectHops)});
    return;
  }
  redirecting_ = true;
  redirect_target_ = *target;
  all_hops_permanent_ = all_hops_permanent_ && login_->moved_permanently();
  leave_connection({ErrorCode::unavailable,
                    fmt::format("{} redirects to {}", where(), login_->redirect_address())});
}

// The connection that the redirect came by is gone.
void Session::Impl::follow_redirect() {
  if (const auto address = SocketAddress::parse(redirect_target_.host, redirect_target_.port)) {
    redirect_to(*address);
    timer_.start_after(Duration::zero());
    return;
  }
  timer_.start_after(options_.login_timeout);
  lookup_ = resolver_.look_up(
      reactor_, options_.target_name, redirect_target_.host, redirect_target_.port,
      [](void* owner, Result<std::vector<SocketAddress>> addresses) noexcept {
        static_cast<Impl*>(owner)->on_redirect_resolved(std::move(addresses));
      },
      this);
}

void Session::Impl::on_redirect_resolved(Result<std::vector<SocketAddress>> addresses) {
  lookup_.reset();
  if (!addresses) {
    give_up_redirect({addresses.error().code,
                      fmt::format("{} redirects, but {}", where(), addresses.error().message)});
    return;
  }
  timer_.stop();
  redirect_to(addresses->front());
  connect();
}

void Session::Impl::redirect_to(const SocketAddress& address) {
  redirected_to_ = address;
  if (all_hops_permanent_) {
    permanent_hop_ = address;
  }
}

void Session::Impl::give_up_redirect(Error why) {
  lookup_.reset();
  ++statistics_.login_failures;
  moved_to_.reset();
  if (why.message != last_error_.message) {
    log_limited(log_limiter_, reactor_.now(), LogLevel::warning, "session", "{}", why.message);
  }
  last_error_ = std::move(why);
  schedule_retry();
}

// The next login is a new one: it begins where the target has moved to, or at the portal.
void Session::Impl::forget_redirects() {
  lookup_.reset();
  redirecting_ = false;
  redirect_hops_ = 0;
  redirected_to_.reset();
  all_hops_permanent_ = true;
  permanent_hop_.reset();
}

}  // namespace iscsi_blkback
