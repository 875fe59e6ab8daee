// LossNotice: a target has said that it lost data which it had acknowledged, and the guest has to
// hear of it: no flush that was under way then vouches for the data, and at least one flush fails,
// however late. A value.
#pragma once

#include <cstdint>
#include <utility>

namespace iscsi_blkback {

class LossNotice {
 public:
  // last_serial: of the newest request.
  void lost(std::uint64_t last_serial) {
    before_ = last_serial;
    untold_ = true;
  }
  // Whether that flush of the guest's, which has succeeded, has to say that data is lost.
  [[nodiscard]] bool fails(std::uint64_t serial) {
    return std::exchange(untold_, false) || serial <= before_;
  }

 private:
  std::uint64_t before_ = 0;  // serial of the last request that cannot vouch for anything
  bool untold_ = false;
};

}  // namespace iscsi_blkback
