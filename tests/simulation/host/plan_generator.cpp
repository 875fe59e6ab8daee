#include "tests/simulation/host/plan_generator.h"

#include <algorithm>

#include "tests/simulation/host/plan_profile.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

std::int64_t number(SimRandom& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1)));
}

std::int64_t flag(SimRandom& random, std::uint64_t one_in) {
  return random.one_in(one_in) ? 1 : 0;
}

PlannedWorld choose_world(SimRandom& random) {
  PlannedWorld world = simplest<PlannedWorld>();
  world.run_ms = number(random, 6000, 12000);
  world.quiesce_ms = number(random, 2, 6) * 1000;
  world.settle_ms = random.one_in(2) ? 0 : number(random, 600, world.quiesce_ms * 6 / 10);
  world.abort_timeout_ms = number(random, 200, 1200);
  world.command_timeout_ms = random.one_in(4)   ? world.quiesce_ms + number(random, 0, 4000)
                             : random.one_in(3) ? number(random, 1500, 4000)
                                                : number(random, 300, 1500);
  world.path_timeout_ms = number(random, 1000, 2000);
  world.max_commands = random.one_in(3) ? number(random, 4, 16) : 64;
  world.settings_varied = 1;
  return world;
}

PlannedTarget choose_target(SimRandom& random) {
  PlannedTarget target = simplest<PlannedTarget>();
  target.portals = random.one_in(5) ? 1 : number(random, 2, 4);
  target.groups = number(random, 0, 2);
  target.other_node = flag(random, 4);
  target.nodes = flag(random, 5);
  target.silent_groups = flag(random, 8);
  target.window = random.one_in(3) ? number(random, 1, 4) : number(random, 8, 64);
  target.single_threaded = flag(random, 6);
  target.delay_us =
      target.single_threaded != 0 ? number(random, 1000, 20000) : number(random, 20, 3000);
  target.jitter_us = random.one_in(2) ? 0 : number(random, 0, 5000);
  target.linger_ms = random.one_in(2) ? 0 : number(random, 0, 2000);
  target.latency_us = number(random, 20, 1500);
  target.split = flag(random, 4);
  target.small_pdus = flag(random, 4);
  target.solicited = flag(random, 4);
  target.chap = flag(random, 6);
  target.tpgs = random.one_in(4) ? number(random, 1, 3) : 0;
  return target;
}

PlannedLun choose_lun(SimRandom& random, const Plan& plan) {
  PlannedLun lun = simplest<PlannedLun>();
  lun.target = number(random, 0, static_cast<std::int64_t>(plan.targets.size()) - 1);
  lun.sectors = number(random, 32, 128);
  lun.identity = random.one_in(4) ? 1 : random.one_in(4) ? 3 : 0;
  const bool may_be_fenced = plan.world.settle_ms != 0;
  lun.key = may_be_fenced && random.one_in(2) ? 1 : 0;
  lun.exclusive = lun.key == 0 && random.one_in(may_be_fenced ? 2 : 4) ? 1 : 0;
  lun.redirected_fences = flag(random, 4);
  lun.vouched = flag(random, 2);
  lun.max_transfer = random.one_in(4) ? number(random, 3, 12) : 0;
  lun.no_path_retry_ms = random.one_in(6) ? number(random, 200, 3000) : 0;
  return lun;
}

// Two arrays that know nothing of each other give two LUNs one name; or one LUN has two ways.
void relate_luns(SimRandom& random, Plan& plan) {
  if (plan.targets.size() < 2) {
    return;
  }
  for (std::size_t lun = 1; lun < plan.luns.size(); ++lun) {
    if (plan.luns[lun].target != plan.luns[lun - 1].target && random.one_in(3)) {
      plan.luns[lun].identity = 2;
      plan.luns[lun - 1].identity = 0;
      return;
    }
  }
  if (random.one_in(3) && plan.targets[0].chap == 0 && plan.targets[1].chap == 0) {
    plan.luns[0].also_at = 2 - plan.luns[0].target;
    plan.luns[0].identity = 0;  // without one nobody can know that it is the same LUN
  }
}

PlannedGuest choose_guest(SimRandom& random) {
  PlannedGuest guest = simplest<PlannedGuest>();
  guest.host = number(random, 0, 1);
  guest.ring_pages = number(random, 1, 2);
  guest.think_us = random.one_in(4) ? number(random, 3000, 12000) : number(random, 12000, 90000);
  guest.busy_at_closing = flag(random, 6);
  guest.begins_ms = random.one_in(3) ? number(random, 0, 4000) : number(random, 0, 100);
  return guest;
}

PlannedDisk choose_disk(SimRandom& random, const Plan& plan, std::size_t lun) {
  PlannedDisk disk = simplest<PlannedDisk>();
  disk.lun = static_cast<std::int64_t>(lun);
  disk.guest = number(random, 0, static_cast<std::int64_t>(plan.guests.size()) - 1);
  disk.other_way = flag(random, 2);
  disk.depth = random.one_in(4) ? number(random, 12, 30) : number(random, 1, 8);
  disk.contended = flag(random, 3);
  disk.writes = number(random, 3, 9);
  return disk;
}

void choose_records(SimRandom& random, Plan& plan) {
  for (std::int64_t count = random.one_in(3) ? 2 : 1; count > 0; --count) {
    plan.targets.push_back(choose_target(random));
  }
  for (std::int64_t count = number(random, 1, 3); count > 0; --count) {
    plan.luns.push_back(choose_lun(random, plan));
  }
  relate_luns(random, plan);
  for (std::int64_t count = number(random, 1, 3); count > 0; --count) {
    plan.guests.push_back(choose_guest(random));
  }
  for (std::size_t lun = 0; lun < plan.luns.size(); ++lun) {
    plan.disks.push_back(choose_disk(random, plan, lun));
    if (plan.guests.size() > 1 && random.one_in(2)) {  // who may get the LUN after that one
      PlannedDisk other = choose_disk(random, plan, lun);
      other.guest = (plan.disks.back().guest + 1) % static_cast<std::int64_t>(plan.guests.size());
      other.detached = 1;
      plan.disks.push_back(other);
    }
  }
}

// What the rings take. From random numbers of its own, so that the rest of a seed's world is what it
// was without.
void choose_rings(Plan& plan) {
  SimRandom random(plan.seed * 0x51ed27 + 29);
  plan.world.max_queues = random.one_in(3) ? number(random, 1, 3) : number(random, 4, 6);
  plan.world.uneven_hosts = flag(random, 4);
  for (PlannedGuest& guest : plan.guests) {
    guest.queues = random.one_in(3) ? 1 : number(random, 2, 6);
    guest.segments = random.one_in(2) ? number(random, 12, 32) : 0;
  }
  for (PlannedLun& lun : plan.luns) {
    lun.thin = random.one_in(2) ? number(random, 1, 2) : 0;
  }
  for (PlannedDisk& disk : plan.disks) {
    disk.discards = random.one_in(3) ? 0 : number(random, 1, 5);
  }
  plan.world.max_buffers_mb = random.one_in(2) ? 3 : 64;  // just enough, or as it is mostly
  plan.world.poll_max_us = random.one_in(2) ? 0 : number(random, 20, 500);
}

// Mostly short, else up to as long as may be.
std::int64_t choose_time(SimRandom& random, std::int64_t highest) {
  return number(random, 1, random.one_in(3) ? highest : std::min<std::int64_t>(highest, 500));
}

PlannedEvent choose_event(SimRandom& random, EventKind kind) {
  PlannedEvent event{.kind = kind};
  const auto arguments = arguments_of(kind);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const EventArgument& argument = arguments[i];
    event.arguments[i] = argument.kind == EventArgument::Kind::time
                             ? choose_time(random, argument.highest)
                             : number(random, argument.simplest, argument.highest);
  }
  return event;
}

const PlanProfile& choose_profile(SimRandom& random, std::string_view name) {
  const auto profiles = plan_profiles();
  if (name != kMixedProfile) {
    const auto found = std::find_if(profiles.begin(), profiles.end(),
                                    [name](const PlanProfile& one) { return one.name == name; });
    ISCSI_BLKBACK_ASSERT(found != profiles.end());
    return *found;
  }
  std::uint64_t sum = 0;
  for (const PlanProfile& profile : profiles) {
    sum += profile.share;
  }
  std::uint64_t at = random.below(sum);
  const PlanProfile* chosen = &profiles.front();
  for (; at >= chosen->share; ++chosen) {
    at -= chosen->share;
  }
  return *chosen;
}

EventKind choose_kind(SimRandom& random, const PlanProfile& profile) {
  std::uint64_t sum = 0;
  for (const EventWeight& weight : profile.weights) {
    sum += weight.weight;
  }
  std::uint64_t at = random.below(sum);
  for (const EventWeight& weight : profile.weights) {
    if (at < weight.weight) {
      return weight.kind;
    }
    at -= weight.weight;
  }
  return profile.weights.front().kind;
}

}  // namespace

std::vector<std::string_view> profile_names() {
  std::vector<std::string_view> names = {kMixedProfile};
  for (const PlanProfile& profile : plan_profiles()) {
    names.push_back(profile.name);
  }
  return names;
}

Plan generate_plan(std::uint64_t seed, const GeneratorOptions& options) {
  SimRandom random(seed * 0x9e3779b9 + 17);
  const PlanProfile& profile = choose_profile(random, options.profile);
  Plan plan;
  plan.seed = seed;
  plan.world = choose_world(random);
  choose_records(random, plan);
  if (profile.shape != nullptr) {
    profile.shape(plan, random);
  }
  choose_rings(plan);
  const std::int64_t mean_us =
      number(random, profile.shortest_mean_ms, profile.longest_mean_ms) * 1000;
  std::int64_t id = 1;
  for (std::int64_t at = number(random, 0, mean_us); at < plan.world.run_ms * 1000;
       at += number(random, 1, mean_us * 2), ++id) {
    SimRandom own = SimRandom(random.next());
    PlannedEvent event = choose_event(own, choose_kind(own, profile));
    if (profile.shape_event != nullptr) {
      profile.shape_event(event);
    }
    event.at_us = at;
    event.id = id;
    const bool wanted = (options.only.empty() || options.only.contains(event.kind)) &&
                        !options.without.contains(event.kind);
    if (wanted) {
      plan.events.push_back(event);
    }
  }
  for (const GeneratorOptions::Setting& setting : options.settings) {
    ISCSI_BLKBACK_ASSERT(apply(setting, plan).has_value());
  }
  return plan;
}

Result<void> apply(const GeneratorOptions::Setting& setting, Plan& plan) {
  bool known = false;
  const auto set = [&](const char* type, auto& record) {
    for (const auto& field : fields_of(record)) {
      if (setting.record == type && setting.name == field.name) {
        record.*field.member = setting.value;
        known = true;
      }
    }
  };
  const auto set_each = [&set](const char* type, auto& records) {
    for (auto& record : records) {
      set(type, record);
    }
  };
  set("world", plan.world);
  set_each("target", plan.targets);
  set_each("lun", plan.luns);
  set_each("guest", plan.guests);
  set_each("disk", plan.disks);
  for (PlannedEvent& event : plan.events) {
    const auto arguments = arguments_of(event.kind);
    for (std::size_t i = 0; i < arguments.size() && setting.record == "event"; ++i) {
      if (arguments[i].name == setting.name) {
        event.arguments[i] = setting.value;
      }
    }
  }
  if (!known && setting.record != "event") {
    return fail(ErrorCode::invalid_argument,
                "there is no number " + setting.record + "." + setting.name);
  }
  return {};
}

}  // namespace iscsi_blkback
