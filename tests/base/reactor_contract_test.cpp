// What every Reactor does, the real one and the simulated one.
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/unique_fd.h"
#include "tests/base/contract_world.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class ReactorContract : public testing::TestWithParam<ContractWorldKind> {
 protected:
  // A timer or task that writes its number down, and then may do more.
  template <class Kind>
  struct Recorder {
    Recorder(ReactorContract& test, int number_in)
        : of(test), number(number_in), what(test.reactor(), &Recorder::run, this) {}
    static void run(void* self) noexcept {
      auto& recorder = *static_cast<Recorder*>(self);
      recorder.of.order.push_back(recorder.number);
      if (recorder.then) {
        recorder.then();
      }
    }
    ReactorContract& of;
    int number;
    std::function<void()> then;
    Kind what;
  };
  using RecordingTimer = Recorder<Timer>;
  using RecordingTask = Recorder<Deferred>;

  Reactor& reactor() { return world->reactor(); }
  [[nodiscard]] bool run_until_count(std::size_t count) {
    return world->run_until([&] { return order.size() >= count; });
  }

  std::unique_ptr<ContractWorld> world = GetParam().make();
  std::vector<int> order;
};

using Order = std::vector<int>;

TEST_P(ReactorContract, TimersFireInTheOrderOfTheirDeadlines) {
  RecordingTimer one(*this, 1), two(*this, 2), three(*this, 3);
  const TimePoint start = reactor().now();
  three.what.start_at(start + 6ms);
  one.what.start_at(start + 2ms);
  two.what.start_at(start + 4ms);
  EXPECT_EQ(two.what.deadline(), start + 4ms);
  ASSERT_TRUE(run_until_count(3));
  EXPECT_EQ(order, (Order{1, 2, 3}));
  EXPECT_GE(reactor().now(), start + 6ms);
  EXPECT_FALSE(one.what.armed());
}

TEST_P(ReactorContract, TimersNeverFireEarly) {
  RecordingTimer timer(*this, 1);
  for (const Duration delay : {Duration(1ns), Duration(100us), Duration(1500us), Duration(7ms)}) {
    const TimePoint deadline = reactor().now() + delay;
    timer.then = [&] { EXPECT_GE(reactor().now(), deadline); };
    timer.what.start_at(deadline);
    ASSERT_TRUE(world->run_until([&] { return !timer.what.armed(); }));
  }
}

TEST_P(ReactorContract, StartingAnArmedTimerMovesIt) {
  RecordingTimer one(*this, 1), two(*this, 2);
  one.what.start_after(1ms);
  two.what.start_after(2ms);
  one.what.start_after(5ms);
  ASSERT_TRUE(run_until_count(2));
  EXPECT_EQ(order, (Order{2, 1}));
  two.what.start_after(1h);
  two.what.start_after(1ms);
  ASSERT_TRUE(run_until_count(3));
}

TEST_P(ReactorContract, AStoppedOrDestroyedTimerDoesNotFire) {
  RecordingTimer stopped(*this, 1);
  auto destroyed = std::make_unique<RecordingTimer>(*this, 2);
  stopped.what.start_after(1ms);
  destroyed->what.start_after(1ms);
  stopped.what.stop();
  destroyed.reset();
  world->settle();
  EXPECT_EQ(order, Order{});
}

TEST_P(ReactorContract, ATimerMayStopAnotherThatIsDue) {
  RecordingTimer one(*this, 1), two(*this, 2);
  const TimePoint same = reactor().now();
  one.then = [&] { two.what.stop(); };
  two.then = [&] { one.what.stop(); };
  one.what.start_at(same);
  two.what.start_at(same);
  world->settle();
  EXPECT_EQ(order.size(), 1U);
}

TEST_P(ReactorContract, ATimerMayDestroyItself) {
  auto timer = std::make_unique<RecordingTimer>(*this, 1);
  timer->then = [&] { timer.reset(); };
  timer->what.start_after(1ms);
  ASSERT_TRUE(run_until_count(1));
  EXPECT_EQ(timer, nullptr);
}

TEST_P(ReactorContract, ATimerThatIsAlwaysDueStarvesNobody) {
  RecordingTimer busy(*this, 1), late(*this, 2);
  int rounds = 0;
  bool posted = false;
  busy.then = [&] {
    if (++rounds < 1000) {
      busy.what.start_at(TimePoint());
    }
  };
  busy.what.start_after(0ns);
  late.what.start_after(0ns);
  reactor().post([&] { posted = true; });
  ASSERT_TRUE(
      world->run_until([&] { return posted && std::count(order.begin(), order.end(), 2); }));
  EXPECT_LT(rounds, 1000);
}

TEST_P(ReactorContract, ManyTimersAgreeWithASortedList) {
  SimRandom random(7);
  std::vector<std::unique_ptr<RecordingTimer>> timers;
  const TimePoint start = reactor().now();
  for (int i = 0; i < 300; ++i) {
    timers.push_back(std::make_unique<RecordingTimer>(*this, i));
  }
  for (int step = 0; step < 3000; ++step) {
    Timer& timer = timers[random.below(timers.size())]->what;
    if (random.one_in(3)) {
      timer.stop();
    } else {
      timer.start_at(start + std::chrono::microseconds(random.below(3000)));
    }
  }
  Order expected;
  for (const auto& timer : timers) {
    if (timer->what.armed()) {
      expected.push_back(timer->number);
    }
  }
  const auto deadline_of = [&](int number) {
    return timers[static_cast<std::size_t>(number)]->what.deadline();
  };
  ASSERT_TRUE(run_until_count(expected.size()));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end(),
                             [&](int a, int b) { return deadline_of(a) < deadline_of(b); }));
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, expected);
}

TEST_P(ReactorContract, DeferredTasksRunInOrderAndOnce) {
  RecordingTask one(*this, 1), two(*this, 2), three(*this, 3);
  two.what.schedule();
  one.what.schedule();
  two.what.schedule();
  three.what.schedule();
  EXPECT_TRUE(two.what.scheduled());
  world->settle();
  EXPECT_EQ(order, (Order{2, 1, 3}));
  EXPECT_FALSE(two.what.scheduled());
}

TEST_P(ReactorContract, ACancelledOrDestroyedTaskDoesNotRun) {
  RecordingTask cancelled(*this, 1), canceller(*this, 2), victim(*this, 3);
  auto destroyed = std::make_unique<RecordingTask>(*this, 4);
  cancelled.what.schedule();
  destroyed->what.schedule();
  canceller.then = [&] { victim.what.cancel(); };
  canceller.what.schedule();
  victim.what.schedule();
  cancelled.what.cancel();
  destroyed.reset();
  world->settle();
  EXPECT_EQ(order, (Order{2}));
}

TEST_P(ReactorContract, ATaskThatATaskSchedulesRunsInTheSameTurn) {
  RecordingTimer timer(*this, 0);  // of a later turn
  RecordingTask one(*this, 1), two(*this, 2);
  one.then = [&] {
    timer.what.start_after(0ns);
    two.what.schedule();
  };
  one.what.schedule();
  ASSERT_TRUE(run_until_count(3));
  EXPECT_EQ(order, (Order{1, 2, 0}));
}

TEST_P(ReactorContract, ATaskThatSchedulesItselfGoesOnWithoutWaitingAndStarvesNobody) {
  RecordingTask busy(*this, 1);
  RecordingTimer timer(*this, 2);
  const UniqueFd fd(eventfd(1, EFD_NONBLOCK));
  bool readable = false;
  int rounds = 0;
  busy.then = [&] {
    if (++rounds < 2000) {
      busy.what.schedule();
    }
  };
  timer.what.start_after(0ns);
  const auto watch = reactor().watch_readable(
      fd.get(), [](void* seen) noexcept { *static_cast<bool*>(seen) = true; }, &readable);
  busy.what.schedule();
  ASSERT_TRUE(
      world->run_until([&] { return readable && std::count(order.begin(), order.end(), 2) == 1; }));
  EXPECT_LT(rounds, 2000);
  ASSERT_TRUE(world->run_until([&] { return rounds == 2000; }));
}

TEST_P(ReactorContract, PostedTasksRunInOrderAndMayPost) {
  for (int i = 0; i < 5; ++i) {
    reactor().post([this, i] { order.push_back(i); });
  }
  reactor().post([this] { reactor().post([this] { order.push_back(5); }); });
  EXPECT_EQ(order, Order{});
  ASSERT_TRUE(run_until_count(6));
  EXPECT_EQ(order, (Order{0, 1, 2, 3, 4, 5}));
}

struct EventCounter {
  explicit EventCounter(Reactor& reactor)
      : watch(reactor.watch_readable(fd.get(), &EventCounter::readable, this)) {}
  static void readable(void* self) noexcept {
    auto& counter = *static_cast<EventCounter*>(self);
    ++counter.calls;
    if (counter.on_readable) {
      counter.on_readable();
    }
  }
  void signal() const { ASSERT_EQ(eventfd_write(fd.get(), 1), 0); }
  void drain() const {
    eventfd_t value = 0;
    ASSERT_EQ(eventfd_read(fd.get(), &value), 0);
  }

  UniqueFd fd{eventfd(0, EFD_NONBLOCK)};
  int calls = 0;
  std::function<void()> on_readable;
  std::unique_ptr<FdWatch> watch;
};

TEST_P(ReactorContract, AWatchCallsAgainUntilTheFdIsRead) {
  EventCounter counter(reactor());
  counter.on_readable = [&] {
    if (counter.calls == 4) {
      counter.drain();
    }
  };
  world->settle();
  EXPECT_EQ(counter.calls, 0);
  counter.signal();
  ASSERT_TRUE(world->run_until([&] { return counter.calls == 4; }));
  world->settle();
  EXPECT_EQ(counter.calls, 4);
  counter.signal();
  counter.on_readable = [&] { counter.drain(); };
  ASSERT_TRUE(world->run_until([&] { return counter.calls == 5; }));
}

TEST_P(ReactorContract, ADestroyedWatchDoesNotCall) {
  EventCounter counter(reactor());
  counter.signal();
  counter.watch.reset();
  world->settle();
  EXPECT_EQ(counter.calls, 0);
}

TEST_P(ReactorContract, AWatchMayBeDestroyedInItsCallback) {
  EventCounter counter(reactor());
  counter.on_readable = [&] { counter.watch.reset(); };
  counter.signal();
  ASSERT_TRUE(world->run_until([&] { return counter.calls == 1; }));
  world->settle();
  EXPECT_EQ(counter.calls, 1);
}

TEST_P(ReactorContract, AWatchMayDestroyAnotherThatIsReadable) {
  EventCounter one(reactor()), two(reactor());
  one.on_readable = [&] {
    two.watch.reset();
    one.drain();
  };
  two.on_readable = [&] {
    one.watch.reset();
    two.drain();
  };
  one.signal();
  two.signal();
  world->settle();
  EXPECT_EQ(one.calls + two.calls, 1);
}

TEST_P(ReactorContract, AWatchMayBeReplacedOnTheSameFd) {
  EventCounter counter(reactor());
  counter.signal();
  counter.on_readable = [&] {
    if (counter.calls < 3) {
      counter.watch = reactor().watch_readable(counter.fd.get(), &EventCounter::readable, &counter);
    } else {
      counter.drain();
    }
  };
  ASSERT_TRUE(world->run_until([&] { return counter.calls == 3; }));
  world->settle();
  EXPECT_EQ(counter.calls, 3);
}

TEST_P(ReactorContract, TheTimeOfATurnIsNotAheadOfTheClock) {
  RecordingTimer timer(*this, 1);
  const TimePoint start = reactor().now();
  TimePoint turn;
  timer.then = [&] { turn = reactor().turn_time(); };
  timer.what.start_at(start + 2ms);
  ASSERT_TRUE(run_until_count(1));
  EXPECT_GE(turn, start + 2ms);
  EXPECT_LE(turn, reactor().now());
}

TEST_P(ReactorContract, RandomNumbersDiffer) {
  EXPECT_NE(reactor().random(), reactor().random());
}

// Memory in which work appears at the glance with that number, or when it is asked to ring.
struct WatchedMemory final : MemoryWatch {
  explicit WatchedMemory(Reactor& reactor)
      : work(
            reactor,
            [](void* self) noexcept {
              auto& memory = *static_cast<WatchedMemory*>(self);
              ++memory.done;
              if (memory.then) {
                memory.then();
              }
            },
            this) {}
  ~WatchedMemory() {
    if (linked()) {
      unlink();
    }
  }
  bool has_work() noexcept override {
    const bool has = ++glances == work_at_glance;
    if (has) {
      work.schedule();
    }
    return has;
  }
  bool ask_to_ring() noexcept override {
    ++asked;
    if (work_when_asked) {
      work.schedule();
    }
    return work_when_asked;
  }
  Deferred work;
  std::function<void()> then;
  int work_at_glance = 0;
  bool work_when_asked = false;
  int glances = 0;
  int asked = 0;
  int done = 0;
};

TEST_P(ReactorContract, BeforeItSleepsItAsksToRingForWhatComesIntoMemory) {
  WatchedMemory memory(reactor());
  reactor().look_at(memory);
  RecordingTimer timer(*this, 1);
  timer.what.start_after(5ms);
  ASSERT_TRUE(run_until_count(1));
  EXPECT_EQ(memory.asked, 1);
  EXPECT_FALSE(memory.linked());
  EXPECT_EQ(memory.done, 0);
}

TEST_P(ReactorContract, WorkThatIsInMemoryWhenItAsksToRingIsDoneBeforeItSleeps) {
  WatchedMemory memory(reactor());
  memory.work_when_asked = true;
  reactor().look_at(memory);
  RecordingTimer timer(*this, 1);
  timer.what.start_after(1h);
  ASSERT_TRUE(world->run_until([&] { return memory.done == 1; }));
  EXPECT_TRUE(timer.what.armed());
}

TEST_P(ReactorContract, AReactorThatHasNoTimeToSleepLooksIntoMemoryAllTheSame) {
  WatchedMemory memory(reactor());
  memory.work_at_glance = 3;
  reactor().look_at(memory);
  RecordingTask busy(*this, 1);
  busy.then = [&] { busy.what.schedule(); };
  busy.what.schedule();
  ASSERT_TRUE(world->run_until([&] { return memory.done == 1; }));
  EXPECT_EQ(memory.asked, 0);
  EXPECT_FALSE(memory.linked());
  busy.then = nullptr;
  busy.what.cancel();
}

TEST_P(ReactorContract, AllAreAskedToRingAlsoWhereOneHasWork) {
  WatchedMemory first(reactor()), second(reactor()), third(reactor());
  second.work_when_asked = true;
  for (WatchedMemory* memory : {&first, &second, &third, &third}) {
    reactor().look_at(*memory);
  }
  ASSERT_TRUE(world->run_until([&] { return second.done == 1; }));
  EXPECT_EQ(first.asked, 1);
  EXPECT_EQ(third.asked, 1);
}

TEST_P(ReactorContract, MemoryThatAlwaysHasWorkKeepsNothingElseWaiting) {
  WatchedMemory memory(reactor());
  struct Again {
    WatchedMemory& memory;
    Reactor& reactor;
  } again{memory, reactor()};
  Deferred look_again(
      reactor(),
      [](void* self) noexcept {
        auto& of = *static_cast<Again*>(self);
        of.memory.work_at_glance = of.memory.glances + 1;
        of.reactor.look_at(of.memory);
      },
      &again);
  memory.then = [&] { look_again.schedule(); };
  look_again.schedule();
  const UniqueFd ready(eventfd(1, EFD_CLOEXEC));
  int heard = 0;
  const auto watch = reactor().watch_readable(
      ready.get(), [](void* count) noexcept { ++*static_cast<int*>(count); }, &heard);
  EXPECT_TRUE(world->run_until([&] { return heard > 3 && memory.done > 3; }));
  memory.then = nullptr;
  look_again.cancel();
}

TEST_P(ReactorContract, MemoryThatIsUnlinkedIsNotLookedAt) {
  WatchedMemory memory(reactor());
  reactor().look_at(memory);
  memory.unlink();
  RecordingTimer timer(*this, 1);
  timer.what.start_after(1ms);
  ASSERT_TRUE(run_until_count(1));
  EXPECT_EQ(memory.glances + memory.asked, 0);
}

INSTANTIATE_TEST_SUITE_P(All, ReactorContract, testing::ValuesIn(contract_worlds()),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace iscsi_blkback
