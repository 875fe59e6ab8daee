// Paths that come to a MultipathDevice and leave it while it is in use. What becomes of the
// requests of a path that leaves: see multipath_device.h.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// What is outstanding at a path that leaves has so long to be answered, and as long again after it
// was to be aborted.
constexpr std::chrono::seconds kRemovalPatience{5};

}  // namespace

Result<void> MultipathDevice::Impl::add_path(Session& session, std::uint16_t lun,
                                             std::string portal_name) {
  ISCSI_BLKBACK_ASSERT(!closing_);
  if (portal_name.empty()) {
    portal_name = session.options().portal_name;
  }
  if (paths_.find(session, lun) != nullptr) {
    return fail(ErrorCode::conflict,
                fmt::format("{} has the path by {} already", options_.alias, portal_name));
  }
  const std::optional<std::uint32_t> index = paths_.free_number();
  if (!index) {
    return fail(ErrorCode::exhausted, fmt::format("{} has {} paths already, no more are made",
                                                  options_.alias, kMaxPaths));
  }
  groups_.add_path(*index);
  fence_.add(session);
  Path& path = paths_.add(std::make_unique<Path>(
      reactor_, session, lun, std::move(portal_name), *index,
      Path::Options{.checker = {groups_.policies().path_checker, options_.polling_interval,
                                options_.max_polling_interval, options_.checker_timeout},
                    .marginal = options_.marginal,
                    .host_key = options_.reservation_key,
                    .registrations = sessions_},
      log_, *this));
  turn_.path_added(path);
  groups_.update_priorities();
  path.start();
  if (session.login_epoch() != 0) {
    turn_.tell_nexus(path);  // of a session that others have brought up; else its login tells
  }
  return {};
}

Result<void> MultipathDevice::Impl::remove_path(const Session& session, std::uint16_t lun) {
  ISCSI_BLKBACK_ASSERT(!closing_);
  const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
    return &path->session() == &session && path->lun() == lun;
  });
  if (found == paths_.end()) {
    return fail(ErrorCode::not_found,
                fmt::format("{} has no path by {}", options_.alias, session.options().portal_name));
  }
  if (paths_.size() == 1) {
    return fail(
        ErrorCode::conflict,
        fmt::format("the path by {} is the only one of {}: add another one first, or detach "
                    "the disk",
                    (*found)->portal_name(), options_.alias));
  }
  Path& path = **found;
  log_.info("path {} of LUN {} is removed, {} requests are outstanding there", path.portal_name(),
            lun, path.in_flight());
  fence_.forget_carrier(path);
  const bool had_path = paths_.up() != 0;
  paths_.retire(path);
  path.stop();
  removals_.push_back(std::make_unique<Removal>(reactor_, *this, path));
  removals_.back()->patience.start_after(kRemovalPatience);
  finish_removals_.schedule();

  groups_.retire_path(path);
  paths_.note_room();
  paths_.note_room(path);
  activator_.forget(path);
  groups_.reconsider();
  groups_.note_group_in_use();
  activator_.activate_if_needed();
  queue_.hedger().look_soon();
  grow_if_all_agree(nullptr);
  note_paths_up(had_path);
  notify_.schedule();
  return {};
}

bool MultipathDevice::Impl::nothing_outstanding(const Removal& removal) const {
  const Path& path = removal.path;
  return path.in_flight() == 0 && removal.idle() && !path.has_own_commands() &&
         fence_.has_done_with(path);
}

void MultipathDevice::Impl::on_removal_overdue(Removal& removal) {
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
    ended.impl.on_abort_ended(ended);
  };
  session.manage(removal.abort);
}

void MultipathDevice::Impl::on_abort_ended(Removal& removal) {
  removal.aborting = false;
  removal.abort_ended = true;
  look_at_those_that_end();
}

void MultipathDevice::Impl::finish_removals() {
  if (closing_) {
    return;
  }
  std::vector<Session*> let_go;
  std::erase_if(removals_, [&](const std::unique_ptr<Removal>& removal) {
    if (!nothing_outstanding(*removal) || fence_.has_lost(removal->path) ||
        !fence_.key_given_back(removal->path)) {
      return false;
    }
    Session& session = removal->path.session();
    if (!std::exchange(removal->withdrawn, true)) {
      removal->nothing_at_fencer = fence_.let_go(session);
    }
    if (!removal->nothing_at_fencer) {
      return false;
    }
    log_.info("path {} of LUN {} is gone", removal->path.portal_name(), removal->path.lun());
    forget_path(removal->path);
    let_go.push_back(&session);
    return true;
  });
  for (Session* session : let_go) {
    observer_.on_path_removed(device_, *session);
  }
  if (!let_go.empty()) {
    notify_.schedule();
  }
}

// Its number may be given to another path.
void MultipathDevice::Impl::forget_path(const Path& path) {
  const std::uint32_t index = path.index();
  queue_.forget_path(index);
  turn_.path_leaves(path);
  groups_.remove_path(index);
  paths_.remove(index);
}

}  // namespace iscsi_blkback
