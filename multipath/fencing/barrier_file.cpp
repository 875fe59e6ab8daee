#include "multipath/fencing/barrier_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "base/printable_text.h"
#include "multipath/fencing/kernel_locks.h"

namespace iscsi_blkback {
namespace {

using barrier_layout::Contents;
using barrier_layout::kMagic;

constexpr std::size_t kFileBytes = sizeof(Contents);
constexpr std::size_t kMaxFileName = 255;
constexpr char kExtension[] = {'.', barrier_layout::kVersion, '\0'};
constexpr off_t kLockSlots = 0xff;  // where the byte of a slot is: the bits that are the slot's

// A target chooses its identities: nothing of one may lead out of the folder. Two that are so long
// that they share a name share a barrier: a disk may wait for one that it has nothing to do with.
std::string file_name(std::string_view key) {
  std::string name;
  for (const char c : key) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    name += plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  name.resize(std::min(name.size(), kMaxFileName - std::string_view(kExtension).size()));
  return name + kExtension;
}

std::string folder_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// Unlike that of any other path or file system (containers have folders of the same name), and of
// whatever other programs lock (FNV-1a).
off_t first_lock_of(const std::string& path, dev_t device) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const std::string normal = std::filesystem::path(path).lexically_normal().string();
  for (const char c : fmt::format("{} {}", normal, device)) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  static_assert(barrier_layout::kSlots <= kLockSlots + 1);
  return static_cast<off_t>(hash >> 2) & ~kLockSlots;
}

struct flock byte_lock(off_t at, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

std::set<std::uint64_t> inodes_in(const std::string& folder) {
  std::set<std::uint64_t> inodes;
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    struct stat status {};
    if (::lstat(at->path().c_str(), &status) == 0) {
      inodes.insert(status.st_ino);
    }
  }
  return inodes;
}

}  // namespace

void BarrierFile::Unmap::operator()(Contents* memory) const {
  ::munmap(memory, kFileBytes);
}

Result<BarrierFile> BarrierFile::open(const std::string& folder, std::string_view key) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);  // or open() says why not
  return open_path(path_of(folder, key));
}

std::string BarrierFile::path_of(const std::string& folder, std::string_view key) {
  return folder + "/" + file_name(key);
}

bool BarrierFile::is_barrier_file(std::string_view file_name) {
  return file_name.size() > 2 && file_name.ends_with(kExtension);
}

Result<BarrierFile> BarrierFile::open_path(const std::string& path) {
  // The group's, too: the umask says whether guests' processes run as users of their own, in one group.
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                     S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP));
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
  file.device_ = status.st_dev;
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

bool BarrierFile::allocate_nexuses(std::size_t index) const {
  constexpr std::size_t kBytes = kMaxPaths * sizeof(barrier_layout::Nexus);
  return ::posix_fallocate(fd_.get(),
                           static_cast<off_t>(offsetof(Contents, nexuses) + index * kBytes),
                           static_cast<off_t>(kBytes)) == 0;
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

bool BarrierFile::is_same_file(const BarrierFile& other) const {
  struct stat one {};
  struct stat two {};
  return ::fstat(fd_.get(), &one) == 0 && ::fstat(other.fd_.get(), &two) == 0 &&
         one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

BarrierNames BarrierFile::names() const {
  return read_names(fd_.get(), header().names_used);
}

std::optional<BarrierFile::About> BarrierFile::about(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  barrier_layout::Header header{};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<std::size_t>(status.st_size) != kFileBytes ||
      ::pread(fd.get(), &header, sizeof header, 0) != sizeof header || header.magic != kMagic) {
    return std::nullopt;
  }
  return About{header.forwarded != 0, read_names(fd.get(), header.names_used), header.last_place};
}

bool BarrierFile::is_unused(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  std::vector<barrier_layout::Slot> slots(barrier_layout::kSlots);
  const auto bytes = static_cast<ssize_t>(slots.size() * sizeof slots[0]);
  return fd.valid() &&
         ::pread(fd.get(), slots.data(), static_cast<std::size_t>(bytes),
                 offsetof(Contents, slots)) == bytes &&
         std::all_of(slots.begin(), slots.end(), [](const auto& slot) { return slot.in_use == 0; });
}

// Not as they are mapped: what nobody has allocated must not be touched, whatever the header says.
BarrierNames BarrierFile::read_names(int fd, std::uint64_t names_used) {
  std::array<barrier_layout::Name, BarrierNames::kMost> stored;
  const auto used = static_cast<std::size_t>(std::min<std::uint64_t>(names_used, stored.size()));
  const std::size_t bytes_used = used * sizeof stored[0];
  if (::pread(fd, stored.data(), bytes_used, offsetof(Contents, names)) !=
      static_cast<ssize_t>(bytes_used)) {
    return {};
  }
  BarrierNames names;
  for (std::size_t index = 0; index < used; ++index) {
    const barrier_layout::Name& name = stored[index];
    const std::string bytes(name.bytes.data(), name.length_bytes);
    LunNames told;
    if (name.is_serial == 0) {
      told.designators.push_back({.code_set = name.code_set, .type = name.type, .bytes = bytes});
    } else if (printable_identity_as_written(bytes) == bytes) {
      told.serial = bytes;
    }
    names.add(told, std::string(text_of(name.target_name)));
  }
  return names;
}

Result<void> BarrierFile::add_names(const BarrierNames& names) const {
  BarrierNames all = this->names();
  for (const BarrierName& name : names.known) {
    const std::size_t used = header().names_used;
    const bool is_serial = name.name.designators.empty();
    const std::string& bytes = is_serial ? name.name.serial : name.name.designators[0].bytes;
    if (used >= BarrierNames::kMost || bytes.size() > UINT8_MAX || !all.add(name)) {
      continue;
    }
    const int failed =
        ::posix_fallocate(fd_.get(), offsetof(Contents, names),
                          static_cast<off_t>((used + 1) * sizeof(barrier_layout::Name)));
    if (failed != 0) {
      return tl::unexpected(system_error(fmt::format("{} cannot grow", path_), failed));
    }
    barrier_layout::Name& stored = memory_->names[used];
    stored = {};
    stored.is_serial = is_serial ? 1 : 0;
    if (!is_serial) {
      stored.code_set = name.name.designators[0].code_set;
      stored.type = name.name.designators[0].type;
    }
    stored.length_bytes = static_cast<std::uint8_t>(bytes.size());
    bytes.copy(stored.bytes.data(), bytes.size());
    set_text(stored.target_name, name.target_name);
    header().names_used = used + 1;
  }
  return {};
}

void BarrierFile::forward_to(const BarrierFile& file) const {
  set_text(header().forwarded_to, file.path_.substr(file.path_.rfind('/') + 1));
  SharedField(header().forwarded).store(1);
  note_change();
}

std::string BarrierFile::forwarded_to() const {
  const std::array<char, 256> copy = header().forwarded_to;  // it may change meanwhile
  const std::string_view name = text_of(copy);
  const bool is_name = is_barrier_file(name) && name.find('/') == std::string_view::npos;
  return is_name ? fmt::format("{}/{}", folder_of(path_), name) : "";
}

std::set<off_t> BarrierFile::first_locks_of(const BarrierNames& names) const {
  std::set<off_t> first_locks{first_lock_};
  for (const BarrierName& name : names.known) {
    if (const std::string key = name.key(); !key.empty()) {
      first_locks.insert(first_lock_of(path_of(folder_of(path_), key), device_));
    }
  }
  return first_locks;
}

void BarrierFile::lock_names(std::size_t index, const BarrierNames& names) const {
  for (const off_t first : first_locks_of(names)) {
    struct flock lock = byte_lock(first + static_cast<off_t>(index), F_WRLCK);
    (void)::fcntl(fd_.get(), F_OFD_SETLK, &lock);
  }
}

std::size_t BarrierFile::holders_of_removed_files(const BarrierNames& names) const {
  struct stat own {};
  if (::fstat(fd_.get(), &own) != 0) {
    return 0;
  }
  const std::set<off_t> first_locks = first_locks_of(names);
  std::set<std::pair<std::uint64_t, off_t>> elsewhere;  // files, and slots there
  for (const ExclusiveLock& lock : exclusive_locks([&](const ExclusiveLock& of) {
         return of.inode != own.st_ino && first_locks.count(of.at & ~kLockSlots) != 0;
       })) {
    elsewhere.emplace(lock.inode, lock.at & kLockSlots);
  }
  if (elsewhere.empty()) {
    return 0;
  }
  // Other LUNs' disks, with a name that this one has too, are where they belong. The folder is read
  // after the locks: a file that comes meanwhile is not taken for a removed one.
  const std::set<std::uint64_t> there = inodes_in(folder_of(path_));
  return static_cast<std::size_t>(
      std::count_if(elsewhere.begin(), elsewhere.end(),
                    [&](const auto& holder) { return there.count(holder.first) == 0; }));
}

}  // namespace iscsi_blkback
