#include "blkback/process/guest_doors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "blkback/control/control_protocol.h"
#include "blkback/process/control_server.h"

namespace iscsi_blkback {
namespace {

constexpr mode_t kRunFolderMode = 0711;
constexpr mode_t kBarrierFolderMode = 0770;
constexpr mode_t kBarrierFileMode = 0660;

class OwnDoors final : public GuestDoors {
 public:
  explicit OwnDoors(GuestPlace place)
      : place_(std::move(place)), firmware_sockets_(place_.run_directory, place_.guest) {}

  Result<UniqueFd> open_control_socket() override {
    return ControlServer::open_socket(guest_socket_path(place_.run_directory, place_.guest));
  }
  Result<bool> restore(ProcessLock& lock) override {
    if (auto prepared = prepare_run_folders(place_); !prepared) {
      return tl::unexpected(prepared.error());
    }
    return lock.restore();
  }
  void remove_files() override {
    const auto holder = ProcessLock::holder(guest_lock_path(place_.run_directory, place_.guest));
    if (holder && *holder == ::getpid()) {
      firmware_sockets_.remove_all();
    }
  }
  std::unique_ptr<DomainInfo> open_domain_info() override { return open_domain_info_when_asked(); }
  FirmwareSockets& firmware_sockets() override { return firmware_sockets_; }
  XenStoreTimes xenstore_times() const override { return {}; }

 private:
  GuestPlace place_;
  OwnFirmwareSockets firmware_sockets_;
};

// Of root's, and by no other name elsewhere: nobody but root could write to the folder before.
void hand_over(const std::string& path, gid_t group) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  if (fd.valid() && ::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) &&
      status.st_nlink == 1 && status.st_uid == 0 && ::fchown(fd.get(), 0, group) == 0) {
    (void)::fchmod(fd.get(), kBarrierFileMode);
  }
}

Result<void> share_barrier_folder(const std::string& folder, gid_t group) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", folder), errno));
  }
  if (status.st_gid == group && (status.st_mode & 07777) == kBarrierFolderMode) {
    return {};
  }
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    hand_over(at->path().string(), group);
  }
  if (::fchown(fd.get(), 0, group) != 0 || ::fchmod(fd.get(), kBarrierFolderMode) != 0) {
    return tl::unexpected(
        system_error(fmt::format("{} cannot be shared by guests' processes", folder), errno));
  }
  return {};
}

}  // namespace

std::unique_ptr<GuestDoors> make_own_doors(const GuestPlace& place) {
  return std::make_unique<OwnDoors>(place);
}

Result<void> prepare_run_folders(const GuestPlace& place) {
  const std::string barriers = barrier_directory(place.run_directory);
  std::error_code made;
  std::filesystem::create_directories(barriers, made);
  if (made) {
    return tl::unexpected(system_error(fmt::format("{} cannot be made", barriers), made.value()));
  }
  if (!place.user || ::geteuid() != 0) {
    return {};
  }
  if (::chmod(place.run_directory.c_str(), kRunFolderMode) != 0) {
    return tl::unexpected(system_error(
        fmt::format("{} cannot be opened for guests' processes", place.run_directory), errno));
  }
  return share_barrier_folder(barriers, place.user->group);
}

std::string lock_purpose(DomainId guest) {
  return fmt::format("domain {} is served", guest);
}

}  // namespace iscsi_blkback
