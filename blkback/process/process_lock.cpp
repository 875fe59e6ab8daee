#include "blkback/process/process_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace iscsi_blkback {
namespace {

struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

// Whether path still leads to the file that fd is.
bool is_file_of(const std::string& path, const UniqueFd& fd) {
  struct stat by_path {};
  struct stat by_fd {};
  return ::stat(path.c_str(), &by_path) == 0 && ::fstat(fd.get(), &by_fd) == 0 &&
         by_path.st_dev == by_fd.st_dev && by_path.st_ino == by_fd.st_ino;
}

Result<UniqueFd> open_locked(const std::string& path, const std::string& what) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!fd.valid()) {
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), errno));
  }
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      return fail(ErrorCode::conflict,
                  fmt::format("{} by another process already ({} is locked)", what, path));
    }
    return tl::unexpected(system_error(fmt::format("{} cannot be locked", path), errno));
  }
  return fd;
}

}  // namespace

Result<ProcessLock> ProcessLock::acquire(const std::string& path, const std::string& what,
                                         pid_t pid) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code made;
  std::filesystem::create_directories(folder, made);
  UniqueFd fd;
  do {
    // Its last holder may have removed the file between our opening and our locking it.
    auto opened = open_locked(path, what);
    if (!opened) {
      return tl::unexpected(opened.error());
    }
    fd = std::move(*opened);
  } while (!is_file_of(path, fd));
  const std::string text = fmt::format("{}\n", pid);
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return tl::unexpected(system_error(fmt::format("{} cannot be written", path), errno));
  }
  return ProcessLock(std::move(fd), path, what);
}

bool ProcessLock::is_in_place() const {
  return is_file_of(path_, fd_);
}

Result<bool> ProcessLock::restore() {
  if (is_in_place()) {
    return false;
  }
  auto again = acquire(path_, what_);
  if (!again) {
    return tl::unexpected(again.error());
  }
  fd_ = std::move(again->fd_);
  return true;
}

ProcessLock::~ProcessLock() {
  if (fd_.valid() && is_file_of(path_, fd_)) {
    ::unlink(path_.c_str());  // while it is locked, so that no other's file goes
  }
}

Result<std::optional<pid_t>> ProcessLock::holder(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) {
    if (errno == ENOENT) {
      return std::optional<pid_t>();
    }
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), errno));
  }
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd.get(), F_OFD_GETLK, &lock) != 0) {
    return tl::unexpected(
        system_error(fmt::format("{} cannot be asked for its lock", path), errno));
  }
  if (lock.l_type == F_UNLCK) {
    return std::optional<pid_t>();
  }
  char text[16] = {};
  const ssize_t size = ::pread(fd.get(), text, sizeof text - 1, 0);
  pid_t pid = 0;
  if (size <= 0 || std::from_chars(text, text + size, pid).ec != std::errc{} || pid <= 0) {
    return fail(ErrorCode::conflict,
                fmt::format("{} is locked by a process that has not written its number", path));
  }
  return std::optional<pid_t>(pid);
}

std::string guest_lock_path(const std::string& run_directory, DomainId domain) {
  return fmt::format("{}/guest-{}.lock", run_directory, domain);
}

bool any_guest_is_served(const std::string& run_directory) {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(run_directory, failed), end; !failed && at != end;
       at.increment(failed)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with("guest-") || !name.ends_with(".lock")) {
      continue;
    }
    const auto holder = ProcessLock::holder(at->path().string());
    if (!holder || holder->has_value()) {
      return true;  // or it cannot be told
    }
  }
  return false;
}

std::string barrier_directory(const std::string& run_directory) {
  return run_directory + "/barrier";
}

std::string service_lock_path(const std::string& run_directory) {
  return run_directory + "/service.lock";
}

}  // namespace iscsi_blkback
