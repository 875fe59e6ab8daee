#include "blkback/ring/event_dispatcher.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace iscsi_blkback {

EventDispatcher::EventDispatcher(Reactor& reactor, EventChannels& channels)
    : reactor_(reactor),
      channels_(channels),
      retry_timer_(
          reactor, [](void* self) noexcept { static_cast<EventDispatcher*>(self)->retry(); },
          this) {}

EventDispatcher::~EventDispatcher() {
  ISCSI_BLKBACK_ASSERT(bindings_.empty());
}

Result<LocalPort> EventDispatcher::bind(DomainId domain, std::uint32_t remote_port,
                                        Handler& handler) {
  Result<LocalPort> port = channels_.bind_interdomain(domain, remote_port);
  if (!port) {
    return port;
  }
  bindings_.push_back(Binding{*port, &handler, false, false});
  if (watch_ == nullptr) {
    watch_ = reactor_.watch_readable(
        channels_.fd(),
        [](void* owner) noexcept { static_cast<EventDispatcher*>(owner)->on_readable(); }, this);
  }
  return port;
}

void EventDispatcher::unbind(LocalPort port) {
  channels_.unbind(port);
  std::erase_if(bindings_, [port](const Binding& binding) { return binding.port == port; });
  if (bindings_.empty()) {
    watch_.reset();
    retry_timer_.stop();
  }
}

void EventDispatcher::unmask(LocalPort port) {
  if (const Result<void> done = channels_.unmask(port); !done) [[unlikely]] {
    do_again(port, &Binding::unmask_due, done.error());
  }
}

void EventDispatcher::notify(LocalPort port) {
  if (const Result<void> done = channels_.notify(port); !done) [[unlikely]] {
    do_again(port, &Binding::notify_due, done.error());
  }
}

void EventDispatcher::on_readable() {
  // A port that was handled is masked, so that there are at most as many as bindings; what is left when the array
  // is full keeps the fd readable.
  std::array<LocalPort, 64> ports{};
  const Result<std::size_t> count = channels_.take_pending(ports);
  if (!count) {
    // The fd may stay readable for ever now; a disk that hears nothing must not look healthy.
    log_limited(log_limiter_, reactor_.now(), LogLevel::error, "event channels", "{}",
                count.error().message);
    watch_.reset();
    for (const Binding& binding : bindings_) {
      binding.handler->on_events_lost(count.error());
    }
    return;
  }
  for (const LocalPort port : std::span(ports).first(*count)) {
    const auto binding = std::find_if(bindings_.begin(), bindings_.end(),
                                      [port](const Binding& at) { return at.port == port; });
    if (binding != bindings_.end()) {
      binding->handler->on_event();
    }
  }
}

void EventDispatcher::do_again(LocalPort port, bool Binding::*due, const Error& why) {
  log_limited(log_limiter_, reactor_.now(), LogLevel::error, "event channels", "{}", why.message);
  for (Binding& binding : bindings_) {
    if (binding.port == port) {
      binding.*due = true;
    }
  }
  if (!retry_timer_.armed()) {
    retry_timer_.start_after(retry_delay_);
    retry_delay_ = std::min(retry_delay_ * 2, kRetryMax);
  }
}

void EventDispatcher::retry() {
  for (Binding& binding : bindings_) {
    if (std::exchange(binding.unmask_due, false)) {
      unmask(binding.port);
    }
    if (std::exchange(binding.notify_due, false)) {
      notify(binding.port);
    }
  }
  if (!retry_timer_.armed()) {
    retry_delay_ = kRetryMin;
  }
}

}  // namespace iscsi_blkback
