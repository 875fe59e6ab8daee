#include "multipath/multipath_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

// A path can lose no more than its queue before it comes up again; room for some of that.
constexpr std::size_t kUnfencedPerRequest = 4;

// multipathd's words for times.
std::string no_path_retry_text(std::optional<std::chrono::milliseconds> wait) {
  if (!wait) {
    return "queue";
  }
  return wait->count() == 0 ? "fail"
                            : fmt::format("{} sec", std::chrono::duration<double>(*wait).count());
}

}  // namespace

std::size_t MultipathSnapshot::paths_up() const {
  return static_cast<std::size_t>(
      std::count_if(paths.begin(), paths.end(),
                    [](const PathSnapshot& path) { return path.state == PathState::up; }));
}

MultipathDevice::Impl::Impl(MultipathDevice& device, Reactor& reactor, MultipathOptions options,
                            Observer& observer)
    : device_(device),
      reactor_(reactor),
      options_(std::move(options)),
      observer_(observer),
      log_(reactor, options_.alias),
      sessions_(SessionFencer::of(reactor)),
      groups_(reactor,
              {.settings = options_,
               .arrays = options_.arrays,
               .path_weights = options_.path_weights,
               .polling_interval = options_.polling_interval,
               .max_polling_interval = options_.max_polling_interval},
              paths_, log_, *this),
      activator_(reactor, options_.checker_timeout, paths_, groups_, log_, *this),
      disk_(
          {.wwid = options_.wwid, .same_lun = options_.same_lun, .read_only = options_.read_only}),
      turn_(reactor,
            {.directory = options_.barrier_directory,
             .holder_name = options_.holder_name.empty() ? options_.alias : options_.holder_name,
             .holder_domain = options_.holder_domain,
             .shared = options_.shared,
             .redirected_login_fences = options_.redirected_login_fences,
             .quiesce_time = options_.quiesce_time,
             .host_started_at = options_.host_started_at},
            *sessions_, paths_, log_, *this),
      fence_(reactor,
             {.lun_fence = {.preempts = options_.reservation_key != 0,
                            .resets = options_.exclusive_luns,
                            .settle_time = options_.fence_settle_time,
                            .quiesce_time = options_.quiesce_time},
              .exclusive = options_.exclusive_luns,
              .shared = options_.shared,
              .redirected_login_fences = options_.redirected_login_fences,
              .most_writes = std::max<std::size_t>(options_.max_requests, 1) * kUnfencedPerRequest},
             sessions_, paths_, groups_, activator_, turn_, log_, *this),
      queue_(reactor,
             {.most_requests = options_.max_requests,
              .holds_when_full = options_.no_space == NoSpacePolicy::hold},
             paths_, groups_, fence_, turn_, log_, *this),
      no_path_timer_(reactor, groups_.policies().no_path_retry, *this),
      capacity_timer_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->on_capacity_timer(); },
          this),
      finish_removals_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->finish_removals(); }, this),
      notify_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->notify(); }, this),
      first_answers_timer_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->tell_ready(); }, this),
      suspend_timer_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->on_suspend_timer(); }, this),
      check_closed_(
          reactor, [](void* self) noexcept { static_cast<Impl*>(self)->check_closed(); }, this) {}

MultipathDevice::Impl::~Impl() {
  ISCSI_BLKBACK_ASSERT(closing_ && on_closed_ == nullptr);
}

bool MultipathDevice::Impl::on_its_way(const Path& path) const {
  return path.on_its_way() || activator_.concerns(path);
}

void MultipathDevice::Impl::add_group_snapshots(MultipathSnapshot& snapshot) const {
  snapshot.path_selector = fmt::format("{} 0", to_string(groups_.policies().path_selector));
  snapshot.path_grouping_policy = to_string(groups_.policies().path_grouping_policy);
  snapshot.prio = to_string(groups_.policies().prio.kind);
  snapshot.hardware_handler = disk_.lun().access.tpgs != 0 ? "1 alua"
                              : disk_.lun().access.rdac    ? "1 rdac"
                                                           : "0";
  snapshot.failback = to_string(groups_.policies().failback);
  snapshot.active_group = groups_.groups().current();
  snapshot.group_switches = groups_.switches();
  for (const PathGroup& group : groups_.groups().groups()) {
    snapshot.groups.push_back({.priority = group.priority, .marginal = group.marginal});
  }
  std::size_t at = 0;
  for (const Path* path : paths_) {
    PathSnapshot& one = snapshot.paths[at++];
    one.priority = std::max(groups_.groups().traits(path->index()).priority, 0);
    one.group = groups_.groups().group_of(path->index());
  }
}

MultipathSnapshot MultipathDevice::Impl::snapshot() const {
  MultipathSnapshot snapshot;
  snapshot.alias = options_.alias;
  snapshot.wwid = disk_.lun().wwid;
  snapshot.vendor = disk_.lun().vendor;
  snapshot.product = disk_.lun().product;
  snapshot.revision = disk_.lun().revision;
  snapshot.geometry = geometry();
  snapshot.ready = ready();
  snapshot.queueing = paths_.up() == 0 && !failing();
  snapshot.queued = queue_.queued();
  snapshot.held = queue_.held();
  snapshot.waits_because = turn_.why();
  snapshot.hedged = queue_.hedged();
  snapshot.waiting_for_space = queue_.waiting_for_space();
  snapshot.no_path_retry = no_path_retry_text(no_path_timer_.wait());
  snapshot.portal_group_fences = to_string(fence_.portal_group_fences());
  snapshot.queued_time = no_path_timer_.queued_time();
  snapshot.queue_timeouts = no_path_timer_.timeouts();
  for (Path* path : paths_) {
    const SessionOptions& session = path->session().options();
    const auto marginal_until = path->marginal_until();
    snapshot.in_flight += path->in_flight();
    snapshot.paths.push_back(
        {.portal = path->portal_name(),
         .address = path->session().portal_address().to_string(),
         .interface_name = session.interface_binding.to_string(),
         .target_name = session.target_name,
         .lun = path->lun(),
         .state = path->state(),
         .session_state = path->session().state(),
         .last_error = path->last_error(),
         .on_its_way = on_its_way(*path),
         .in_flight = path->in_flight(),
         .suspect = PathSet::has(paths_.suspect(), *path),
         .requests = path->requests(),
         .failures = path->failures(),
         .marginal_for = marginal_until ? *marginal_until - reactor_.now() : Duration::zero(),
         .checker = to_string(groups_.policies().path_checker),
         .finding = path->finding(),
         .fenced_alone = fence_.fenced_alone(*path)});
  }
  for (const std::unique_ptr<Removal>& removal : removals_) {
    snapshot.in_flight += removal->path.in_flight();
  }
  snapshot.leaving = static_cast<std::uint32_t>(removals_.size());
  add_group_snapshots(snapshot);
  return snapshot;
}

MultipathDevice::MultipathDevice(Reactor& reactor, MultipathOptions options, Observer& observer)
    : impl_(std::make_unique<Impl>(*this, reactor, std::move(options), observer)) {}

MultipathDevice::~MultipathDevice() = default;

Result<void> MultipathDevice::add_path(Session& session, std::uint16_t lun,
                                       std::string portal_name) {
  return impl_->add_path(session, lun, std::move(portal_name));
}

Result<void> MultipathDevice::remove_path(const Session& session, std::uint16_t lun) {
  return impl_->remove_path(session, lun);
}

void MultipathDevice::set_no_path_retry(std::optional<NoPathRetry> wait) {
  impl_->set_no_path_retry(wait);
}

bool MultipathDevice::ready() const {
  return impl_->ready();
}

const Geometry& MultipathDevice::geometry() const {
  return impl_->geometry();
}

void MultipathDevice::submit(BlockRequest& request) noexcept {
  impl_->submit(request);
}

void MultipathDevice::keep_place() {
  impl_->keep_place();
}

void MultipathDevice::set_guest(const GuestNow& guest) {
  impl_->set_guest(guest);
}

void MultipathDevice::change_policies(const PathPolicySettings& changes) {
  impl_->change_policies(changes);
}

void MultipathDevice::close(bool wait_for_fences, void (*on_closed)(void* owner) noexcept,
                            void* owner) {
  impl_->close(wait_for_fences, on_closed, owner);
}

const LunNames& MultipathDevice::names() const {
  return impl_->names();
}

MultipathSnapshot MultipathDevice::snapshot() const {
  return impl_->snapshot();
}

void MultipathDevice::disable_hold_of_overlapping_writes() {
  impl_->disable_hold_of_overlapping_writes();
}

void MultipathDevice::disable_rule_of_buffers() {
  impl_->disable_rule_of_buffers();
}

}  // namespace iscsi_blkback
