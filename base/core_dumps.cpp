#include "base/core_dumps.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/secret.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kStackBytes = 8 * 1024 * 1024;  // as the system gives to the first thread
constexpr std::size_t kGuardBytes = 64 * 1024;
constexpr std::size_t kWipedBytes = 32 * 1024;

// core(5): anonymous shared mappings, and the first pages of the program's files, which say which
// version it is.
constexpr char kStacksOnly[] = "0x12";

std::atomic<bool> stacks_are_dumped{false};

}  // namespace

void forbid_core_dumps() {
  (void)::prctl(PR_SET_DUMPABLE, 0);
  rlimit limit{};
  if (::getrlimit(RLIMIT_CORE, &limit) == 0) {
    limit.rlim_cur = 0;
    (void)::setrlimit(RLIMIT_CORE, &limit);
  }
}

Result<void> allow_core_dumps() {
  // The filter first, which says what a dump holds.
  const UniqueFd filter(::open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC));
  if (!filter.valid() || ::write(filter.get(), kStacksOnly, sizeof kStacksOnly - 1) < 0) {
    return tl::unexpected(system_error("what core dumps hold cannot be set", errno));
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_CORE, &limit) != 0) {
    return tl::unexpected(system_error("core dumps cannot be allowed", errno));
  }
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_CORE, &limit) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) {
    return tl::unexpected(system_error("core dumps cannot be allowed", errno));
  }
  stacks_are_dumped = true;
  return {};
}

void keep_core_dumps_as_they_are() {
  (void)::prctl(PR_SET_DUMPABLE, stacks_are_dumped ? 1 : 0);
}

struct OwnStackThread::Thread {
  ~Thread() {
    if (stack != MAP_FAILED) {
      ::munmap(stack, kStackBytes + kGuardBytes);
    }
  }

  std::function<void()> run;
  pthread_t thread{};
  void* stack = MAP_FAILED;  // else the library's
};

Result<OwnStackThread> OwnStackThread::start(std::function<void()> run) {
  auto thread = std::make_unique<Thread>();
  thread->run = std::move(run);
  pthread_attr_t attributes;
  int failure = ::pthread_attr_init(&attributes);
  if (failure == 0 && stacks_are_dumped) {
    thread->stack = ::mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    // It grows down, to the guard.
    if (thread->stack == MAP_FAILED || ::mprotect(thread->stack, kGuardBytes, PROT_NONE) != 0) {
      failure = errno;
    } else {
      failure = ::pthread_attr_setstack(
          &attributes, static_cast<char*>(thread->stack) + kGuardBytes, kStackBytes);
    }
  }
  if (failure == 0) {
    failure = ::pthread_create(
        &thread->thread, &attributes,
        [](void* self) -> void* {
          static_cast<Thread*>(self)->run();
          return nullptr;
        },
        thread.get());
  }
  (void)::pthread_attr_destroy(&attributes);
  if (failure != 0) {
    return tl::unexpected(system_error("a thread cannot be started", failure));
  }
  return OwnStackThread(thread.release());
}

OwnStackThread::OwnStackThread(OwnStackThread&& other) noexcept
    : thread_(std::exchange(other.thread_, nullptr)) {}

OwnStackThread::~OwnStackThread() {
  if (thread_ != nullptr) {
    (void)::pthread_join(thread_->thread, nullptr);
    delete thread_;
  }
}

[[gnu::noinline]] void wipe_stack() {
  std::array<char, kWipedBytes> rest;
  ::explicit_bzero(rest.data(), rest.size());
}

}  // namespace iscsi_blkback
