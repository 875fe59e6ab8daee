// The raw exchange once more, over io_uring, to see what registered buffers and zero-copy send are
// worth on a socket: each way sends the same requests from one array and receives the replies into
// another. Requests and replies as in raw_load.cpp.
#include <liburing.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "base/unique_fd.h"
#include "bench/client_load.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kRawHeaderBytes = 48;
// The tag of a completion says what it completes.
constexpr std::uint64_t kSendTag = 1;
constexpr std::uint64_t kReceiveTag = 2;

class UringLoad {
 public:
  UringLoad(const Workload& workload, UringBuffers buffers)
      : workload_(workload),
        buffers_(buffers),
        meter_(workload),
        place_(workload.lun_bytes - workload.io_bytes, workload.io_bytes),
        request_bytes_(kRawHeaderBytes + (workload.write ? workload.io_bytes : 0)),
        reply_bytes_(kRawHeaderBytes + (workload.write ? 0 : workload.io_bytes)),
        requests_(request_bytes_ * workload.depth, std::byte{0x5a}),
        replies_(reply_bytes_ * workload.depth),
        started_(workload.depth) {}
  UringLoad(const UringLoad&) = delete;
  UringLoad& operator=(const UringLoad&) = delete;
  ~UringLoad() {
    if (ring_ready_) {
      io_uring_queue_exit(&ring_);
    }
  }

  Result<ClientResult> run() {
    if (auto ready = set_up(); !ready) {
      return tl::unexpected(ready.error());
    }
    meter_.start();
    std::size_t begin = 0;  // of the next reply's bytes in replies_
    std::size_t partial = 0;
    std::uint32_t ready = workload_.depth;
    while (ready != 0 || outstanding_ != 0) {
      if (ready != 0) {
        send_requests(ready);
      }
      start_receive(begin);
      int got = 0;
      if (auto done = wait(got); !done) {
        return tl::unexpected(done.error());
      }
      meter_.wake(system_calls_);
      ready = 0;
      begin = (begin + static_cast<std::size_t>(got)) % replies_.size();
      partial += static_cast<std::size_t>(got);
      while (partial >= reply_bytes_) {
        partial -= reply_bytes_;
        meter_.completed(started_[next_reply_], true);
        next_reply_ = (next_reply_ + 1) % workload_.depth;
        --outstanding_;
        ready += meter_.running() ? 1 : 0;
      }
    }
    return meter_.result();
  }

 private:
  [[nodiscard]] bool fixed() const {
    return buffers_ == UringBuffers::registered || buffers_ == UringBuffers::registered_zero_copy;
  }
  [[nodiscard]] bool zero_copy() const {
    return buffers_ == UringBuffers::zero_copy || buffers_ == UringBuffers::registered_zero_copy;
  }

  Result<void> set_up() {
    Result<UniqueFd> socket = connect_raw(workload_);
    if (!socket) {
      return tl::unexpected(socket.error());
    }
    socket_ = std::move(*socket);
    if (const int result = io_uring_queue_init(
            64, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
        result < 0) {
      return tl::unexpected(system_error("io_uring exchange: io_uring_queue_init", -result));
    }
    ring_ready_ = true;
    io_uring_register_ring_fd(&ring_);
    if (fixed()) {
      const std::array<iovec, 2> all = {
          {{requests_.data(), requests_.size()}, {replies_.data(), replies_.size()}}};
      if (const int result = io_uring_register_buffers(&ring_, all.data(), all.size());
          result < 0) {
        return tl::unexpected(system_error("io_uring exchange: register buffers", -result));
      }
    }
    return {};
  }

  void send_requests(std::uint32_t count) {
    const std::size_t first = (next_reply_ + outstanding_) % workload_.depth;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::size_t slot = (first + i) % workload_.depth;
      store_be64(requests_.data() + slot * request_bytes_, place_.next());
      started_[slot] = meter_.now();
    }
    outstanding_ += count;
    const std::size_t straight = std::min<std::size_t>(count, workload_.depth - first);
    to_send_[0] = {requests_.data() + first * request_bytes_, straight * request_bytes_};
    to_send_[1] = {requests_.data(), (count - straight) * request_bytes_};
    start_send();
  }

  // What is left to be sent, one send at a time: only some of these ways take all of it at once.
  void start_send() {
    if (to_send_[0].empty()) {
      to_send_[0] = std::exchange(to_send_[1], {});
    }
    const std::span<const std::byte> data = to_send_[0];
    if (data.empty()) {
      return;
    }
    constexpr int kFlags = MSG_NOSIGNAL | MSG_WAITALL;
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    switch (buffers_) {
      case UringBuffers::plain:
        io_uring_prep_send(entry, socket_.get(), data.data(), data.size(), kFlags);
        break;
      case UringBuffers::registered:
        io_uring_prep_write_fixed(entry, socket_.get(), data.data(),
                                  static_cast<unsigned>(data.size()), 0, 0);
        break;
      case UringBuffers::zero_copy:
        io_uring_prep_send_zc(entry, socket_.get(), data.data(), data.size(), kFlags, 0);
        break;
      case UringBuffers::registered_zero_copy:
        io_uring_prep_send_zc_fixed(entry, socket_.get(), data.data(), data.size(), kFlags, 0, 0);
        break;
    }
    io_uring_sqe_set_data64(entry, kSendTag);
    ++sends_in_kernel_;
  }

  void start_receive(std::size_t begin) {
    const auto room = static_cast<unsigned>(replies_.size() - begin);
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (fixed()) {
      io_uring_prep_read_fixed(entry, socket_.get(), replies_.data() + begin, room, 0, 1);
    } else {
      io_uring_prep_recv(entry, socket_.get(), replies_.data() + begin, room, 0);
    }
    io_uring_sqe_set_data64(entry, kReceiveTag);
  }

  // Until the receive is done, all is sent and the kernel has let go of its memory.
  Result<void> wait(int& got) {
    bool received = false;
    while (!received || sends_in_kernel_ != 0) {
      ++system_calls_;
      if (const int result = io_uring_submit_and_wait(&ring_, 1); result < 0) {
        return tl::unexpected(system_error("io_uring exchange: io_uring_enter", -result));
      }
      io_uring_cqe* entry = nullptr;
      while (io_uring_peek_cqe(&ring_, &entry) == 0) {
        const io_uring_cqe done = *entry;
        io_uring_cqe_seen(&ring_, entry);
        const bool memory_released = (done.flags & IORING_CQE_F_NOTIF) != 0;
        if (!memory_released && done.res <= 0) {
          return tl::unexpected(
              system_error("io_uring exchange", done.res == 0 ? EPIPE : -done.res));
        }
        if (done.user_data == kReceiveTag) {
          received = true;
          got = done.res;
          continue;
        }
        if ((done.flags & IORING_CQE_F_MORE) == 0) {
          --sends_in_kernel_;
        }
        if (!memory_released) {
          to_send_[0] = to_send_[0].subspan(static_cast<std::size_t>(done.res));
          start_send();
        }
      }
    }
    return {};
  }

  const Workload& workload_;
  const UringBuffers buffers_;
  LoadMeter meter_;
  RandomPlace place_;
  const std::size_t request_bytes_;
  const std::size_t reply_bytes_;
  std::vector<std::byte> requests_;
  std::vector<std::byte> replies_;
  std::vector<TimePoint> started_;
  UniqueFd socket_;
  io_uring ring_{};
  bool ring_ready_ = false;
  std::size_t next_reply_ = 0;
  std::size_t outstanding_ = 0;
  std::array<std::span<const std::byte>, 2> to_send_;
  unsigned sends_in_kernel_ = 0;  // whose memory it may still read
  std::uint64_t system_calls_ = 0;
};

}  // namespace

Result<ClientResult> run_uring(const Workload& workload, UringBuffers buffers) {
  UringLoad load(workload, buffers);
  return load.run();
}

}  // namespace iscsi_blkback
