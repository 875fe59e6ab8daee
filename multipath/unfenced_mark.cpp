#include "multipath/unfenced_mark.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxFileName = 255;

// A target chooses its identities: nothing of one may lead out of the folder. Where two long ones
// share a name, a disk waits for one that it has nothing to do with, for a bounded time.
std::string file_name(std::string_view wwid) {
  std::string name;
  for (const char c : wwid) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    name += plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  name.resize(std::min(name.size(), kMaxFileName));
  return name;
}

bool lock(const UniqueFd& fd, int command, short type, struct flock& lock) {
  lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd.get(), command, &lock) == 0;
}

}  // namespace

Result<UnfencedMark> UnfencedMark::open(const std::string& folder, std::string_view wwid) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);  // or open() says why not
  const std::string path = folder + "/" + file_name(wwid);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!fd.valid()) {
    return tl::unexpected(system_error(fmt::format("{} cannot be opened", path), errno));
  }
  return UnfencedMark(std::move(fd));
}

Result<void> UnfencedMark::set() {
  struct flock unused {};
  if (fd_.valid() && !set_) {
    if (!lock(fd_, F_OFD_SETLK, F_RDLCK, unused)) {
      return tl::unexpected(system_error("the mark for unfenced writes cannot be set", errno));
    }
    set_ = true;
  }
  return {};
}

void UnfencedMark::clear() {
  struct flock unused {};
  if (set_) {
    set_ = false;
    lock(fd_, F_OFD_SETLK, F_UNLCK, unused);
  }
}

bool UnfencedMark::others() const {
  struct flock found {};
  return fd_.valid() && lock(fd_, F_OFD_GETLK, F_WRLCK, found) && found.l_type != F_UNLCK;
}

}  // namespace iscsi_blkback
