// SimReactor: the Reactor of tests. Virtual time, one thread, everything decided by the seed: the
// order of simultaneous events, timers and readable fds, and how many of them one turn handles. The
// same seed and the same calls give the same run.
//
// Time stands still while there is something to do and then jumps to the next event or timer.
// Initiator, target and guest of a test all live on one SimReactor.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/reactor.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

class SimNetwork;

class SimReactor : public Reactor {
 public:
  explicit SimReactor(std::uint64_t seed);
  ~SimReactor() override;

  [[nodiscard]] TimePoint now() const override { return now_; }
  void post(std::function<void()> task) override;  // from the reactor's thread only
  [[nodiscard]] std::unique_ptr<FdWatch> watch_readable(int fd, FdWatch::Callback callback,
                                                        void* owner) override;
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner) override;
  [[nodiscard]] std::uint64_t random() override { return product_random_.next(); }

  [[nodiscard]] SimNetwork& network() { return *network_; }

  // For scripts and fakes: runs event from a later turn, after delay. A background event does not
  // keep run_until_idle() going (a timeout that mostly does not happen).
  enum class EventKind : std::uint8_t { normal, background };
  void schedule(Duration delay, std::function<void()> event, EventKind kind = EventKind::normal);
  // For fakes: draws from the scheduler's random numbers.
  [[nodiscard]] SimRandom& schedule_random() { return schedule_random_; }

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

  [[nodiscard]] std::uint64_t timer_tie() override { return schedule_random_.next(); }

  static bool runs_later(const Event& a, const Event& b);
  [[nodiscard]] bool find_readable();  // fills readable_
  [[nodiscard]] bool work_now();
  [[nodiscard]] bool next_time(TimePoint& at) const;
  // One turn at now_.
  void turn();
  // Does one turn, at now_ or, when nothing is left for now_, at the next time up to limit. False:
  // nothing happens up to limit.
  bool step(TimePoint limit);
  void run_due_events();
  void run_readable();

  TimePoint now_;
  SimRandom schedule_random_;
  SimRandom product_random_;
  std::vector<Event> events_;  // a heap
  std::size_t normal_events_ = 0;
  std::deque<std::function<void()>> posted_;
  std::vector<Watch*> watches_;
  std::vector<Watch*> readable_;  // of this turn; null: stopped in the meantime
  std::uint32_t turns_at_this_time_ = 0;
  std::unique_ptr<SimNetwork> network_;
};

}  // namespace iscsi_blkback
