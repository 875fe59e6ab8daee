// The sandbox of a guest's process: what it needs works inside, and each thing that a process taken over would try
// fails. All in children, of root where the test is root's, which are gone with what they tried.
#include "blkback/process/guest_sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <linux/bpf.h>
#include <linux/seccomp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include "base/interface_binding.h"
#include "base/link_watch.h"
#include "base/uring_reactor.h"
#include "blkback/process/guest_doors.h"
#include "multipath/attach/portal_resolver.h"
#include "multipath/fencing/barrier_file.h"
#include "multipath/fencing/barrier_folder.h"
#include "tests/support/child_process.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr gid_t kGroup = 1879048192;

ProcessUser user_of(DomainId guest) {
  return {kGroup + 1 + guest, kGroup};
}

// Whether this is root where there are such users: a container may have only some.
bool users_can_change() {
  static const bool can =
      ::geteuid() == 0 && in_child([]() -> std::string {
                            const uid_t user = user_of(5).user;
                            return ::setresuid(user, user, user) == 0 ? "can" : "";
                          }).said == "can";
  return can;
}

// What the process has before: its io_urings, and a socket that listens.
struct World {
  std::unique_ptr<UringReactor> reactor = std::move(UringReactor::create().value());
  PortalResolver* directory = make_portal_resolver_with_its_ring().value();
  UniqueFd listener;
  SocketAddress address;

  World() : listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in local{};
    local.sin_family = AF_INET;
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof local;
    ISCSI_BLKBACK_ASSERT(
        ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&local), length) == 0);
    ISCSI_BLKBACK_ASSERT(::listen(listener.get(), 8) == 0);
    ISCSI_BLKBACK_ASSERT(
        ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&local), &length) == 0);
    address = SocketAddress::parse("127.0.0.1", ntohs(local.sin_port)).value();
  }
};

ChildEnd in_sandbox(const std::function<std::string(World&)>& body, DomainId guest = 5) {
  return in_child([&]() -> std::string {
    World world;
    const auto user = users_can_change() ? std::optional(user_of(guest)) : std::nullopt;
    if (user && !share_new_files(user->group)) {
      return "no group";
    }
    if (const auto entered = enter_guest_sandbox(user); !entered) {
      return entered.error().message;
    }
    return body(world);
  });
}

// Connects, says "ping" and hears it again.
class EchoClient final : ByteStream::Owner {
 public:
  explicit EchoClient(World& world) : world_(world) {
    ConnectOptions options;
    options.address = world.address;
    stream_ = world.reactor->connect(options, *this);
  }

  std::string run() {
    const TimePoint end = world_.reactor->now() + 60s;
    while (!closed_ && world_.reactor->now() < end) {
      world_.reactor->run_once(10ms);
    }
    return closed_ ? heard_ : "it takes too long";
  }

 private:
  void on_connected() noexcept override {
    sending_ = {said_.data(), said_.size()};
    stream_->send({&sending_, 1});
    receive();
  }
  void on_sent() noexcept override {}
  void on_received(std::size_t count) noexcept override {
    heard_.append(buffer_.data(), count);
    if (heard_.size() == said_.size()) {
      stream_->reset();
    } else {
      receive();
    }
  }
  void on_closed(const Error& error) noexcept override {
    closed_ = true;
    if (heard_ != said_) {
      heard_ = error.message;
    }
  }
  void receive() {
    receiving_ = {buffer_.data(), buffer_.size()};
    stream_->receive({&receiving_, 1});
  }

  World& world_;
  std::string said_ = "ping";
  std::string heard_;
  std::array<char, 16> buffer_{};
  iovec sending_{};
  iovec receiving_{};
  bool closed_ = false;
  std::unique_ptr<ByteStream> stream_;
};

void echo_once(int listener) {
  const UniqueFd peer(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  std::array<char, 16> bytes{};
  const ssize_t count = ::recv(peer.get(), bytes.data(), bytes.size(), 0);
  if (count > 0) {
    (void)::send(peer.get(), bytes.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL);
  }
  (void)::recv(peer.get(), bytes.data(), bytes.size(), 0);
}

TEST(GuestSandbox, TheReactorConnectsSendsAndReceives) {
  const ChildEnd end = in_sandbox([](World& world) {
    std::thread server(echo_once, world.listener.get());
    EchoClient client(world);
    std::string heard = client.run();
    server.join();
    return heard;
  });
  EXPECT_EQ(end.signal, 0);
  EXPECT_EQ(end.said, "ping");
}

// As the I/O thread is: made before, enabled and run by another thread, stopped from outside.
TEST(GuestSandbox, AThreadRunsAReactorThatWasMadeBefore) {
  const ChildEnd end = in_sandbox([](World& world) -> std::string {
    std::string said = "nothing";
    std::thread io([&] { world.reactor->run(); });
    world.reactor->post([&] {
      said = "ran";
      world.reactor->stop();
    });
    io.join();
    return said;
  });
  EXPECT_EQ(end.said, "ran");
}

TEST(GuestSandbox, NamesAreLookedUpAndInterfacesTold) {
  const ChildEnd end = in_sandbox([](World&) -> std::string {
    addrinfo* found = nullptr;
    if (::getaddrinfo("localhost", "3260", nullptr, &found) != 0) {
      return "no localhost";
    }
    ::freeaddrinfo(found);
    const auto interface = interface_having(SocketAddress::parse("127.0.0.1", 0).value());
    return interface ? *interface : interface.error().message;
  });
  EXPECT_EQ(end.said, "lo");
}

TEST(GuestSandbox, ADiscoveryTakesNoIoUringOfItsOwn) {
  const ChildEnd end = in_sandbox([](World& world) {
    std::thread portal([&] {
      const UniqueFd peer(::accept4(world.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    });
    Portal at;
    at.host = "127.0.0.1";
    at.port = world.address.port();
    SessionOptions session;
    session.initiator_name = "iqn.2026-01.test:host";
    const auto found = world.directory->discover(at, session, "iqn.a:b");
    portal.join();
    return found ? "a target" : found.error().message;
  });
  EXPECT_THAT(end.said, HasSubstr("discovery at 127.0.0.1"));
  EXPECT_THAT(end.said, testing::Not(HasSubstr("io_uring")));
}

// As liburing of Debian 13 does when a reactor's thread ends; here there is no ring of that number.
TEST(GuestSandbox, ARingIsTakenBackByTheNumberThatItIsRegisteredBy) {
  const ChildEnd end = in_sandbox([](World&) -> std::string {
    errno = 0;
    (void)::syscall(SYS_io_uring_register, 1000, IORING_UNREGISTER_RING_FDS | (1U << 31), nullptr,
                    0);
    return strerrorname_np(errno);
  });
  EXPECT_EQ(end.said, "EINVAL");
}

TEST(GuestSandbox, AnAssertionStillEndsTheProcessInItsOwnWay) {
  EXPECT_EQ(in_sandbox([](World&) -> std::string { std::abort(); }).signal, SIGABRT);
}

TEST(GuestSandbox, TheKernelSaysThatNothingIsLeft) {
  const ChildEnd end = in_sandbox([](World&) {
    std::ostringstream text;
    text << std::ifstream("/proc/thread-self/status").rdbuf();
    return text.str();
  });
  EXPECT_THAT(end.said, HasSubstr("Seccomp:\t2\n"));
  EXPECT_THAT(end.said, HasSubstr("NoNewPrivs:\t1\n"));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    EXPECT_THAT(end.said, HasSubstr(fmt::format("{}:\t0000000000000000\n", set)));
  }
  if (users_can_change()) {
    EXPECT_THAT(end.said, HasSubstr(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}\n", user_of(5).user)));
    EXPECT_THAT(end.said, HasSubstr(fmt::format("Gid:\t{0}\t{0}\t{0}\t{0}\n", kGroup)));
    EXPECT_THAT(end.said, HasSubstr("CapBnd:\t0000000000000000\n"));
  }
}

// What is tried. The result is that of a system call; killed: the process does not get it.
constexpr int kKilled = 0;

struct Attempt {
  const char* name;
  std::function<long(World&)> tries;
  int error;  // or kKilled
};

class Forbidden : public testing::TestWithParam<Attempt> {};

TEST_P(Forbidden, Fails) {
  const Attempt& attempt = GetParam();
  const ChildEnd end = in_sandbox([&](World& world) -> std::string {
    errno = 0;
    return attempt.tries(world) < 0 ? strerrorname_np(errno) : "it worked";
  });
  if (attempt.error == kKilled) {
    EXPECT_EQ(end.signal, SIGSYS) << end.said;
  } else {
    EXPECT_EQ(end.signal, 0);
    EXPECT_EQ(end.said, strerrorname_np(attempt.error));
  }
}

long execute() {
  char* const arguments[] = {nullptr};
  return ::execve("/bin/true", arguments, arguments);
}

long submit(World& world, const std::function<void(io_uring_sqe&)>& prepare) {
  std::optional<std::int32_t> result;
  UringOperation operation{[](void* slot, std::int32_t value) noexcept {
                             *static_cast<std::optional<std::int32_t>*>(slot) = value;
                           },
                           &result};
  io_uring_sqe& entry = world.reactor->next_entry();
  prepare(entry);
  world.reactor->start(entry, &operation);
  while (!result) {
    world.reactor->run_once(10ms);
  }
  errno = -*result;
  return *result;
}

const Attempt kAttempts[] = {
    // To be another program, or another user.
    {"Execute", [](World&) { return execute(); }, kKilled},
    {"ExecuteADescriptor",
     [](World&) { return ::syscall(SYS_execveat, 0, "", nullptr, nullptr, AT_EMPTY_PATH); },
     kKilled},
    {"Fork", [](World&) { return ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }, EPERM},
    {"ForkByFlagsInMemory", [](World&) { return ::syscall(SYS_clone3, nullptr, 0); }, ENOSYS},
    {"BeRoot", [](World&) { return ::syscall(SYS_setuid, 0); }, kKilled},
    {"BeRootByAllThree", [](World&) { return ::syscall(SYS_setresuid, 0, 0, 0); }, kKilled},
    {"TakeAGroup", [](World&) { return ::syscall(SYS_setgroups, 0, nullptr); }, kKilled},
    {"TakeCapabilities", [](World&) { return ::syscall(SYS_capset, nullptr, nullptr); }, kKilled},
    {"MakeAUserNamespace", [](World&) { return ::syscall(SYS_unshare, CLONE_NEWUSER); }, kKilled},
    {"EnterANamespace", [](World&) { return ::syscall(SYS_setns, 0, 0); }, kKilled},
    // Other processes.
    {"Trace", [](World&) { return ::syscall(SYS_ptrace, PTRACE_ATTACH, ::getppid(), 0, 0); },
     kKilled},
    {"ReadAProcess",
     [](World&) { return ::syscall(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0); }, kKilled},
    {"SignalAProcess", [](World&) { return ::syscall(SYS_kill, ::getpid(), 0); }, EPERM},
    {"SignalAnothersThread", [](World&) { return ::syscall(SYS_tgkill, 1, 1, 0); }, EPERM},
    {"HoldAProcess", [](World&) { return ::syscall(SYS_pidfd_open, 1, 0); }, EPERM},
    {"LimitAProcess",
     [](World&) {
       rlimit limit{};
       return ::syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, nullptr, &limit);
     },
     EPERM},
    {"RaiseALimit",
     [](World&) {
       rlimit limit{};
       return ::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, nullptr);
     },
     EPERM},
    // The kernel.
    {"Mount", [](World&) { return ::syscall(SYS_mount, "x", "/", "tmpfs", 0, nullptr); }, kKilled},
    {"ChangeTheRoot", [](World&) { return ::syscall(SYS_chroot, "/tmp"); }, kKilled},
    {"LoadAModule", [](World&) { return ::syscall(SYS_init_module, nullptr, 0, ""); }, kKilled},
    {"LoadBpf", [](World&) { return ::syscall(SYS_bpf, BPF_PROG_LOAD, nullptr, 0); }, kKilled},
    {"MeasureTheKernel",
     [](World&) { return ::syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0); }, kKilled},
    {"HandleItsOwnFaults", [](World&) { return ::syscall(SYS_userfaultfd, 0); }, kKilled},
    {"TakeAKey", [](World&) { return ::syscall(SYS_keyctl, 0, 0, 0, 0, 0); }, kKilled},
    {"Reboot", [](World&) { return ::syscall(SYS_reboot, 0, 0, 0, nullptr); }, kKilled},
    {"OpenByHandle", [](World&) { return ::syscall(SYS_open_by_handle_at, -1, nullptr, 0); },
     kKilled},
    {"SetAnotherFilter", [](World&) { return ::syscall(SYS_seccomp, 1, 0, nullptr); }, EPERM},
    {"BeDumpable", [](World&) { return ::syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0); }, EPERM},
    {"CallByANumberThatNobodyHas", [](World&) { return ::syscall(999); }, EPERM},
    // Memory.
    {"WriteAndExecuteMemory",
     [](World&) {
       return ::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
     },
     EPERM},
    {"ExecuteMemoryThatWasWritten",
     [](World&) {
       void* const page =
           ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
       return ::syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC);
     },
     EPERM},
    {"ExecuteAFileInMemory", [](World&) { return ::syscall(SYS_memfd_create, "x", 0); }, EPERM},
    // Sockets.
    {"SeePackets", [](World&) { return ::socket(AF_PACKET, SOCK_RAW, 0); }, EAFNOSUPPORT},
    {"SendRawPackets", [](World&) { return ::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); },
     EAFNOSUPPORT},
    {"AskTheAuditNetlink", [](World&) { return ::socket(AF_NETLINK, SOCK_RAW, 9); }, EAFNOSUPPORT},
    {"ReachTheHypervisor", [](World&) { return ::socket(AF_VSOCK, SOCK_STREAM, 0); }, EAFNOSUPPORT},
    {"UseTheKernelsCiphers", [](World&) { return ::socket(AF_ALG, SOCK_SEQPACKET, 0); },
     EAFNOSUPPORT},
    {"Listen", [](World& world) { return ::listen(world.listener.get(), 1); }, EPERM},
    // Files.
    {"ChangeAMode", [](World&) { return ::chmod("/tmp", 0777); }, EPERM},
    {"ChangeAnOwner", [](World&) { return ::chown("/tmp", 1, 1); }, EPERM},
    {"Rename", [](World&) { return ::rename("/tmp/a", "/tmp/b"); }, EPERM},
    {"Link", [](World&) { return ::link("/etc/passwd", "/tmp/iscsi-blkback-link"); }, EPERM},
    {"LinkByName", [](World&) { return ::symlink("/etc", "/tmp/iscsi-blkback-link"); }, EPERM},
    {"MakeADevice", [](World&) { return ::mknod("/tmp/iscsi-blkback-node", S_IFCHR, 1); }, EPERM},
    // Requests of devices: privcmd's hypercall and mapping of any domain's memory; input to a terminal.
    {"MakeAHypercall", [](World&) { return ::ioctl(0, _IOC(_IOC_NONE, 'P', 0, 48), nullptr); },
     EPERM},
    {"MapAnyDomainsMemory", [](World&) { return ::ioctl(0, _IOC(_IOC_NONE, 'P', 4, 32), nullptr); },
     EPERM},
    {"BindAnInterrupt", [](World&) { return ::ioctl(0, _IOC(_IOC_NONE, 'E', 0, 4), nullptr); },
     EPERM},
    {"TypeAtATerminal", [](World&) { return ::ioctl(0, TIOCSTI, "x"); }, EPERM},
    // io_uring, which a filter does not see into.
    {"MakeAnIoUring",
     [](World&) {
       io_uring_params parameters{};
       return ::syscall(SYS_io_uring_setup, 8, &parameters);
     },
     EPERM},
    {"RegisterMemoryWithAnIoUring",
     [](World&) {
       return ::syscall(SYS_io_uring_register, 0, IORING_REGISTER_BUFFERS, nullptr, 0);
     },
     EPERM},
    {"OpenByAnIoUring",
     [](World& world) {
       return submit(world, [](io_uring_sqe& entry) {
         io_uring_prep_openat(&entry, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
       });
     },
     EACCES},
    {"MakeASocketByAnIoUring",
     [](World& world) {
       return submit(world, [](io_uring_sqe& entry) {
         io_uring_prep_nop(&entry);
         entry.opcode = 45;  // IORING_OP_SOCKET
         entry.fd = AF_PACKET;
       });
     },
     EACCES},
};
INSTANTIATE_TEST_SUITE_P(GuestSandbox, Forbidden, testing::ValuesIn(kAttempts),
                         [](const auto& test) { return std::string(test.param.name); });

class GuestSandboxUsers : public testing::Test {
 protected:
  void SetUp() override {
    if (!users_can_change()) {
      GTEST_SKIP() << "the users of guests' processes are root's to take";
    }
    for (const DomainId guest : {DomainId{5}, DomainId{6}}) {
      ASSERT_TRUE(prepare_run_folders(place(guest)));
    }
  }

  [[nodiscard]] GuestPlace place(DomainId guest) const {
    return {.run_directory = run_, .own_domain = 0, .guest = guest, .user = user_of(guest)};
  }
  [[nodiscard]] std::string barriers() const { return barrier_directory(run_); }

  // The number of the error of an open(2), 0 if there is none.
  static std::string open_error(const std::string& path, int flags) {
    const UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
    return fd.valid() ? "it worked" : strerrorname_np(errno);
  }

  TemporaryFolder folder_;
  std::string run_ = [this] {
    EXPECT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    return folder_ / "run";
  }();
};

TEST_F(GuestSandboxUsers, FilesOfRootAreNeitherReadNorMade) {
  for (const char* path : {"/etc/shadow", "/proc/1/environ", "/dev/mem", "/dev/kmsg"}) {
    if (::access(path, F_OK) == 0) {
      EXPECT_THAT(in_sandbox([&](World&) { return open_error(path, O_RDONLY); }).said,
                  testing::AnyOf("EACCES", "EPERM"))
          << path;
    }
  }
  const std::string made = run_ + "/made";
  EXPECT_EQ(in_sandbox([&](World&) { return open_error(made, O_WRONLY | O_CREAT); }).said,
            "EACCES");
  EXPECT_EQ(in_sandbox([](World&) {
              return open_error("/etc/iscsi-blkback-test", O_WRONLY | O_CREAT);
            }).said,
            "EACCES");
}

TEST_F(GuestSandboxUsers, FilesOfOtherGuestsInTheRunDirectoryAreNotTheirs) {
  std::ofstream(run_ + "/guest-6.lock") << "1\n";
  ASSERT_EQ(::chmod((run_ + "/guest-6.lock").c_str(), 0600), 0);
  EXPECT_EQ(in_sandbox([&](World&) { return open_error(run_ + "/guest-6.lock", O_RDWR); }).said,
            "EACCES");
  EXPECT_EQ(in_sandbox([&](World&) -> std::string {
              return ::unlink((run_ + "/guest-6.lock").c_str()) == 0 ? "it worked"
                                                                     : strerrorname_np(errno);
            }).said,
            "EACCES");
}

// The users of two guests, and root where a process has no sandbox.
TEST_F(GuestSandboxUsers, BarriersAreSharedByAllGuestsProcesses) {
  const auto makes = [&](World&) -> std::string {
    auto file = BarrierFile::open(barriers(), "one");
    return file && file->try_lock(0) ? "made" : file.error().message;
  };
  ASSERT_EQ(in_sandbox(makes, 5).said, "made");
  const auto root = BarrierFile::open(barriers(), "one");
  ASSERT_TRUE(root) << root.error().message;
  ASSERT_TRUE(root->try_lock(0)) << "its holder has gone";
  const auto looks = [&](World&) -> std::string {
    const auto folder = BarrierFolder::lock(barriers());
    if (!folder) {
      return folder.error().message;
    }
    const auto found = folder->find("one", {}, nullptr);
    if (!found) {
      return found.error().message;
    }
    return !found->file.is_current() ? "another file" : found->file.try_lock(0) ? "free" : "held";
  };
  EXPECT_EQ(in_sandbox(looks, 6).said, "held");
  root->unlock(0);
  EXPECT_EQ(in_sandbox(looks, 6).said, "free");
  EXPECT_EQ(in_child([&]() -> std::string {
              if (!share_new_files(kGroup) || !BarrierFile::open(barriers(), "of root")) {
                return "not made";
              }
              return "made";
            }).said,
            "made");
  EXPECT_EQ(in_sandbox([&](World&) -> std::string {
              const auto file = BarrierFile::open(barriers(), "of root");
              return file ? "opened" : file.error().message;
            }).said,
            "opened");
}

TEST_F(GuestSandboxUsers, AFileOfABarrierThatIsNotTheirsIsNotPassedOver) {
  const std::string path = BarrierFile::path_of(barriers(), "hidden");
  {
    const auto made = BarrierFile::open(barriers(), "hidden");
    ASSERT_TRUE(made);
  }
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  EXPECT_THAT(in_sandbox([&](World&) -> std::string {
                const auto folder = BarrierFolder::lock(barriers());
                const auto found = folder->find("another", {}, nullptr);
                return found ? "found" : found.error().message;
              }).said,
              HasSubstr(path + " cannot be opened: Permission denied"));
}

// Of a version, or a process, that has run as root only.
TEST_F(GuestSandboxUsers, ABarrierFolderOfRootsBecomesTheirs) {
  const std::string other = folder_ / "other";
  const std::string barriers = barrier_directory(other);
  { ASSERT_TRUE(BarrierFile::open(barriers, "one")); }
  const std::string path = BarrierFile::path_of(barriers, "one");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  ASSERT_EQ(::chmod(other.c_str(), 0700), 0);
  // By another name it may be a file that is nobody's business.
  std::ofstream(folder_ / "elsewhere") << "root's\n";
  ASSERT_EQ(::chmod((folder_ / "elsewhere").c_str(), 0600), 0);
  ASSERT_EQ(::link((folder_ / "elsewhere").c_str(), (barriers + "/linked").c_str()), 0);
  GuestPlace place = this->place(5);
  place.run_directory = other;
  ASSERT_TRUE(prepare_run_folders(place));
  EXPECT_EQ(in_sandbox([&](World&) { return open_error(path, O_RDWR); }).said, "it worked");
  EXPECT_EQ(in_sandbox([&](World&) { return open_error(barriers + "/linked", O_RDWR); }).said,
            "EACCES");
}

}  // namespace
}  // namespace iscsi_blkback
