#include "multipath/barrier_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

namespace iscsi_blkback {
namespace {

using barrier_layout::Contents;
using barrier_layout::kMagic;

constexpr std::size_t kFileBytes = sizeof(Contents);
constexpr std::size_t kMaxFileName = 255;
constexpr std::string_view kVersion = ".1";  // of the layout

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

// On the byte of a slot. False: somebody else's lock is in the way.
bool set_lock(const UniqueFd& fd, std::size_t index, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(index);
  lock.l_len = 1;
  return ::fcntl(fd.get(), F_OFD_SETLK, &lock) == 0;
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
  // It never shrinks, so that what is mapped is always there.
  if (size == 0 && ::ftruncate(fd.get(), static_cast<off_t>(kFileBytes)) != 0) {
    return tl::unexpected(system_error(fmt::format("{} cannot be made", path), errno));
  }
  void* const mapped = ::mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) {
    return tl::unexpected(system_error(fmt::format("{} cannot be mapped", path), errno));
  }
  BarrierFile file;
  file.fd_ = std::move(fd);
  file.memory_.reset(static_cast<Contents*>(mapped));
  const SharedField magic(file.header().magic);
  if (!magic.replace(0, kMagic) && magic.load() != kMagic) {
    return fail(
        ErrorCode::conflict,
        fmt::format("{} holds something else: remove it while no disk of the LUN is in use", path));
  }
  return file;
}

bool BarrierFile::try_lock_shared(std::size_t index) const {
  return set_lock(fd_, index, F_RDLCK);
}

bool BarrierFile::try_lock(std::size_t index) const {
  return set_lock(fd_, index, F_WRLCK);
}

void BarrierFile::unlock(std::size_t index) const {
  (void)set_lock(fd_, index, F_UNLCK);
}

}  // namespace iscsi_blkback
