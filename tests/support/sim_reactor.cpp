#include "tests/support/sim_reactor.h"

#include <poll.h>

#include <algorithm>
#include <array>

#include "tests/support/sim_network.h"

namespace iscsi_blkback {
namespace {

// Not zero, so that a TimePoint nobody set is in the past.
constexpr TimePoint kStart = TimePoint(std::chrono::hours(1));

// Something that has work in every turn without end (a readable fd that nobody reads, two tasks
// that wake each other) would stop virtual time for ever.
constexpr std::uint32_t kMaxTurnsAtOneTime = 1'000'000;

}  // namespace

class SimReactor::Watch : public FdWatch {
 public:
  Watch(SimReactor& reactor, int fd, Callback callback, void* owner)
      : fd_(fd), callback_(callback), owner_(owner), reactor_(reactor) {
    reactor_.watches_.push_back(this);
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
    : now_(kStart),
      schedule_random_(seed),
      product_random_(~seed),
      network_(std::make_unique<SimNetwork>(*this)) {}

SimReactor::~SimReactor() {
  // Their captures may hold the last reference to objects that look at the network.
  events_.clear();
  posted_.clear();
  ISCSI_BLKBACK_ASSERT(watches_.empty());
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
  return network_->connect(options, owner);
}

void SimReactor::schedule(Duration delay, std::function<void()> event, EventKind kind) {
  events_.push_back(
      {now_ + std::max(delay, Duration::zero()), schedule_random_.next(), kind, std::move(event)});
  std::push_heap(events_.begin(), events_.end(), runs_later);
  normal_events_ += kind == EventKind::normal ? 1 : 0;
}

void SimReactor::run_until_idle() {
  while (normal_events_ > 0 || work_now()) {
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

bool SimReactor::find_readable() {
  readable_.clear();
  if (watches_.empty()) {
    return false;
  }
  std::vector<pollfd> polled;
  polled.reserve(watches_.size());
  for (const Watch* watch : watches_) {
    polled.push_back({watch->fd(), POLLIN, 0});
  }
  if (poll(polled.data(), polled.size(), 0) <= 0) {
    return false;
  }
  for (std::size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].revents != 0) {
      readable_.push_back(watches_[i]);
    }
  }
  return !readable_.empty();
}

bool SimReactor::work_now() {
  TimePoint next;
  return has_deferred() || !posted_.empty() || (next_time(next) && next <= now_) || find_readable();
}

bool SimReactor::next_time(TimePoint& at) const {
  const bool has_timer = next_deadline(at);
  if (events_.empty()) {
    return has_timer;
  }
  at = has_timer ? std::min(at, events_.front().at) : events_.front().at;
  return true;
}

bool SimReactor::step(TimePoint limit) {
  if (!work_now()) {
    TimePoint next;
    if (!next_time(next) || next > limit) {
      return false;
    }
    now_ = next;
    turns_at_this_time_ = 0;
  }
  if (++turns_at_this_time_ > kMaxTurnsAtOneTime) {
    std::fprintf(stderr, "SimReactor: a million turns, and still something to do at once\n");
    std::abort();
  }
  turn();
  return true;
}

void SimReactor::turn() {
  // What the kernel would report first is not specified, so the seed decides.
  enum class Source : std::uint8_t { events, timers, fds };
  std::array sources = {Source::events, Source::timers, Source::fds};
  std::swap(sources[0], sources[schedule_random_.below(3)]);
  std::swap(sources[1], sources[1 + schedule_random_.below(2)]);
  for (const Source source : sources) {
    switch (source) {
      case Source::events:
        run_due_events();
        break;
      case Source::timers:
        run_due_timers(now_);
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
}

void SimReactor::run_due_events() {
  // Taken out first: an event that these schedule for now belongs to the next turn. Often only some
  // of them, as completions trickle in.
  std::vector<Event> due;
  const std::uint64_t at_most =
      schedule_random_.one_in(2) ? ~std::uint64_t{0} : schedule_random_.between(1, 4);
  while (!events_.empty() && events_.front().at <= now_ && due.size() < at_most) {
    std::pop_heap(events_.begin(), events_.end(), runs_later);
    due.push_back(std::move(events_.back()));
    events_.pop_back();
    normal_events_ -= due.back().kind == EventKind::normal ? 1 : 0;
  }
  for (const Event& event : due) {
    event.run();
  }
}

void SimReactor::run_readable() {
  if (!find_readable()) {
    return;
  }
  for (std::size_t i = readable_.size() - 1; i > 0; --i) {
    std::swap(readable_[i], readable_[schedule_random_.below(i + 1)]);
  }
  // By index and moved out: a callback may stop watches, which clears their entries here.
  for (std::size_t i = 0; i < readable_.size(); ++i) {
    if (Watch* watch = readable_[i]) {
      watch->fire();
    }
  }
  readable_.clear();
}

}  // namespace iscsi_blkback
