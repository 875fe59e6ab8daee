// DiskWorkload: what a guest does with one of its disks, wherever it runs: reads, writes, discards
// and flushes in any of its queues, some outstanding all the time, and what it makes of the answers. Requests that are
// outstanding when the guest moves are issued again on the new ring, as blkfront does; where a ring
// is lost otherwise, nobody knows what has become of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "tests/simulation/host/simulated_storage.h"
#include "tests/simulation/host/simulated_world.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

class DiskWorkload {
 public:
  // disk: its place in the plan.
  DiskWorkload(SimulatedWorld& world, std::size_t disk);
  ~DiskWorkload();
  DiskWorkload(const DiskWorkload&) = delete;
  DiskWorkload& operator=(const DiskWorkload&) = delete;

  [[nodiscard]] std::size_t lun_number() const { return lun_; }
  [[nodiscard]] SimulatedLun& lun() { return world_.storage().lun(lun_); }

  // The guest's driver finds the disk, and has no ring yet.
  void expect_ring();
  // The ring can be used from now on. Requests that are open are issued (again) on it, unless it is
  // the one that they are in. ring: its number.
  void begin(FakeFrontend& frontend, std::uint64_t ring);
  // The guest does not run, or has no such disk: nothing new is done.
  void pause();
  // The ring is gone, and nobody will ever hear what has become of what is open.
  void lose();
  void on_completion(const FakeFrontend::Completion& completion);

  // Nothing new is begun from now on, or it is again.
  void stop() { stopped_ = true; }
  // A write of the guest's has been acknowledged since it has had the disk in this domain.
  [[nodiscard]] bool counts_on_its_lun() const { return counts_on_its_lun_; }
  void forget_its_lun() { counts_on_its_lun_ = false; }
  void go_on();
  [[nodiscard]] bool idle() const;
  [[nodiscard]] std::size_t open() const;
  // So many requests at once, on top of the others.
  void burst(std::size_t count, bool reads);
  // Errors are no surprise for a while: the disk is being taken away.
  void expect_errors(bool expected) { errors_expected_ = expected; }

  // When nothing else is open: reads all of the disk. False: the ring cannot be used now.
  bool read_back();
  [[nodiscard]] bool read_back_done() const { return read_back_left_ == 0; }

 private:
  struct Slot {
    std::size_t number = 0;
    bool once = false;     // of a burst
    bool waiting = false;  // for its next request
    bool open = false;
    bool in_ring = false;
    BlockOperation operation = BlockOperation::read;
    std::uint64_t sector = 0;
    std::uint32_t count = 0;
    FakeFrontend::Layout layout;  // of its data in the guest's pages
    SectorOracle::Version version = 0;
    std::uint64_t ticket = 0;
    std::uint64_t flushes_before = 0;
    TimePoint issued{};
  };

  void think(Slot& slot);
  void next(Slot& slot);
  void choose(Slot& slot, bool write, bool flush);
  void choose_layout(Slot& slot);
  void begin_request(Slot& slot);
  [[nodiscard]] bool put_into_ring(Slot& slot);
  [[nodiscard]] bool makes_indirect() const;
  [[nodiscard]] bool has_room() const;
  [[nodiscard]] FakeFrontend* choose_queue();
  void end(Slot& slot, bool ok);
  void check_wait(std::string_view what, Duration took);
  [[nodiscard]] Duration undisturbed_limit() const;
  void check_read(const Slot& slot, std::span<const std::byte> data);
  [[nodiscard]] Slot& add_slot(bool once);
  void fail(Rule rule, std::string what);

  SimulatedWorld& world_;
  const std::size_t disk_;
  const std::size_t lun_;
  const PlannedDisk& planned_;
  SimRandom random_;
  FakeFrontend* frontend_ = nullptr;  // null: there is no ring that can be used
  std::uint64_t ring_ = 0;            // that open requests are in; 0: none
  std::optional<TimePoint> expected_since_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<std::byte> data_;  // of the write that is just issued
  std::uint64_t hot_sector_ = 0;
  std::size_t read_back_left_ = 0;
  bool counts_on_its_lun_ = false;
  bool stopped_ = false;
  bool errors_expected_ = false;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace iscsi_blkback
