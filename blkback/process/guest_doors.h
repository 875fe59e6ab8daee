// GuestDoors: what the process of a guest needs of the host as long as it runs and may not do itself in its
// sandbox (guest_sandbox.h): files in the run directory, and what Xen says of the guest. Done by the process
// itself, or asked of its helper (guest_helper.h). Control thread; a DomainInfo is its user's.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/domain_id.h"
#include "base/privileges.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "blkback/guest/firmware_socket.h"
#include "blkback/process/process_lock.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

struct GuestPlace {
  std::string run_directory;
  DomainId own_domain = 0;
  DomainId guest = 0;
  // Whom the process runs as; all those of a host are in one group. Nothing: as whom it was started.
  std::optional<ProcessUser> user;
};

class GuestDoors {
 public:
  virtual ~GuestDoors() = default;

  // A socket that listens at guest_socket_path(), in the place of what was there.
  [[nodiscard]] virtual Result<UniqueFd> open_control_socket() = 0;
  // As ProcessLock::restore(), with the folders that have gone along with the file.
  [[nodiscard]] virtual Result<bool> restore(ProcessLock& lock) = 0;
  // In the end, while the lock is still held: what ~ProcessLock, ~ControlServer and ~FirmwareSocket cannot
  // remove, and what a former process has left.
  virtual void remove_files() = 0;
  // May be asked about the guest only. Twice: for the control thread, and for who asks while that waits.
  [[nodiscard]] virtual std::unique_ptr<DomainInfo> open_domain_info() = 0;
  // Outlived by this.
  [[nodiscard]] virtual FirmwareSockets& firmware_sockets() = 0;
  // For open_xenstore().
  [[nodiscard]] virtual XenStoreTimes xenstore_times() const = 0;
};

// By the process itself, with the rights that it has.
[[nodiscard]] std::unique_ptr<GuestDoors> make_own_doors(const GuestPlace& place);

// The folders of the run directory as guests' processes need them: they pass through the first, where each has
// its files from root, and share the one of the barriers by their group. Files that root's own processes have
// left there become theirs, too. Without a user, or if not root: only what does not exist is made.
[[nodiscard]] Result<void> prepare_run_folders(const GuestPlace& place);

// "domain 5 is served", for ProcessLock.
[[nodiscard]] std::string lock_purpose(DomainId guest);

}  // namespace iscsi_blkback
