#include "blkback/guest/open_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blkback/guest/log_limits.h"
#include "multipath/multipath_text.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kDiskLog = "disk";

MultipathOptions with_holder(MultipathOptions options, const std::string& name, DomainId guest) {
  options.holder_name = name;
  options.holder_domain = guest;
  return options;
}

}  // namespace

OpenDisk::OpenDisk(const Environment& environment, DiskHandle handle, DiskTeller teller,
                   DiskSpecification specification, const GuestNow& guest)
    : environment_(environment),
      handle_(handle),
      teller_(std::move(teller)),
      name_(fmt::format("{} of guest {}", specification.multipath.alias, environment.guest)),
      shared_(specification.multipath.shared),
      device_(environment.reactor, environment.sessions.fencing(),
              with_holder(std::move(specification.multipath), name_, environment.guest), *this),
      paths_(environment.sessions, device_, specification.lun, std::move(specification.session),
             specification.session_variant),
      statistics_(environment.reactor),
      opened_at_(environment.reactor.now()),
      refused_log_(kMessageLimit),
      nbd_log_(kMessageLimit),
      vbd_log_{LogLimiter(kMessageLimit), LogLimiter(kMessageLimit), LogLimiter(kMessageLimit)},
      unavailable_timer_(
          environment.reactor,
          [](void* self) noexcept { static_cast<OpenDisk*>(self)->report_unavailable(); }, this),
      drain_timer_(
          environment.reactor,
          [](void* self) noexcept { static_cast<OpenDisk*>(self)->paths_.abort_outstanding(); },
          this),
      refused_timer_(
          environment.reactor,
          [](void* self) noexcept {
            auto& disk = *static_cast<OpenDisk*>(self);
            disk.add_portals(std::exchange(disk.refused_, {}));
          },
          this) {
  device_.set_guest(guest);
  add_portals(specification.portals);
  unavailable_timer_.start_after(kUnavailableInterval);
}

OpenDisk::~OpenDisk() {
  ISCSI_BLKBACK_ASSERT(vbd_ == nullptr);
}

// ---- the paths ----

void OpenDisk::add_portals(const std::vector<ResolvedPortal>& portals) {
  for (const ResolvedPortal& where : portals) {
    if (closing_) {
      return;
    }
    if (auto added = paths_.add(where); !added && added.error().code != ErrorCode::conflict) {
      log_limited(refused_log_, environment_.reactor.now(), LogLevel::error, kDiskLog,
                  "{}: the path by {} is not used yet: {}", name_, where.portal.to_string(),
                  added.error().message);
      add_later(where);
    }
  }
}

// There may be room when another disk of the guest has gone.
void OpenDisk::add_later(const ResolvedPortal& where) {
  const bool known =
      std::any_of(refused_.begin(), refused_.end(),
                  [&](const ResolvedPortal& other) { return same_path(other, where); });
  if (!known && refused_.size() < kMaxPathsPerDisk) {
    refused_.push_back(where);
  }
  if (!refused_timer_.armed()) {
    refused_timer_.start_after(kRefusedInterval);
  }
}

void OpenDisk::on_path_removed(MultipathDevice&, Session& session) noexcept {
  paths_.let_go(session);
}

// ---- the ring ----

void OpenDisk::connect(FrontendRing ring) {
  teller_.tell_ring([result = open_ring(std::move(ring))](RingEvents& events) {
    events.on_ring_connected(result);
  });
}

Result<BlockDevice*> OpenDisk::sector_device() {
  // Where others write, too, a block is not to be read, changed and written: parts of blocks are
  // refused there.
  if (aligner_ == nullptr && !shared_ && device_.geometry().logical_block_bytes > kSectorBytes) {
    static_assert(kMaxNbdRequestBytes <= kMaxRequestBytes);
    auto aligner = BlockAligner::make(environment_.reactor, device_, kMaxRequestBytes);
    if (!aligner) {
      return tl::unexpected(aligner.error());
    }
    aligner_ = std::move(*aligner);
  }
  return aligner_ != nullptr ? static_cast<BlockDevice*>(&*aligner_) : &device_;
}

Result<void> OpenDisk::open_ring(FrontendRing ring) {
  if (closing_ || vbd_ != nullptr || !device_.ready()) {
    return fail(ErrorCode::unavailable, "the disk is not ready");
  }
  std::vector<RingParameters> queues;
  for (FrontendQueue& queue : ring.queues) {
    queues.push_back({.domain = environment_.guest,
                      .abi = ring.abi,
                      .ring_references = std::move(queue.references),
                      .event_port = queue.event_channel});
  }
  VbdOptions options;
  options.name = name_;
  options.read_only = read_only_;
  options.max_indirect_segments = ring.max_indirect_segments;
  options.discards = ring.discards;
  options.max_buffers_mb = ring.max_buffers_mb;
  options.log = &vbd_log_;
  const auto device = sector_device();
  if (!device) {
    return tl::unexpected(device.error());
  }
  auto vbd = Vbd::open(environment_.reactor, environment_.turn, environment_.dispatcher, **device,
                       queues, options, *this);
  if (!vbd) {
    return tl::unexpected(vbd.error());
  }
  vbd_ = std::move(*vbd);
  statistics_.begin(*vbd_, std::move(ring.statistics));
  return {};
}

void OpenDisk::disconnect(RingEnd end) {
  if (vbd_ == nullptr) {
    teller_.tell_ring([](RingEvents& events) { events.on_ring_disconnected(); });
  } else {
    if (!std::exchange(vbd_closing_, true)) {
      vbd_->close([](void* self) noexcept { static_cast<OpenDisk*>(self)->on_vbd_closed(); }, this);
    }
    if (end != RingEnd::answer) {
      vbd_->abandon();
    }
  }
  if (end == RingEnd::abandon) {
    close(true);
  }
}

void OpenDisk::set_read_only(bool read_only) {
  read_only_ = read_only;
  if (vbd_ != nullptr) {
    vbd_->set_read_only(read_only);
  }
  if (nbd_ != nullptr) {
    nbd_->set_read_only(read_only);
  }
}

void OpenDisk::on_vbd_broken(Vbd&, const Error& error) noexcept {
  teller_.tell_ring([why = error.message](RingEvents& events) { events.on_ring_broken(why); });
}

void OpenDisk::on_vbd_closed() {
  statistics_.end();
  vbd_.reset();
  vbd_closing_ = false;
  teller_.tell_ring([](RingEvents& events) { events.on_ring_disconnected(); });
  environment_.collect.schedule();
}

// ---- the NBD socket ----

void OpenDisk::serve_nbd(UniqueFd listening, bool discards) {
  if (closing_ || nbd_ != nullptr || !device_.ready()) {
    return;
  }
  const auto device = sector_device();
  if (!device) {
    log_limited(nbd_log_, environment_.reactor.now(), LogLevel::error, kDiskLog,
                "{}: the guest's firmware cannot read the disk: {}", name_, device.error().message);
    return;
  }
  nbd_ = std::make_unique<NbdServer>(environment_.reactor, **device, std::move(listening), name_,
                                     discards);
  nbd_->set_read_only(read_only_);
}

void OpenDisk::on_nbd_closed() {
  nbd_.reset();
  environment_.collect.schedule();
}

// ---- the device ----

void OpenDisk::on_ready(MultipathDevice& device) noexcept {
  unavailable_timer_.stop();
  teller_.tell_disk([geometry = device.geometry(), names = device.names()](DiskEvents& events) {
    events.on_ready(geometry, names);
  });
}

void OpenDisk::on_conflict(MultipathDevice&, const std::string& why) noexcept {
  teller_.tell_disk([why](DiskEvents& events) { events.on_conflict(why); });
}

void OpenDisk::on_grown(MultipathDevice& device) noexcept {
  teller_.tell_disk(
      [geometry = device.geometry()](DiskEvents& events) { events.on_grown(geometry); });
}

void OpenDisk::report_unavailable() {
  const MultipathSnapshot snapshot = device_.snapshot();
  std::string trouble = environment_.reactor.now() < opened_at_ + kPatienceWithPaths
                            ? unavailable_reason(snapshot)
                            : describe_delay(snapshot);
  if (!trouble.empty() && trouble != told_reason_) {
    told_reason_ = trouble;
    teller_.tell_disk(
        [why = std::move(trouble)](DiskEvents& events) { events.on_unavailable(why); });
  }
  unavailable_timer_.start_after(kUnavailableInterval);
}

void OpenDisk::keep_place() {
  place_kept_ = true;
  device_.keep_place();
}

void OpenDisk::close(bool abandon) {
  if (abandon && !std::exchange(abandoned_, true)) {
    drain_timer_.start_after(kDrainLimit);
  }
  if (std::exchange(closing_, true)) {
    return;
  }
  unavailable_timer_.stop();
  refused_timer_.stop();
  if (nbd_ != nullptr) {
    nbd_->close(
        place_kept_ ? NbdServer::End::goes_on : NbdServer::End::for_good,
        [](void* self) noexcept { static_cast<OpenDisk*>(self)->on_nbd_closed(); }, this);
  }
  // However the guest ended, it may go on, elsewhere or started anew here, and an old write of ours
  // must not land after that: lost writes are fenced.
  device_.close(
      true, [](void* self) noexcept { static_cast<OpenDisk*>(self)->on_device_closed(); }, this);
}

void OpenDisk::on_device_closed() {
  device_closed_ = true;
  environment_.collect.schedule();
}

DiskReport OpenDisk::report() const {
  DiskReport report;
  report.disk = handle_;
  report.multipath = device_.snapshot();
  if (vbd_ != nullptr) {
    const VbdStatistics statistics = vbd_->statistics();
    RingStatistics& ring = report.ring.emplace();
    ring.read_requests = statistics.reads;
    ring.write_requests = statistics.writes;
    ring.flush_requests = statistics.flushes;
    ring.discard_requests = statistics.discards;
    ring.error_responses = statistics.errors;
    ring.read_sectors = statistics.read_sectors;
    ring.written_sectors = statistics.written_sectors;
    ring.discarded_sectors = statistics.discarded_sectors;
    ring.in_flight = vbd_->in_flight();
    ring.held_flushes = vbd_->held_flushes();
  }
  return report;
}

}  // namespace iscsi_blkback
