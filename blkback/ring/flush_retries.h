// FlushRetries: the flushes of a VbdQueue that the device has failed. They are held and sent again until
// they succeed or their ring goes, since Linux's frontend takes an error for success and switches
// flushes off for good (blkif_interrupt(), 6.1 and 6.12), so that every fsync() after it is a lie.
// Owned by VbdQueue. Reactor thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/block_device.h"
#include "base/log.h"
#include "base/reactor.h"
#include "blkback/ring/vbd_request.h"

namespace iscsi_blkback {

class FlushRetries {
 public:
  // name: of the disk, for the log. retries: is counted up. All outlive it.
  FlushRetries(Reactor& reactor, BlockDevice& device, const std::string& name, LogLimiter& log,
               std::uint64_t& retries);

  // Takes it. The error: the LUN refuses flushes as such, or says that data is lost which it had
  // acknowledged; the disk is not to be served any more, which the guest cannot overlook.
  [[nodiscard]] std::optional<Error> failed(VbdRequest& flush, IoStatus status) noexcept;
  void succeeded(VbdRequest& flush) noexcept;
  // Those that wait for their next try, into the list, as unanswered: their ring goes.
  void take_all(VbdRequestList& unanswered) noexcept;

  // Flushes that have failed, whether they wait or are on their next try.
  [[nodiscard]] std::uint32_t held() const { return held_; }

 private:
  void retry() noexcept;

  Reactor& reactor_;
  BlockDevice& device_;
  const std::string& name_;
  LogLimiter& log_;
  std::uint64_t& retries_;
  VbdRequestList waiting_;
  std::uint32_t held_ = 0;
  Duration delay_{};  // of the next try
  Timer timer_;
};

}  // namespace iscsi_blkback
