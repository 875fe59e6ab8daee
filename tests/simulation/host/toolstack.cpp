#include "tests/simulation/host/toolstack.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/host/product_configuration.h"
#include "tests/simulation/host/simulated_host.h"
#include "tests/simulation/host/simulated_storage.h"
#include "tests/simulation/host/wire_watch.h"

namespace iscsi_blkback {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kQdiskTime{2};     // LIBXL_QEMU_BODGE_TIMEOUT
constexpr seconds kDestroyTime{10};  // LIBXL_DESTROY_TIMEOUT
constexpr hours kAsLongAsItTakes{1};
// From the suspend (or the end of a guest) until its process can be expected to know.
constexpr milliseconds kNoticeTime{20};
// A process that was asked at an unlucky moment asks again within a second.
constexpr milliseconds kLongestNotice{2500};

}  // namespace

Toolstack::Domain Toolstack::share(std::unique_ptr<SimulatedDomain> domain) {
  return std::make_shared<std::unique_ptr<SimulatedDomain>>(std::move(domain));
}

Script& Toolstack::begin(std::vector<SimulatedGuest*> guests) {
  forget_done();
  for (SimulatedGuest* guest : guests) {
    guest->busy = true;
  }
  Job& job = jobs_.emplace_back();
  job.guests = std::move(guests);
  job.script = std::make_unique<Script>(world_.reactor(), [this] {
    return world_.host(0).toolstack_works() && world_.host(1).toolstack_works();
  });
  return *job.script;
}

void Toolstack::forget_done() {
  std::erase_if(jobs_, [](const Job& job) {
    if (!job.script->done()) {
      return false;
    }
    for (SimulatedGuest* guest : job.guests) {
      guest->busy = false;
    }
    return true;
  });
  std::erase_if(domains_, [](const Domain& domain) { return (*domain)->gone(); });
}

bool Toolstack::idle() const {
  return std::all_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return job.script->done(); });
}

// ---- parts

void Toolstack::add_grace(Script& script, std::vector<std::size_t> disks, SimulatedHost& host) {
  struct Grace {
    std::optional<TimePoint> begins;
    std::optional<TimePoint> sent_until;
  };
  auto grace = std::make_shared<Grace>();
  script.until(
      [this, disks = std::move(disks), &host, grace] {
        const TimePoint now = world_.reactor().now();
        grace->begins = grace->begins.value_or(now);
        for (std::size_t other = 0; other < SimulatedWorld::kHosts; ++other) {
          SimulatedHost& former = world_.host(other);
          if (&former == &host) {
            continue;
          }
          if (!grace->sent_until) {
            for (SimulatedProcess* process : former.processes()) {
              grace->begins = std::max(*grace->begins, std::min(process->stalled_until(), now));
              if (process->stalled_until() > now) {
                return false;
              }
            }
            if (now - *grace->begins < kNoticeTime) {
              return false;
            }
            grace->sent_until = now;
          }
          for (const std::size_t disk : disks) {
            const std::size_t lun = lun_of(world_.plan(), world_.plan().disks[disk]);
            for (std::size_t target = 0; target < world_.storage().targets(); ++target) {
              if (!world_.wire().writes_over(former.computer(), target, lun_number(lun),
                                             *grace->sent_until)) {
                return false;
              }
            }
          }
        }
        return true;
      },
      kAsLongAsItTakes);
}

void Toolstack::add_create(Script& script, SimulatedGuest& guest, SimulatedHost& host,
                           std::function<std::optional<DomainId>()> wanted) {
  const Domain domain = share(nullptr);
  add_grace(script, {guest.attached().begin(), guest.attached().end()}, host);
  script.then([this, &guest, &host, domain, wanted = std::move(wanted)] {
    std::optional<DomainId> number = wanted();
    if (number && host.domain_exists(*number)) {
      number.reset();
    }
    world_.count(number ? "domid used again" : "domain created");
    *domain = guest.make_domain(host, number);
    for (const std::size_t disk : guest.attached()) {
      (*domain)->add_disk(disk);
    }
  });
  script.wait(milliseconds(10));
  script.then([&guest, domain] { guest.boot(std::move(*domain)); });
}

void Toolstack::add_destroy(Script& script, Domain domain) {
  script.then([this, domain] {
    (*domain)->stop();
    domains_.push_back(domain);
  });
  script.wait(kQdiskTime);
  script.then([domain] {
    for (const std::size_t disk : (*domain)->disks()) {
      (*domain)->host().toolstack().close_for_backend((*domain)->node(disk));
    }
  });
  script.wait(milliseconds(5));
  script.then([domain] {
    SimulatedDomain& at = **domain;
    for (const std::size_t disk : at.disks()) {
      at.host().toolstack().remove(at.node(disk));
    }
    (void)at.host().toolstack().store().remove(fmt::format("/local/domain/{}", at.id()));
    at.destroy();
  });
}

void Toolstack::add_detach(Script& script, SimulatedGuest& guest, std::size_t disk, Detach way) {
  script.then([&guest, disk] {
    guest.set_leaving(disk, true);
    guest.workload(disk).stop();
  });
  if (way == Detach::unmounted) {
    script.until([&guest, disk] { return guest.workload(disk).idle(); }, seconds(3));
  }
  const auto closed = [&guest, disk] {
    SimulatedDomain& domain = *guest.domain();
    const int state = domain.host().toolstack().backend_state(domain.node(disk));
    constexpr int kClosed = 6;
    return state == 0 || state == kClosed;
  };
  script.then([&guest, disk, way] {
    FakeToolstack& libxl = guest.host().toolstack();
    if (way == Detach::forced) {
      libxl.force_detach(guest.domain()->node(disk));
    } else {
      libxl.request_detach(guest.domain()->node(disk));
    }
  });
  script.until(closed, kDestroyTime);
  script.then([&guest, disk, closed] {
    if (!closed()) {
      guest.host().toolstack().force_detach(guest.domain()->node(disk));
    }
  });
  script.until(closed, kDestroyTime);
  script.then([this, &guest, disk] {
    world_.count("disk detached");
    guest.domain()->remove_disk(disk);
    guest.detach(disk);
    guest.workload(disk).go_on();
  });
}

void Toolstack::add_attach(Script& script, SimulatedGuest& guest, std::size_t disk) {
  add_grace(script, {disk}, guest.host());
  script.then([this, &guest, disk] {
    if (guest.workload(disk).lun().user) {
      return;  // somebody else was faster
    }
    world_.count("disk attached");
    guest.attach(disk);
    guest.domain()->add_disk(disk);
    guest.disk_added(disk);
  });
}

void Toolstack::suspend(SimulatedGuest& guest) {
  world_.count("guest suspended");
  guest.stop();
  guest.host().set_domain(guest.domain()->id(), DomainLife::shut_down, ShutdownReason::suspend);
  check_suspend_is_noticed(guest, guest.domain()->id());
}

void Toolstack::check_suspend_is_noticed(SimulatedGuest& guest, DomainId domain) {
  SimulatedHost& host = guest.host();
  SimulatedProcess* process = host.process_of(domain);
  if (process == nullptr) {
    return;
  }
  world_.later(kLongestNotice, [this, &host, domain, process, pid = process->pid(),
                                since = world_.reactor().now()] {
    const Result<DomainStatus> status = host.xen().open_domain_info()->status(domain);
    const bool suspended = status && status->life == DomainLife::shut_down &&
                           status->shutdown_reason == ShutdownReason::suspend;
    const bool still_there = host.process_of(domain) == process && process->pid() == pid &&
                             process->product() != nullptr;
    if (suspended && still_there && process->stalled_until() <= since && host.toolstack_works() &&
        !process->product()->suspended_since()) {
      world_.fail(Rule::suspend_unnoticed,
                  fmt::format("the process of domain {} does not know after {} ms that its guest "
                              "is suspended",
                              domain, kLongestNotice.count()));
    }
  });
}

// ---- whole commands

bool Toolstack::create(SimulatedGuest& guest, SimulatedHost& host, std::optional<DomainId> wanted) {
  if (guest.busy || guest.domain() != nullptr) {
    return false;
  }
  add_create(begin({&guest}), guest, host, [wanted] { return wanted; });
  return true;
}

bool Toolstack::destroy(SimulatedGuest& guest, std::optional<ShutdownReason> shut_down,
                        const Restart& restart) {
  if (guest.busy || guest.domain() == nullptr) {
    return false;
  }
  Script& script = begin({&guest});
  SimulatedHost& host = guest.host();
  const DomainId before = guest.domain()->id();
  for (const std::size_t disk : guest.attached()) {
    guest.workload(disk).lun().disturb();
  }
  if (shut_down) {
    script.then([&guest, &host, shut_down] {
      guest.stop();
      host.set_domain(guest.domain()->id(), DomainLife::shut_down, *shut_down);
    });
    script.wait(milliseconds(30));
  }
  const Domain domain = share(nullptr);
  script.then([&guest, domain] { *domain = guest.end(); });
  add_destroy(script, domain);
  script.wait(restart.pause);
  if (restart.created_again) {
    const bool same = restart.same_domid && &restart.host == &host;
    if (same) {
      script.until([&host, before] { return !host.domain_exists(before); }, kDestroyTime);
    }
    add_create(script, guest, restart.host,
               [same, before] { return same ? std::optional(before) : std::nullopt; });
  }
  return true;
}

bool Toolstack::checkpoint(SimulatedGuest& guest, Duration length) {
  if (guest.busy || guest.domain() == nullptr) {
    return false;
  }
  begin({&guest}).then([this, &guest] { suspend(guest); }).wait(length).then([this, &guest] {
    // As after a migration that has failed: its rings are as they were.
    world_.count("guest resumed in place");
    guest.host().set_domain(guest.domain()->id(), DomainLife::running);
    guest.run();
  });
  return true;
}

bool Toolstack::save_and_restore(SimulatedGuest& guest, SimulatedHost& to, Duration pause) {
  if (guest.busy || guest.domain() == nullptr) {
    return false;
  }
  Script& script = begin({&guest});
  const Domain from = share(nullptr);
  const Domain domain = share(nullptr);
  script.then([this, &guest] { suspend(guest); });
  script.wait(milliseconds(50));
  script.then([&guest, from] { *from = guest.save(); });
  add_destroy(script, from);
  script.wait(pause);
  script.then([&guest, &to, domain] {
    *domain = guest.make_domain(to, {});
    (*domain)->stop();
  });
  script.wait(milliseconds(30));
  script.then([&guest, domain] {
    for (const std::size_t disk : guest.attached()) {
      (*domain)->add_disk(disk);
    }
  });
  script.wait(milliseconds(20));
  add_grace(script, {guest.attached().begin(), guest.attached().end()}, to);
  script.then([this, &guest, domain] {
    world_.count("guest restored");
    (*domain)->run();
    (void)guest.move_to(std::move(*domain));
  });
  return true;
}

bool Toolstack::migrate(SimulatedGuest& guest, const Migration& migration) {
  if (guest.busy || guest.domain() == nullptr) {
    return false;
  }
  Script& script = begin({&guest});
  SimulatedHost& to = migration.to;
  const Domain from = share(nullptr);
  const Domain domain = share(nullptr);
  script.then([&guest, &to, domain] {
    *domain = guest.make_domain(to, {});
    (*domain)->stop();
  });
  script.wait(migration.precopy);
  script.then([this, &guest] { suspend(guest); });
  script.wait(milliseconds(40));
  const auto give_disks = [&guest, domain] {
    for (const std::size_t disk : guest.attached()) {
      (*domain)->add_disk(disk);
    }
  };
  if (migration.fails) {
    if (migration.fails_late) {
      script.then(give_disks);
    }
    script.wait(migration.downtime);
    add_destroy(script, domain);
    script.then([this, &guest] {
      world_.count("guest resumed after a failed migration");
      guest.host().set_domain(guest.domain()->id(), DomainLife::running);
      guest.run();
    });
    return true;
  }
  script.then(give_disks);
  script.wait(migration.downtime);
  add_grace(script, {guest.attached().begin(), guest.attached().end()}, to);
  script.then([this, &guest, from, domain] {
    world_.count("guest migrated");
    (*domain)->run();
    *from = guest.move_to(std::move(*domain));
  });
  script.wait(milliseconds(20));
  add_destroy(script, from);
  return true;
}

bool Toolstack::pause(SimulatedGuest& guest, Duration length) {
  if (guest.busy || guest.domain() == nullptr) {
    return false;
  }
  begin({&guest}).then([&guest] { guest.stop(); }).wait(length).then([&guest] { guest.run(); });
  return true;
}

bool Toolstack::detach(SimulatedGuest& guest, std::size_t disk, Detach way,
                       std::optional<Duration> again) {
  if (guest.busy || guest.domain() == nullptr || !guest.domain()->has_disk(disk)) {
    return false;
  }
  Script& script = begin({&guest});
  add_detach(script, guest, disk, way);
  if (again) {
    script.wait(*again);
    add_attach(script, guest, disk);
  }
  return true;
}

bool Toolstack::attach(SimulatedGuest& guest, std::size_t disk) {
  if (guest.busy || guest.domain() == nullptr || guest.domain()->has_disk(disk) ||
      guest.workload(disk).lun().user) {
    return false;
  }
  add_attach(begin({&guest}), guest, disk);
  return true;
}

bool Toolstack::hand_over(SimulatedGuest& from, SimulatedGuest& to, std::size_t disk, Detach way) {
  const std::optional<std::size_t> user = to.workload(disk).lun().user;
  if (&from == &to || from.busy || to.busy || from.domain() == nullptr || to.domain() == nullptr ||
      !user || !from.domain()->has_disk(*user)) {
    return false;
  }
  Script& script = begin({&from, &to});
  add_detach(script, from, *user, way);
  add_attach(script, to, disk);
  return true;
}

}  // namespace iscsi_blkback
