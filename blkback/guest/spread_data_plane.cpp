#include "blkback/guest/spread_data_plane.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "blkback/guest/disk_number.h"

namespace iscsi_blkback {

std::size_t plane_of(std::uint32_t device_id, std::size_t planes) {
  return disk_number(device_id) % planes;
}

SpreadDataPlane::SpreadDataPlane(std::vector<DataPlane*> planes) : planes_(std::move(planes)) {}

std::unique_ptr<DiskPort> SpreadDataPlane::open(DiskHandle disk, DiskSpecification specification,
                                                DiskEvents& events) {
  DataPlane& plane = *planes_[plane_of(specification.device_id, planes_.size())];
  return plane.open(disk, std::move(specification), events);
}

void SpreadDataPlane::set_guest(DiskHandle first, const GuestNow& guest) {
  for (DataPlane* plane : planes_) {
    plane->set_guest(first, guest);
  }
}

void SpreadDataPlane::query(std::function<void(std::vector<DiskReport>)> done) {
  struct Answers {
    std::size_t missing;
    std::vector<DiskReport> reports;
    std::function<void(std::vector<DiskReport>)> done;
  };
  const auto answers = std::make_shared<Answers>(
      Answers{.missing = planes_.size(), .reports = {}, .done = std::move(done)});
  for (DataPlane* plane : planes_) {
    plane->query([answers](std::vector<DiskReport> reports) {
      std::move(reports.begin(), reports.end(), std::back_inserter(answers->reports));
      if (--answers->missing == 0) {
        answers->done(std::move(answers->reports));
      }
    });
  }
}

}  // namespace iscsi_blkback
