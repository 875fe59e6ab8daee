#include "blkback/process/host_end.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/log.h"
#include "base/unique_fd.h"
#include "blkback/process/process_lock.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kLog = "service";
constexpr const char* kName = "/ended-in-order";

bool sync_folder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && ::fsync(fd.get()) == 0;
}

bool write_file(const std::string& path, const std::string& text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                           S_IRUSR | S_IWUSR));
  return fd.valid() &&
         ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
         ::fsync(fd.get()) == 0;
}

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

bool host_had_ended_in_order(const HostEndFolders& folders, const std::string& boot_id) {
  const std::string mark = folders.state + kName;
  const std::string note = folders.run + kName;
  bool marked = ::unlink(mark.c_str()) == 0;
  // A mark that came back after the next reset would say what is not so.
  if (marked && !sync_folder(folders.state)) {
    log_warning(kLog, "{} cannot be removed: {}", mark, std::strerror(errno));
    marked = false;
  }
  if (boot_id.empty()) {
    return false;
  }
  if (marked) {
    std::error_code made;
    std::filesystem::create_directories(folders.run, made);
    if (!write_file(note, boot_id + "\n")) {
      log_warning(kLog, "{} cannot be written: {}", note, std::strerror(errno));
    }
  }
  return marked || first_line_of(note) == boot_id;
}

void mark_end_in_order(const HostEndFolders& folders, const HostRun& run, Duration quiesce_time) {
  if (!run.followed_an_end_in_order && run.uptime < quiesce_time) {
    return;
  }
  std::error_code made;
  std::filesystem::create_directories(folders.state, made);
  if (!write_file(folders.state + kName, "") || !sync_folder(folders.state)) {
    log_warning(kLog,
                "{}{} cannot be written: {}; should the host start anew within quiesce_time, its "
                "disks wait",
                folders.state, kName, std::strerror(errno));
  }
  if (any_guest_is_served(folders.run) && ::unlink((folders.state + kName).c_str()) == 0) {
    (void)sync_folder(folders.state);
  }
}

std::string host_boot_id() {
  return first_line_of("/proc/sys/kernel/random/boot_id");
}

Duration host_uptime() {
  timespec uptime{};
  ::clock_gettime(CLOCK_BOOTTIME, &uptime);
  return std::chrono::seconds(uptime.tv_sec) + std::chrono::nanoseconds(uptime.tv_nsec);
}

std::optional<TimePoint> disorderly_host_start(const HostEndFolders& folders, TimePoint now) {
  return host_had_ended_in_order(folders, host_boot_id()) ? std::nullopt
                                                          : std::optional(now - host_uptime());
}

}  // namespace iscsi_blkback
