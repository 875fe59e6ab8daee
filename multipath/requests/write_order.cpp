#include "multipath/requests/write_order.h"

namespace iscsi_blkback {

// Rules 2 and 3.
bool WriteOrder::must_wait_for_overlap(const Request& request) const {
  if (fence_.writes().endangers(request.first_sector(), request.end_sector(), request.serial)) {
    return true;
  }
  if (!fence_.writes().has_owner(request.serial)) {
    return false;
  }
  bool wait = false;
  for (Path* path : paths_.all()) {
    path->for_each_command([&](PathCommand& command) {
      auto& other = static_cast<Request&>(command);
      if (other.place == Request::Place::at_path && other.is_write() &&
          other.first_sector() < request.end_sector() &&
          request.first_sector() < other.end_sector()) {
        other.has_waiter = true;
        wait = true;
      }
    });
  }
  return wait;
}

}  // namespace iscsi_blkback
