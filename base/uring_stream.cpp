#include "base/uring_stream.h"

#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>

namespace iscsi_blkback {
namespace {

template <class T>
bool set_option(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

}  // namespace

void UringStream::Transfer::set(std::span<const iovec> of) {
  ISCSI_BLKBACK_ASSERT(!in_kernel);
  ISCSI_BLKBACK_ASSERT(!of.empty() && of.size() <= kMaxParts);
  std::copy(of.begin(), of.end(), parts.begin());
  first = 0;
  end = of.size();
  ISCSI_BLKBACK_ASSERT(advance(0));  // at least one byte
}

bool UringStream::Transfer::advance(std::size_t count) {
  while (first < end && count >= parts[first].iov_len) {
    count -= parts[first].iov_len;
    ++first;
  }
  if (first == end) {
    ISCSI_BLKBACK_ASSERT(count == 0);
    return false;
  }
  iovec& part = parts[first];
  part.iov_base = static_cast<std::byte*>(part.iov_base) + count;
  part.iov_len -= count;
  message.msg_iov = &part;
  message.msg_iovlen = end - first;
  return true;
}

UringStream::UringStream(UringReactor& reactor, const ConnectOptions& options, Owner& owner)
    : reactor_(reactor),
      owner_(owner),
      address_(options.address),
      connect_{[](void* self, std::int32_t result) noexcept {
                 static_cast<UringStream*>(self)->on_connect_done(result);
               },
               this},
      cancel_{[](void* self, std::int32_t) noexcept {
                static_cast<UringStream*>(self)->cancel_in_kernel_ = false;
                static_cast<UringStream*>(self)->close_if_idle();
              },
              this},
      close_task_(
          reactor, [](void* self) noexcept { static_cast<UringStream*>(self)->finish_close(); },
          this) {
  send_.operation = {[](void* self, std::int32_t result) noexcept {
                       static_cast<UringStream*>(self)->on_send_done(result);
                     },
                     this};
  receive_.operation = {[](void* self, std::int32_t result) noexcept {
                          static_cast<UringStream*>(self)->on_receive_done(result);
                        },
                        this};
  if (Result<void> opened = open_socket(options); !opened) {
    begin_close(std::move(opened).error());
  } else {
    start_connect();
  }
}

UringStream::~UringStream() {
  ISCSI_BLKBACK_ASSERT(state_ == State::closed);
}

void UringStream::send(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ == State::open) {  // else on_closed is on its way
    send_.set(parts);
    start_send();
  }
}

void UringStream::receive(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ != State::open) {
    return;
  }
  receive_.set(parts);
  io_uring_sqe& entry = reactor_.next_entry();
  if (receive_.message.msg_iovlen == 1) {
    const iovec& part = *receive_.message.msg_iov;
    io_uring_prep_recv(&entry, fd_.get(), part.iov_base, part.iov_len, 0);
  } else {
    io_uring_prep_recvmsg(&entry, fd_.get(), &receive_.message, 0);
  }
  reactor_.start(entry, &receive_.operation);
  receive_.in_kernel = true;
}

void UringStream::reset() noexcept {
  if (state_ == State::connecting || state_ == State::open) {
    begin_close({ErrorCode::unavailable,
                 "connection to " + address_.to_string() + " was reset by this side"});
  }
}

Result<void> UringStream::open_socket(const ConnectOptions& options) {
  // Blocking on purpose: io_uring gives EAGAIN back for a non-blocking file instead of waiting.
  fd_.reset(socket(address_.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd_.valid()) {
    return tl::unexpected(describe(errno));
  }
  if (!options.interface_name.empty() &&
      setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, options.interface_name.data(),
                 static_cast<socklen_t>(options.interface_name.size())) != 0) {
    return tl::unexpected(system_error(
        "connect to " + address_.to_string() + " through interface " + options.interface_name,
        errno));
  }
  const auto user_timeout_ms = static_cast<unsigned>(options.tcp_user_timeout.count());
  if (!set_option(fd_.get(), IPPROTO_TCP, TCP_NODELAY, int{1}) ||
      !set_option(fd_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms)) {
    return tl::unexpected(describe(errno));
  }
  return {};
}

void UringStream::start_connect() {
  io_uring_sqe& entry = reactor_.next_entry();
  // liburing takes the address as sockaddr, as connect(2) does.
  io_uring_prep_connect(&entry, fd_.get(), reinterpret_cast<const sockaddr*>(&address_.storage),
                        address_.length_bytes);
  reactor_.start(entry, &connect_);
  connect_in_kernel_ = true;
}

void UringStream::start_send() {
  io_uring_sqe& entry = reactor_.next_entry();
  io_uring_prep_sendmsg(&entry, fd_.get(), &send_.message, MSG_NOSIGNAL | MSG_WAITALL);
  reactor_.start(entry, &send_.operation);
  send_.in_kernel = true;
}

void UringStream::on_connect_done(std::int32_t result) noexcept {
  connect_in_kernel_ = false;
  if (state_ == State::closing) {
    close_if_idle();
  } else if (result < 0) {
    begin_close(describe(-result));
  } else {
    state_ = State::open;
    owner_.on_connected();
  }
}

void UringStream::on_send_done(std::int32_t result) noexcept {
  send_.in_kernel = false;
  if (state_ == State::closing) {
    close_if_idle();
  } else if (result <= 0) {
    begin_close(describe(result == 0 ? EPIPE : -result));
  } else if (send_.advance(static_cast<std::size_t>(result))) {
    start_send();  // older kernels ignore MSG_WAITALL here
  } else {
    owner_.on_sent();
  }
}

void UringStream::on_receive_done(std::int32_t result) noexcept {
  receive_.in_kernel = false;
  if (state_ == State::closing) {
    close_if_idle();
  } else if (result < 0) {
    begin_close(describe(-result));
  } else if (result == 0) {
    begin_close(
        {ErrorCode::unavailable, "connection to " + address_.to_string() + ": end of stream"});
  } else {
    owner_.on_received(static_cast<std::size_t>(result));
  }
}

void UringStream::begin_close(Error error) noexcept {
  state_ = State::closing;
  close_error_ = std::move(error);
  if (fd_.valid()) {
    set_option(fd_.get(), SOL_SOCKET, SO_LINGER, linger{1, 0});
  }
  if (connect_in_kernel_ || send_.in_kernel || receive_.in_kernel) {
    io_uring_sqe& entry = reactor_.next_entry();
    io_uring_prep_cancel_fd(&entry, fd_.get(), IORING_ASYNC_CANCEL_ALL);
    reactor_.start(entry, &cancel_);
    cancel_in_kernel_ = true;
  } else {
    close_task_.schedule();
  }
}

void UringStream::close_if_idle() noexcept {
  // The cancellation has to be back too: it names the fd, whose number somebody else may get.
  if (!connect_in_kernel_ && !send_.in_kernel && !receive_.in_kernel && !cancel_in_kernel_) {
    finish_close();
  }
}

void UringStream::finish_close() noexcept {
  fd_.reset();
  state_ = State::closed;
  const Error error = std::move(*close_error_);
  owner_.on_closed(error);  // may delete this
}

Error UringStream::describe(int errno_value) const {
  const char* what = state_ == State::connecting ? "connect to " : "connection to ";
  return system_error(what + address_.to_string(), errno_value);
}

}  // namespace iscsi_blkback
