// UringReactor: the Reactor on io_uring. One thread owns it: the one that first calls run() or
// run_once(); only post() and stop() may be called from others. Objects may be created on it before
// it runs.
//
// A turn enters the kernel once: everything queued is submitted, completions are awaited when there
// is nothing else to do. Completions are copied out of the ring before the first callback runs: no
// recursion, no stack that grows with load, and a callback may queue as much as it likes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

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
};

class UringReactor : public Reactor {
 public:
  struct Options {
    // Of the submission queue: more in one turn costs a further system call.
    std::uint32_t submission_entries = 256;
    // Operations in the kernel at a time; beyond it the kernel keeps completions elsewhere, slowly.
    std::uint32_t completion_entries = 4096;
    // SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1), if the kernel knows them. Off: for tests.
    bool deferred_task_run = true;
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
  void post(std::function<void()> task) override;
  [[nodiscard]] std::unique_ptr<FdWatch> watch_readable(int fd, FdWatch::Callback callback,
                                                        void* owner) override;
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner) override;
  [[nodiscard]] std::uint64_t random() override;

  // For what runs operations on this reactor: a free entry, to be filled by an io_uring_prep_*
  // function and then given to start(), which submits it with this turn. Operation null: nobody
  // wants to know how it ends.
  [[nodiscard]] io_uring_sqe& next_entry();
  void start(io_uring_sqe& entry, UringOperation* operation);

 private:
  struct Ring;
  struct Completion {
    UringOperation* operation;
    std::int32_t result;
  };
  struct WatchState;
  class Watch;

  explicit UringReactor(std::unique_ptr<Ring> ring, UniqueFd wake_fd);

  void enable();  // from the owning thread, before the first submission
  void enter(Duration at_most);
  void collect_completions();
  void run_posted();
  void release(WatchState& state);

  std::unique_ptr<Ring> ring_;
  bool enabled_ = false;
  std::vector<Completion> completions_;  // to be dispatched
  std::vector<std::unique_ptr<WatchState>> watch_states_;
  std::uint64_t random_state_;

  UniqueFd wake_fd_;  // an eventfd: something was posted
  std::unique_ptr<FdWatch> wake_watch_;
  std::mutex posted_mutex_;  // of posted_
  std::vector<std::function<void()>> posted_;
  std::vector<std::function<void()>> running_;  // taken from posted_
  std::atomic<bool> stopped_ = false;
};

}  // namespace iscsi_blkback
