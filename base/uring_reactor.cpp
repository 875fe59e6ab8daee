#include "base/uring_reactor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <iterator>
#include <utility>

#include "base/link_watch.h"
#include "base/log.h"
#include "base/uring_stream.h"

namespace iscsi_blkback {
namespace {

// The sysctl of Linux 6.6: 1 restricts io_uring to a group, 2 forbids it. Negative: not known.
int io_uring_disabled() {
  const UniqueFd fd(open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC));
  char value = 0;
  return fd.valid() && read(fd.get(), &value, 1) == 1 ? value - '0' : -1;
}

Error setup_error(int errno_value) {
  switch (errno_value) {
    case ENOSYS:
      return {ErrorCode::unsupported,
              "io_uring is not there: the kernel was built without CONFIG_IO_URING, or a seccomp "
              "filter (a container's) hides it; allow io_uring_setup, io_uring_enter and "
              "io_uring_register there, or boot a kernel that has it"};
    case EINVAL:
      return {ErrorCode::unsupported,
              "this kernel's io_uring is too old; Linux 5.19 or later is needed"};
    case EPERM:
    case EACCES:
      if (const int disabled = io_uring_disabled(); disabled > 0) {
        return {ErrorCode::permission_denied,
                fmt::format("io_uring is forbidden by the sysctl kernel.io_uring_disabled={}; set "
                            "it to 0 (sysctl -w kernel.io_uring_disabled=0)",
                            disabled)};
      }
      return {ErrorCode::permission_denied,
              "io_uring is forbidden, most likely by a seccomp filter (a container's or a systemd "
              "unit's SystemCallFilter=) or by a security module; allow io_uring_setup, "
              "io_uring_enter and io_uring_register there"};
    case ENOMEM:
      return {ErrorCode::exhausted,
              "no memory for an io_uring: raise the limit of locked memory (LimitMEMLOCK= or "
              "ulimit -l)"};
    default:
      return system_error("cannot set up an io_uring", errno_value);
  }
}

// Whatever takes this process over cannot have the kernel do more through its rings than the reactor
// does, and a seccomp filter sees nothing of it.
int restrict_ring(int ring_fd) {
  constexpr std::uint8_t kOperations[] = {
      IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_CONNECT,
      IORING_OP_SEND,     IORING_OP_SENDMSG,      IORING_OP_RECV,
      IORING_OP_RECVMSG,  IORING_OP_TIMEOUT,      IORING_OP_TIMEOUT_REMOVE};
  constexpr std::uint8_t kRegistrations[] = {IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS,
                                             IORING_UNREGISTER_RING_FDS};
  std::array<io_uring_restriction, std::size(kOperations) + std::size(kRegistrations) + 1> all{};
  auto next = all.begin();
  for (const std::uint8_t operation : kOperations) {
    next->opcode = IORING_RESTRICTION_SQE_OP;
    next++->sqe_op = operation;
  }
  for (const std::uint8_t registration : kRegistrations) {
    next->opcode = IORING_RESTRICTION_REGISTER_OP;
    next++->register_op = registration;
  }
  next->opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  next->sqe_flags = IOSQE_CQE_SKIP_SUCCESS;
  // By its number, as liburing 2.3 does not export the function that it declares.
  return syscall(__NR_io_uring_register, ring_fd, IORING_REGISTER_RESTRICTIONS, all.data(),
                 all.size()) == 0
             ? 0
             : errno;
}

// A look at memory that nobody has written to is done in a few nanoseconds; so many of them go between two looks at the
// clock, which is a system call where the kernel has no vDSO for it.
constexpr int kGlancesPerClock = 16;
constexpr int kPausesPerGlance = 8;

std::uint64_t preemptions_of_this_thread() {
  rusage usage{};
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? static_cast<std::uint64_t>(usage.ru_nivcsw) : 0;
}

void pause_processor() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// A broken ring cannot be worked around, and going on without I/O would hang the guest silently.
[[noreturn]] void die(const char* what, int errno_value) {
  std::fprintf(stderr, "io_uring: %s\n", system_error(what, errno_value).message.c_str());
  std::abort();
}

// EAGAIN and EBUSY: short of memory or of room for completions; the next turn tries again.
void check_entered(int result) {
  if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
    die("enter", -result);
  }
}

}  // namespace

struct UringReactor::Ring {
  io_uring ring{};
  bool initialized = false;

  ~Ring() {
    if (initialized) {
      io_uring_queue_exit(&ring);
    }
  }
};

// The kernel knows it by its address, so that it may outlive its Watch until the poll has ended.
struct UringReactor::WatchState {
  UringReactor& reactor;
  int fd;
  FdWatch::Callback callback;
  void* owner;
  UringOperation operation{};
  bool polling = false;
  bool stopped = false;

  // One-shot and again after each callback: level-triggered. A multishot poll reports edges only.
  void poll() {
    io_uring_sqe& entry = reactor.next_entry();
    io_uring_prep_poll_add(&entry, fd, POLLIN);
    reactor.start(entry, &operation);
    polling = true;
  }

  void on_polled(std::int32_t result) noexcept {
    polling = false;
    if (!stopped) {
      if (result < 0) {
        die("poll of a watched file descriptor", -result);
      }
      callback(owner);
    }
    if (stopped) {
      reactor.release(*this);
    } else {
      poll();
    }
  }
};

class UringReactor::Watch : public FdWatch {
 public:
  explicit Watch(WatchState& state) : state_(state) {}
  ~Watch() override {
    state_.stopped = true;
    if (state_.polling) {
      UringReactor& reactor = state_.reactor;
      io_uring_sqe& entry = reactor.next_entry();
      io_uring_prep_cancel(&entry, &state_.operation, 0);
      reactor.start(entry, nullptr);
    }
    // Else its callback runs just now, and on_polled() releases the state.
  }

 private:
  WatchState& state_;
};

Result<std::unique_ptr<UringReactor>> UringReactor::create(const Options& options) {
  auto ring = std::make_unique<Ring>();
  // Disabled at first, so that the thread which runs the reactor, not this one, is its issuer.
  constexpr unsigned kFlags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                              IORING_SETUP_R_DISABLED | IORING_SETUP_TASKRUN_FLAG;
  constexpr unsigned kBest = kFlags | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  // Linux 5.19, the oldest that can also cancel by fd, as UringStream does.
  constexpr unsigned kOldest = kFlags | IORING_SETUP_COOP_TASKRUN;
  int result = -EINVAL;  // a flag that this kernel does not know
  bool best = false;
  for (const unsigned flags : {kBest, kOldest}) {
    if (result == -EINVAL && (flags != kBest || options.deferred_task_run)) {
      best = flags == kBest;
      io_uring_params params{};
      params.flags = flags;
      params.cq_entries = options.completion_entries;
      result = io_uring_queue_init_params(options.submission_entries, &ring->ring, &params);
    }
  }
  if (result < 0) {
    return tl::unexpected(setup_error(-result));
  }
  ring->initialized = true;
  if (const int failed = restrict_ring(ring->ring.ring_fd); failed != 0) {
    return tl::unexpected(system_error("an io_uring cannot be restricted", failed));
  }
  UniqueFd wake_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_fd.valid()) {
    return tl::unexpected(system_error("eventfd", errno));
  }
  std::unique_ptr<UringReactor> reactor(
      new UringReactor(std::move(ring), std::move(wake_fd), options.poll));
  // Linux 6.1: kernels before it forget how much of a refused send was sent.
  reactor->can_start_at_once_ = best;
  return reactor;
}

UringReactor::UringReactor(std::unique_ptr<Ring> ring, UniqueFd wake_fd, const PollLimits& poll)
    : ring_(std::move(ring)),
      governor_(poll),
      alarm_{[](void* owner, std::int32_t) noexcept {
               static_cast<UringReactor*>(owner)->alarm_set_ = false;
             },
             this},
      wake_fd_(std::move(wake_fd)) {
  completions_.reserve(ring_->ring.cq.ring_entries);
  at_once_.reserve(ring_->ring.sq.ring_entries);
  finishing_.reserve(ring_->ring.sq.ring_entries);
  if (getrandom(&random_state_, sizeof random_state_, GRND_NONBLOCK) !=
      static_cast<ssize_t>(sizeof random_state_)) {
    random_state_ = static_cast<std::uint64_t>(now().time_since_epoch().count());
  }
  wake_watch_ = watch_readable(
      wake_fd_.get(),
      [](void* owner) noexcept {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t got =
            read(static_cast<UringReactor*>(owner)->wake_fd_.get(), &count, sizeof count);
        // The turn looks for what was posted after this.
      },
      this);
}

UringReactor::~UringReactor() {
  link_watch_.reset();
  wake_watch_.reset();
  posted_.clear();  // may own objects that live on this reactor
  // What is left of watches has been stopped; the kernel drops these polls with the ring.
  ring_.reset();
  ISCSI_BLKBACK_ASSERT(std::all_of(watch_states_.begin(), watch_states_.end(),
                                   [](const auto& state) { return state->stopped; }));
}

void UringReactor::run() {
  enable();
  // Saves the kernel a look-up at each entry; per thread, so only while this thread runs the loop.
  const bool registered = io_uring_register_ring_fd(&ring_->ring) == 1;
  while (!stopped_.exchange(false, std::memory_order_acquire)) {
    run_once(Duration::max());
  }
  if (registered) {
    io_uring_unregister_ring_fd(&ring_->ring);
  }
}

void UringReactor::stop() {
  stopped_.store(true, std::memory_order_release);
  post([] {});  // ends the wait
}

void UringReactor::run_once(Duration at_most) {
  enable();
  if (!look(at_most)) {
    enter(at_most);
  }
  collect_completions();
  turn_time_ = now();
  finish_at_once();
  // By index: next_entry() may have to add some.
  for (std::size_t i = 0; i < completions_.size(); ++i) {
    const Completion completion = completions_[i];
    completion.operation->on_complete(completion.operation->owner, completion.result);
  }
  completions_.clear();
  run_due_timers(turn_time_);
  run_posted();
  run_deferred();
}

TimePoint UringReactor::now() const {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return TimePoint(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

void UringReactor::post(std::function<void()> task) {
  bool first = false;
  {
    const std::lock_guard lock(posted_mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(task));
  }
  if (first) {
    const std::uint64_t one = 1;
    // Cannot fail but when the counter is full, and then the reactor is awake anyway.
    [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof one);
  }
}

std::unique_ptr<FdWatch> UringReactor::watch_readable(int fd, FdWatch::Callback callback,
                                                      void* owner) {
  auto state = std::make_unique<WatchState>(WatchState{*this, fd, callback, owner});
  state->operation = {[](void* watch, std::int32_t result) noexcept {
                        static_cast<WatchState*>(watch)->on_polled(result);
                      },
                      state.get()};
  auto watch = std::make_unique<Watch>(*state);
  state->poll();
  watch_states_.push_back(std::move(state));
  return watch;
}

std::unique_ptr<ByteStream> UringReactor::connect(const ConnectOptions& options,
                                                  ByteStream::Owner& owner) {
  return std::make_unique<UringStream>(*this, options, owner);
}

std::unique_ptr<ByteStream> UringReactor::adopt(UniqueFd socket, ByteStream::Owner& owner) {
  return std::make_unique<UringStream>(*this, std::move(socket), owner);
}

void UringReactor::watch_link_of(UringStream& stream) {
  if (!link_watch_) {  // if it fails, with the next stream again
    auto watch = LinkWatch::create(
        *this,
        [](void* self, int interface_index) noexcept {
          // A stream closes later in the turn, or in the next: none leaves the list here.
          static_cast<UringReactor*>(self)->connected_.for_each(
              [interface_index](UringStream& one) { one.link_lost(interface_index); });
        },
        this);
    if (watch) {
      link_watch_ = std::move(*watch);
    } else {
      log_limited(link_watch_log_, now(), LogLevel::warning, "reactor",
                  "{}; a lost link is noticed only when the target does not answer",
                  watch.error().message);
    }
  }
  connected_.push_back(stream);
}

std::uint64_t UringReactor::random() {
  // splitmix64.
  std::uint64_t value = (random_state_ += 0x9e3779b97f4a7c15);
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

io_uring_sqe& UringReactor::next_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_->ring);
  while (entry == nullptr) {
    enable();
    // Full: what is queued goes to the kernel now.
    ++kernel_entries_;
    const int result = io_uring_submit(&ring_->ring);
    if (result == -EAGAIN || result == -EBUSY) {
      collect_completions();  // the kernel is short of room; callbacks run later
    } else if (result < 0 && result != -EINTR) {
      die("submit", -result);
    }
    entry = io_uring_get_sqe(&ring_->ring);
  }
  return *entry;
}

void UringReactor::start(io_uring_sqe& entry, UringOperation* operation) {
  io_uring_sqe_set_data(&entry, operation);
  urgent_ = true;
}

void UringReactor::start_receive(io_uring_sqe& entry, UringOperation& operation) {
  io_uring_sqe_set_data(&entry, &operation);
  urgent_ = urgent_ || awaited_answers() != 0;
}

void UringReactor::start_at_once(io_uring_sqe& entry, UringOperation& operation,
                                 std::int32_t success) {
  io_uring_sqe_set_data(&entry, &operation);
  entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
  urgent_ = true;
  operation.unanswered = true;
  at_once_.push_back({&operation, success});
}

// Before the completions: what was sent has been sent when its answer is looked at.
void UringReactor::finish_at_once() {
  if (at_once_.empty() || io_uring_sq_ready(&ring_->ring) != 0) {
    return;  // none, or the kernel has not taken everything
  }
  finishing_.swap(at_once_);  // callbacks may start more
  for (const AtOnce& started : finishing_) {
    if (std::exchange(started.operation->unanswered, false)) {
      started.operation->on_complete(started.operation->owner, started.success);
    }
  }
  finishing_.clear();
}

void UringReactor::enable() {
  if (!enabled_) {
    // liburing 2.3 declares io_uring_enable_rings() but does not export it.
    if (syscall(__NR_io_uring_register, ring_->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr,
                0) != 0) {
      die("enable", errno);
    }
    enabled_ = true;
  }
}

// With DEFER_TASKRUN completions are made when this thread enters the kernel, which flags that it should.
bool UringReactor::completions_are_there() {
  if (io_uring_cq_ready(&ring_->ring) != 0) {
    return true;
  }
  if ((std::atomic_ref<unsigned>(*ring_->ring.sq.kflags).load(std::memory_order_relaxed) &
       IORING_SQ_TASKRUN) == 0) {
    return false;
  }
  submit_and_get_events();
  return io_uring_cq_ready(&ring_->ring) != 0;
}

bool UringReactor::look(Duration at_most) {
  if (memory_has_work()) {
    ++found_awake_;
    return io_uring_sq_ready(&ring_->ring) == 0;
  }
  if (has_deferred()) {
    return false;  // and the turn does not wait
  }
  const Duration longest = std::min(at_most, governor_.begin(turn_time_, awaited_answers()));
  if (longest <= Duration::zero()) {
    return false;
  }
  // What has time goes too, where it is all that could come, or has waited for a look already.
  if (urgent_ || (io_uring_sq_ready(&ring_->ring) != 0 &&
                  (std::exchange(passed_over_, false) || !looks_at_memory()))) {
    submit_and_get_events();
  }
  const TimePoint began = now();
  TimePoint end = began + longest;
  if (TimePoint deadline; next_deadline(deadline)) {
    end = std::min(end, deadline);
  }
  for (bool found = false;;) {
    for (int glances = kGlancesPerClock; glances > 0 && !found; --glances) {
      found = memory_has_work() || completions_are_there();
      for (int pauses = kPausesPerGlance; pauses > 0 && !found; --pauses) {
        pause_processor();
      }
    }
    const TimePoint at = now();
    if (!found && at < end) {
      continue;
    }
    governor_.end(began, at, found);
    if (governor_.wants_preemptions()) {
      governor_.note_preemptions(at, preemptions_of_this_thread());
    }
    found_awake_ += found ? 1 : 0;
    passed_over_ = found && io_uring_sq_ready(&ring_->ring) != 0;
    return found;
  }
}

void UringReactor::submit_and_get_events() {
  ++kernel_entries_;
  urgent_ = false;
  check_entered(io_uring_submit_and_get_events(&ring_->ring));
}

void UringReactor::enter(Duration at_most) {
  // Sooner than this, a wait with a time costs less than an alarm of its own.
  constexpr Duration kSoon = std::chrono::milliseconds(1);
  TimePoint deadline;
  if (has_deferred() || memory_asks_to_ring()) {
    at_most = Duration::zero();
  } else if (next_deadline(deadline)) {
    if (at_most != Duration::max() || deadline - turn_time_ < kSoon) {
      at_most = std::min(at_most, deadline - now());
    } else {
      set_alarm(deadline);
    }
  }
  if (at_most <= Duration::zero()) {
    // Not just a look at the ring: with DEFER_TASKRUN completions are produced in this call.
    submit_and_get_events();
    return;
  }
  ++kernel_entries_;
  urgent_ = false;
  int result = 0;
  if (at_most == Duration::max()) {
    result = io_uring_submit_and_wait(&ring_->ring, 1);
  } else {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(at_most);
    __kernel_timespec timeout{};
    timeout.tv_sec = seconds.count();
    timeout.tv_nsec = (at_most - seconds).count();
    io_uring_cqe* first = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_->ring, &first, 1, &timeout, nullptr);
  }
  check_entered(result);
}

// An alarm that comes too early does no harm; a timer that was stopped leaves one.
void UringReactor::set_alarm(TimePoint deadline) {
  if (alarm_set_ && alarm_deadline_ <= deadline) {
    return;
  }
  const Duration since_epoch = deadline.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
  alarm_time_ = {seconds.count(), (since_epoch - seconds).count()};
  static_assert(sizeof alarm_time_ == sizeof(__kernel_timespec));
  auto* time = reinterpret_cast<__kernel_timespec*>(alarm_time_.data());
  io_uring_sqe& entry = next_entry();
  if (alarm_set_) {
    io_uring_prep_timeout_update(&entry, time, reinterpret_cast<std::uintptr_t>(&alarm_),
                                 IORING_TIMEOUT_ABS);
    start(entry, nullptr);
  } else {
    io_uring_prep_timeout(&entry, time, 0, IORING_TIMEOUT_ABS);
    start(entry, &alarm_);
  }
  alarm_set_ = true;
  alarm_deadline_ = deadline;
}

void UringReactor::collect_completions() {
  std::array<io_uring_cqe*, 64> batch{};
  while (const unsigned count = io_uring_peek_batch_cqe(&ring_->ring, batch.data(), batch.size())) {
    for (unsigned i = 0; i < count; ++i) {
      if (void* data = io_uring_cqe_get_data(batch[i])) {
        auto* operation = static_cast<UringOperation*>(data);
        operation->unanswered = false;
        operation->flags = batch[i]->flags;
        completions_.push_back({operation, batch[i]->res});
      }
    }
    io_uring_cq_advance(&ring_->ring, count);
  }
}

void UringReactor::run_posted() {
  {
    const std::lock_guard lock(posted_mutex_);
    running_.swap(posted_);
  }
  for (std::function<void()>& task : running_) {
    task();
    task = nullptr;  // what it holds goes away before the next one runs
  }
  running_.clear();
}

void UringReactor::release(WatchState& state) {
  std::erase_if(watch_states_, [&state](const auto& held) { return held.get() == &state; });
}

}  // namespace iscsi_blkback
