// XenStore: the tree through which toolstack, backend and frontend meet. Real: libxenstore. In
// memory: tests. Used by a control thread only, since calls block: while xenstored hangs, for as
// long as that takes. Values are hostile input: read once into a snapshot, then parse.
//
// A connection that is lost stays so: xenstored has died. Every call fails with unavailable from
// then on, and no other failure has that code; fd() is readable and next_event() fails, so that
// whoever waits for events hears of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "blkback/xen/call_watchdog.h"

namespace iscsi_blkback {

struct WatchEvent {
  std::string path;   // what changed (or the watched path itself, on registration)
  std::string token;  // as given to watch()
};

// Reads and writes, either directly or inside one transaction.
class XenStoreAccess {
 public:
  // not_found when there is no such node. At most kMaxValueBytes (xenstore's own payload limit).
  [[nodiscard]] virtual Result<std::string> read(const std::string& path) = 0;
  [[nodiscard]] virtual Result<void> write(const std::string& path, std::string_view value) = 0;
  // Removes the node and everything below; not_found when it is not there.
  [[nodiscard]] virtual Result<void> remove(const std::string& path) = 0;

  static constexpr std::size_t kMaxValueBytes = 4096;

 protected:
  ~XenStoreAccess() = default;
};

class XenStore : public XenStoreAccess {
 public:
  virtual ~XenStore() = default;

  // The names of the children, unsorted and however many; not_found when there is no such node.
  // Never in a transaction, since a long list has a connection of its own. unsupported: the list is
  // longer than 4 KiB, and oxenstored is reached through the kernel's device, where it gives none.
  [[nodiscard]] virtual Result<std::vector<std::string>> list(const std::string& path) = 0;

  // body runs again from the start when another writer got in between (bounded number of times,
  // then: exhausted). It returns an error to give up: nothing is written then.
  [[nodiscard]] virtual Result<void> transaction(
      const std::function<Result<void>(XenStoreAccess&)>& body) = 0;

  // Fires once at registration, then for every change at path or below. Errors: xenstored's; exhausted, when it
  // allows no more.
  [[nodiscard]] virtual Result<void> watch(const std::string& path, const std::string& token) = 0;
  virtual void unwatch(const std::string& path, const std::string& token) = 0;

  // Readable (level) while next_event() has something.
  [[nodiscard]] virtual int fd() const = 0;
  // Nothing: no event is waiting. An error means that the connection to xenstored is lost: open a
  // new one, watch again, read everything again.
  [[nodiscard]] virtual Result<std::optional<WatchEvent>> next_event() = 0;
};

struct XenStoreTimes {
  // A call that has not returned for so long is spoken of in the log.
  std::chrono::milliseconds notice_after{5000};
  // How often xenstored is asked whether it lives, where it has no socket in this domain whose
  // hang-up tells: /dev/xen/xenbus, with xenstored in another domain.
  std::chrono::milliseconds liveness_interval{60000};
  // It is asked, too, where there is a socket: that of a relay, behind which is the device.
  bool relayed_from_device = false;
};

// Where libxenstore finds xenstored (XENSTORED_PATH, XENSTORED_RUNDIR): its socket, or the kernel's device.
struct XenStoreAddress {
  std::string path;
  bool is_device = false;
};
[[nodiscard]] XenStoreAddress xenstore_address();

// At the socket that libxenstore uses (XENSTORED_PATH, XENSTORED_RUNDIR), else through the kernel's
// device. The error says what is missing (no xenstored, no permission). listener: hears of calls
// that xenstored does not answer soon, this one included; outlives the connection.
[[nodiscard]] Result<std::unique_ptr<XenStore>> open_xenstore(const XenStoreTimes& times = {},
                                                              SlowCallListener* listener = nullptr);

}  // namespace iscsi_blkback
