#include <fmt/format.h>

#include <utility>

#include "initiator/login/portal_text.h"
#include "initiator/session/session_impl.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMaxRedirectHops = 10;
constexpr std::size_t kMaxAddressTrouble = 600;

}  // namespace

const SocketAddress& Session::Impl::address_of_portal() const {
  return address_ == 0 ? options_.portal : options_.other_addresses[address_ - 1];
}

const SocketAddress& Session::Impl::login_address() const {
  return redirected_to_ ? *redirected_to_ : moved_to_ ? *moved_to_ : address_of_portal();
}

// After a login that failed: every address of the name has its turn at once, then comes the
// back-off. why: what has failed; of the last one it is what all of them have failed with. After a
// connection that was up, the next login begins with the address that it had.
void Session::Impl::choose_next_address(Error& why) {
  another_address_ = false;
  if (chap_next_ == ChapNext::next) {
    return;  // the address is all right
  }
  if (!hop_addresses_.empty()) {
    redirect_to(hop_addresses_.front());
    hop_addresses_.erase(hop_addresses_.begin());
    another_address_ = true;
  } else if (!std::exchange(moved_to_, std::nullopt) && !options_.other_addresses.empty()) {
    address_ = (address_ + 1) % (options_.other_addresses.size() + 1);
    another_address_ = ++addresses_tried_ <= options_.other_addresses.size();
    forget_redirects();
  }
  if (another_address_) {
    if (address_trouble_.size() < kMaxAddressTrouble) {
      address_trouble_ += "; " + why.message;
    }
    return;
  }
  addresses_tried_ = 0;
  why.message += std::exchange(address_trouble_, {});
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
  hop_addresses_.clear();
  redirect_target_ = *target;
  all_hops_permanent_ = all_hops_permanent_ && login_->moved_permanently();
  leave_connection({ErrorCode::unavailable,
                    fmt::format("{} redirects to {}", where(), login_->redirect_address())});
}

// The connection that the redirect came by is gone.
void Session::Impl::follow_redirect() {
  const std::string host = with_zone_of(login_address().host(), redirect_target_.host);
  if (const auto address = SocketAddress::parse(host, redirect_target_.port)) {
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
  hop_addresses_.assign(addresses->begin() + 1, addresses->end());
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
  hop_addresses_.clear();
  all_hops_permanent_ = true;
  permanent_hop_.reset();
}

}  // namespace iscsi_blkback
