// UringReactor: the Reactor on io_uring. One thread owns it: the one that first calls run() or
// run_once(); only post() and stop() may be called from others. Objects may be created on it before
// it runs.
//
// A turn enters the kernel once: everything queued is submitted, completions are awaited when there
// is nothing else to do. Before it sleeps it may look for a while for what comes (PollGovernor): for completions, which
// the kernel flags in memory, and at MemoryWatches. Completions are copied out of the ring before the first callback
// runs: no recursion, no stack that grows with load, and a callback may queue as much as it likes.
//
// Its ring does nothing but what the reactor and its streams use (IORING_REGISTER_RESTRICTIONS): polls, timeouts,
// connects, sends and receives on descriptors that the process has.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/log.h"
#include "base/poll_governor.h"
#include "base/reactor.h"
#include "base/unique_fd.h"

struct io_uring_sqe;

namespace iscsi_blkback {

// One operation that the kernel works on. Its address is the kernel's handle: it stays where it is,
// and is not used for another operation, until on_complete has been called.
struct UringOperation {
  // result: what the system call would have returned, or -errno.
  void (*on_complete)(void* owner, std::int32_t result) noexcept;
  void* owner;
  std::uint32_t flags = 0;  // of its latest completion (IORING_CQE_F_...)
  bool unanswered = false;  // the reactor's: see start_at_once()
};

class LinkWatch;
class UringStream;

class UringReactor : public Reactor {
 public:
  struct Options {
    // Of the submission queue: more in one turn costs a further system call.
    std::uint32_t submission_entries = 256;
    // Operations in the kernel at a time; beyond it the kernel keeps completions elsewhere, slowly.
    std::uint32_t completion_entries = 4096;
    // SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1), if the kernel knows them. Off: for tests.
    bool deferred_task_run = true;
    PollLimits poll{};
  };

  // Errors: unsupported or permission_denied (no usable io_uring here; the message has the likely
  // cause and the remedy), exhausted (memory).
  [[nodiscard]] static Result<std::unique_ptr<UringReactor>> create(const Options& options);
  [[nodiscard]] static Result<std::unique_ptr<UringReactor>> create() { return create(Options()); }

  // Streams, watches, timers and tasks on this reactor are gone by now.
  ~UringReactor() override;

  // Runs turns until stop(); one that came before ends it at once.
  void run();
  void stop();  // any thread
  // One turn, which waits at most this long for something to do.
  void run_once(Duration at_most);

  [[nodiscard]] TimePoint now() const override;
  [[nodiscard]] TimePoint turn_time() const override { return turn_time_; }
  void post(std::function<void()> task) override;
  [[nodiscard]] std::unique_ptr<FdWatch> watch_readable(int fd, FdWatch::Callback callback,
                                                        void* owner) override;
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner) override;
  [[nodiscard]] std::unique_ptr<ByteStream> adopt(UniqueFd socket,
                                                  ByteStream::Owner& owner) override;
  [[nodiscard]] std::uint64_t random() override;

  // For connected streams: link_lost() tells them when an interface has lost its link.
  void watch_link_of(UringStream& stream);

  // How often run() and run_once() have entered the kernel: what a turn costs in system calls.
  [[nodiscard]] std::uint64_t kernel_entries() const { return kernel_entries_; }
  // How often what comes next came while the reactor looked for it.
  [[nodiscard]] std::uint64_t found_awake() const { return found_awake_; }

  // For what runs operations on this reactor: a free entry, to be filled by an io_uring_prep_*
  // function and then given to start(), which submits it with this turn. Operation null: nobody
  // wants to know how it ends.
  [[nodiscard]] io_uring_sqe& next_entry();
  void start(io_uring_sqe& entry, UringOperation* operation);
  // The same for a receive, which has time while no answer is awaited: it goes with the next entry that has none, or
  // before the reactor sleeps, which may look for a while first.
  void start_receive(io_uring_sqe& entry, UringOperation& operation);
  // For what the kernel does or refuses while it takes the entry, without waiting for anything
  // (MSG_DONTWAIT). Success makes no completion, which would end the turn's wait; on_complete comes
  // in the next turn, with success as its result unless the kernel said otherwise.
  void start_at_once(io_uring_sqe& entry, UringOperation& operation, std::int32_t success);
  // Whether start_at_once() may be used; else start() does the same with a completion.
  [[nodiscard]] bool can_start_at_once() const { return can_start_at_once_; }

 private:
  struct Ring;
  struct Completion {
    UringOperation* operation;
    std::int32_t result;
  };
  struct AtOnce {
    UringOperation* operation;
    std::int32_t success;
  };
  struct WatchState;
  class Watch;

  explicit UringReactor(std::unique_ptr<Ring> ring, UniqueFd wake_fd, const PollLimits& poll);

  void enable();  // from the owning thread, before the first submission
  // One of these begins a turn: something has come while it was looked for, or the kernel is entered.
  [[nodiscard]] bool look(Duration at_most);
  void enter(Duration at_most);
  void submit_and_get_events();
  [[nodiscard]] bool completions_are_there();
  void collect_completions();
  void finish_at_once();
  void set_alarm(TimePoint deadline);
  void run_posted();
  void release(WatchState& state);

  std::unique_ptr<Ring> ring_;
  bool enabled_ = false;
  bool can_start_at_once_ = false;
  std::vector<Completion> completions_;  // to be dispatched
  std::vector<AtOnce> at_once_;          // started, not finished
  std::vector<AtOnce> finishing_;        // taken from at_once_
  std::vector<std::unique_ptr<WatchState>> watch_states_;
  std::unique_ptr<LinkWatch> link_watch_;  // from the first stream on
  LogLimiter link_watch_log_{2, std::chrono::hours(1)};
  IntrusiveList<UringStream> connected_;
  std::uint64_t random_state_;
  std::uint64_t kernel_entries_ = 0;
  PollGovernor governor_;
  std::uint64_t found_awake_ = 0;
  bool urgent_ = false;       // an entry is queued that the kernel should have at once
  bool passed_over_ = false;  // one is queued that a look has not given to it
  TimePoint turn_time_{};

  // The next timer, as an operation in the kernel: a wait that is given a time costs more.
  UringOperation alarm_;
  bool alarm_set_ = false;
  TimePoint alarm_deadline_{};
  std::array<std::int64_t, 2> alarm_time_{};  // a __kernel_timespec

  UniqueFd wake_fd_;  // an eventfd: something was posted
  std::unique_ptr<FdWatch> wake_watch_;
  std::mutex posted_mutex_;  // of posted_
  std::vector<std::function<void()>> posted_;
  std::vector<std::function<void()>> running_;  // taken from posted_
  std::atomic<bool> stopped_ = false;
};

}  // namespace iscsi_blkback
