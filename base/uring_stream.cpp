#include "base/uring_stream.h"

#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/link_watch.h"

namespace iscsi_blkback {
namespace {

// A send up to this size mostly finds room in the socket's buffer. The kernel tells nothing of one
// that did, and makes a completion for a larger one: among so much data its cost is nothing.
constexpr std::size_t kAtOnceBytes = 192 * 1024;

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
  left_bytes = 0;
  for (const iovec& part : of) {
    left_bytes += part.iov_len;
  }
  ISCSI_BLKBACK_ASSERT(advance(0));  // at least one byte
}

bool UringStream::Transfer::advance(std::size_t count) {
  left_bytes -= count;
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

UringStream::UringStream(UringReactor& reactor, Owner& owner, const SocketAddress& address)
    : reactor_(reactor),
      owner_(owner),
      address_(address),
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
}

UringStream::UringStream(UringReactor& reactor, UniqueFd connected, Owner& owner)
    : UringStream(reactor, owner, SocketAddress()) {
  fd_ = std::move(connected);
  state_ = State::open;
}

UringStream::UringStream(UringReactor& reactor, const ConnectOptions& options, Owner& owner)
    : UringStream(reactor, owner, options.address) {
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
    // What is sent at once is heard of with whatever comes next, which without a receive may be nothing.
    if (send_.left_bytes <= kAtOnceBytes && receive_.in_kernel && reactor_.can_start_at_once()) {
      start_send_at_once();
    } else {
      start_send();
    }
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
  const bool emptied = (receive_.operation.flags & IORING_CQE_F_SOCK_NONEMPTY) == 0;
  // Saves an attempt that finds nothing; and an attempt would take what is below the mark.
  if ((emptied && received_in_turn_ == reactor_.turn_time()) || low_water_bytes_ > 1) {
    entry.ioprio |= IORING_RECVSEND_POLL_FIRST;
  }
  reactor_.start_receive(entry, receive_.operation);
  receive_.in_kernel = true;
}

void UringStream::set_low_water(std::size_t bytes) noexcept {
  if (state_ == State::open && bytes != low_water_bytes_ &&
      set_option(fd_.get(), SOL_SOCKET, SO_RCVLOWAT, static_cast<int>(bytes))) {
    low_water_bytes_ = bytes;
  }
}

Duration UringStream::peer_silence() noexcept {
  if (state_ != State::open) {
    return Duration::zero();
  }
  if (!std::exchange(asks_peer_, true)) {
    // The shortest that the kernel takes. What gives up a peer that is gone is TCP_USER_TIMEOUT.
    static_cast<void>(set_option(fd_.get(), IPPROTO_TCP, TCP_KEEPIDLE, int{1}) &&
                      set_option(fd_.get(), IPPROTO_TCP, TCP_KEEPINTVL, int{1}) &&
                      set_option(fd_.get(), SOL_SOCKET, SO_KEEPALIVE, int{1}));
  }
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) {
    return Duration::zero();
  }
  // Any segment of the peer's confirms something (tcp_ack() of Linux), those with data too.
  return std::chrono::milliseconds(info.tcpi_last_ack_recv);
}

void UringStream::reset() noexcept {
  if (state_ == State::connecting || state_ == State::open) {
    begin_close({ErrorCode::unavailable, "connection to " + peer() + " was reset by this side"});
  }
}

void UringStream::link_lost(int interface_index) noexcept {
  const bool lost = interface_index == LinkWatch::kAnyInterface
                        ? interface_index_ != 0 && !has_link(interface_index_)
                        : interface_index == interface_index_;
  if (state_ == State::open && lost) {
    begin_close({ErrorCode::unavailable, "connection to " + address_.to_string() +
                                             ": the network interface has lost its link"});
  }
}

Result<void> UringStream::open_socket(const ConnectOptions& options) {
  // Blocking on purpose: io_uring gives EAGAIN back for a non-blocking file instead of waiting.
  fd_.reset(socket(address_.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd_.valid()) {
    return tl::unexpected(describe(errno));
  }
  if (Result<void> bound = bind_socket(options.interface_binding); !bound) {
    return fail(bound.error().code,
                "connect to " + address_.to_string() + ": " + bound.error().message);
  }
  const auto user_timeout_ms = static_cast<unsigned>(options.tcp_user_timeout.count());
  // From the first moment on: a process that is killed closes its sockets, too, and what it had not
  // sent yet must not be sent by the kernel afterwards.
  if (!set_option(fd_.get(), SOL_SOCKET, SO_LINGER, linger{1, 0}) ||
      !set_option(fd_.get(), IPPROTO_TCP, TCP_NODELAY, int{1}) ||
      !set_option(fd_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms)) {
    return tl::unexpected(describe(errno));
  }
  return {};
}

Result<void> UringStream::bind_socket(const InterfaceBinding& binding) {
  std::string name = binding.name;
  if (!binding.hardware_address.empty()) {
    Result<std::string> found = find_interface(binding.hardware_address);
    if (!found) {
      return tl::unexpected(found.error());
    }
    if (!name.empty() && name != *found) {
      return fail(ErrorCode::not_found, "the hardware address " + binding.hardware_address +
                                            " is that of " + *found + ", not of " + name);
    }
    name = std::move(*found);
  }
  if (!name.empty() && setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, name.data(),
                                  static_cast<socklen_t>(name.size())) != 0) {
    return tl::unexpected(system_error("interface " + name, errno));
  }
  if (binding.address.empty()) {
    return {};
  }
  const Result<SocketAddress> source = SocketAddress::parse(binding.address, 0);
  if (!source) {
    return tl::unexpected(source.error());
  }
  // The port is chosen when the connection is made, so that one can serve several targets.
  if (!set_option(fd_.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, int{1}) ||
      bind(fd_.get(), reinterpret_cast<const sockaddr*>(&source->storage), source->length_bytes) !=
          0) {
    return tl::unexpected(system_error("source address " + binding.address, errno));
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

// What fits into the socket's buffer is sent while the kernel takes the entry.
void UringStream::start_send_at_once() {
  io_uring_sqe& entry = reactor_.next_entry();
  if (send_.message.msg_iovlen == 1) {
    const iovec& part = *send_.message.msg_iov;
    io_uring_prep_send(&entry, fd_.get(), part.iov_base, part.iov_len,
                       MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT);
  } else {
    io_uring_prep_sendmsg(&entry, fd_.get(), &send_.message,
                          MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT);
  }
  reactor_.start_at_once(entry, send_.operation, static_cast<std::int32_t>(send_.left_bytes));
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
    interface_index_ = interface_of_socket(fd_.get());
    reactor_.watch_link_of(*this);
    owner_.on_connected();
  }
}

void UringStream::on_send_done(std::int32_t result) noexcept {
  send_.in_kernel = false;
  if (state_ == State::closing) {
    close_if_idle();
  } else if (result == -EAGAIN) {
    start_send();  // the buffer is full
  } else if (result <= 0) {
    begin_close(describe(result == 0 ? EPIPE : -result));
  } else if (send_.advance(static_cast<std::size_t>(result))) {
    start_send();  // the rest; older kernels ignore MSG_WAITALL here
  } else {
    owner_.on_sent();
  }
}

void UringStream::on_receive_done(std::int32_t result) noexcept {
  receive_.in_kernel = false;
  received_in_turn_ = reactor_.turn_time();
  if (state_ == State::closing) {
    close_if_idle();
  } else if (result < 0) {
    begin_close(describe(-result));
  } else if (result == 0) {
    begin_close({ErrorCode::unavailable, "connection to " + peer() + ": end of stream"});
  } else {
    owner_.on_received(static_cast<std::size_t>(result));
  }
}

void UringStream::begin_close(Error error) noexcept {
  state_ = State::closing;
  close_error_ = std::move(error);
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
  if (linked()) {
    unlink();
  }
  const Error error = std::move(*close_error_);
  owner_.on_closed(error);  // may delete this
}

Error UringStream::describe(int errno_value) const {
  const char* what = state_ == State::connecting ? "connect to " : "connection to ";
  return system_error(what + peer(), errno_value);
}

std::string UringStream::peer() const {
  return address_.length_bytes == 0 ? "a local client" : address_.to_string();
}

}  // namespace iscsi_blkback
