// What only the real reactor has: threads, a kernel that refuses io_uring, small queues, file
// descriptors.
#include "base/uring_reactor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

std::unique_ptr<UringReactor> make_reactor(const UringReactor::Options& options = {}) {
  Result<std::unique_ptr<UringReactor>> created = UringReactor::create(options);
  if (!created) {
    std::fprintf(stderr, "%s\n", created.error().message.c_str());
    std::abort();
  }
  return std::move(*created);
}

template <class Predicate>
[[nodiscard]] bool run_until(UringReactor& reactor, Predicate&& predicate) {
  const TimePoint end = reactor.now() + 60s;
  while (!predicate()) {
    if (reactor.now() > end) {
      return false;
    }
    reactor.run_once(10ms);
  }
  return true;
}

TEST(UringReactor, RunsWhatOtherThreadsPostInTheOrderOfEachThread) {
  const auto reactor = make_reactor();
  constexpr int kThreads = 4, kTasks = 500;
  std::array<int, kThreads> next{};
  int done = 0;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kTasks; ++i) {
        reactor->post([&, thread, i] {
          EXPECT_EQ(next[thread]++, i);
          if (++done == kThreads * kTasks) {
            reactor->stop();
          }
        });
      }
    });
  }
  reactor->run();
  EXPECT_EQ(done, kThreads * kTasks);
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(UringReactor, IsMadeOnOneThreadRunOnAnotherAndStoppedFromOutside) {
  const auto reactor = make_reactor();
  int turns = 0;
  Timer timer(
      *reactor, [](void* counter) noexcept { ++*static_cast<int*>(counter); }, &turns);
  timer.start_after(1ms);
  std::thread thread([&] { reactor->run(); });
  std::optional<bool> seen;
  std::mutex mutex;
  std::condition_variable changed;
  reactor->post([&] {
    const std::lock_guard lock(mutex);
    seen = true;
    changed.notify_one();
  });
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, 60s, [&] { return seen.has_value(); }));
  }
  reactor->stop();
  thread.join();
}

// A timer of run(), which waits without a limit.
struct RunTimer {
  RunTimer(UringReactor& reactor, std::vector<int>& order_in, int number_in)
      : order(order_in), number(number_in), timer(reactor, &RunTimer::fired, this) {}
  static void fired(void* self) noexcept {
    auto& fired = *static_cast<RunTimer*>(self);
    fired.order.push_back(fired.number);
    if (fired.then) {
      fired.then();
    }
  }
  std::vector<int>& order;
  int number;
  std::function<void()> then;
  Timer timer;
};

TEST(UringReactor, AWaitWithoutALimitEndsForTimers) {
  const auto reactor = make_reactor();
  std::vector<int> order;
  RunTimer first(*reactor, order, 1), second(*reactor, order, 2), last(*reactor, order, 3);
  RunTimer stopped(*reactor, order, 4);
  last.timer.start_after(1h);
  stopped.timer.start_after(8ms);
  first.timer.start_after(4ms);
  first.then = [&] {
    stopped.timer.stop();
    second.timer.start_after(12ms);  // later than what the kernel knows of
    last.timer.start_after(30ms);    // earlier than it was
  };
  last.then = [&] { reactor->stop(); };
  const TimePoint start = reactor->now();
  reactor->run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(reactor->now() - start, 34ms);
}

TEST(UringReactor, StopBeforeRunEndsItAtOnceAndItRunsAgain) {
  const auto reactor = make_reactor();
  reactor->stop();
  reactor->run();
  bool ran = false;
  reactor->post([&] {
    ran = true;
    reactor->stop();
  });
  reactor->run();
  EXPECT_TRUE(ran);
}

TEST(UringReactor, MoreOperationsThanItsQueuesHold) {
  UringReactor::Options options;
  options.submission_entries = 2;
  options.completion_entries = 4;
  for (const bool deferred : {true, false}) {
    options.deferred_task_run = deferred;
    const auto reactor = make_reactor(options);
    constexpr int kWatches = 200;
    int calls = 0;
    std::vector<UniqueFd> fds;
    std::vector<std::unique_ptr<FdWatch>> watches;
    for (int i = 0; i < kWatches; ++i) {
      fds.emplace_back(eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
      watches.push_back(reactor->watch_readable(
          fds.back().get(), [](void* counter) noexcept { ++*static_cast<int*>(counter); }, &calls));
    }
    EXPECT_TRUE(run_until(*reactor, [&] { return calls >= 3 * kWatches; }));
    watches.clear();
    calls = 0;
    reactor->run_once(1ms);
    EXPECT_EQ(calls, 0);
  }
}

// In a child: a filter as container runtimes have it, then what create() says.
[[noreturn]] void create_with_syscall_refused(int errno_value) {
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errno_value)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{program.size(), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    std::perror("seccomp");
    std::_Exit(2);
  }
  const auto created = UringReactor::create();
  std::fprintf(stderr, "%s: %s\n", created ? "created" : to_string(created.error().code),
               created ? "" : created.error().message.c_str());
  std::_Exit(created ? 1 : 0);
}

// How an operation ends that is none of the reactor's own.
std::int32_t result_of(UringReactor& reactor, const std::function<void(io_uring_sqe&)>& prepare) {
  std::optional<std::int32_t> result;
  UringOperation operation{[](void* slot, std::int32_t value) noexcept {
                             *static_cast<std::optional<std::int32_t>*>(slot) = value;
                           },
                           &result};
  io_uring_sqe& entry = reactor.next_entry();
  prepare(entry);
  reactor.start(entry, &operation);
  EXPECT_TRUE(run_until(reactor, [&] { return result.has_value(); }));
  return result.value_or(0);
}

// seccomp does not see what a ring does.
TEST(UringReactor, ItsRingDoesNothingButWhatTheReactorUses) {
  const auto reactor = make_reactor();
  EXPECT_EQ(result_of(*reactor,
                      [](io_uring_sqe& entry) {
                        io_uring_prep_openat(&entry, AT_FDCWD, "/dev/null", O_RDONLY, 0);
                      }),
            -EACCES);
  char byte = 0;
  EXPECT_EQ(
      result_of(*reactor, [&](io_uring_sqe& entry) { io_uring_prep_read(&entry, 0, &byte, 0, 0); }),
      -EACCES);
  EXPECT_EQ(result_of(*reactor,
                      [](io_uring_sqe& entry) {
                        io_uring_prep_unlinkat(&entry, AT_FDCWD, "/nonexistent", 0);
                      }),
            -EACCES);
  EXPECT_EQ(result_of(*reactor, [](io_uring_sqe& entry) { io_uring_prep_nop(&entry); }), -EACCES);
  // A linked entry could wait for ever, and hold up the next ones.
  EXPECT_EQ(result_of(*reactor,
                      [](io_uring_sqe& entry) {
                        io_uring_prep_poll_add(&entry, STDOUT_FILENO, POLLOUT);
                        entry.flags |= IOSQE_IO_DRAIN;
                      }),
            -EACCES);
}

TEST(UringReactor, SaysSoWhenTheKernelHasNoIoUring) {
  EXPECT_EXIT(create_with_syscall_refused(ENOSYS), testing::ExitedWithCode(0),
              "unsupported: io_uring is not there.*seccomp");
}

TEST(UringReactor, SaysSoWhenIoUringIsForbidden) {
  EXPECT_EXIT(create_with_syscall_refused(EPERM), testing::ExitedWithCode(0),
              "permission denied: io_uring is forbidden.*(seccomp|io_uring_disabled)");
}

TEST(UringReactor, SaysSoWhenTheKernelIsTooOld) {
  EXPECT_EXIT(create_with_syscall_refused(EINVAL), testing::ExitedWithCode(0),
              "unsupported: this kernel's io_uring is too old");
}

TEST(UringReactor, SaysSoWhenMemoryIsNotEnough) {
  EXPECT_EXIT(create_with_syscall_refused(ENOMEM), testing::ExitedWithCode(0),
              "exhausted: no memory for an io_uring");
}

std::size_t open_fds() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(fds), end(fds)));
}

struct ClosedRecorder final : ByteStream::Owner {
  void on_connected() noexcept override { connected = true; }
  void on_sent() noexcept override {}
  void on_received(std::size_t) noexcept override {}
  void on_closed(const Error& why) noexcept override {
    closed = why;
    fds_at_close = open_fds();
    stream.reset();
  }
  std::unique_ptr<ByteStream> stream;
  bool connected = false;
  std::optional<Error> closed;
  std::size_t fds_at_close = 0;
};

TEST(UringStream, RefusesAnUnknownInterface) {
  const auto reactor = make_reactor();
  ClosedRecorder recorder;
  ConnectOptions options;
  options.address = SocketAddress::parse("127.0.0.1", 1).value();
  options.interface_binding.name = "nosuchif0";
  recorder.stream = reactor->connect(options, recorder);
  EXPECT_FALSE(recorder.closed);
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.closed.has_value(); }));
  EXPECT_NE(recorder.closed->message.find("nosuchif0"), std::string::npos);
  EXPECT_EQ(recorder.closed->code, ErrorCode::not_found);
}

// A socket that listens at this address, on a port of the kernel's choice; none: it failed.
UniqueFd listen_on_loopback(SocketAddress& address) {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  address = SocketAddress::parse("127.0.0.1", 0).value();
  auto* generic = reinterpret_cast<sockaddr*>(&address.storage);
  if (bind(listener.get(), generic, address.length_bytes) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), generic, &address.length_bytes) != 0) {
    listener.reset();
  }
  return listener;
}

// Where a connection to a listener on loopback says that it comes from; empty: it failed.
std::string source_of(const InterfaceBinding& binding, std::string& error) {
  const auto reactor = make_reactor();
  SocketAddress address;
  const UniqueFd listener = listen_on_loopback(address);
  if (!listener.valid()) {
    return "no listener";
  }
  ClosedRecorder recorder;
  ConnectOptions options;
  options.address = address;
  options.interface_binding = binding;
  recorder.stream = reactor->connect(options, recorder);
  SocketAddress from;
  from.length_bytes = sizeof from.storage;
  UniqueFd accepted;
  const bool ended = run_until(*reactor, [&] {
    accepted.reset(
        accept(listener.get(), reinterpret_cast<sockaddr*>(&from.storage), &from.length_bytes));
    return accepted.valid() || recorder.closed;
  });
  EXPECT_TRUE(ended);
  if (!recorder.closed) {
    recorder.stream->reset();
    EXPECT_TRUE(run_until(*reactor, [&] { return recorder.closed.has_value(); }));
  } else {
    error = recorder.closed->message;
  }
  const std::string text = accepted.valid() ? from.to_string() : "";
  return text.substr(0, text.find(':'));
}

TEST(UringStream, BindsToASourceAddress) {
  std::string error;
  EXPECT_EQ(source_of({}, error), "127.0.0.1");
  EXPECT_EQ(source_of({.address = "127.0.0.77"}, error), "127.0.0.77") << error;
  EXPECT_EQ(source_of({.name = "lo", .address = "127.0.0.78"}, error), "127.0.0.78") << error;
}

TEST(UringStream, RefusesASourceAddressThatThisHostDoesNotHave) {
  std::string error;
  EXPECT_EQ(source_of({.address = "192.0.2.77"}, error), "");
  EXPECT_NE(error.find("source address 192.0.2.77"), std::string::npos) << error;
}

TEST(UringStream, RefusesAHardwareAddressThatThisHostDoesNotHave) {
  std::string error;
  EXPECT_EQ(source_of({.hardware_address = "02:de:ad:be:ef:99"}, error), "");
  EXPECT_NE(error.find("02:de:ad:be:ef:99"), std::string::npos) << error;
}

// This process's ends of connections to that address.
std::vector<int> ends_connected_to(const SocketAddress& address) {
  std::vector<int> found;
  for (int fd = 0; fd < 1024; ++fd) {
    SocketAddress peer;
    peer.length_bytes = sizeof peer.storage;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer.storage), &peer.length_bytes) == 0 &&
        peer == address) {
      found.push_back(fd);
    }
  }
  return found;
}

TEST(UringStream, BindsToAnInterface) {
  const auto reactor = make_reactor();
  SocketAddress address;
  const UniqueFd listener = listen_on_loopback(address);
  ASSERT_TRUE(listener.valid());
  ClosedRecorder recorder;
  ConnectOptions options;
  options.address = address;
  options.interface_binding.name = "lo";
  recorder.stream = reactor->connect(options, recorder);
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.connected; }));
  const std::vector<int> ends = ends_connected_to(address);
  ASSERT_EQ(ends.size(), 1U);
  std::array<char, IFNAMSIZ> name{};
  socklen_t length = name.size();
  ASSERT_EQ(getsockopt(ends[0], SOL_SOCKET, SO_BINDTODEVICE, name.data(), &length), 0);
  EXPECT_STREQ(name.data(), "lo");
  recorder.stream->reset();
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.closed.has_value(); }));
}

// What bounds a peer that stops acknowledging; the simulated network shows what it does.
TEST(UringStream, SetsTheUserTimeoutOfTheConnection) {
  const auto reactor = make_reactor();
  SocketAddress address;
  const UniqueFd listener = listen_on_loopback(address);
  ASSERT_TRUE(listener.valid());
  ClosedRecorder recorder;
  ConnectOptions options;
  options.address = address;
  options.tcp_user_timeout = 12345ms;
  recorder.stream = reactor->connect(options, recorder);
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.connected; }));
  const std::vector<int> ends = ends_connected_to(address);
  ASSERT_EQ(ends.size(), 1U);
  unsigned timeout_ms = 0;
  socklen_t length = sizeof timeout_ms;
  ASSERT_EQ(getsockopt(ends[0], IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &length), 0);
  EXPECT_EQ(timeout_ms, 12345U);
  recorder.stream->reset();
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.closed.has_value(); }));
}

TEST(UringStream, TheSocketIsGoneBeforeOnClosed) {
  const auto reactor = make_reactor();
  SocketAddress address;
  const UniqueFd listener = listen_on_loopback(address);
  ASSERT_TRUE(listener.valid());
  ClosedRecorder recorder;
  ConnectOptions options;
  options.address = address;
  recorder.stream = reactor->connect(options, recorder);
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.connected; }));
  const std::size_t before = open_fds() - 1;  // with what the reactor opened for its first stream
  std::vector<std::byte> big(32 * 1024 * 1024), in(4096);
  const iovec out_part{big.data(), big.size()}, in_part{in.data(), in.size()};
  recorder.stream->send({&out_part, 1});
  recorder.stream->receive({&in_part, 1});
  reactor->run_once(1ms);
  EXPECT_EQ(open_fds(), before + 1);
  recorder.stream->reset();
  ASSERT_TRUE(run_until(*reactor, [&] { return recorder.closed.has_value(); }));
  EXPECT_EQ(recorder.fds_at_close, before);
}

// Sends more than both kernels' buffers hold, and says so by a byte at the pipe.
class EndlessSender final : public ByteStream::Owner {
 public:
  EndlessSender(UringReactor& reactor, const SocketAddress& to, int told)
      : told_(told), stream_(reactor.connect({to, {}, std::chrono::milliseconds(10000)}, *this)) {}

 private:
  void on_connected() noexcept override {
    const iovec part{.iov_base = data_.data(), .iov_len = data_.size()};
    stream_->send({&part, 1});
    const char sending = 's';
    (void)!::write(told_, &sending, 1);
  }
  void on_sent() noexcept override {}
  void on_received(std::size_t /*count*/) noexcept override {}
  void on_closed(const Error& /*error*/) noexcept override {}

  std::vector<std::byte> data_ = std::vector<std::byte>(64 << 20);
  int told_;
  std::unique_ptr<ByteStream> stream_;
};

// The kernel delivers nothing on behalf of a dead process: an old write would land after its
// successor's.
TEST(UringReactor, AProcessThatIsKilledTakesAlongWhatItHasNotSent) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const int small = 65536;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::array<int, 2> told{};
  ASSERT_EQ(::pipe(told.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto reactor = make_reactor();
    EndlessSender sender(
        *reactor, SocketAddress::parse("127.0.0.1", ntohs(address.sin_port)).value(), told[1]);
    reactor->run();
    ::_exit(0);
  }
  char sending = 0;
  ASSERT_EQ(::read(told[0], &sending, 1), 1);
  const UniqueFd connection(::accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(connection.valid());
  // Something has come, so that the rest is under way.
  std::vector<std::byte> buffer(65536);
  ASSERT_GT(::recv(connection.get(), buffer.data(), 1, 0), 0);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  // The kernel takes a moment to take its operations apart. Nothing is read meanwhile, as by a
  // target that is stuck.
  pollfd ended{connection.get(), 0, 0};
  ASSERT_EQ(::poll(&ended, 1, 60000), 1);
  EXPECT_NE(ended.revents & POLLERR, 0);
  std::size_t received = 0;
  ssize_t count = 0;
  while ((count = ::recv(connection.get(), buffer.data(), buffer.size(), 0)) > 0) {
    received += static_cast<std::size_t>(count);
  }
  EXPECT_EQ(count, -1) << "the end of the stream, as if it had sent all it wanted";
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_LT(received, std::size_t{1} << 20) << "what had arrived, and no more";
  ::close(told[0]);
  ::close(told[1]);
}

// Memory that is looked at; what a glance does is the test's.
struct GlancedMemory final : MemoryWatch {
  ~GlancedMemory() {
    if (linked()) {
      unlink();
    }
  }
  bool has_work() noexcept override { return ++glances >= 5 && at_fifth(); }
  bool ask_to_ring() noexcept override {
    ++asked;
    return false;
  }
  std::function<bool()> at_fifth;
  int glances = 0;
  int asked = 0;
};

UringReactor::Options that_looks() {
  UringReactor::Options options;
  options.poll.longest = 1ms;
  return options;
}

// Each is tried until nothing else has run on the processor in the middle of a look, which ends it.
TEST(UringReactorThatLooks, FindsWorkInMemoryWithoutEnteringTheKernel) {
  const auto reactor = make_reactor(that_looks());
  reactor->run_once(0ms);  // what making it has queued
  GlancedMemory memory;
  memory.at_fifth = [] { return true; };
  EXPECT_TRUE(run_until(*reactor, [&] {
    memory.glances = 0;
    reactor->look_at(memory);
    const std::uint64_t entries = reactor->kernel_entries();
    const std::uint64_t found = reactor->found_awake();
    reactor->run_once(1s);
    return reactor->found_awake() == found + 1 && reactor->kernel_entries() == entries &&
           !memory.linked() && memory.asked == 0;
  }));
}

TEST(UringReactorThatLooks, FindsACompletionThatComesMeanwhile) {
  const auto reactor = make_reactor(that_looks());
  const UniqueFd event(eventfd(0, EFD_NONBLOCK));
  int events = 0;
  struct Reader {
    int fd;
    int& events;
  } reader{event.get(), events};
  const auto watch = reactor->watch_readable(
      event.get(),
      [](void* self) noexcept {
        std::uint64_t value = 0;
        auto& reading = *static_cast<Reader*>(self);
        reading.events += read(reading.fd, &value, sizeof value) == sizeof value ? 1 : 0;
      },
      &reader);
  GlancedMemory memory;
  memory.at_fifth = [&] {
    const std::uint64_t one = 1;
    EXPECT_EQ(write(event.get(), &one, sizeof one), static_cast<ssize_t>(sizeof one));
    memory.glances = -1000000;
    return false;
  };
  EXPECT_TRUE(run_until(*reactor, [&] {
    if (!memory.linked()) {
      reactor->look_at(memory);
    }
    memory.glances = 0;
    const std::uint64_t found = reactor->found_awake();
    const int before = events;
    reactor->run_once(1s);
    return reactor->found_awake() == found + 1 && events == before + 1;
  }));
}

TEST(UringReactorThatLooks, AsksToRingAndSleepsWhenNothingComes) {
  const auto reactor = make_reactor(that_looks());
  GlancedMemory memory;
  memory.at_fifth = [] { return false; };
  reactor->look_at(memory);
  reactor->run_once(20ms);
  EXPECT_EQ(memory.asked, 1);
  EXPECT_FALSE(memory.linked());
  EXPECT_GT(memory.glances, 0);
}

TEST(UringReactorThatLooks, ATimerEndsALook) {
  const auto reactor = make_reactor(that_looks());
  std::vector<int> order;
  RunTimer timer(*reactor, order, 1);
  timer.timer.start_after(50us);
  EXPECT_TRUE(run_until(*reactor, [&] { return order.size() == 1; }));
}

}  // namespace
}  // namespace iscsi_blkback
