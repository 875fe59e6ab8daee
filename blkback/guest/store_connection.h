// StoreConnection: the service's or a guest process's connection to xenstore. When it is lost it is
// opened anew for as long as that takes, ever more slowly; what comes by it is handed on, a bounded
// number of events in a turn. Owned by GuestSupervisor or GuestBackend, control thread only.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

class StoreConnection {
 public:
  using Factory = std::function<Result<std::unique_ptr<XenStore>>()>;

  class Client {
   public:
    // A new connection, which has no watches yet. An error: it cannot be used.
    [[nodiscard]] virtual Result<void> on_store_open(XenStore& store) = 0;
    virtual void on_store_event(const WatchEvent& event) = 0;
    // store() is null from now on, until on_store_open().
    virtual void on_store_lost() = 0;

   protected:
    ~Client() = default;
  };

  // log: the component that speaks of it, a literal. all_log: what limits its messages.
  StoreConnection(Reactor& control, Factory open_store, const char* log, LogLimiter& all_log,
                  Client& client);
  StoreConnection(const StoreConnection&) = delete;
  StoreConnection& operator=(const StoreConnection&) = delete;

  // The first time; the error is the connection's or the client's.
  [[nodiscard]] Result<void> open();
  // A connection that is lost from now on stays so.
  void stop();

  // Null while xenstored cannot be reached.
  [[nodiscard]] XenStore* store() const { return store_.get(); }

  static constexpr std::chrono::milliseconds kReopenMin{100};
  static constexpr std::chrono::milliseconds kReopenMax{10000};
  // A connection that lived for so long starts the waiting times anew when it is lost.
  static constexpr std::chrono::milliseconds kStableAfter{10000};
  static constexpr std::size_t kMaxEventsPerTurn = 1024;

 private:
  void reopen();
  void lose(const Error& why);
  void take_events();

  Reactor& control_;
  Factory open_store_;
  const char* log_;
  LogLimiter lost_log_;
  Client& client_;
  std::unique_ptr<XenStore> store_;
  std::unique_ptr<FdWatch> watch_;
  std::chrono::milliseconds reopen_delay_ = kReopenMin;
  TimePoint opened_{};
  Timer reopen_timer_;
  bool stopping_ = false;
};

}  // namespace iscsi_blkback
