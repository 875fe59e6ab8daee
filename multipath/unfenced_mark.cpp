#include "multipath/unfenced_mark.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <system_error>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxFileName = 255;
constexpr std::size_t kUntilDigits = 19;  // of any number of nanoseconds
// Many writes are lost one after the other: not each is worth a system call.
constexpr Duration kStep = std::chrono::milliseconds(100);

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

UnfencedMark& UnfencedMark::operator=(UnfencedMark&& other) noexcept {
  if (this != &other) {
    clear();
    fd_ = std::move(other.fd_);
    set_ = std::exchange(other.set_, false);
    until_ = other.until_;
    until_before_ = other.until_before_;
  }
  return *this;
}

bool UnfencedMark::others_hold() const {
  struct flock found {};
  return fd_.valid() && lock(fd_, F_OFD_GETLK, F_WRLCK, found) && found.l_type != F_UNLCK;
}

// What is no number was not written by one of these, and says nothing.
TimePoint UnfencedMark::stored_until() const {
  std::array<char, kUntilDigits> text;
  std::int64_t nanoseconds = 0;
  if (::pread(fd_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size())) {
    std::from_chars(text.data(), text.data() + text.size(), nanoseconds);
  }
  return TimePoint(std::chrono::nanoseconds(nanoseconds));
}

bool UnfencedMark::store(TimePoint until) const {
  const std::string text = fmt::format("{:0{}}", until.time_since_epoch().count(), kUntilDigits);
  return ::pwrite(fd_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

Result<void> UnfencedMark::set(TimePoint until) {
  struct flock unused {};
  if (!fd_.valid() || (set_ && until <= until_)) {
    return {};
  }
  if (!set_) {
    until_before_ = others_hold() ? TimePoint{} : stored_until();
    if (!lock(fd_, F_OFD_SETLK, F_RDLCK, unused)) {
      return tl::unexpected(system_error("the mark for unfenced writes cannot be set", errno));
    }
    set_ = true;
  }
  until_ = std::max(until + kStep, stored_until());
  if (!store(until_)) {
    return tl::unexpected(
        system_error("until when writes are unfenced cannot be told to other processes", errno));
  }
  return {};
}

void UnfencedMark::clear() {
  struct flock unused {};
  if (set_) {
    set_ = false;
    if (!others_hold()) {
      (void)store(until_before_);  // else others wait longer than they have to
    }
    lock(fd_, F_OFD_SETLK, F_UNLCK, unused);
  }
}

bool UnfencedMark::others(TimePoint now) const {
  return fd_.valid() && (others_hold() || (!set_ && now < stored_until()));
}

}  // namespace iscsi_blkback
