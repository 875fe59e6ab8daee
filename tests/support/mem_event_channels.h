// The in-memory twin of Xen's event channels: ports of every domain, and EventChannels on them
// under the rules of Linux's evtchn driver. Both the guest's side and the backend's side are
// MemEventChannels. Any thread.
//
// Enforced: only the domain that a port was offered to may bind it; a port stays masked from its
// event until unmask(); events in between are not lost but delivered at unmask(); binding makes the
// local port pending once; an event to a port that nobody holds vanishes; nothing stays bound when
// a handle is closed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "blkback/xen/event_channel.h"
#include "tests/support/mem_faults.h"

namespace iscsi_blkback {

class MemEventChannels;

class MemEvents {
 public:
  explicit MemEvents(MemFaults& faults) : faults_(faults) {}

  [[nodiscard]] std::unique_ptr<MemEventChannels> open(DomainId self);

  // The process that had opened them has died: no port of its stays bound. The channels need not be
  // destroyed then.
  void process_died(MemEventChannels& channels);

  // Ports that are bound to another domain's port, counted on one side only.
  [[nodiscard]] std::size_t bound_ports() const;

  struct Counters {
    std::uint64_t notifies = 0;  // notify() calls of this domain
    std::uint64_t unmasks = 0;
  };
  [[nodiscard]] Counters counters(DomainId domain) const;

 private:
  friend class MemEventChannels;

  struct Port {
    MemEventChannels* holder = nullptr;
    DomainId remote_domain = 0;
    LocalPort remote_port = 0;  // 0: unbound, waits for remote_domain to bind
    bool masked = false;
    bool queued = false;   // delivered, not fetched yet
    bool latched = false;  // rung while masked
  };
  using Key = std::pair<DomainId, LocalPort>;

  [[nodiscard]] Port* find(DomainId domain, LocalPort port);
  [[nodiscard]] LocalPort add_port(DomainId domain, Port port);
  void deliver(LocalPort port, Port& at);

  MemFaults& faults_;
  mutable std::mutex mutex_;
  std::map<Key, Port> ports_;
  std::map<DomainId, LocalPort> next_port_;
  std::map<DomainId, Counters> counters_;
};

class MemEventChannels final : public EventChannels {
 public:
  MemEventChannels(MemEvents& events, DomainId self);
  ~MemEventChannels() override;

  // The guest's side: a port that only domain remote may bind.
  [[nodiscard]] LocalPort allocate_unbound(DomainId remote);

  [[nodiscard]] int fd() const override { return fd_; }
  [[nodiscard]] Result<LocalPort> bind_interdomain(DomainId domain,
                                                   std::uint32_t remote_port) override;
  void unbind(LocalPort port) override;
  [[nodiscard]] Result<std::size_t> take_pending(std::span<LocalPort> into) override;
  // One of them, for guests.
  [[nodiscard]] std::optional<LocalPort> next_pending();
  [[nodiscard]] Result<void> unmask(LocalPort port) override;
  [[nodiscard]] Result<void> notify(LocalPort port) override;

 private:
  friend class MemEvents;
  void unbind_locked(LocalPort port);

  MemEvents& events_;
  DomainId self_;
  int fd_;
  std::deque<LocalPort> pending_;  // the eventfd is readable while this is not empty
};

}  // namespace iscsi_blkback
