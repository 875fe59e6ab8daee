// PathActivation: tells an array to serve the LUN through a path that is ghost: explicit ALUA (SET
// TARGET PORT GROUPS) or RDAC (MODE SELECT of page 0x2C). One at a time; the owner decides when,
// and what to do next. Reactor thread.
#pragma once

#include <array>
#include <cstddef>

#include "initiator/logical_unit.h"
#include "multipath/path.h"

namespace iscsi_blkback {

class PathActivation {
 public:
  enum class Outcome : std::uint8_t {
    done,    // the array says so; the access state tells when it is true
    retry,   // not now
    failed,  // it refuses
    lost,    // no answer: the path has gone
  };

  PathActivation(void (*on_done)(void* owner, Outcome outcome) noexcept, void* owner);
  ~PathActivation();  // not while outstanding()

  // Whether the array can be told.
  [[nodiscard]] static bool possible(const LogicalUnitAccess& access);
  // Only when possible() and not outstanding(); the path's session is logged in. on_done comes
  // once, from the reactor.
  void start(Path& path, const LogicalUnitAccess& access);
  [[nodiscard]] bool outstanding() const { return path_ != nullptr; }
  [[nodiscard]] bool outstanding_at(const Path& path) const { return path_ == &path; }

 private:
  void send();
  void on_complete();

  void (*const on_done_)(void* owner, Outcome outcome) noexcept;
  void* const owner_;
  Path* path_ = nullptr;
  LogicalUnitAccess access_;
  std::uint32_t attentions_ = 0;
  ScsiTask task_;
  std::array<std::byte, kRdacLongListBytes> buffer_{};
};

}  // namespace iscsi_blkback
