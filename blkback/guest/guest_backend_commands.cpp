// What an operator asks of a guest's disks and has changed at them; the rest of GuestBackend is in
// guest_backend.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blkback/guest/guest_backend.h"

namespace iscsi_blkback {

void GuestBackend::change(const ControlRequest& request, Changed done) {
  const auto found = std::find_if(disks_.begin(), disks_.end(), [&](const auto& entry) {
    return entry.second->node().id().device_id == request.device_id;
  });
  if (found == disks_.end()) {
    done(fail(ErrorCode::not_found, fmt::format("the guest has no disk {}", request.device_id)));
    return;
  }
  const bool adds = request.command == "add_path";
  if (!adds && request.command != "del_path") {
    done(found->second->change(request));
    return;
  }
  auto choice = parse_path_choice(request);
  if (!choice) {
    done(tl::unexpected(choice.error()));
  } else if (adds) {
    add_paths(found->first, *choice, std::move(done));
  } else {
    remove_paths(found->first, std::move(*choice), std::move(done));
  }
}

void GuestBackend::add_paths(DiskHandle handle, const PathChoice& choice, Changed done) {
  auto plan = find(handle)->plan_for(choice);
  if (!plan) {
    done(tl::unexpected(plan.error()));
    return;
  }
  environment_.resolver.resolve(
      std::move(*plan), [this, handle, done = std::move(done)](Result<ResolvedDisk> resolved) {
        if (!resolved) {
          done(tl::unexpected(resolved.error()));
          return;
        }
        if (!resolved->complete) {
          return;
        }
        const std::vector<ResolvedPortal>& paths = resolved->specification.portals;
        environment_.data_plane.add_paths(handle, paths,
                                          [this, handle, paths, done](Result<void> added) {
                                            GuestDisk* disk = find(handle);
                                            if (added && disk != nullptr) {
                                              disk->on_paths_added(paths);
                                            }
                                            done(std::move(added));
                                          });
      });
}

void GuestBackend::remove_paths(DiskHandle handle, PathChoice choice, Changed done) {
  environment_.data_plane.remove_paths(
      handle, std::move(choice),
      [this, handle, done = std::move(done)](Result<std::vector<ResolvedPortal>> removed) {
        if (!removed) {
          done(tl::unexpected(removed.error()));
          return;
        }
        if (GuestDisk* disk = find(handle)) {
          disk->on_paths_removed(*removed);
        }
        done({});
      });
}

void GuestBackend::query(std::function<void(GuestStatus)> done) {
  reports_.ask([this, done = std::move(done)](std::vector<DiskReport>* reports) {
    done(status_with(reports));
  });
}

GuestStatus GuestBackend::status_with(std::vector<DiskReport>* reports) const {
  GuestStatus status;
  status.guest = guest_;
  status.complete = reports != nullptr;
  for (const auto& [handle, disk] : disks_) {
    DiskStatus& added = status.disks.emplace_back(disk->status());
    for (std::size_t at = 0; reports != nullptr && at < reports->size(); ++at) {
      if ((*reports)[at].disk == handle) {
        added.report = std::move((*reports)[at]);
        break;
      }
    }
  }
  return status;
}

}  // namespace iscsi_blkback
