// UnfencedMark: by what a disk tells every other one on this host that leads to the same LUN that
// writes of its own may still land there late, so that one that comes after it holds its writes
// back. It matters between two lives of a guest's disk: detached and attached again, a guest that
// is destroyed and started anew in another process. Owned by MultipathDevice, one for each.
//
// A file named after the LUN's identity, on which a disk that has something to fear holds a shared
// lock of its open file description (fcntl(2)): it vanishes with its process, however that ends,
// and asking whether others hold one takes none. The files are empty, one for each LUN, and stay.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class UnfencedMark {
 public:
  // The folder is made where it does not exist. wwid: not empty; LogicalUnitIdentity::wwid.
  [[nodiscard]] static Result<UnfencedMark> open(const std::string& folder, std::string_view wwid);

  // Without a file: nobody is told, and there are no others.
  UnfencedMark() = default;

  [[nodiscard]] bool is_set() const { return set_; }
  [[nodiscard]] Result<void> set();
  void clear();
  // Whether another one is set, in this process or another one.
  [[nodiscard]] bool others() const;

 private:
  explicit UnfencedMark(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  bool set_ = false;
};

}  // namespace iscsi_blkback
