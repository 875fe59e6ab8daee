#include "tests/simulation/host/plan_shrinker.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "tests/simulation/host/plan_runner.h"

namespace iscsi_blkback {
namespace {

constexpr int kMaxRounds = 8;
constexpr std::uint64_t kOtherSeeds = 2;

// Without that LUN or guest, and its disks; what refers to later ones follows.
Plan without_lun(const Plan& plan, std::size_t lun) {
  Plan smaller = plan;
  const auto number = static_cast<std::int64_t>(lun);
  smaller.luns.erase(smaller.luns.begin() + number);
  std::erase_if(smaller.disks, [number](const PlannedDisk& disk) { return disk.lun == number; });
  for (PlannedDisk& disk : smaller.disks) {
    disk.lun -= disk.lun > number ? 1 : 0;
  }
  return smaller;
}

Plan without_guest(const Plan& plan, std::size_t guest) {
  Plan smaller = plan;
  const auto number = static_cast<std::int64_t>(guest);
  smaller.guests.erase(smaller.guests.begin() + number);
  std::erase_if(smaller.disks, [number](const PlannedDisk& disk) { return disk.guest == number; });
  for (PlannedDisk& disk : smaller.disks) {
    disk.guest -= disk.guest > number ? 1 : 0;
  }
  return smaller;
}

bool has_all(const Plan& plan) {
  return !plan.targets.empty() && !plan.luns.empty() && !plan.guests.empty() && !plan.disks.empty();
}

// Towards the simplest value: that itself, or half of the way.
std::vector<std::int64_t> simpler(std::int64_t value, std::int64_t simplest) {
  std::vector<std::int64_t> values;
  if (value == simplest) {
    return values;
  }
  values.push_back(simplest);
  if (const std::int64_t half = simplest + (value - simplest) / 2; half != simplest) {
    values.push_back(half);
  }
  return values;
}

// A number in a plan, and the simplest that it can be.
struct NumberPlace {
  std::function<std::int64_t&(Plan&)> in;
  std::int64_t simplest = 0;
};

template <class Record>
void add_places(const Plan& plan, std::vector<Record> Plan::*records,
                std::vector<NumberPlace>& places) {
  for (std::size_t at = 0; at < (plan.*records).size(); ++at) {
    for (const PlanField<Record>& field : fields_of((plan.*records)[at])) {
      places.push_back({[records, at, member = field.member](Plan& in) -> std::int64_t& {
                          return (in.*records)[at].*member;
                        },
                        field.simplest});
    }
  }
}

std::vector<NumberPlace> places_of_numbers(const Plan& plan) {
  std::vector<NumberPlace> places;
  for (const PlanField<PlannedWorld>& field : fields_of(plan.world)) {
    places.push_back(
        {[member = field.member](Plan& in) -> std::int64_t& { return in.world.*member; },
         field.simplest});
  }
  add_places(plan, &Plan::targets, places);
  add_places(plan, &Plan::luns, places);
  add_places(plan, &Plan::guests, places);
  add_places(plan, &Plan::disks, places);
  for (std::size_t at = 0; at < plan.events.size(); ++at) {
    const auto arguments = arguments_of(plan.events[at].kind);
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      places.push_back({[at, i](Plan& in) -> std::int64_t& { return in.events[at].arguments[i]; },
                        arguments[i].simplest});
    }
  }
  return places;
}

}  // namespace

PlanShrinker::PlanShrinker(Rule rule, HostSimulationOptions options, unsigned jobs,
                           std::function<void(const std::string&)> progress)
    : rule_(rule), options_(std::move(options)), jobs_(jobs), progress_(std::move(progress)) {}

Plan PlanShrinker::shrink(Plan plan) {
  tell(plan, "begins");
  for (int round = 0; round < kMaxRounds; ++round) {
    bool better = remove_events(plan);
    better = remove_records(plan) || better;
    better = simplify_numbers(plan) || better;
    if (!better) {
      break;
    }
  }
  tell(plan, "ends");
  return plan;
}

void PlanShrinker::tell(const Plan& plan, const char* what) {
  progress_(fmt::format("shrinking {}: {} events, {} disks, {} guests, {} runs so far", what,
                        plan.events.size(), plan.disks.size(), plan.guests.size(), runs_));
}

bool PlanShrinker::take_first(Plan& plan, const std::vector<Plan>& candidates) {
  struct Running {
    std::size_t candidate;
    std::uint64_t seed;
    PlanRunner runner;
  };
  std::deque<Running> running;
  std::size_t next = 0;
  std::uint64_t next_seed = 0;
  const auto start = [&] {
    Plan tried = candidates[next];
    tried.seed += next_seed * 0x10001;
    running.push_back({next, tried.seed, PlanRunner(tried, options_)});
    ++runs_;
    if (++next_seed > kOtherSeeds) {
      next_seed = 0;
      ++next;
    }
  };
  while (next < candidates.size() || !running.empty()) {
    while (next < candidates.size() && running.size() < jobs_) {
      start();
    }
    const HostSimulationResult result = running.front().runner.result();
    if (!result.failures.empty() && result.failures.front().rule == rule_) {
      plan = candidates[running.front().candidate];
      plan.seed = running.front().seed;
      return true;
    }
    running.pop_front();
  }
  return false;
}

bool PlanShrinker::remove_events(Plan& plan) {
  bool any = false;
  for (std::size_t size = std::max<std::size_t>(plan.events.size() / 2, 1); size > 0; size /= 2) {
    for (std::size_t first = 0; first < plan.events.size();) {
      Plan smaller = plan;
      const auto begin = smaller.events.begin() + static_cast<std::ptrdiff_t>(first);
      const std::size_t count = std::min(size, plan.events.size() - first);
      smaller.events.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
      if (take_first(plan, {smaller})) {
        any = true;
      } else {
        first += count;
      }
    }
    tell(plan, "events");
  }
  return any;
}

bool PlanShrinker::remove_records(Plan& plan) {
  bool any = false;
  for (bool removed = true; removed; any = any || removed) {
    std::vector<Plan> candidates;
    for (std::size_t guest = 0; guest < plan.guests.size(); ++guest) {
      candidates.push_back(without_guest(plan, guest));
    }
    for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
      candidates.push_back(without_lun(plan, lun));
    }
    for (std::size_t disk = 0; disk < plan.disks.size(); ++disk) {
      candidates.push_back(plan);
      candidates.back().disks.erase(candidates.back().disks.begin() +
                                    static_cast<std::ptrdiff_t>(disk));
    }
    if (plan.targets.size() > 1) {
      candidates.push_back(plan);
      candidates.back().targets.pop_back();
    }
    std::erase_if(candidates, [](const Plan& candidate) { return !has_all(candidate); });
    removed = take_first(plan, candidates);
  }
  tell(plan, "records");
  return any;
}

bool PlanShrinker::simplify_numbers(Plan& plan) {
  bool any = false;
  for (const NumberPlace& place : places_of_numbers(plan)) {
    std::vector<Plan> candidates;
    for (const std::int64_t value : simpler(place.in(plan), place.simplest)) {
      candidates.push_back(plan);
      place.in(candidates.back()) = value;
    }
    any = take_first(plan, candidates) || any;
  }
  tell(plan, "numbers");
  return any;
}

}  // namespace iscsi_blkback
