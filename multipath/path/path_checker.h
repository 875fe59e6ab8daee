// PathChecker: asks one path whether it works, when nothing else has shown it: the path_checker of
// multipath.conf. One for each path, and each on its own: a path that hangs delays no other. What
// an answer means for the path, its owner decides. Reactor thread.
//
// Looks at a good path come polling_interval apart and, as long as all is well, twice as far each
// time, up to max_polling_interval; a path that does not work is looked at every second.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/path/error_policy.h"

namespace iscsi_blkback {

// The names are multipath.conf's.
enum class PathCheckerKind : std::uint8_t {
  tur,       // TEST UNIT READY
  directio,  // a read of the first block; for targets that answer the other with GOOD whatever is
  rdac,      // INQUIRY, page 0xC9
  none,      // a good path is not asked
};

[[nodiscard]] const char* to_string(PathCheckerKind kind);
// readsector0, the old name of directio, is taken too.
[[nodiscard]] std::optional<PathCheckerKind> path_checker_named(std::string_view name);

struct PathCheckerOptions {
  PathCheckerKind kind = PathCheckerKind::tur;
  std::chrono::milliseconds polling_interval{5000};
  std::chrono::milliseconds max_polling_interval{20000};  // not below the other
  std::chrono::milliseconds checker_timeout{5000};
};

// Up to a tenth less, so that the looks at many paths and disks do not fall together.
[[nodiscard]] Duration with_jitter(Duration interval, std::uint64_t random);

class PathChecker {
 public:
  class Owner {
   public:
    // The path is to be looked at: check(), or something else and then look_later().
    virtual void on_look_due() noexcept = 0;
    // How a check ended; look_later() is due. Unit attentions that say nothing are not told.
    // changed: the answer differs from the last one (rdac).
    virtual void on_checked(ErrorClass outcome, bool changed) noexcept = 0;
    // Not answered within checker_timeout; it goes on. again: nor long after that.
    virtual void on_check_overdue(bool again) noexcept = 0;
    // After stop(): nothing is outstanding any more.
    virtual void on_checker_idle() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  PathChecker(Reactor& reactor, LogicalUnit& logical_unit, const PathCheckerOptions& options,
              Owner& owner);
  ~PathChecker();  // idle() only

  // Arms the next look. good: guest I/O uses the path.
  void look_later(bool good);
  // No look for now: there is no session, or it is asked something else.
  void pause() { timer_.stop(); }
  void stop();
  // From the next check on.
  void set_kind(PathCheckerKind kind) { options_.kind = kind; }
  // Something about the path has changed: good or not, it is looked at more often again.
  void reset_interval() { interval_ = options_.polling_interval; }
  // A request has succeeded: the next look is not needed.
  void passed() { passed_ = true; }

  // Session logged in, nothing outstanding.
  void check();
  [[nodiscard]] bool idle() const { return !outstanding_; }
  [[nodiscard]] const char* question() const;  // "TEST UNIT READY"

 private:
  void on_timer();
  void send();
  void on_complete();
  [[nodiscard]] Duration widened() const;
  [[nodiscard]] Duration patience() const {
    return logical_unit_.patience(options_.checker_timeout);
  }

  Reactor& reactor_;
  LogicalUnit& logical_unit_;
  PathCheckerOptions options_;
  Owner& owner_;
  Timer timer_;  // the next look, or a check's deadline
  Duration interval_;
  bool good_ = false;
  bool passed_ = false;
  ScsiTask task_;
  TimePoint sent_at_{};
  bool outstanding_ = false;
  bool overdue_ = false;
  bool stopped_ = false;
  std::uint32_t attentions_ = 0;  // in a row
  // directio reads into it whatever the block size; the start of rdac's page.
  std::array<std::byte, 4096> buffer_{};
  std::array<std::byte, 48> last_page_{};
};

}  // namespace iscsi_blkback
