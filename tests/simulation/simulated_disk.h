// SimulatedDisk: one disk of a simulation: a LUN, the MultipathDevice that serves it, a guest that
// keeps it busy with random requests, directly or through a ring, and the oracle that judges every
// answer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "multipath/fencing/shared_fencing.h"
#include "multipath/multipath_device.h"
#include "tests/simulation/ring_guest.h"
#include "tests/simulation/sector_oracle.h"
#include "tests/support/sim_random.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {

inline constexpr std::uint64_t kSimulatedSectors = 192;

class SimulatedDisk final : public MultipathDevice::Observer {
 public:
  // What the disks of one run share.
  class World {
   public:
    [[nodiscard]] virtual SimReactor& reactor() = 0;
    [[nodiscard]] virtual SharedFencing& fencing() = 0;
    // All requests go to the same few sectors.
    [[nodiscard]] virtual bool contended() const = 0;
    [[nodiscard]] virtual SectorOracle::Version next_version() = 0;
    virtual void count_answer(BlockOperation operation, IoStatus status) = 0;
    // A path that was removed has let go of its session.
    virtual void path_removed(std::uint16_t lun_number, Session& session) = 0;
    virtual void fail(std::string what) = 0;

   protected:
    ~World() = default;
  };

  // through_ring: the guest's requests go through a ring and a VbdQueue.
  SimulatedDisk(World& world, std::uint64_t seed, std::uint16_t lun_number,
                const MultipathOptions& options, bool through_ring);

  void add_path(Session& session);
  // False: it is the only one.
  bool remove_path(const Session& session);
  // Detached, whatever is outstanding, and attached again: another device serves the disk over
  // these sessions, while the former one still cares for what it has lost.
  void attach_again(const std::vector<Session*>& sessions);
  // Not through a ring, nothing of it is on the way out.
  [[nodiscard]] bool can_be_attached_again() const;
  [[nodiscard]] bool has_former_life() const;
  [[nodiscard]] MultipathDevice& device() { return *device_; }
  [[nodiscard]] const std::shared_ptr<SimLun>& lun() const { return lun_; }
  [[nodiscard]] bool idle() const { return open_ == 0; }
  [[nodiscard]] std::size_t open() const { return open_; }

  void stop_guest() { guest_stopped_ = true; }
  // Reads all of the disk; nothing else is open.
  void read_back();
  // What the medium holds must be what a read may return.
  void check_medium();
  void close();
  [[nodiscard]] bool closed() const {
    return closed_ && !has_former_life() && (ring_ == nullptr || ring_->closed());
  }
  void check_nothing_left();

 private:
  struct Slot {
    SimulatedDisk* disk = nullptr;
    BlockRequest block;
    std::vector<std::byte> data;
    bool open = false;
    bool submitting = false;
    bool detached = false;  // under way: it may be aborted
    SectorOracle::Version version = 0;
    std::uint64_t ticket = 0;
    std::uint64_t flushes_before = 0;
  };

  struct FormerLife {
    std::unique_ptr<MultipathDevice> device;
    bool closed = false;
  };

  void on_ready(MultipathDevice& device) noexcept override;
  void on_paths_changed(MultipathDevice& /*device*/) noexcept override {}
  void on_path_removed(MultipathDevice& device, Session& session) noexcept override;

  void schedule_next(Slot& slot);
  void submit_random(Slot& slot);
  void check_untouched(const Slot& slot);
  void check_nothing_left(const MultipathDevice& device);
  void submit(Slot& slot, BlockOperation operation, std::uint64_t sector, std::uint32_t count);
  void completed(Slot& slot, IoStatus status);
  void fail(std::string what);

  World& world_;
  const std::uint16_t lun_number_;
  MultipathOptions options_;
  SimRandom random_;
  std::shared_ptr<SimLun> lun_;
  std::unique_ptr<MultipathDevice> device_;
  std::vector<std::unique_ptr<FormerLife>> former_;
  const bool through_ring_;
  std::unique_ptr<RingGuest> ring_;
  SectorOracle oracle_{kSimulatedSectors};
  std::vector<std::unique_ptr<Slot>> slots_;
  Slot reader_;
  std::uint64_t hot_sector_ = 0;
  std::size_t open_ = 0;
  bool guest_stopped_ = false;
  bool closed_ = false;
};

}  // namespace iscsi_blkback
