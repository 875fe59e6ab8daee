// SimReactor: the Reactor of tests. Virtual time, one thread, everything decided by the seed: the
// order of simultaneous events, timers and readable fds, and how many of them one turn handles. The
// same seed and the same calls give the same run.
//
// Time stands still while there is something to do and then jumps to the next event or timer.
// Initiator, target and guest of a test all live on one SimReactor, or each thread of a simulated
// process on one of its own that shares the time of the main one: see the second constructor.
#pragma once

#include <poll.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/reactor.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

class SimNetwork;

class SimReactor : public Reactor {
 public:
  // Hears when a turn of a reactor begins and ends: for whoever has to know which simulated process
  // runs.
  class TurnObserver {
   public:
    virtual void on_turn_begins() = 0;
    virtual void on_turn_ends() = 0;

   protected:
    ~TurnObserver() = default;
  };

  explicit SimReactor(std::uint64_t seed);
  // One more reactor in the same virtual time and at the same network, run by main: a thread of a
  // simulated process. A turn takes it a little time, and which of several threads runs first is
  // the seed's choice. main and turns outlive it; turns: may be null.
  SimReactor(SimReactor& main, TurnObserver* turns);
  ~SimReactor() override;

  [[nodiscard]] TimePoint now() const override { return main_.now_; }
  void post(std::function<void()> task) override;  // from the reactor's thread only
  [[nodiscard]] std::unique_ptr<FdWatch> watch_readable(int fd, FdWatch::Callback callback,
                                                        void* owner) override;
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner) override;
  // What the other end does, which is none of the simulation's, is seen while the reactor runs.
  [[nodiscard]] std::unique_ptr<ByteStream> adopt(UniqueFd socket,
                                                  ByteStream::Owner& owner) override;
  [[nodiscard]] std::uint64_t random() override { return product_random_.next(); }

  // Only for a reactor that was made from a main one.
  // The thread is not scheduled before that time, whatever happens.
  void stand_still_until(TimePoint time) { runs_again_at_ = std::max(runs_again_at_, time); }
  // The thread is gone: nothing of it runs any more. What is scheduled, posted or watched stays as
  // it is; the reactor needs not be destroyed.
  void halt();
  [[nodiscard]] bool halted() const { return halted_; }
  // Which computer it belongs to; see SimNetwork. 0 at first.
  void set_computer(unsigned computer) { computer_ = computer; }
  [[nodiscard]] unsigned computer() const { return computer_; }

  // Before it sleeps, it looks at memory (MemoryWatch) for so long at most, in virtual time; how long is the seed's
  // choice each time. Zero, as at first: it sleeps at once.
  void set_longest_look(Duration longest) { longest_look_ = longest; }

  // Every fd that is watched becomes readable by signal_ready() of ready_fd.h alone: where that was
  // not called, nobody needs to ask the kernel.
  void trust_ready_fds() { main_.trusts_ready_fds_ = true; }

  [[nodiscard]] SimNetwork& network() { return *main_.network_; }

  // For scripts and fakes: runs event from a later turn, after delay. A background event does not
  // keep run_until_idle() going (a timeout that mostly does not happen).
  enum class EventKind : std::uint8_t { normal, background };
  void schedule(Duration delay, std::function<void()> event, EventKind kind = EventKind::normal);
  // For fakes: draws from the scheduler's random numbers.
  [[nodiscard]] SimRandom& schedule_random() { return main_.schedule_random_; }

  // The main reactor's, which runs all:
  // Runs until only timers and background events are left; those that fall due before that run too.
  void run_until_idle();
  // Runs everything that happens in this span; now() is its end afterwards.
  void run_for(Duration span);
  // Runs until predicate holds (looked at before every turn), for at most this long in virtual
  // time. False: it never held.
  [[nodiscard]] bool run_until(const std::function<bool()>& predicate,
                               Duration at_most = std::chrono::hours(1));

 private:
  class Watch;
  struct Event {
    TimePoint at;
    std::uint64_t tie;  // random: the order among simultaneous events
    EventKind kind;
    std::function<void()> run;
  };

  [[nodiscard]] std::uint64_t timer_tie() override { return schedule_random().next(); }

  static bool runs_later(const Event& a, const Event& b);
  [[nodiscard]] bool is_main() const { return &main_ == this; }
  [[nodiscard]] bool runs_now() const { return !halted_ && runs_again_at_ <= now(); }
  // At once, whatever the time is.
  [[nodiscard]] bool has_to_turn() const {
    return has_deferred() || !posted_.empty() || !readable_.empty() ||
           (looks_at_memory() && !looks_soon_);
  }
  [[nodiscard]] bool work_now() const;
  // When this reactor has something to do next; false: never.
  [[nodiscard]] bool next_time(TimePoint& at) const;
  void turn();
  void run_due_events();
  void run_readable();
  void look_at_memory();

  // Of the main reactor, for all.
  void find_readable();
  [[nodiscard]] bool any_work_now();
  [[nodiscard]] bool next_time_of_any(TimePoint& at) const;
  // Does one turn, at now_ or, when nothing is left for now_, at the next time up to limit. False:
  // nothing happens up to limit.
  bool step(TimePoint limit);
  void run_turns();

  SimReactor& main_;
  TurnObserver* turns_ = nullptr;
  SimRandom product_random_;
  std::vector<Event> events_;  // a heap
  std::vector<Event> due_;     // empty
  std::deque<std::function<void()>> posted_;
  std::vector<Watch*> watches_;
  std::vector<Watch*> readable_;  // of this turn; null: stopped in the meantime
  TimePoint runs_again_at_{};
  Duration longest_look_{};
  std::uint64_t glances_left_ = 0;
  bool looks_soon_ = false;  // an event for the next glance is scheduled
  bool halted_ = false;
  unsigned computer_ = 0;

  // Only the main reactor's.
  TimePoint now_;
  SimRandom schedule_random_;
  std::size_t normal_events_ = 0;       // of all
  std::vector<SimReactor*> members_;    // without the main one
  std::vector<SimReactor*> with_work_;  // in this step; null: gone in the meantime
  std::vector<pollfd> polled_;          // by find_readable()
  std::vector<std::pair<SimReactor*, Watch*>> watched_;
  std::uint32_t turns_at_this_time_ = 0;
  bool trusts_ready_fds_ = false;
  bool may_be_readable_ = true;
  std::uint64_t seen_ready_fds_ = 0;
  std::unique_ptr<SimNetwork> network_;
};

}  // namespace iscsi_blkback
