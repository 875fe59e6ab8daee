#include "multipath/path_removals.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "initiator/session/task_management.h"

namespace iscsi_blkback {
namespace {

// What is outstanding at a path that leaves has so long to be answered, and as long again after it
// was to be aborted.
constexpr std::chrono::seconds kRemovalPatience{5};

}  // namespace

struct PathRemovals::Removal {
  Removal(Reactor& reactor, PathRemovals& owner, Path& removed)
      : removals(owner),
        path(removed),
        patience(
            reactor,
            [](void* self) noexcept {
              auto& removal = *static_cast<Removal*>(self);
              removal.removals.on_overdue(removal);
            },
            this) {}

  [[nodiscard]] bool idle() const { return path.idle() && !aborting; }

  PathRemovals& removals;
  Path& path;
  Timer patience;
  TaskManagement abort;
  bool aborting = false;     // abort is the session's
  bool abort_ended = false;  // with whatever answer
  bool withdrawn = false;    // from the fencer
  bool nothing_at_fencer = false;
};

PathRemovals::PathRemovals(Reactor& reactor, WriteFence& fence, DiskSteps& steps, DiskLog& log,
                           Owner& owner)
    : reactor_(reactor), fence_(fence), steps_(steps), log_(log), owner_(owner) {}

PathRemovals::~PathRemovals() = default;

void PathRemovals::add(Path& path) {
  path.stop();
  removals_.push_back(std::make_unique<Removal>(reactor_, *this, path));
  removals_.back()->patience.start_after(kRemovalPatience);
  steps_.due(DiskStep::finish_removals);
}

void PathRemovals::on_withdrawn() {
  for (const std::unique_ptr<Removal>& removal : removals_) {
    removal->nothing_at_fencer = removal->withdrawn;
  }
}

bool PathRemovals::idle() const {
  return std::all_of(removals_.begin(), removals_.end(),
                     [](const auto& removal) { return removal->idle(); });
}

std::uint32_t PathRemovals::in_flight() const {
  std::uint32_t sum = 0;
  for (const std::unique_ptr<Removal>& removal : removals_) {
    sum += removal->path.in_flight();
  }
  return sum;
}

bool PathRemovals::nothing_outstanding(const Removal& removal) const {
  const Path& path = removal.path;
  return path.in_flight() == 0 && removal.idle() && !path.has_own_commands() &&
         fence_.has_done_with(path);
}

void PathRemovals::on_overdue(Removal& removal) {
  if (closing_ || nothing_outstanding(removal)) {
    return;  // only fences and the key are waited for, which have bounds of their own
  }
  removal.patience.start_after(kRemovalPatience);
  Session& session = removal.path.session();
  if (removal.aborting || session.state() != SessionState::logged_in) {
    return;  // the session sees to the end of it
  }
  if (std::exchange(removal.abort_ended, false)) {
    session.drop(
        Error{ErrorCode::timed_out, "commands of a removed path are neither answered nor aborted"});
    return;
  }
  log_.warning("commands at the removed path {} are not answered, aborting them",
               removal.path.portal_name());
  removal.aborting = true;
  removal.abort.function = TaskFunction::abort_task_set;
  removal.abort.lun = removal.path.logical_unit().lun();
  removal.abort.owner = &removal;
  removal.abort.on_complete = [](TaskManagement& function) noexcept {
    auto& ended = *static_cast<Removal*>(function.owner);
    ended.aborting = false;
    ended.abort_ended = true;
    ended.removals.steps_.due_to_end();
  };
  session.submit(removal.abort);
}

void PathRemovals::look() {
  std::vector<Session*> let_go;
  std::erase_if(removals_, [&](const std::unique_ptr<Removal>& removal) {
    if (!is_over(*removal)) {
      return false;
    }
    Path& path = removal->path;
    let_go.push_back(&path.session());
    log_.info("path {} of LUN {} is gone", path.portal_name(), path.lun());
    owner_.forget_path(path);
    return true;
  });
  for (Session* session : let_go) {
    owner_.on_path_removed(*session);
  }
}

bool PathRemovals::is_over(Removal& removal) {
  if (!nothing_outstanding(removal) || fence_.has_lost(removal.path) ||
      !fence_.key_unregistered(removal.path)) {
    return false;
  }
  if (!std::exchange(removal.withdrawn, true)) {
    removal.nothing_at_fencer = fence_.let_go(removal.path.session());
  }
  return removal.nothing_at_fencer;
}

}  // namespace iscsi_blkback
