#include "blkback/process/xenstore_relay.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/result.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace iscsi_blkback {
namespace {

constexpr std::size_t kReadBytes = 4096;

bool would_wait() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

// What is there, up to most bytes in all. False: the other side has ended.
bool read_into(int fd, std::string& bytes, std::size_t most) {
  while (bytes.size() < most) {
    std::array<char, kReadBytes> part{};
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got < 0) {
      return would_wait();
    }
    if (got == 0) {
      return false;
    }
    bytes.append(part.data(), static_cast<std::size_t>(got));
  }
  return true;
}

}  // namespace

XenStoreRelay::XenStoreRelay(UniqueFd client, const XenStoreAddress& address,
                             const XenStoreGate& gate)
    : client_(std::move(client)), address_(address), gate_(gate) {}

short XenStoreRelay::client_events() const {
  return static_cast<short>((passed_.size() < kMostWaiting ? POLLIN : 0) |
                            (answers_.empty() ? 0 : POLLOUT));
}

short XenStoreRelay::xenstored_events() const {
  if (answers_end_) {
    return 0;
  }
  return static_cast<short>((answers_.size() < kMostWaiting ? POLLIN : 0) |
                            (passed_.empty() ? 0 : POLLOUT));
}

bool XenStoreRelay::serve() {
  if (is_connecting() && !connect()) {
    return false;
  }
  if (!take_requests()) {
    return false;
  }
  if (is_connecting()) {
    return true;
  }
  if (!pass_on_requests()) {
    answers_end_ = true;
  }
  answers_end_ = answers_end_ || !take_answers();
  return pass_on(client_.get(), answers_) && !(answers_end_ && answers_.empty());
}

// False: not now, and not any more.
bool XenStoreRelay::connect() {
  if (address_.is_device) {
    xenstored_.reset(::open(address_.path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!xenstored_.valid()) {
      why_ = system_error(fmt::format("{} cannot be opened", address_.path), errno).message;
    }
    return xenstored_.valid();
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  address_.path.copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    why_ = system_error("no socket for xenstored", errno).message;
    return false;
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    xenstored_ = std::move(socket);
    return true;
  }
  // The process says why it has no xenstored.
  return errno == EAGAIN && Clock::now() - opened_ < kConnectPatience;
}

bool XenStoreRelay::take_requests() {
  if (passed_.size() >= kMostWaiting) {
    return true;
  }
  return read_into(client_.get(), asked_, asked_.size() + kReadBytes) && check_requests();
}

bool XenStoreRelay::check_requests() {
  xsd_sockmsg header{};
  while (asked_.size() >= sizeof header) {
    std::memcpy(&header, asked_.data(), sizeof header);
    if (header.len > XENSTORE_PAYLOAD_MAX) {
      why_ = fmt::format("a message of {} bytes is not let through to xenstored", header.len);
      return false;
    }
    const std::size_t length = sizeof header + header.len;
    if (asked_.size() < length) {
      break;
    }
    const std::string_view payload = std::string_view(asked_).substr(sizeof header, header.len);
    if (!gate_.lets_pass(header.type, payload)) {
      why_ = fmt::format("a message of type {} about {} is not let through to xenstored",
                         header.type, payload.substr(0, payload.find('\0')));
      return false;
    }
    passed_.append(asked_, 0, length);
    asked_.erase(0, length);
  }
  return true;
}

bool XenStoreRelay::take_answers() {
  return read_into(xenstored_.get(), answers_, kMostWaiting);
}

// The device takes one message at a time, and drops what is written behind it.
bool XenStoreRelay::pass_on_requests() {
  if (!address_.is_device) {
    return pass_on(xenstored_.get(), passed_);
  }
  xsd_sockmsg header{};
  while (passed_.size() >= sizeof header) {
    std::memcpy(&header, passed_.data(), sizeof header);
    const std::size_t length = sizeof header + header.len;
    if (::write(xenstored_.get(), passed_.data(), length) != static_cast<ssize_t>(length)) {
      return would_wait();
    }
    passed_.erase(0, length);
  }
  return true;
}

// As much as is taken. False: nobody takes it any more.
bool XenStoreRelay::pass_on(int fd, std::string& bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0) {
      return would_wait();
    }
    bytes.erase(0, static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace iscsi_blkback
