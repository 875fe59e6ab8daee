// EventDispatcher: hands the doorbells that arrive on one event-channel fd to whoever bound the
// port. One per reactor thread and EventChannels, shared by all disks of a guest process.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/xen/event_channel.h"

namespace iscsi_blkback {

class EventDispatcher {
 public:
  class Handler {
   public:
    // The port has rung and is masked until unmask().
    virtual void on_event() noexcept = 0;
    // The event-channel device has failed: no doorbell will be heard any more.
    virtual void on_events_lost(const Error& error) noexcept = 0;

   protected:
    ~Handler() = default;
  };

  // Both outlive the dispatcher.
  EventDispatcher(Reactor& reactor, EventChannels& channels);
  ~EventDispatcher();  // after the last unbind()
  EventDispatcher(const EventDispatcher&) = delete;
  EventDispatcher& operator=(const EventDispatcher&) = delete;

  // handler hears the port until unbind(). Binding rings it once. Errors: the event channel's, for one
  // that the guest does not offer.
  [[nodiscard]] Result<LocalPort> bind(DomainId domain, std::uint32_t remote_port,
                                       Handler& handler);
  void unbind(LocalPort port);

  // After the work for an event is done, never before: until then a flooding guest throttles itself
  // (XSA-332). What fails of these two is done again later, since a guest that misses a doorbell,
  // or whose own is not heard any more, waits for ever.
  void unmask(LocalPort port);
  void notify(LocalPort port);

  static constexpr std::chrono::milliseconds kRetryMin{10};
  static constexpr std::chrono::milliseconds kRetryMax{1000};

 private:
  struct Binding {
    LocalPort port;
    Handler* handler;
    bool unmask_due = false;
    bool notify_due = false;
  };

  void on_readable();
  void do_again(LocalPort port, bool Binding::*due, const Error& why);
  void retry();

  Reactor& reactor_;
  EventChannels& channels_;
  std::vector<Binding> bindings_;   // one a disk: few
  std::unique_ptr<FdWatch> watch_;  // while anything is bound
  std::chrono::milliseconds retry_delay_ = kRetryMin;
  Timer retry_timer_;
  LogLimiter log_limiter_;
};

}  // namespace iscsi_blkback
