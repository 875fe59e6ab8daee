// UnfencedMark: by what a disk tells every other one on this host that leads to the same LUN that
// writes of its own may still land there late, so that one that comes after it holds its writes
// back. It matters between two lives of a guest's disk: detached and attached again, a guest that
// is destroyed and started anew in another process. Owned by MultipathDevice, one for each.
//
// A file named after the LUN's identity, on which a disk that has something to fear holds a shared
// lock of its open file description (fcntl(2)): asking whether others hold one takes none. In the
// file is until when that may last, which is believed where a process has died with its lock; a
// disk that has nothing to fear any more takes it out. The files, one for each LUN, stay.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class UnfencedMark {
 public:
  // The folder is made where it does not exist. wwid: not empty; LogicalUnitIdentity::wwid.
  [[nodiscard]] static Result<UnfencedMark> open(const std::string& folder, std::string_view wwid);

  // Without a file: nobody is told, and there are no others.
  UnfencedMark() = default;
  UnfencedMark(UnfencedMark&& other) noexcept { *this = std::move(other); }
  UnfencedMark& operator=(UnfencedMark&& other) noexcept;
  ~UnfencedMark() { clear(); }

  [[nodiscard]] bool is_set() const { return set_; }
  // until: then nothing can land any more, in the time that is the same for all processes of this
  // boot. Set already: it may last longer.
  [[nodiscard]] Result<void> set(TimePoint until);
  void clear();
  // Whether another one is set, in this process or another one, or was when its process died.
  // (Where this one is set, too, nobody asks about the dead any more.)
  [[nodiscard]] bool others(TimePoint now) const;

 private:
  explicit UnfencedMark(UniqueFd fd) : fd_(std::move(fd)) {}

  [[nodiscard]] bool others_hold() const;
  [[nodiscard]] TimePoint stored_until() const;
  [[nodiscard]] bool store(TimePoint until) const;

  UniqueFd fd_;
  bool set_ = false;
  TimePoint until_{};         // in the file
  TimePoint until_before_{};  // what a dead one has left there
};

}  // namespace iscsi_blkback
