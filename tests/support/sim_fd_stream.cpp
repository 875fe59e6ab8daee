#include "tests/support/sim_fd_stream.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace iscsi_blkback {
namespace {

// A full socket is tried again so often.
constexpr Duration kSendRetry = std::chrono::microseconds(50);

void take_front(std::vector<iovec>& parts, std::size_t count) {
  while (!parts.empty() && count >= parts.front().iov_len) {
    count -= parts.front().iov_len;
    parts.erase(parts.begin());
  }
  if (!parts.empty()) {
    parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + count;
    parts.front().iov_len -= count;
  }
}

}  // namespace

SimFdStream::SimFdStream(SimReactor& reactor, UniqueFd socket, Owner& owner)
    : reactor_(reactor), socket_(std::move(socket)), owner_(owner) {}

SimFdStream::~SimFdStream() {
  ISCSI_BLKBACK_ASSERT(state_ == State::closed);
}

void SimFdStream::schedule(Duration delay, void (SimFdStream::*event)()) {
  reactor_.schedule(delay, [this, event, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) {
      (this->*event)();
    }
  });
}

void SimFdStream::send(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ != State::closed && sends_.empty() && parts.size() <= kMaxParts);
  if (state_ == State::open) {
    sends_.assign(parts.begin(), parts.end());
    schedule(Duration::zero(), &SimFdStream::continue_send);
  }
}

void SimFdStream::continue_send() {
  if (state_ != State::open || sends_.empty()) {
    return;
  }
  msghdr message{};
  message.msg_iov = sends_.data();
  message.msg_iovlen = sends_.size();
  const ssize_t count = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (count < 0 && errno != EAGAIN) {
    begin_close(system_error("connection to a local client", errno));
    return;
  }
  take_front(sends_, count < 0 ? 0 : static_cast<std::size_t>(count));
  if (sends_.empty()) {
    owner_.on_sent();
  } else {
    schedule(kSendRetry, &SimFdStream::continue_send);
  }
}

void SimFdStream::receive(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ != State::closed && receives_.empty());
  if (state_ == State::open) {
    receives_.assign(parts.begin(), parts.end());
    watch_ = reactor_.watch_readable(
        socket_.get(),
        [](void* self) noexcept { static_cast<SimFdStream*>(self)->continue_receive(); }, this);
  }
}

void SimFdStream::continue_receive() {
  msghdr message{};
  message.msg_iov = receives_.data();
  message.msg_iovlen = receives_.size();
  const ssize_t count = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) {
    return;
  }
  watch_.reset();
  if (count <= 0) {
    begin_close(count < 0
                    ? system_error("connection to a local client", errno)
                    : Error{ErrorCode::unavailable, "connection to a local client: end of stream"});
    return;
  }
  receives_.clear();
  owner_.on_received(static_cast<std::size_t>(count));
}

void SimFdStream::reset() noexcept {
  if (state_ == State::open) {
    begin_close({ErrorCode::unavailable, "connection to a local client was reset by this side"});
  }
}

void SimFdStream::begin_close(Error error) {
  state_ = State::closing;
  watch_.reset();
  close_error_ = std::move(error);
  schedule(Duration::zero(), &SimFdStream::finish_close);
}

void SimFdStream::finish_close() {
  socket_.reset();
  state_ = State::closed;
  const Error error = std::move(*close_error_);
  owner_.on_closed(error);  // may delete this
}

}  // namespace iscsi_blkback
