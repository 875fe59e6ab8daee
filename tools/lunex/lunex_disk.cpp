#include "tools/lunex/lunex_disk.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

// How long requests that are still under way may take once the disk is being closed.
constexpr std::chrono::milliseconds kClosePatience{500};
// Beside login_timeout: for a first login that was refused, and for the LUN's answers.
constexpr std::chrono::seconds kMoment{5};

// A number of this process, that two of them at a time do not end each other's sessions.
SessionPool::IsidRule lunex_isids(Reactor& reactor) {
  std::uint32_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) {
    random = static_cast<std::uint32_t>(reactor.random());
  }
  return [random](const SessionOptions& /*options*/, std::uint32_t /*variant*/,
                  std::uint32_t attempt) { return make_lunex_isid(random, attempt); };
}

}  // namespace

Isid make_lunex_isid(std::uint32_t random, std::uint32_t number) {
  const auto byte = [](std::uint32_t value) { return static_cast<std::uint8_t>(value & 0xff); };
  // Guests' numbers end below 0x7ff0.
  return Isid{0x80,
              byte(random >> 16),
              byte(random >> 8),
              byte(random),
              static_cast<std::uint8_t>(0x80 | byte(number >> 8)),
              byte(number)};
}

Result<LookedUpLun> look_up_lun(const Configuration& configuration, const std::string& url,
                                bool read_only, std::optional<std::uint16_t> sessions) {
  if (!is_iscsi_params(url)) {
    return fail(ErrorCode::invalid_argument, "the URL does not begin with iscsi:");
  }
  const auto target = parse_disk_url(url);
  if (!target) {
    return tl::unexpected(target.error());
  }
  auto config = configure_disk(*target, configuration, "lunex", read_only);
  if (!config) {
    return fail(ErrorCode::invalid_argument, config.error().message);
  }
  config->paths.sessions_per_portal = sessions.value_or(config->paths.sessions_per_portal);
  return resolve_disk(*config, retrying_portal_resolver()).map([&](ResolvedDisk disk) {
    return LookedUpLun{std::move(disk), *config};
  });
}

LunexDisk::LunexDisk(Reactor& reactor, const DiskSpecification& specification, std::uint32_t depth,
                     Use use)
    : reactor_(reactor),
      lun_(specification.lun),
      due_(reactor.now() + specification.session.login_timeout + kMoment),
      longest_identification_(
          LogicalUnit::longest_identification(specification.multipath.checker_timeout)),
      lun_is_named_(specification.multipath.wwid.has_value()),
      sessions_(reactor, lunex_isids(reactor)),
      drain_timer_(
          reactor,
          [](void* self) noexcept { static_cast<LunexDisk*>(self)->paths_->abort_outstanding(); },
          this) {
  MultipathOptions multipath = specification.multipath;
  multipath.max_requests = depth;
  if (use == Use::questions) {
    multipath.reservation_key = 0;
  }
  MultipathDevice::Observer& observer = *this;
  device_.emplace(reactor, sessions_.fencing(), std::move(multipath), observer);
  device_->set_guest({use == Use::questions ? GuestState::in_doubt : GuestState::runs});
  paths_.emplace(sessions_, *device_, lun_, specification.session, specification.session_variant);
  for (const ResolvedPortal& portal : specification.portals) {
    // Two names of the same addresses are one path (conflict); there are at most kMaxPaths.
    const Result<void> added = paths_->add(portal);
    ISCSI_BLKBACK_ASSERT(added || added.error().code == ErrorCode::conflict);
  }
}

LunexDisk::~LunexDisk() {
  ISCSI_BLKBACK_ASSERT(closed());
}

bool LunexDisk::settled() const {
  const MultipathSnapshot now = device_->snapshot();
  const bool any_on_its_way = std::any_of(now.paths.begin(), now.paths.end(),
                                          [](const PathSnapshot& path) { return path.on_its_way; });
  // A first login may take as long as login_timeout says, and nothing is known of it before.
  const bool any_first_try = std::any_of(now.paths.begin(), now.paths.end(), [](const auto& path) {
    return path.state != PathState::up && path.last_error.empty();
  });
  if (any_on_its_way || (now.paths_up() == 0 && any_first_try)) {
    return false;
  }
  // The first paths that are up wait for those that are just being asked, too.
  return now.ready || now.paths_up() == 0 || !now.waits_because.empty();
}

bool LunexDisk::overdue() const {
  const MultipathSnapshot now = device_->snapshot();
  const bool asks = std::any_of(now.paths.begin(), now.paths.end(), [](const PathSnapshot& path) {
    return path.on_its_way && path.session_state == SessionState::logged_in;
  });
  return reactor_.now() >= due_ + (asks ? longest_identification_ : Duration::zero());
}

std::string LunexDisk::trouble() const {
  return settled() ? unavailable_reason(device_->snapshot()) : std::string();
}

std::string LunexDisk::conflict() const {
  if (lun_is_named_ || !conflict_.empty()) {
    return conflict_;
  }
  // One that answered later than the others.
  for (const PathSnapshot& path : device_->snapshot().paths) {
    if (path.state == PathState::quarantined) {
      return fmt::format("{}: {}", path.portal, path.last_error);
    }
  }
  return {};
}

Session* LunexDisk::live_session() {
  const MultipathSnapshot now = device_->snapshot();  // its paths are in the order of the sessions
  Session* live = nullptr;
  const std::vector<Session*> sessions = paths_->sessions();
  for (std::size_t index = 0; index < sessions.size(); ++index) {
    Session* const session = sessions[index];
    if (session->state() == SessionState::logged_in) {
      if (now.paths.at(index).state == PathState::up) {
        return session;
      }
      live = live == nullptr ? session : live;
    }
  }
  return live;
}

void LunexDisk::watch_paths() {
  fewest_paths_up_ = device_->snapshot().paths_up();
}

void LunexDisk::on_paths_changed(MultipathDevice& device) noexcept {
  fewest_paths_up_ = std::min(fewest_paths_up_, device.snapshot().paths_up());
}

std::uint64_t LunexDisk::connection_losses() const {
  std::uint64_t losses = 0;
  for (const Session* session : paths_->sessions()) {
    losses += session->statistics().connection_losses;
  }
  return losses;
}

void LunexDisk::close() {
  if (std::exchange(closing_, true)) {
    return;
  }
  drain_timer_.start_after(kClosePatience);
  device_->close(
      false, [](void* self) noexcept { static_cast<LunexDisk*>(self)->on_device_closed(); }, this);
}

void LunexDisk::on_device_closed() {
  drain_timer_.stop();
  const std::vector<Session*> sessions = paths_->sessions();
  paths_.reset();
  device_.reset();
  for (Session* session : sessions) {
    sessions_.release(*session);
  }
}

}  // namespace iscsi_blkback
