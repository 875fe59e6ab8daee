// DiskRing: a disk's ring (which the I/O side serves) as the control side sees it: connected as its
// frontend asks, tried again where our host lacked something for it, and given up, with the device,
// where it does not drain. Owned by GuestDisk, control thread only.
#pragma once

#include <chrono>
#include <string>

#include "base/log.h"
#include "base/reactor.h"
#include "blkback/guest/data_plane.h"
#include "blkback/guest/disk_device.h"
#include "blkback/guest/xenbus_node.h"
#include "blkback/guest/xenbus_state.h"

namespace iscsi_blkback {

class DiskRing final : private RingEvents {
 public:
  // name and log: for what is logged. All outlive it.
  DiskRing(Reactor& control, DiskOwner& owner, DiskDevice& device, std::string name,
           LogLimiter& log);
  DiskRing(const DiskRing&) = delete;
  DiskRing& operator=(const DiskRing&) = delete;

  // A ring that its guest has left waits this long for its last requests, then they are given up:
  // with no path they would hold up the guest's next ring for ever.
  static constexpr std::chrono::milliseconds kDrainTimeout{3000};
  // What our host lacked for a guest's ring (memory, an event channel) it may have later.
  static constexpr std::chrono::milliseconds kRetryMin{200};
  static constexpr std::chrono::milliseconds kRetryMax{10000};

  [[nodiscard]] RingPhase phase() const { return phase_; }
  // What the frontend asks for is no ring; until it starts anew.
  [[nodiscard]] bool refused() const { return refused_; }
  // For the time of another attempt.
  [[nodiscard]] bool waits() const { return waits_; }

  // The frontend starts anew.
  void start_anew();
  // The device is ready, and so are this and the frontend.
  void connect(FrontendRing ring);
  // why: one sentence.
  void refuse(const std::string& why);
  // abandon closes the device as well.
  void disconnect(RingEnd end);
  // There is nothing left to drain.
  void on_device_closed() { drain_timer_.stop(); }
  // What becomes of it is of no interest any more.
  void retire();

 private:
  // RingEvents.
  void on_ring_connected(const Result<void>& result) override;
  void on_ring_broken(const std::string& why) override;
  void on_ring_disconnected() override;

  void on_drain_overdue();
  void on_retry();

  Reactor& control_;
  DiskOwner& owner_;
  DiskDevice& device_;
  const std::string name_;
  LogLimiter& log_;
  RingPhase phase_ = RingPhase::idle;
  bool refused_ = false;
  bool waits_ = false;
  std::chrono::milliseconds retry_delay_ = kRetryMin;
  Timer drain_timer_;
  Timer retry_timer_;
};

}  // namespace iscsi_blkback
