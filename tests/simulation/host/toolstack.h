// Toolstack: what libxl does with guests, in its order (libxl_domain.c, libxl_device.c,
// libxl_dom_suspend.c, xl_migrate.c): one thing at a time with each guest.
//
//  - Destroying: the domain is paused; of a disk of kind qdisk nobody is asked: after two seconds
//    libxl writes state 6 itself and removes the nodes (LIBXL_QEMU_BODGE_TIMEOUT).
//  - Detaching from a guest that runs: online=0 and state 5, then up to ten seconds for state 6.
//  - Moving: the receiving domain is there first, the source goes on until it is suspended, its
//    memory is sent, then the receiving domain gets its disks, then the guest goes on there, and
//    only then the source is destroyed.
//
// The one limit of the oracle. A write that a target has had since before its guest was suspended
// may take effect late, and no initiator can tell another host so. Where a guest goes on, or a LUN
// is used, on ANOTHER host than before, the toolstack of the simulation therefore waits until every
// write that the former host had sent before its process could know (20 ms after the event, or
// after the process is scheduled again) has ended at the target, was fenced, or can never arrive.
// What is sent after that does not prolong the wait: it must not be sent. On the SAME host there
// is no such grace: the product has to protect the data by itself.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "tests/simulation/host/script.h"
#include "tests/simulation/host/simulated_guest.h"
#include "tests/simulation/host/simulated_world.h"

namespace iscsi_blkback {

class Toolstack {
 public:
  explicit Toolstack(SimulatedWorld& world) : world_(world) {}
  Toolstack(const Toolstack&) = delete;
  Toolstack& operator=(const Toolstack&) = delete;

  // Each begins it, or returns false: the guest is busy, or it makes no sense now.
  bool create(SimulatedGuest& guest, SimulatedHost& host, std::optional<DomainId> wanted = {});
  struct Restart {
    SimulatedHost& host;        // where it is created again
    bool same_domid = false;    // the number of the domain before, if that is on the same host
    Duration pause{};           // until then
    bool created_again = true;  // else it stays off
  };
  // How the guest ends: it is destroyed while it runs, or has shut down by itself.
  bool destroy(SimulatedGuest& guest, std::optional<ShutdownReason> shut_down,
               const Restart& restart);
  bool checkpoint(SimulatedGuest& guest, Duration length);
  bool save_and_restore(SimulatedGuest& guest, SimulatedHost& to, Duration pause);
  struct Migration {
    SimulatedHost& to;  // perhaps the guest's own
    Duration precopy{};
    Duration downtime{};
    bool fails = false;       // after the suspend; the guest goes on where it was
    bool fails_late = false;  // when the receiving domain has its disks already
  };
  bool migrate(SimulatedGuest& guest, const Migration& migration);
  bool pause(SimulatedGuest& guest, Duration length);
  // How a disk is taken away from a guest that runs: after it was unmounted (which may take too
  // long), without that, or by force.
  enum class Detach : std::uint8_t { unmounted, in_use, forced };
  // again: attached again after that; nullopt: it stays away.
  bool detach(SimulatedGuest& guest, std::size_t disk, Detach way, std::optional<Duration> again);
  bool attach(SimulatedGuest& guest, std::size_t disk);
  // The LUN of the disk goes from whoever has it to this guest.
  bool hand_over(SimulatedGuest& from, SimulatedGuest& to, std::size_t disk, Detach way);

  [[nodiscard]] bool idle() const;
  void forget_done();

 private:
  struct Job {
    std::unique_ptr<Script> script;
    std::vector<SimulatedGuest*> guests;
  };
  using Domain = std::shared_ptr<std::unique_ptr<SimulatedDomain>>;

  Script& begin(std::vector<SimulatedGuest*> guests);
  void add_create(Script& script, SimulatedGuest& guest, SimulatedHost& host,
                  std::function<std::optional<DomainId>()> wanted);
  // Pauses the domain, removes its disks and destroys it.
  void add_destroy(Script& script, Domain domain);
  void add_detach(Script& script, SimulatedGuest& guest, std::size_t disk, Detach way);
  void add_attach(Script& script, SimulatedGuest& guest, std::size_t disk);
  // See above.
  void add_grace(Script& script, std::vector<std::size_t> disks, SimulatedHost& host);
  void suspend(SimulatedGuest& guest);
  void check_suspend_is_noticed(SimulatedGuest& guest, DomainId domain);
  [[nodiscard]] static Domain share(std::unique_ptr<SimulatedDomain> domain);

  SimulatedWorld& world_;
  std::vector<Job> jobs_;
  std::vector<Domain> domains_;  // that are being destroyed, until they are gone
};

}  // namespace iscsi_blkback
