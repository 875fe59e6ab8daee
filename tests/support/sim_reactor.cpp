#include "tests/support/sim_reactor.h"

#include <poll.h>

#include <algorithm>
#include <array>

#include "tests/support/ready_fd.h"
#include "tests/support/sim_fd_stream.h"
#include "tests/support/sim_network.h"

namespace iscsi_blkback {
namespace {

// Not zero, so that a TimePoint nobody set is in the past.
constexpr TimePoint kStart = TimePoint(std::chrono::hours(1));

// Something that has work in every turn without end (a readable fd that nobody reads, two tasks
// that wake each other) would stop virtual time for ever.
constexpr std::uint32_t kMaxTurnsAtOneTime = 1'000'000;

// While a reactor looks at memory before it sleeps.
constexpr std::uint64_t kMostGlances = 5;

// What a turn of a simulated process's thread takes at most.
constexpr Duration kMaxTurnTime = std::chrono::microseconds(20);

}  // namespace

class SimReactor::Watch : public FdWatch {
 public:
  Watch(SimReactor& reactor, int fd, Callback callback, void* owner)
      : fd_(fd), callback_(callback), owner_(owner), reactor_(reactor) {
    reactor_.watches_.push_back(this);
    reactor_.main_.may_be_readable_ = true;
  }
  ~Watch() override {
    std::erase(reactor_.watches_, this);
    std::replace(reactor_.readable_.begin(), reactor_.readable_.end(), this,
                 static_cast<Watch*>(nullptr));
  }

  [[nodiscard]] int fd() const { return fd_; }
  void fire() { callback_(owner_); }

 private:
  int fd_;
  Callback callback_;
  void* owner_;
  SimReactor& reactor_;
};

SimReactor::SimReactor(std::uint64_t seed)
    : main_(*this),
      product_random_(~seed),
      now_(kStart),
      schedule_random_(seed),
      network_(std::make_unique<SimNetwork>(*this)) {}

SimReactor::SimReactor(SimReactor& main, TurnObserver* turns)
    : main_(main),
      turns_(turns),
      product_random_(main.schedule_random_.next()),
      schedule_random_(0) {
  ISCSI_BLKBACK_ASSERT(main.is_main());
  main_.members_.push_back(this);
}

SimReactor::~SimReactor() {
  // Their captures may hold the last reference to objects that look at the network.
  events_.clear();
  posted_.clear();
  ISCSI_BLKBACK_ASSERT(watches_.empty());
  if (!is_main() && !halted_) {
    halt();
  }
}

void SimReactor::halt() {
  ISCSI_BLKBACK_ASSERT(!is_main() && !halted_);
  halted_ = true;
  main_.normal_events_ -= static_cast<std::size_t>(
      std::count_if(events_.begin(), events_.end(),
                    [](const Event& event) { return event.kind == EventKind::normal; }));
  std::erase(main_.members_, this);
  std::replace(main_.with_work_.begin(), main_.with_work_.end(), this,
               static_cast<SimReactor*>(nullptr));
}

void SimReactor::post(std::function<void()> task) {
  posted_.push_back(std::move(task));
}

std::unique_ptr<FdWatch> SimReactor::watch_readable(int fd, FdWatch::Callback callback,
                                                    void* owner) {
  return std::make_unique<Watch>(*this, fd, callback, owner);
}

std::unique_ptr<ByteStream> SimReactor::connect(const ConnectOptions& options,
                                                ByteStream::Owner& owner) {
  return network().connect(options, owner, *this);
}

std::unique_ptr<ByteStream> SimReactor::adopt(UniqueFd socket, ByteStream::Owner& owner) {
  return std::make_unique<SimFdStream>(*this, std::move(socket), owner);
}

void SimReactor::schedule(Duration delay, std::function<void()> event, EventKind kind) {
  if (halted_) {
    return;
  }
  events_.push_back({now() + std::max(delay, Duration::zero()), schedule_random().next(), kind,
                     std::move(event)});
  std::push_heap(events_.begin(), events_.end(), runs_later);
  main_.normal_events_ += kind == EventKind::normal ? 1 : 0;
}

void SimReactor::run_until_idle() {
  while (normal_events_ > 0 || any_work_now()) {
    step(TimePoint::max());
  }
}

void SimReactor::run_for(Duration span) {
  const TimePoint end = now_ + span;
  while (step(end)) {
  }
  now_ = end;
}

bool SimReactor::run_until(const std::function<bool()>& predicate, Duration at_most) {
  const TimePoint end = now_ + at_most;
  while (!predicate()) {
    if (!step(end)) {
      now_ = end;
      return predicate();
    }
  }
  return true;
}

bool SimReactor::runs_later(const Event& a, const Event& b) {
  return a.at != b.at ? a.at > b.at : a.tie > b.tie;
}

void SimReactor::find_readable() {
  const std::uint64_t signals = ready_fd_signals.load(std::memory_order_relaxed);
  if (trusts_ready_fds_ && !may_be_readable_ && signals == seen_ready_fds_) {
    return;  // as nothing was readable before, and what was is no more
  }
  seen_ready_fds_ = signals;
  may_be_readable_ = false;
  std::vector<pollfd>& polled = polled_;
  std::vector<std::pair<SimReactor*, Watch*>>& watched = watched_;
  polled.clear();
  watched.clear();
  const auto add = [&](SimReactor& reactor) {
    reactor.readable_.clear();
    for (Watch* watch : reactor.watches_) {
      polled.push_back({watch->fd(), POLLIN, 0});
      watched.emplace_back(&reactor, watch);
    }
  };
  add(*this);
  for (SimReactor* member : members_) {
    add(*member);
  }
  if (polled.empty() || poll(polled.data(), polled.size(), 0) <= 0) {
    return;
  }
  may_be_readable_ = true;
  for (std::size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].revents != 0) {
      watched[i].first->readable_.push_back(watched[i].second);
    }
  }
}

bool SimReactor::work_now() const {
  TimePoint next;
  return runs_now() && (has_to_turn() || (next_time(next) && next <= now()));
}

bool SimReactor::any_work_now() {
  find_readable();
  return work_now() || std::any_of(members_.begin(), members_.end(),
                                   [](const SimReactor* member) { return member->work_now(); });
}

bool SimReactor::next_time(TimePoint& at) const {
  if (!is_main() && has_to_turn()) {
    at = std::max(now(), runs_again_at_);
    return true;
  }
  const bool has_timer = next_deadline(at);
  if (!has_timer && events_.empty()) {
    return false;
  }
  if (!events_.empty()) {
    at = has_timer ? std::min(at, events_.front().at) : events_.front().at;
  }
  at = std::max(at, runs_again_at_);
  return true;
}

bool SimReactor::next_time_of_any(TimePoint& at) const {
  bool any = next_time(at);
  for (const SimReactor* member : members_) {
    TimePoint other;
    if (member->next_time(other) && (!any || other < at)) {
      at = other;
      any = true;
    }
  }
  return any;
}

bool SimReactor::step(TimePoint limit) {
  ISCSI_BLKBACK_ASSERT(is_main());
  if (!any_work_now()) {
    TimePoint next;
    if (!next_time_of_any(next) || next > limit) {
      return false;
    }
    now_ = next;
    turns_at_this_time_ = 0;
  }
  if (++turns_at_this_time_ > kMaxTurnsAtOneTime) {
    std::fprintf(stderr, "SimReactor: a million turns, and still something to do at once\n");
    std::abort();
  }
  run_turns();
  return true;
}

// What the kernel runs first, and whether it comes to the others before the first has more to do,
// is not specified, so the seed decides.
void SimReactor::run_turns() {
  if (members_.empty()) {
    turn();
    return;
  }
  with_work_.clear();
  if (work_now()) {
    with_work_.push_back(this);
  }
  std::copy_if(members_.begin(), members_.end(), std::back_inserter(with_work_),
               [](const SimReactor* member) { return member->work_now(); });
  const std::size_t count = with_work_.size();
  for (std::size_t i = 0; i + 1 < count; ++i) {
    std::swap(with_work_[i], with_work_[i + schedule_random_.below(count - i)]);
  }
  const std::size_t run = schedule_random_.one_in(3) ? 1 + schedule_random_.below(count) : count;
  for (std::size_t i = 0; i < run; ++i) {
    SimReactor* reactor = with_work_[i];
    if (reactor == nullptr) {
      continue;
    }
    reactor->turn();
    if (reactor != this && with_work_[i] == reactor) {
      reactor->runs_again_at_ = std::max(
          reactor->runs_again_at_,
          now_ + Duration(static_cast<Duration::rep>(
                     schedule_random_.below(static_cast<std::uint64_t>(kMaxTurnTime.count())))));
    }
  }
}

void SimReactor::turn() {
  if (turns_ != nullptr) {
    turns_->on_turn_begins();
  }
  // What the kernel would report first is not specified, so the seed decides.
  enum class Source : std::uint8_t { events, timers, fds };
  std::array sources = {Source::events, Source::timers, Source::fds};
  std::swap(sources[0], sources[schedule_random().below(3)]);
  std::swap(sources[1], sources[1 + schedule_random().below(2)]);
  for (const Source source : sources) {
    switch (source) {
      case Source::events:
        run_due_events();
        break;
      case Source::timers:
        run_due_timers(now());
        break;
      case Source::fds:
        run_readable();
        break;
    }
  }
  for (std::size_t count = posted_.size(); count > 0; --count) {
    const std::function<void()> task = std::move(posted_.front());
    posted_.pop_front();
    task();
  }
  run_deferred();
  look_at_memory();
  if (turns_ != nullptr) {
    turns_->on_turn_ends();
  }
}

// What has work runs in the next turn, at the same time.
void SimReactor::look_at_memory() {
  if (memory_has_work() || has_deferred() || looks_soon_ || !looks_at_memory()) {
    return;
  }
  if (longest_look_ != Duration::zero()) {
    if (glances_left_ == 0) {
      glances_left_ = 1 + schedule_random().below(kMostGlances);
    }
    if (--glances_left_ != 0) {
      looks_soon_ = true;
      schedule(longest_look_ / kMostGlances, [this] { looks_soon_ = false; });
      return;
    }
  }
  static_cast<void>(memory_asks_to_ring());
}

void SimReactor::run_due_events() {
  // Taken out first: an event that these schedule for now belongs to the next turn. Often only some
  // of them, as completions trickle in.
  std::vector<Event> due = std::move(due_);  // its memory
  SimRandom& random = schedule_random();
  const std::uint64_t at_most = random.one_in(2) ? ~std::uint64_t{0} : random.between(1, 4);
  while (!events_.empty() && events_.front().at <= now() && due.size() < at_most) {
    std::pop_heap(events_.begin(), events_.end(), runs_later);
    due.push_back(std::move(events_.back()));
    events_.pop_back();
    main_.normal_events_ -= due.back().kind == EventKind::normal ? 1 : 0;
  }
  for (const Event& event : due) {
    event.run();
  }
  due.clear();
  due_ = std::move(due);
}

void SimReactor::run_readable() {
  if (readable_.empty()) {
    return;
  }
  for (std::size_t i = readable_.size() - 1; i > 0; --i) {
    std::swap(readable_[i], readable_[schedule_random().below(i + 1)]);
  }
  // By index: a callback may stop watches, which clears their entries here.
  for (std::size_t i = 0; i < readable_.size(); ++i) {
    if (Watch* watch = readable_[i]) {
      watch->fire();
    }
  }
  readable_.clear();
}

}  // namespace iscsi_blkback
