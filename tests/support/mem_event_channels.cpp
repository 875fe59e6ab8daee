#include "tests/support/mem_event_channels.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/support/ready_fd.h"

namespace iscsi_blkback {

std::unique_ptr<MemEventChannels> MemEvents::open(DomainId self) {
  return std::make_unique<MemEventChannels>(*this, self);
}

std::size_t MemEvents::bound_ports() const {
  const std::lock_guard lock(mutex_);
  const auto bound = std::count_if(ports_.begin(), ports_.end(),
                                   [](const auto& port) { return port.second.remote_port != 0; });
  return static_cast<std::size_t>(bound) / 2;
}

void MemEvents::process_died(MemEventChannels& channels) {
  const std::lock_guard lock(mutex_);
  std::vector<LocalPort> held;
  for (const auto& [key, port] : ports_) {
    if (port.holder == &channels) {
      held.push_back(key.second);
    }
  }
  for (const LocalPort port : held) {
    channels.unbind_locked(port);
  }
}

MemEvents::Counters MemEvents::counters(DomainId domain) const {
  const std::lock_guard lock(mutex_);
  const auto at = counters_.find(domain);
  return at == counters_.end() ? Counters{} : at->second;
}

MemEvents::Port* MemEvents::find(DomainId domain, LocalPort port) {
  const auto at = ports_.find(Key{domain, port});
  return at == ports_.end() ? nullptr : &at->second;
}

LocalPort MemEvents::add_port(DomainId domain, Port port) {
  const LocalPort number = ++next_port_[domain];
  ports_.emplace(Key{domain, number}, port);
  return number;
}

void MemEvents::deliver(LocalPort port, Port& at) {
  if (at.masked) {
    at.latched = true;
    return;
  }
  at.masked = true;
  at.queued = true;
  if (at.holder->pending_.empty()) {
    signal_ready(at.holder->fd_);
  }
  at.holder->pending_.push_back(port);
}

MemEventChannels::MemEventChannels(MemEvents& events, DomainId self)
    : events_(events), self_(self), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ISCSI_BLKBACK_ASSERT(fd_ >= 0);
}

MemEventChannels::~MemEventChannels() {
  {
    const std::lock_guard lock(events_.mutex_);
    std::size_t left = 0;
    for (const auto& [key, port] : events_.ports_) {
      left += port.holder == this ? 1 : 0;
    }
    if (left != 0) {
      events_.faults_.report(fmt::format(
          "event channels of domain {} were closed with {} ports not unbound", self_, left));
      for (auto& [key, port] : events_.ports_) {
        if (port.holder == this) {
          port.holder = nullptr;
        }
      }
    }
  }
  close(fd_);
}

LocalPort MemEventChannels::allocate_unbound(DomainId remote) {
  const std::lock_guard lock(events_.mutex_);
  MemEvents::Port port;
  port.holder = this;
  port.remote_domain = remote;
  return events_.add_port(self_, port);
}

Result<LocalPort> MemEventChannels::bind_interdomain(DomainId domain, std::uint32_t remote_port) {
  const std::lock_guard lock(events_.mutex_);
  if (events_.faults_.hit("event channel bind")) {
    return fail(ErrorCode::io, "binding the event channel failed (injected)");
  }
  MemEvents::Port* remote = events_.find(domain, remote_port);
  if (remote == nullptr || remote->remote_port != 0 || remote->remote_domain != self_) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("domain {} does not offer event channel {} to domain {}", domain,
                            remote_port, self_));
  }
  MemEvents::Port local;
  local.holder = this;
  local.remote_domain = domain;
  local.remote_port = remote_port;
  const LocalPort number = events_.add_port(self_, local);
  remote->remote_port = number;
  events_.deliver(number, *events_.find(self_, number));
  return number;
}

void MemEventChannels::unbind(LocalPort port) {
  const std::lock_guard lock(events_.mutex_);
  unbind_locked(port);
}

void MemEventChannels::unbind_locked(LocalPort port) {
  MemEvents::Port* local = events_.find(self_, port);
  ISCSI_BLKBACK_ASSERT(local != nullptr && local->holder == this);
  if (local->remote_port != 0) {
    MemEvents::Port* remote = events_.find(local->remote_domain, local->remote_port);
    if (remote != nullptr) {
      remote->remote_port = 0;  // unbound again: the same domain may bind it once more
    }
  }
  const auto queued = std::find(pending_.begin(), pending_.end(), port);
  if (queued != pending_.end()) {
    pending_.erase(queued);
    if (pending_.empty()) {
      eventfd_t value = 0;
      ISCSI_BLKBACK_ASSERT(eventfd_read(fd_, &value) == 0);
    }
  }
  events_.ports_.erase(MemEvents::Key{self_, port});
}

Result<std::size_t> MemEventChannels::take_pending(std::span<LocalPort> into) {
  const std::lock_guard lock(events_.mutex_);
  std::size_t taken = 0;
  while (taken < into.size() && !pending_.empty()) {
    const LocalPort port = pending_.front();
    pending_.pop_front();
    events_.find(self_, port)->queued = false;
    into[taken++] = port;
  }
  if (taken != 0 && pending_.empty()) {
    eventfd_t value = 0;
    ISCSI_BLKBACK_ASSERT(eventfd_read(fd_, &value) == 0);
  }
  return taken;
}

std::optional<LocalPort> MemEventChannels::next_pending() {
  LocalPort port = 0;
  return take_pending({&port, 1}).value_or(0) != 0 ? std::optional(port) : std::nullopt;
}

Result<void> MemEventChannels::unmask(LocalPort port) {
  const std::lock_guard lock(events_.mutex_);
  MemEvents::Port* local = events_.find(self_, port);
  if (local == nullptr || local->holder != this || !local->masked || local->queued) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("event channel {} has no event to end", port));
  }
  if (events_.faults_.hit("event channel unmask")) {
    return fail(ErrorCode::io, "unmasking the event channel failed (injected)");
  }
  ++events_.counters_[self_].unmasks;
  local->masked = false;
  if (std::exchange(local->latched, false)) {
    events_.deliver(port, *local);
  }
  return {};
}

Result<void> MemEventChannels::notify(LocalPort port) {
  const std::lock_guard lock(events_.mutex_);
  MemEvents::Port* local = events_.find(self_, port);
  if (local == nullptr || local->holder != this) {
    return fail(ErrorCode::invalid_argument, fmt::format("event channel {} is not bound", port));
  }
  if (events_.faults_.hit("event channel notify")) {
    return fail(ErrorCode::io, "notifying failed (injected)");
  }
  ++events_.counters_[self_].notifies;
  MemEvents::Port* remote = events_.find(local->remote_domain, local->remote_port);
  if (remote != nullptr && remote->holder != nullptr) {
    events_.deliver(local->remote_port, *remote);
  }
  return {};
}

}  // namespace iscsi_blkback
