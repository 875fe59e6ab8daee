#include "bench/null_target.h"

#include <fmt/format.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/byte_order.h"
#include "bench/child_process.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kInputBytes = 2 * 1024 * 1024;
constexpr unsigned kRingEntries = 512;

// What a completion belongs to: an object's address, and in its low bits what was done.
enum class Event : std::uintptr_t { accepted = 0, received = 1, sent = 2 };
constexpr std::uintptr_t kEventMask = 3;

void mark(io_uring_sqe& entry, void* object, Event event) {
  io_uring_sqe_set_data64(
      &entry, reinterpret_cast<std::uintptr_t>(object) | static_cast<std::uintptr_t>(event));
}

// Of this process, for its signal handler.
NullTarget* target_of_process = nullptr;

TimePoint clock_now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return TimePoint(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

}  // namespace

struct NullTarget::Ring {
  io_uring ring{};
  bool initialized = false;
  ~Ring() {
    if (initialized) {
      io_uring_queue_exit(&ring);
    }
  }
  io_uring_sqe& next_entry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring);
    while (entry == nullptr) {
      io_uring_submit(&ring);
      entry = io_uring_get_sqe(&ring);
    }
    return *entry;
  }
};

struct alignas(8) NullTarget::Connection {
  Connection(const NullTargetSettings& settings, SimLun& lun, std::uint16_t group_tag,
             std::uint16_t tsih, UniqueFd socket)
      : protocol(settings, lun, group_tag, tsih), fd(std::move(socket)), input(kInputBytes) {}

  NullTargetConnection protocol;
  UniqueFd fd;
  std::vector<std::byte> input;
  std::size_t begin = 0;  // [begin, end) is not consumed yet
  std::size_t end = 0;
  bool receiving = false;
  std::array<iovec, 2> receive_parts{};
  msghdr receive_message{};
  ReplyBatch& replies = protocol.replies;
  std::size_t sent_parts = 0;
  bool sending = false;
  msghdr send_message{};
  bool ending = false;
};

NullTargetOptions null_target_defaults() {
  NullTargetOptions options;
  TargetOptions& protocol = options.settings.protocol;
  protocol.name = "iqn.2026-01.local.iscsi-blkback:null";
  protocol.max_recv_data_segment_length = 262144;
  protocol.max_burst_length = 1024 * 1024;
  protocol.first_burst_length = 262144;
  protocol.window = 4096;
  protocol.power_on_unit_attention = false;
  protocol.header_digest = protocol.data_digest = true;  // for who offers them
  options.lun.block_count = 1024 * 1024;
  return options;
}

NullTarget::NullTarget(const NullTargetOptions& options)
    : options_(options), lun_(options.lun), ring_(std::make_unique<Ring>()) {}

NullTarget::~NullTarget() = default;

Result<std::unique_ptr<NullTarget>> NullTarget::create(const NullTargetOptions& options) {
  std::unique_ptr<NullTarget> target(new NullTarget(options));
  if (auto opened = target->open(); !opened) {
    return tl::unexpected(opened.error());
  }
  return target;
}

Result<void> NullTarget::open() {
  for (std::uint16_t portal = 0; portal < options_.portals; ++portal) {
    auto listener = std::make_unique<Listener>();
    if (!options_.lun.port_groups.empty()) {
      listener->group_tag = static_cast<std::uint16_t>(portal + 1);
    }
    listener->fd.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    setsockopt(listener->fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port =
        htons(static_cast<std::uint16_t>(options_.port == 0 ? 0 : options_.port + portal));
    socklen_t length = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (!listener->fd.valid() || bind(listener->fd.get(), generic, length) != 0 ||
        listen(listener->fd.get(), 64) != 0 ||
        getsockname(listener->fd.get(), generic, &length) != 0) {
      return tl::unexpected(system_error("cannot listen on 127.0.0.1", errno));
    }
    ports_.push_back(ntohs(address.sin_port));
    listeners_.push_back(std::move(listener));
  }
  return {};
}

void NullTarget::run(const std::atomic<bool>& stop) {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (io_uring_queue_init_params(kRingEntries, &ring_->ring, &parameters) < 0) {
    // Before Linux 6.1.
    parameters = io_uring_params{};
    const int result = io_uring_queue_init_params(kRingEntries, &ring_->ring, &parameters);
    if (result < 0) {
      violations_.push_back(system_error("no io_uring", -result).message);
      return;
    }
  }
  ring_->initialized = true;
  io_uring_register_ring_fd(&ring_->ring);
  for (const auto& listener : listeners_) {
    accept_more(*listener);
  }
  while (!stop.load(std::memory_order_relaxed)) {
    const bool waits = std::any_of(connections_.begin(), connections_.end(),
                                   [](const auto& c) { return c->protocol.waits(); });
    if (waits || clock_now() - last_event_ < options_.busy_poll) {
      io_uring_submit_and_get_events(&ring_->ring);
    } else {
      __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = 100'000'000};
      io_uring_cqe* first = nullptr;
      io_uring_submit_and_wait_timeout(&ring_->ring, &first, 1, &timeout, nullptr);
    }
    now_ = clock_now();
    if (swap_wanted_.exchange(false, std::memory_order_relaxed)) {
      swap_states();
    }
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_->ring, &cqe) == 0) {
      last_event_ = now_;
      const std::uintptr_t data = io_uring_cqe_get_data64(cqe);
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_->ring, cqe);
      void* object = reinterpret_cast<void*>(data & ~kEventMask);
      switch (static_cast<Event>(data & kEventMask)) {
        case Event::accepted:
          on_accepted(*static_cast<Listener*>(object), result);
          break;
        case Event::received:
          on_received(*static_cast<Connection*>(object), result);
          break;
        case Event::sent:
          on_sent(*static_cast<Connection*>(object), result);
          break;
      }
    }
    for (const auto& connection : connections_) {
      if (connection->protocol.waits() && !connection->sending) {
        serve(*connection);
      }
    }
    std::erase_if(connections_, [](const auto& connection) {
      return connection->ending && !connection->receiving && !connection->sending;
    });
  }
}

// A page fault costs more than a request does. What a fork shares with its parent, empty yet, is
// given back for memory of this process alone, in large pages, all of it there from the start.
void NullTarget::take_memory() {
  constexpr std::uintptr_t kLargePage = 2 * 1024 * 1024;
  const auto start = reinterpret_cast<std::uintptr_t>(lun_.medium().data());
  const std::uintptr_t first = (start + kLargePage - 1) / kLargePage * kLargePage;
  const std::uintptr_t end = (start + lun_.medium().size()) / kLargePage * kLargePage;
  if (first < end) {
    auto* const base = reinterpret_cast<void*>(first);
    madvise(base, end - first, MADV_DONTNEED);
    madvise(base, end - first, MADV_HUGEPAGE);
    madvise(base, end - first, MADV_POPULATE_WRITE);
  }
}

void NullTarget::accept_more(Listener& listener) {
  io_uring_sqe& entry = ring_->next_entry();
  io_uring_prep_accept(&entry, listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC);
  mark(entry, &listener, Event::accepted);
}

void NullTarget::on_accepted(Listener& listener, int fd) {
  accept_more(listener);
  if (fd < 0) {
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  connections_.push_back(std::make_unique<Connection>(options_.settings, lun_, listener.group_tag,
                                                      next_tsih_++, UniqueFd(fd)));
  receive_more(*connections_.back());
}

void NullTarget::receive_more(Connection& connection) {
  if (connection.receiving || connection.ending) {
    return;
  }
  if (connection.begin == connection.end) {
    connection.begin = connection.end = 0;
  } else if (connection.end == connection.input.size()) {
    if (connection.begin == 0) {
      return;  // full: goes on when the replies are sent
    }
    std::memmove(connection.input.data(), connection.input.data() + connection.begin,
                 connection.end - connection.begin);
    connection.end -= connection.begin;
    connection.begin = 0;
  }
  io_uring_sqe& entry = ring_->next_entry();
  const iovec tail{.iov_base = connection.input.data() + connection.end,
                   .iov_len = connection.input.size() - connection.end};
  const std::span<std::byte> direct = connection.protocol.direct();
  if (direct.empty()) {
    io_uring_prep_recv(&entry, connection.fd.get(), tail.iov_base, tail.iov_len, 0);
  } else {
    connection.receive_parts = {{{direct.data(), direct.size()}, tail}};
    connection.receive_message.msg_iov = connection.receive_parts.data();
    connection.receive_message.msg_iovlen = connection.receive_parts.size();
    io_uring_prep_recvmsg(&entry, connection.fd.get(), &connection.receive_message, 0);
  }
  mark(entry, &connection, Event::received);
  connection.receiving = true;
}

void NullTarget::on_received(Connection& connection, int result) {
  connection.receiving = false;
  if (result <= 0) {
    end(connection);
    return;
  }
  auto count = static_cast<std::size_t>(result);
  if (const std::size_t direct = connection.protocol.direct().size(); direct != 0) {
    // Its reply, if there is one, waits in the batch for the rest of what has arrived.
    const std::size_t taken = std::min(direct, count);
    connection.protocol.received_direct(taken, now_);
    count -= taken;
  }
  connection.end += count;
  serve(connection);
  receive_more(connection);
}

void NullTarget::serve(Connection& connection) {
  if (connection.sending || connection.ending) {
    return;
  }
  if (options_.raw_request_bytes != 0) {
    serve_raw(connection);
    return;
  }
  NullTargetConnection& protocol = connection.protocol;
  do {
    const bool was_logged_in = protocol.logged_in();
    protocol.answer_due(now_);
    connection.begin += protocol.consume(
        std::span(connection.input).subspan(connection.begin, connection.end - connection.begin),
        !connection.receiving, now_);
    if (protocol.logged_in() && !was_logged_in) {
      reinstate(connection);
    }
  } while (options_.settings.one_at_a_time && !connection.replies.empty() && send_now(connection));
  if (!connection.replies.empty()) {
    send_more(connection);
  } else if (protocol.finished()) {
    end(connection);
  }
}

// One reply with a system call of its own; false: not all of it found room.
bool NullTarget::send_now(Connection& connection) {
  msghdr message{};
  message.msg_iov = connection.replies.parts().data();
  message.msg_iovlen = std::min<std::size_t>(connection.replies.parts().size(), 1024);
  const ssize_t sent = sendmsg(connection.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent > 0 && !drop_sent(connection, static_cast<std::size_t>(sent));
}

// A request's first eight bytes say where its data are in the medium.
void NullTarget::serve_raw(Connection& connection) {
  const std::size_t data_bytes =
      std::max(options_.raw_request_bytes, options_.raw_reply_bytes) - kBhsBytes;
  while (connection.end - connection.begin >= options_.raw_request_bytes &&
         !connection.replies.enough()) {
    const std::byte* request = connection.input.data() + connection.begin;
    std::byte* data =
        lun_.medium().data() + load_be64(request) % (lun_.medium().size() - data_bytes);
    std::memcpy(connection.replies.stage(kBhsBytes), request, kBhsBytes);
    if (options_.raw_reply_bytes > kBhsBytes) {
      connection.replies.refer(data, data_bytes);
    } else {
      std::memcpy(data, request + kBhsBytes, data_bytes);
    }
    connection.begin += options_.raw_request_bytes;
  }
  if (!connection.replies.empty()) {
    send_more(connection);
  }
}

void NullTarget::send_more(Connection& connection) {
  const std::span<iovec> parts = connection.replies.parts().subspan(connection.sent_parts);
  connection.send_message.msg_iov = parts.data();
  connection.send_message.msg_iovlen = std::min<std::size_t>(parts.size(), 1024);
  io_uring_sqe& entry = ring_->next_entry();
  io_uring_prep_sendmsg(&entry, connection.fd.get(), &connection.send_message,
                        MSG_NOSIGNAL | MSG_WAITALL);
  mark(entry, &connection, Event::sent);
  connection.sending = true;
}

void NullTarget::on_sent(Connection& connection, int result) {
  connection.sending = false;
  if (result <= 0) {
    end(connection);
    return;
  }
  if (drop_sent(connection, static_cast<std::size_t>(result))) {
    send_more(connection);
    return;
  }
  serve(connection);
  receive_more(connection);
}

// So many bytes of the replies are sent; whether some are left.
bool NullTarget::drop_sent(Connection& connection, std::size_t count) {
  const std::span<iovec> parts = connection.replies.parts();
  while (connection.sent_parts < parts.size() && count >= parts[connection.sent_parts].iov_len) {
    count -= parts[connection.sent_parts++].iov_len;
  }
  if (connection.sent_parts < parts.size()) {
    iovec& part = parts[connection.sent_parts];
    part.iov_base = static_cast<std::byte*>(part.iov_base) + count;
    part.iov_len -= count;
    return true;
  }
  connection.replies.clear();
  connection.sent_parts = 0;
  return false;
}

void NullTarget::end(Connection& connection) {
  if (connection.ending) {
    return;
  }
  connection.ending = true;
  if (!connection.protocol.violation().empty()) {
    violations_.push_back(connection.protocol.violation());
    std::fprintf(stderr, "null target: %s\n", connection.protocol.violation().c_str());
  }
  shutdown(connection.fd.get(), SHUT_RDWR);  // what is in the kernel comes back
}

void NullTarget::reinstate(const Connection& successor) {
  for (const auto& other : connections_) {
    if (other.get() != &successor && other->protocol.same_nexus(successor.protocol)) {
      end(*other);
    }
  }
}

void NullTarget::swap_states() {
  constexpr std::uint16_t kAsymmetricAccessStateChanged = 0x2a06;
  std::vector<TargetPortGroup>& groups = lun_.options.port_groups;
  for (std::size_t index = 1; index < groups.size(); ++index) {
    std::swap(groups[index - 1].state, groups[index].state);
  }
  for (const auto& connection : connections_) {
    connection->protocol.add_unit_attention(kAsymmetricAccessStateChanged);
  }
}

Result<std::unique_ptr<NullTargetProcess>> NullTargetProcess::start(
    const NullTargetOptions& options, int core) {
  auto target = NullTarget::create(options);
  if (!target) {
    return tl::unexpected(target.error());
  }
  const auto child = start_child(core, [&target](int ready) {
    (*target)->take_memory();
    target_of_process = target->get();
    signal(SIGUSR1, [](int) { target_of_process->swap_port_groups(); });
    close(ready);
    const std::atomic<bool> never = false;
    (*target)->run(never);
  });
  if (!child) {
    return tl::unexpected(child.error());
  }
  std::unique_ptr<NullTargetProcess> started(new NullTargetProcess);
  started->ports_ = (*target)->ports();
  started->process_ = child->id;
  // Its memory may take seconds, which are no client's.
  char nothing = 0;
  while (read(child->output.get(), &nothing, 1) < 0 && errno == EINTR) {
  }
  return started;
}

NullTargetProcess::~NullTargetProcess() {
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
}

}  // namespace iscsi_blkback
