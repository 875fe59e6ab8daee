// SpreadDataPlane: several data planes as one, each with a reactor, sessions and rings of its own: a
// disk is in the plane that its number says, so that the guest's next process has it in the same one,
// with sessions of the same names. What one disk costs is one reactor's; a guest with several has as
// many at work. Owned by GuestProcess. Control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "blkback/guest/data_plane.h"

namespace iscsi_blkback {

// Which of so many planes, at least one, has the disk: one after the other in the order of xvda,
// xvdb, ...
[[nodiscard]] std::size_t plane_of(std::uint32_t device_id, std::size_t planes);

class SpreadDataPlane final : public DataPlane {
 public:
  // planes: at least one; they outlive it.
  explicit SpreadDataPlane(std::vector<DataPlane*> planes);

  [[nodiscard]] std::unique_ptr<DiskPort> open(DiskHandle disk, DiskSpecification specification,
                                               DiskEvents& events) override;
  void set_guest(DiskHandle first, const GuestNow& guest) override;
  // done: when the last one has answered.
  void query(std::function<void(std::vector<DiskReport>)> done) override;

 private:
  const std::vector<DataPlane*> planes_;
};

}  // namespace iscsi_blkback
