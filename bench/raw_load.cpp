// The floor: the bytes of a read or write without iSCSI, on one blocking socket. A request is 48
// bytes, its reply 48 bytes and the data; replies come in the order of requests, so that the data
// go from the socket to their buffers without a copy in between.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "base/byte_stream.h"
#include "base/unique_fd.h"
#include "bench/client_load.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kHeaderBytes = 48;
constexpr std::size_t kMaxReceiveParts = 512;

class RawLoad {
 public:
  explicit RawLoad(const Workload& workload)
      : workload_(workload),
        meter_(workload),
        place_(workload.lun_bytes - workload.io_bytes, workload.io_bytes),
        request_bytes_(kHeaderBytes + (workload.write ? workload.io_bytes : 0)),
        reply_parts_(workload.write ? 1 : 2),
        reply_bytes_(kHeaderBytes + (workload.write ? 0 : workload.io_bytes)) {}

  Result<ClientResult> run() {
    Result<UniqueFd> socket = connect_raw(workload_);
    if (!socket) {
      return tl::unexpected(socket.error());
    }
    socket_ = std::move(*socket);
    const std::uint32_t depth = workload_.depth;
    requests_.resize(request_bytes_ * depth, std::byte{0x5a});
    headers_.resize(kHeaderBytes * depth);
    data_.resize(std::size_t{workload_.io_bytes} * depth);
    started_.resize(depth);
    // Twice around, so that what a receive may fill is contiguous in this array.
    for (std::uint32_t index = 0; index < 2 * depth; ++index) {
      const std::size_t slot = index % depth;
      layout_.push_back(
          {.iov_base = headers_.data() + slot * kHeaderBytes, .iov_len = kHeaderBytes});
      if (!workload_.write) {
        layout_.push_back(
            {.iov_base = data_.data() + slot * workload_.io_bytes, .iov_len = workload_.io_bytes});
      }
    }
    meter_.start();
    std::uint32_t ready = depth;  // to be sent
    while (ready != 0 || outstanding_ != 0) {
      if (ready != 0 && !send_requests(ready)) {
        return tl::unexpected(system_error("raw exchange: send", errno));
      }
      const ssize_t got = receive();
      if (got <= 0) {
        return tl::unexpected(system_error("raw exchange: receive", errno));
      }
      meter_.wake(system_calls_);
      ready = 0;
      partial_ += static_cast<std::size_t>(got);
      while (partial_ >= reply_bytes_) {
        partial_ -= reply_bytes_;
        meter_.completed(started_[next_reply_], true);
        next_reply_ = (next_reply_ + 1) % depth;
        --outstanding_;
        ready += meter_.running() ? 1 : 0;
      }
    }
    return meter_.result();
  }

 private:
  // The next count requests; their slots are contiguous but for the wrap.
  bool send_requests(std::uint32_t count) {
    const std::size_t first = (next_reply_ + outstanding_) % workload_.depth;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::size_t slot = (first + i) % workload_.depth;
      store_be64(requests_.data() + slot * request_bytes_, place_.next());
      started_[slot] = meter_.now();
    }
    const std::size_t straight = std::min<std::size_t>(count, workload_.depth - first);
    std::array<iovec, 2> parts = {
        {{requests_.data() + first * request_bytes_, straight * request_bytes_},
         {requests_.data(), (count - straight) * request_bytes_}}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count == straight ? 1 : 2;
    outstanding_ += count;
    ++system_calls_;
    // Blocking: a send takes all of it.
    return sendmsg(socket_.get(), &message, MSG_NOSIGNAL) ==
           static_cast<ssize_t>(count * request_bytes_);
  }

  ssize_t receive() {
    std::size_t first = next_reply_ * reply_parts_;
    const std::size_t end = std::min(first + outstanding_ * reply_parts_, first + kMaxReceiveParts);
    std::size_t skip = partial_;
    while (skip >= layout_[first].iov_len) {
      skip -= layout_[first++].iov_len;
    }
    iovec& begun = layout_[first];
    const iovec whole = begun;
    begun.iov_base = static_cast<std::byte*>(begun.iov_base) + skip;
    begun.iov_len -= skip;
    msghdr message{};
    message.msg_iov = &begun;
    message.msg_iovlen = end - first;
    ++system_calls_;
    const ssize_t got = recvmsg(socket_.get(), &message, 0);
    begun = whole;
    return got;
  }

  const Workload& workload_;
  LoadMeter meter_;
  RandomPlace place_;
  const std::size_t request_bytes_;
  const std::size_t reply_parts_;
  const std::size_t reply_bytes_;
  UniqueFd socket_;
  std::vector<std::byte> requests_;
  std::vector<std::byte> headers_;
  std::vector<std::byte> data_;
  std::vector<iovec> layout_;
  std::vector<TimePoint> started_;
  std::size_t next_reply_ = 0;
  std::size_t outstanding_ = 0;
  std::size_t partial_ = 0;  // bytes of the next reply that have arrived
  std::uint64_t system_calls_ = 0;
};

}  // namespace

Result<UniqueFd> connect_raw(const Workload& workload) {
  const SocketAddress address = SocketAddress::parse("127.0.0.1", workload.ports.front()).value();
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid() || connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage),
                             address.length_bytes) != 0) {
    return tl::unexpected(system_error("raw exchange: connect", errno));
  }
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

Result<ClientResult> run_raw(const Workload& workload) {
  RawLoad load(workload);
  return load.run();
}

}  // namespace iscsi_blkback
