// Reactor: one thread's event loop; everything on the I/O path runs on one. Real: io_uring. In
// tests: virtual time and a seeded order among simultaneous events.
//
// A turn: (1) dispatch what the kernel has completed and the timers that are due, (2) take messages
// posted from other threads, (3) run deferred tasks in order until none is left, (4) one
// io_uring_enter that submits everything queued and waits. Work that should happen once per turn
// however often it is asked for (one send per session, one notify per ring) is a Deferred.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/byte_stream.h"
#include "base/clock.h"
#include "base/intrusive_list.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class Reactor;

// Caller-owned; fires once per start, never before its deadline and never from inside a call.
// Destroying or stopping an armed timer is fine, from its own callback too. The order of timers
// with the same deadline is not specified.
class Timer {
 public:
  using Callback = void (*)(void* owner) noexcept;
  Timer(Reactor& reactor, Callback callback, void* owner)
      : reactor_(reactor), callback_(callback), owner_(owner) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { stop(); }

  void start_at(TimePoint deadline);  // re-arms when armed
  void start_after(Duration delay);
  void stop();
  [[nodiscard]] bool armed() const { return heap_index_ != kNotArmed; }
  [[nodiscard]] TimePoint deadline() const { return deadline_; }

 private:
  friend class Reactor;
  static constexpr std::size_t kNotArmed = ~std::size_t{0};
  Reactor& reactor_;
  Callback callback_;
  void* owner_;
  TimePoint deadline_{};
  std::uint64_t tie_ = 0;               // orders timers with the same deadline
  std::uint64_t armed_in_run_ = 0;      // see Reactor::run_due_timers
  std::size_t heap_index_ = kNotArmed;  // place in the reactor's heap of armed timers
};

// Caller-owned; runs once per schedule(), later in the same turn, in the order in which tasks were
// deferred. A task runs at most once a turn: one that schedules itself again goes on in the next
// turn, which then does not wait, so that the kernel's completions get their share.
class Deferred : public ListHook<Deferred> {
 public:
  using Callback = void (*)(void* owner) noexcept;
  Deferred(Reactor& reactor, Callback callback, void* owner)
      : reactor_(reactor), callback_(callback), owner_(owner) {}
  ~Deferred() { cancel(); }

  void schedule();  // does nothing when already scheduled
  void cancel();
  [[nodiscard]] bool scheduled() const { return linked(); }

 private:
  friend class Reactor;
  Reactor& reactor_;
  Callback callback_;
  void* owner_;
  std::uint64_t ran_in_turn_ = 0;
};

// Caller-owned; calls back in every turn in which fd is readable (level-triggered). The fd must
// outlive the watch. Destroying it stops it, from its own callback too: no callback comes
// afterwards.
class FdWatch {
 public:
  using Callback = void (*)(void* owner) noexcept;
  virtual ~FdWatch() = default;
};

// Caller-owned. Work that somebody else announces in memory which he shares with us, as a guest its requests: while the
// reactor looks there by itself, nobody has to ring for it.
class MemoryWatch : public ListHook<MemoryWatch> {
 public:
  // Whether there is work, which has been scheduled as a Deferred then. A look at the memory, no more: it comes many
  // times a turn.
  [[nodiscard]] virtual bool has_work() noexcept = 0;
  // The reactor is about to sleep: whoever writes there has to ring from now on. True: there is work already, and
  // it has been scheduled.
  [[nodiscard]] virtual bool ask_to_ring() noexcept = 0;

 protected:
  ~MemoryWatch() = default;
};

class Reactor {
 public:
  virtual ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  [[nodiscard]] virtual TimePoint now() const = 0;
  // When this turn began: now() without a look at the clock, for what happens with every request.
  // From the reactor's callbacks only.
  [[nodiscard]] virtual TimePoint turn_time() const { return now(); }

  // Runs task on this reactor's thread, in the order of posting; the only call that other threads
  // may make. Not for the I/O path: it allocates.
  virtual void post(std::function<void()> task) = 0;

  [[nodiscard]] virtual std::unique_ptr<FdWatch> watch_readable(int fd, FdWatch::Callback callback,
                                                                void* owner) = 0;

  // Never fails here: what is wrong (interface unknown, no route) comes as owner.on_closed.
  [[nodiscard]] virtual std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                            ByteStream::Owner& owner) = 0;

  // Of a connected stream socket in blocking mode, as accept(2) gives it: it is open at once, without
  // on_connected.
  [[nodiscard]] virtual std::unique_ptr<ByteStream> adopt(UniqueFd socket,
                                                          ByteStream::Owner& owner) = 0;

  // Has this memory looked at until there is work there, or until the reactor is about to sleep and asks to ring; it
  // is unlinked then, or earlier by its owner. Does nothing while it is linked.
  void look_at(MemoryWatch& watch) {
    if (!watch.linked()) {
      memory_.push_back(watch);
    }
  }
  // Answers that somebody on this reactor waits for, with so much data of either direction. Whether it looks for them
  // goes by how many they are, in small ones: a large one comes, or is asked for, in pieces.
  void await_answer(std::uint32_t data_bytes) { awaited_answers_ += small_answers(data_bytes); }
  void end_awaiting(std::uint32_t data_bytes) { awaited_answers_ -= small_answers(data_bytes); }
  [[nodiscard]] std::uint32_t awaited_answers() const { return awaited_answers_; }

  // A seeded or real random number, for jitter; not for secrets.
  [[nodiscard]] virtual std::uint64_t random() = 0;

 protected:
  Reactor() = default;

  // For implementations.
  [[nodiscard]] bool has_deferred() const { return !deferred_.empty() || !deferred_again_.empty(); }
  [[nodiscard]] bool next_deadline(TimePoint& deadline) const;  // false: no timer armed
  // Fires every timer that is due and was armed before this call: a timer that re-arms itself with
  // no delay fires again in the next turn.
  void run_due_timers(TimePoint now);
  void run_deferred();
  [[nodiscard]] bool looks_at_memory() const { return !memory_.empty(); }
  // Each that has work is looked at no longer.
  [[nodiscard]] bool memory_has_work();
  [[nodiscard]] bool memory_asks_to_ring();
  // Orders timers with the same deadline, the smaller first. At first in the order of arming; a
  // simulation draws it.
  [[nodiscard]] virtual std::uint64_t timer_tie() { return ++last_tie_; }

 private:
  friend class Timer;
  friend class Deferred;
  static std::uint32_t small_answers(std::uint32_t data_bytes) { return 1 + data_bytes / 8192; }
  void arm(Timer& timer);
  void disarm(Timer& timer);
  [[nodiscard]] static bool fires_before(const Timer& a, const Timer& b);
  void place(Timer& timer, std::size_t index);
  void move_up(Timer& timer, std::size_t index);
  void move_down(Timer& timer, std::size_t index);

  IntrusiveList<Deferred> deferred_;
  IntrusiveList<Deferred> deferred_again_;  // have run in this turn and wait for the next
  std::uint64_t turn_ = 1;                  // counts run_deferred()
  std::vector<Timer*> timers_;              // a binary heap, the next to fire at 0
  std::uint64_t timer_run_ = 1;             // counts run_due_timers()
  TimePoint latest_run_{};                  // now of the latest run_due_timers()
  std::uint64_t last_tie_ = 0;
  std::uint32_t awaited_answers_ = 0;
  IntrusiveList<MemoryWatch> memory_;
};

}  // namespace iscsi_blkback
