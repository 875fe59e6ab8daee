#include "blkback/guest/statistics_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/decimal.h"

namespace iscsi_blkback {
namespace {

constexpr std::string_view kFolderPrefix = "td3-";
constexpr std::string_view kFilePrefix = "vbd-";
constexpr const char* kMark = "iscsi-blkback";

std::string folder_path(const std::string& parent, pid_t process) {
  return fmt::format("{}/{}{}", parent, kFolderPrefix, process);
}

// Of a folder, as it is read.
class Names {
 public:
  explicit Names(const UniqueFd& folder) {
    const int own = ::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    stream_ = own < 0 ? nullptr : ::fdopendir(own);
    if (stream_ == nullptr && own >= 0) {
      ::close(own);
    }
  }
  ~Names() {
    if (stream_ != nullptr) {
      ::closedir(stream_);
    }
  }
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;

  // Null: there are no more. Until the next call.
  const char* next() {
    const dirent* const entry = stream_ == nullptr ? nullptr : ::readdir(stream_);
    return entry == nullptr ? nullptr : entry->d_name;
  }

 private:
  DIR* stream_ = nullptr;
};

enum class FolderUse : std::uint8_t { ours_now, another_users, a_process_has_it, gone };

struct LockedFolder {
  FolderUse use = FolderUse::gone;
  UniqueFd fd;
};

// Locks the folder that path leads to, if it is one of this user's alone; of_any: or of one user's, whoever that is.
LockedFolder lock_folder(const std::string& path, bool of_any = false) {
  UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat by_fd {};
  if (!folder.valid() || ::fstat(folder.get(), &by_fd) != 0) {
    return {errno == ENOENT ? FolderUse::gone : FolderUse::another_users, UniqueFd()};
  }
  if ((by_fd.st_uid != ::geteuid() && !of_any) || (by_fd.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return {FolderUse::another_users, UniqueFd()};
  }
  if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
    return {FolderUse::a_process_has_it, UniqueFd()};
  }
  // It may have been removed between our opening and our locking it.
  struct stat by_path {};
  if (::lstat(path.c_str(), &by_path) != 0 || by_path.st_dev != by_fd.st_dev ||
      by_path.st_ino != by_fd.st_ino) {
    return {FolderUse::gone, UniqueFd()};
  }
  return {FolderUse::ours_now, std::move(folder)};
}

void empty_folder(const UniqueFd& folder) {
  std::vector<std::string> files;
  Names names(folder);
  while (const char* name = names.next()) {
    if (std::string_view(name).starts_with(kFilePrefix)) {
      files.emplace_back(name);
    }
  }
  for (const std::string& name : files) {
    ::unlinkat(folder.get(), name.c_str(), 0);
  }
  ::unlinkat(folder.get(), kMark, 0);
}

}  // namespace

StatisticsFile::~StatisticsFile() {
  ::unlinkat(folder_, name_.c_str(), 0);
}

StatisticsFolder::StatisticsFolder(const std::string& parent, pid_t process)
    : path_(folder_path(parent, process)), process_(process) {}

StatisticsFolder::~StatisticsFolder() {
  if (fd_.valid()) {
    empty_folder(fd_);
    ::rmdir(path_.c_str());
  }
}

// What is there already under our number, a process that is no more has left.
Result<void> StatisticsFolder::open() {
  constexpr int kAttempts = 3;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (::mkdir(path_.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
      return tl::unexpected(system_error(fmt::format("{} cannot be made", path_), errno));
    }
    LockedFolder locked = lock_folder(path_);
    switch (locked.use) {
      case FolderUse::gone:
        continue;
      case FolderUse::another_users:
        return fail(ErrorCode::permission_denied,
                    fmt::format("{} is no folder, or another user's", path_));
      case FolderUse::a_process_has_it:
        return fail(ErrorCode::conflict, fmt::format("another process uses {}", path_));
      case FolderUse::ours_now:
        break;
    }
    empty_folder(locked.fd);
    const UniqueFd mark(::openat(locked.fd.get(), kMark,
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                 S_IRUSR | S_IWUSR));
    if (!mark.valid()) {
      auto error = system_error(fmt::format("{}/{} cannot be made", path_, kMark), errno);
      ::rmdir(path_.c_str());  // without it nobody would know the folder for ours
      return tl::unexpected(std::move(error));
    }
    fd_ = std::move(locked.fd);
    return {};
  }
  return fail(ErrorCode::conflict, fmt::format("{} is removed again and again", path_));
}

Result<std::unique_ptr<StatisticsFile>> StatisticsFolder::make_file(DomainId guest,
                                                                    std::uint32_t device_id) {
  if (!fd_.valid()) {
    if (auto opened = open(); !opened) {
      return tl::unexpected(opened.error());
    }
  }
  std::string name = fmt::format("{}{}-{}", kFilePrefix, guest, device_id);
  const UniqueFd file(::openat(fd_.get(), name.c_str(),
                               O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                               S_IRUSR | S_IWUSR));
  if (!file.valid()) {
    return tl::unexpected(system_error(fmt::format("{}/{} cannot be made", path_, name), errno));
  }
  auto page = StatisticsPage::map(file);
  if (!page) {
    ::unlinkat(fd_.get(), name.c_str(), 0);
    return fail(page.error().code, fmt::format("{}/{}: {}", path_, name, page.error().message));
  }
  return std::unique_ptr<StatisticsFile>(
      new StatisticsFile(fd_.get(), std::move(name), std::move(*page)));
}

void remove_statistics_left_by(pid_t process, const std::string& parent) {
  const std::string path = folder_path(parent, process);
  // Guests' processes have users of their own; what is removed is in the folder, whosever that is.
  const LockedFolder locked = lock_folder(path, true);
  if (locked.use == FolderUse::ours_now && ::faccessat(locked.fd.get(), kMark, F_OK, 0) == 0) {
    empty_folder(locked.fd);
    ::rmdir(path.c_str());
  }
}

void remove_statistics_left(const std::string& parent) {
  const UniqueFd folder(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return;
  }
  Names names(folder);
  for (int looked_at = 0; looked_at < kMostNamesLookedAt; ++looked_at) {
    const char* const found = names.next();
    if (found == nullptr) {
      return;
    }
    const std::string_view name = found;
    if (!name.starts_with(kFolderPrefix)) {
      continue;
    }
    if (const auto process = parse_decimal<std::uint32_t>(name.substr(kFolderPrefix.size()))) {
      remove_statistics_left_by(static_cast<pid_t>(*process), parent);
    }
  }
}

}  // namespace iscsi_blkback
