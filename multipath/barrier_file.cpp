#include "multipath/barrier_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

namespace iscsi_blkback {
namespace {

using barrier_layout::Contents;
using barrier_layout::kMagic;

constexpr std::size_t kFileBytes = sizeof(Contents);
constexpr std::size_t kMaxFileName = 255;
constexpr std::string_view kVersion = ".3";  // of the layout

// A target chooses its identities: nothing of one may lead out of the folder. Two that are so long
// that they share a name share a barrier: a disk may wait for one that it has nothing to do with.
std::string file_name(std::string_view key) {
  std::string name;
  for (const char c : key) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    name += plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  name.resize(std::min(name.size(), kMaxFileName - kVersion.size()));
  return name + std::string(kVersion);
}

// Unlike that of any other path or file system (containers have folders of the same name), and of
// whatever other programs lock (FNV-1a).
off_t first_lock_of(const std::string& path, dev_t device) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const std::string normal = std::filesystem::path(path).lexically_normal().string();
  for (const char c : fmt::format("{} {}", normal, device)) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  static_assert(barrier_layout::kSlots <= 0x100);
  return static_cast<off_t>(hash >> 2 & ~std::uint64_t{0xff});
}

struct flock byte_lock(off_t at, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

struct ExclusiveLock {
  std::uint64_t inode = 0;
  off_t at = 0;
};

// Of a line like "1: OFDLCK ADVISORY  WRITE -1 00:19:1234 4711 4711".
std::optional<ExclusiveLock> exclusive_lock_of(std::string_view line) {
  if (line.find(" OFDLCK ") == line.npos || line.find(" WRITE ") == line.npos) {
    return std::nullopt;
  }
  const auto number = [](std::string_view text, auto& value) {
    return std::from_chars(text.data(), text.data() + text.size(), value).ptr ==
           text.data() + text.size();
  };
  ExclusiveLock lock;
  const std::string_view end = line.substr(line.rfind(' ') + 1);
  const std::string_view file = line.substr(0, line.rfind(' ', line.rfind(' ') - 1));
  if (!number(end, lock.at) || !number(file.substr(file.rfind(':') + 1), lock.inode)) {
    return std::nullopt;
  }
  return lock;
}

}  // namespace

void BarrierFile::Unmap::operator()(Contents* memory) const {
  ::munmap(memory, kFileBytes);
}

Result<BarrierFile> BarrierFile::open(const std::string& folder, std::string_view key) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);  // or open() says why not
  const std::string path = folder + "/" + file_name(key);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!fd.valid()) {
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), errno));
  }
  return map(std::move(fd), path);
}

Result<BarrierFile> BarrierFile::open_existing(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) {
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), errno));
  }
  return map(std::move(fd), path);
}

Result<BarrierFile> BarrierFile::map(UniqueFd fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be looked at", path), errno));
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || (size != 0 && size != kFileBytes)) {
    return fail(ErrorCode::conflict,
                fmt::format("{} is no file of this program's: remove it while no disk of the LUN "
                            "is in use",
                            path));
  }
  // It never shrinks, so that what is mapped is always there. Whoever began it may have died.
  if (size == 0 && ::ftruncate(fd.get(), static_cast<off_t>(kFileBytes)) != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be made", path), errno));
  }
  if (const int failed = ::posix_fallocate(fd.get(), 0, offsetof(Contents, nexuses)); failed != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be made", path), failed));
  }
  void* const mapped = ::mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) {
    return tl::unexpected(system_error(fmt::format("{} cannot be mapped", path), errno));
  }
  BarrierFile file;
  file.fd_ = std::move(fd);
  file.path_ = path;
  file.first_lock_ = first_lock_of(path, status.st_dev);
  file.memory_.reset(static_cast<Contents*>(mapped));
  const SharedField magic(file.header().magic);
  if (!magic.replace(0, kMagic) && magic.load() != kMagic) {
    return fail(
        ErrorCode::conflict,
        fmt::format("{} holds something else: remove it while no disk of the LUN is in use", path));
  }
  return file;
}

bool BarrierFile::is_current() const {
  struct stat by_path {};
  struct stat by_fd {};
  return ::stat(path_.c_str(), &by_path) == 0 && ::fstat(fd_.get(), &by_fd) == 0 &&
         by_path.st_dev == by_fd.st_dev && by_path.st_ino == by_fd.st_ino;
}

Result<void> BarrierFile::allocate_nexuses(std::size_t index, std::uint32_t paths) const {
  const std::size_t begin =
      offsetof(Contents, nexuses) + index * kMaxPaths * sizeof(barrier_layout::Nexus);
  const int failed = ::posix_fallocate(fd_.get(), static_cast<off_t>(begin),
                                       static_cast<off_t>(paths * sizeof(barrier_layout::Nexus)));
  if (failed != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot grow", path_), failed));
  }
  return {};
}

// On the byte of a slot. False: somebody else's lock is in the way.
bool BarrierFile::set_lock(std::size_t index, short type) const {
  struct flock lock = byte_lock(first_lock_ + static_cast<off_t>(index), type);
  return ::fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0;
}

bool BarrierFile::try_lock_shared(std::size_t index) const {
  return set_lock(index, F_RDLCK);
}

bool BarrierFile::try_lock(std::size_t index) const {
  return set_lock(index, F_WRLCK);
}

void BarrierFile::unlock(std::size_t index) const {
  (void)set_lock(index, F_UNLCK);
}

// The kernel shows the list in pieces: what changes meanwhile makes a lock be in it twice or not at
// all. So it is read until it is the same twice; what was seen in any of the readings counts.
std::size_t BarrierFile::holders_of_removed_files() const {
  constexpr int kMostReadings = 16;
  struct stat own {};
  if (::fstat(fd_.get(), &own) != 0) {
    return 0;
  }
  const auto read = [&] {
    std::set<std::pair<std::uint64_t, off_t>> elsewhere;
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
      const auto lock = exclusive_lock_of(line);
      if (lock && lock->inode != own.st_ino && lock->at >= first_lock_ &&
          lock->at < first_lock_ + static_cast<off_t>(barrier_layout::kSlots)) {
        elsewhere.emplace(lock->inode, lock->at);
      }
    }
    return elsewhere;
  };
  auto elsewhere = read();
  for (int reading = 1; reading < kMostReadings; ++reading) {
    const auto again = read();
    const bool same = again == elsewhere;
    elsewhere.insert(again.begin(), again.end());
    if (same && reading > 1) {
      break;
    }
  }
  return elsewhere.size();
}

}  // namespace iscsi_blkback
