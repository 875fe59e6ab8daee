// MemoryDisk: a BlockDevice that keeps its data in memory and completes after a delay, in the order
// of a real one: whenever it likes. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/block_device.h"
#include "base/reactor.h"

namespace iscsi_blkback {

class MemoryDisk final : public BlockDevice {
 public:
  MemoryDisk(Reactor& reactor, Geometry geometry);
  ~MemoryDisk() override;  // idle

  // How long a request takes; drawn anew for each. Nothing set: completes later in the same turn.
  void set_delay(std::function<Duration()> delay) { delay_ = std::move(delay); }
  void set_geometry(const Geometry& geometry);

  [[nodiscard]] const Geometry& geometry() const override { return geometry_; }
  void submit(BlockRequest& request) noexcept override;

  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
  [[nodiscard]] std::uint64_t submitted() const { return submitted_; }
  [[nodiscard]] std::vector<std::byte>& contents() { return contents_; }

 private:
  struct Pending;
  static void on_due(void* owner) noexcept;
  void finish(BlockRequest& request) noexcept;

  Reactor& reactor_;
  Geometry geometry_;
  std::vector<std::byte> contents_;
  std::function<Duration()> delay_;
  std::uint32_t in_flight_ = 0;
  std::uint64_t submitted_ = 0;
  IntrusiveList<BlockRequest, BlockRequest> ready_;  // complete when finish_all_ runs
  Deferred finish_all_;
  std::vector<std::unique_ptr<Pending>> pool_;
  std::vector<Pending*> free_;
};

}  // namespace iscsi_blkback
