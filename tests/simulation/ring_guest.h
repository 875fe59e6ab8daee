// RingGuest: puts a guest's ring between a simulated guest and its disk: what is submitted here
// goes through a FakeFrontend's ring and a VbdQueue to the device. In memory, virtual time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "blkback/ring/event_dispatcher.h"
#include "blkback/ring/vbd_queue.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class RingGuest final : public BlockDevice, private VbdQueue::Owner {
 public:
  // Requests of more sectors than this do not fit a ring slot.
  static constexpr std::uint32_t kMaxSectors = kMaxDirectSegments * kSectorsPerPage;

  // device: ready, and outlives the guest. start_index: where the ring's counters begin.
  RingGuest(SimReactor& reactor, BlockDevice& device, std::uint32_t start_index);
  ~RingGuest() override;  // closed

  [[nodiscard]] const Geometry& geometry() const override { return device_.geometry(); }
  // What fails is completed with target_error, whatever it was: the ring knows no more.
  void submit(BlockRequest& request) noexcept override;

  void close();
  [[nodiscard]] bool closed() const { return vbd_ == nullptr; }
  // What the ring, the grants or the frontend have found wrong since the last call.
  [[nodiscard]] std::vector<std::string> take_violations();

 private:
  void on_queue_broken(VbdQueue& vbd, const Error& error) noexcept override;
  void on_completion(const FakeFrontend::Completion& completion);

  BlockDevice& device_;
  MemXen xen_;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<MemEventChannels> channels_;
  std::optional<EventDispatcher> events_;
  std::optional<RingTurn> turn_;
  std::optional<FakeFrontend> frontend_;
  std::unique_ptr<FdWatch> bell_;
  std::unique_ptr<VbdQueue> vbd_;
  std::vector<std::string> violations_;
};

}  // namespace iscsi_blkback
