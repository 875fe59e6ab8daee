// FaultyDisk: a decorator that makes requests of another BlockDevice fail, wait or hang, as a
// test's plan says. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>

#include "base/block_device.h"
#include "base/reactor.h"

namespace iscsi_blkback {

class FaultyDisk final : public BlockDevice {
 public:
  struct Action {
    enum class Kind : std::uint8_t {
      pass,  // on to the device below
      fail,  // completes with status, without reaching the device
      hold,  // waits for release(); then goes on to the device
    };
    Kind kind = Kind::pass;
    IoStatus status = IoStatus::target_error;
  };
  // Asked once for each request; number counts them from 0.
  using Plan = std::function<Action(const BlockRequest& request, std::uint64_t number)>;

  FaultyDisk(Reactor& reactor, BlockDevice& below);
  ~FaultyDisk() override;  // nothing held any more

  void set_plan(Plan plan) { plan_ = std::move(plan); }
  [[nodiscard]] const Geometry& geometry() const override { return below_.geometry(); }
  void submit(BlockRequest& request) noexcept override;

  [[nodiscard]] std::size_t held() const { return held_count_; }
  // Lets the oldest count held requests go on; all by default.
  void release(std::size_t count = ~std::size_t{0});
  // Ends all that are held with this status, as a device that is being closed does.
  void fail_held(IoStatus status);

 private:
  Reactor& reactor_;
  BlockDevice& below_;
  Plan plan_;
  std::uint64_t number_ = 0;
  std::size_t held_count_ = 0;
  IntrusiveList<BlockRequest, BlockRequest> held_;
};

}  // namespace iscsi_blkback
