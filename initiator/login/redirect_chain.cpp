#include "initiator/login/redirect_chain.h"

#include <fmt/format.h>

#include <utility>

#include "initiator/login/portal_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMaxRedirectHops = 10;
constexpr std::size_t kMaxAddressTrouble = 600;

}  // namespace

RedirectChain::RedirectChain(Reactor& reactor, const SessionOptions& options,
                             std::string on_behalf_of, NameResolver& resolver, Found found,
                             void* owner)
    : options_(options),
      on_behalf_of_(std::move(on_behalf_of)),
      reactor_(reactor),
      resolver_(resolver),
      found_(found),
      owner_(owner),
      lookup_timer_(
          reactor,
          [](void* self) noexcept {
            auto& chain = *static_cast<RedirectChain*>(self);
            chain.give_up(
                {ErrorCode::timed_out,
                 fmt::format("redirects to {}, whose address the name servers do not tell in time; "
                             "check the DNS settings of this host",
                             chain.target_.host)});
          },
          this) {}

void RedirectChain::start() {
  forget_redirects();
  moved_to_.reset();
  address_ = addresses_tried_ = 0;
  another_address_ = false;
  address_trouble_.clear();
}

void RedirectChain::stop_looking_up() {
  lookup_timer_.stop();
  lookup_.reset();
}

const SocketAddress& RedirectChain::portal_address() const {
  return address_ == 0 ? options_.portal : options_.other_addresses[address_ - 1];
}

const SocketAddress& RedirectChain::login_address() const {
  return redirected_to_ ? *redirected_to_ : moved_to_ ? *moved_to_ : portal_address();
}

Result<void> RedirectChain::redirect(const std::string& address, bool permanently) {
  const Result<TargetAddress> target = parse_target_address(address);
  if (!target) {
    return fail(ErrorCode::protocol,
                fmt::format("redirects to nowhere: {}", target.error().message));
  }
  if (++hops_ > kMaxRedirectHops) {
    return fail(ErrorCode::protocol,
                fmt::format("redirects in a circle, or more than {} times in a row; check the load "
                            "balancing of the array",
                            kMaxRedirectHops));
  }
  redirected_ = true;
  hop_addresses_.clear();
  target_ = *target;
  all_hops_permanent_ = all_hops_permanent_ && permanently;
  return {};
}

void RedirectChain::failed(Error& why) {
  another_address_ = false;
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

void RedirectChain::logged_in() {
  if (permanent_hop_) {
    moved_to_ = permanent_hop_;
  }
  hops_ = 0;
  hop_addresses_.clear();
  addresses_tried_ = 0;
  another_address_ = false;
  address_trouble_.clear();
}

RedirectChain::Next RedirectChain::next() {
  if (std::exchange(redirected_, false)) {
    return follow();
  }
  if (std::exchange(another_address_, false)) {
    return Next::at_once;
  }
  // The next login is a new one: it begins where the target has moved to, or at the portal.
  forget_redirects();
  return Next::after_back_off;
}

RedirectChain::Next RedirectChain::follow() {
  const std::string host = with_zone_of(login_address().host(), target_.host);
  if (const auto address = SocketAddress::parse(host, target_.port)) {
    redirect_to(*address);
    return Next::at_once;
  }
  lookup_timer_.start_after(options_.login_timeout);
  lookup_ = resolver_.look_up(
      reactor_, on_behalf_of_, target_.host, target_.port,
      [](void* self, Result<std::vector<SocketAddress>> addresses) noexcept {
        static_cast<RedirectChain*>(self)->on_resolved(std::move(addresses));
      },
      this);
  return Next::looking_up;
}

void RedirectChain::on_resolved(Result<std::vector<SocketAddress>> addresses) {
  if (!addresses) {
    give_up({addresses.error().code, fmt::format("redirects, but {}", addresses.error().message)});
    return;
  }
  stop_looking_up();
  redirect_to(addresses->front());
  hop_addresses_.assign(addresses->begin() + 1, addresses->end());
  found_(owner_, {});
}

void RedirectChain::give_up(Error why) {
  stop_looking_up();
  found_(owner_, tl::unexpected(std::move(why)));  // says who has redirected: moved_to_, perhaps
  moved_to_.reset();
}

void RedirectChain::redirect_to(const SocketAddress& address) {
  redirected_to_ = address;
  if (all_hops_permanent_) {
    permanent_hop_ = address;
  }
}

void RedirectChain::forget_redirects() {
  stop_looking_up();
  redirected_ = false;
  hops_ = 0;
  redirected_to_.reset();
  hop_addresses_.clear();
  all_hops_permanent_ = true;
  permanent_hop_.reset();
}

}  // namespace iscsi_blkback
