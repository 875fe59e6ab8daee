// DiskPaths: the paths of one open disk at the I/O side: each with its use of a session of the
// guest's pool, and its place in the disk's MultipathDevice. Owned by the disk, reactor thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "multipath/attach/disk_config.h"
#include "multipath/attach/path_choice.h"
#include "multipath/attach/session_pool.h"
#include "multipath/multipath_device.h"

namespace iscsi_blkback {

// All but let_go(), abort_outstanding() and sessions(): only as long as the device is not being closed.
class DiskPaths {
 public:
  // session: of every path, but for where it leads; variant: its, see session_isid.h.
  DiskPaths(SessionPool& pool, MultipathDevice& device, std::uint16_t lun, SessionOptions session,
            std::uint32_t variant)
      : pool_(pool), device_(device), lun_(lun), session_(std::move(session)), variant_(variant) {}

  // Errors are sentences. conflict: the disk has this path, perhaps on its way out.
  [[nodiscard]] Result<void> add(const ResolvedPortal& where);
  // Those that can be; an error when that is none.
  [[nodiscard]] Result<void> add_all(const std::vector<ResolvedPortal>& portals);
  // Begins to; the answer is where those lead. Never all of the disk's.
  [[nodiscard]] Result<std::vector<ResolvedPortal>> remove(const PathChoice& choice);

  // The device has said that the path is gone: gives its use of the session back.
  void let_go(Session& session);
  // See SessionPool::abort_outstanding().
  void abort_outstanding();
  // To be released when the device is closed.
  [[nodiscard]] std::vector<Session*> sessions() const;

 private:
  struct DiskPath {
    Session* session;  // no two have the same
    ResolvedPortal where;
    bool leaving = false;
  };

  SessionPool& pool_;
  MultipathDevice& device_;
  const std::uint16_t lun_;
  const SessionOptions session_;
  const std::uint32_t variant_;
  std::vector<DiskPath> disk_paths_;
};

}  // namespace iscsi_blkback
