#include "bench/machine_costs.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <thread>

#include "base/unique_fd.h"
#include "bench/core_pinning.h"

namespace iscsi_blkback {
namespace {

constexpr int kWakes = 3000;
constexpr int kTimedSleeps = 2000;
// Long enough for the other core to have gone to sleep in earnest.
constexpr double kPauseUs = 60;

double now_us() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

double processor_us() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void measure_wakes(int core, int other_core, MachineCosts& costs) {
  const UniqueFd event(eventfd(0, EFD_CLOEXEC));
  std::atomic<int> woken = 0;
  std::atomic<bool> ready = false;
  std::thread sleeper([&] {
    pin_to_core(core);
    ready = true;
    const double before = processor_us();
    std::uint64_t value = 0;
    while (woken < kWakes && read(event.get(), &value, sizeof value) == sizeof value) {
      ++woken;
    }
    costs.woken_us = (processor_us() - before) / kWakes;
  });
  std::thread waker([&] {
    pin_to_core(other_core);
    while (!ready) {
    }
    for (int wake = 0; wake < kWakes; ++wake) {
      for (const double end = now_us() + kPauseUs; now_us() < end;) {
      }
      const std::uint64_t one = 1;
      const double began = now_us();
      [[maybe_unused]] const ssize_t written = write(event.get(), &one, sizeof one);
      costs.wake_us += (now_us() - began) / kWakes;
      while (woken == wake) {
      }
      costs.runs_after_us += (now_us() - began) / kWakes;
    }
  });
  waker.join();
  sleeper.join();
}

void measure_timed_sleeps(int core, MachineCosts& costs) {
  std::thread sleeper([&] {
    pin_to_core(core);
    prctl(PR_SET_TIMERSLACK, 1UL);
    const double before = processor_us();
    for (int sleep = 0; sleep < kTimedSleeps; ++sleep) {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    costs.timed_sleep_us = (processor_us() - before) / kTimedSleeps;
  });
  sleeper.join();
}

}  // namespace

std::string MachineCosts::text() const {
  return fmt::format(
      "this machine: to wake a thread on the other core costs {:.1f} us of the waker's core; it "
      "runs after {:.1f} us, and its sleep has cost {:.1f} us of its own; a sleep that a timer "
      "ends costs {:.1f} us",
      wake_us, runs_after_us, woken_us, timed_sleep_us);
}

MachineCosts measure_machine_costs(int core, int other_core) {
  MachineCosts costs;
  measure_wakes(core, other_core, costs);
  measure_timed_sleeps(core, costs);
  return costs;
}

}  // namespace iscsi_blkback
