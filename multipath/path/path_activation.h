// PathActivation: tells an array to serve the LUN through a path that is ghost: explicit ALUA (SET
// TARGET PORT GROUPS) or RDAC (MODE SELECT of page 0x2C). Owned by Path; PathActivator decides
// when, for how long an answer is waited for, and what to do next. Reactor thread.
#pragma once

#include <array>
#include <cstddef>

#include "initiator/lun/logical_unit.h"

namespace iscsi_blkback {

class PathActivation {
 public:
  enum class Outcome : std::uint8_t {
    done,    // the array says so; the access state tells when it is true
    retry,   // not now
    failed,  // it refuses
    lost,    // no answer: the path has gone
  };

  class Owner {
   public:
    // Once for each start(), from the reactor, however late.
    virtual void on_activation_done(Outcome outcome) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  PathActivation(LogicalUnit& logical_unit, Owner& owner);
  ~PathActivation();  // not while outstanding()
  PathActivation(const PathActivation&) = delete;
  PathActivation& operator=(const PathActivation&) = delete;

  // Whether the array can be told.
  [[nodiscard]] static bool possible(const LogicalUnitAccess& access);
  // Only when possible() and not outstanding(); the session is logged in.
  void start(const LogicalUnitAccess& access);
  [[nodiscard]] bool outstanding() const { return outstanding_; }
  // Nothing is sent any more, until the next start(): the command that waits for the target's
  // window is taken back. What has been sent is waited for.
  void withdraw();

 private:
  void send();
  void on_complete();

  LogicalUnit& logical_unit_;
  Owner& owner_;
  bool outstanding_ = false;
  bool withdrawn_ = false;
  LogicalUnitAccess access_;
  std::uint32_t attentions_ = 0;
  ScsiTask task_;
  std::array<std::byte, kRdacLongListBytes> buffer_{};
};

}  // namespace iscsi_blkback
