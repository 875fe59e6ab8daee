#include "blkback/guest/guest_disks.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/decimal.h"

namespace iscsi_blkback {

bool GuestDisks::adopt(const GuestNode& node) {
  if (served_.size() == kMax) {
    return false;
  }
  const DiskHandle handle = next_++;
  served_.emplace(handle, std::make_unique<GuestDisk>(environment_, host_, handle, node,
                                                      fmt::format("{}{}", kFrontendToken, handle)));
  return true;
}

bool GuestDisks::serves(const XenbusNodeId& id) const {
  return std::any_of(served_.begin(), served_.end(), [&](const auto& entry) {
    const XenbusNodeId& other = entry.second->node().id();
    return other.kind == id.kind && other.device_id == id.device_id;
  });
}

GuestDisk* GuestDisks::find(std::uint32_t device_id) const {
  const auto found = std::find_if(served_.begin(), served_.end(), [&](const auto& entry) {
    return entry.second->node().id().device_id == device_id;
  });
  return found == served_.end() ? nullptr : found->second.get();
}

bool GuestDisks::maps_pages() const {
  return std::any_of(served_.begin(), served_.end(),
                     [](const auto& entry) { return entry.second->maps_pages(); });
}

std::vector<DiskStatus> GuestDisks::status(std::vector<DiskReport>* reports) const {
  std::vector<DiskStatus> all;
  for (const auto& [handle, disk] : served_) {
    DiskStatus& added = all.emplace_back(disk->status());
    for (std::size_t at = 0; reports != nullptr && at < reports->size(); ++at) {
      if ((*reports)[at].disk == handle) {
        added.report = std::move((*reports)[at]);
        break;
      }
    }
  }
  return all;
}

void GuestDisks::on_store_open() {
  for (auto& [handle, disk] : served_) {
    disk->on_store_open();
  }
}

void GuestDisks::on_frontend_event(std::string_view token) {
  const auto handle = parse_decimal<DiskHandle>(token.substr(kFrontendToken.size()));
  if (const auto found = handle ? served_.find(*handle) : served_.end(); found != served_.end()) {
    found->second->mark();
  }
}

bool GuestDisks::on_backend_event(std::string_view path) {
  bool known = false;
  for (auto& [handle, disk] : served_) {
    const std::string& node = disk->node().path();
    if (is_at_or_below(path, node)) {
      known = true;
      disk->on_node_event(path.substr(node.size()));
    } else if (is_at_or_below(node, path)) {
      disk->on_node_event({});  // what is told of a folder may stand for anything below
    }
  }
  return known;
}

bool GuestDisks::advance() {
  std::vector<DiskHandle> marked;
  for (auto& [handle, disk] : served_) {
    if (disk->take_mark()) {
      marked.push_back(handle);
    }
  }
  bool replaced = false;
  for (const DiskHandle handle : marked) {
    if (const auto found = served_.find(handle); found != served_.end()) {
      const GuestDisk::Outcome outcome = found->second->advance();
      if (outcome != GuestDisk::Outcome::settled) {
        forget(found);
      }
      replaced = replaced || outcome == GuestDisk::Outcome::replaced;
    }
  }
  return replaced;
}

void GuestDisks::forget(Disks::iterator disk) {
  auto entry = served_.extract(disk);
  GuestDisk& forgotten = *entry.mapped();
  log_limited(log_, environment_.control.now(), LogLevel::info, kXenbusLog, "{}: no longer served",
              forgotten.node().id().name());
  forgotten.unwatch_frontend();
  if (forgotten.retire(false)) {
    retired_.insert(std::move(entry));
  }
}

void GuestDisks::keep_places() {
  for (auto& [handle, disk] : served_) {
    disk->keep_place();
  }
}

void GuestDisks::guest_ended() {
  for (Disks* disks : {&served_, &retired_}) {
    for (auto& [handle, disk] : *disks) {
      disk->guest_ended();
    }
  }
}

void GuestDisks::retire_all() {
  for (auto& [handle, disk] : served_) {
    if (disk->retire(true)) {
      retired_.emplace(handle, std::move(disk));
    }
  }
  served_.clear();
}

void GuestDisks::guest_replaced() {
  for (auto& [handle, disk] : served_) {
    disk->guest_ended();
    disk->unwatch_frontend();
  }
  retire_all();
  first_of_guest_ = next_;
}

}  // namespace iscsi_blkback
