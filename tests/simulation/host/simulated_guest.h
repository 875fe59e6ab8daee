// SimulatedGuest: a virtual machine that lives on, whatever domain of whichever host it runs in.
// What it does with its disks is DiskWorkload's; what the toolstack does to it is Toolstack's.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "tests/simulation/host/disk_workload.h"
#include "tests/simulation/host/simulated_domain.h"
#include "tests/simulation/host/simulated_world.h"

namespace iscsi_blkback {

class SimulatedGuest final : private SimulatedDomain::Owner {
 public:
  // number: its place in the plan.
  SimulatedGuest(SimulatedWorld& world, std::size_t number);

  [[nodiscard]] std::size_t number() const { return number_; }
  // Where it runs, or would be started. Null: it is off.
  [[nodiscard]] SimulatedDomain* domain() { return domain_.get(); }
  [[nodiscard]] SimulatedHost& host() { return *host_; }
  [[nodiscard]] SimulatedProcess* process();  // that serves it; null: none

  // Its process is killed, or asked to end: a disk that was just being connected may be closed under
  // its guest, and stay so.
  void process_dies();
  [[nodiscard]] bool process_died() const { return process_died_; }

  // The disks that it is to have, and the one of all that it may have.
  [[nodiscard]] const std::set<std::size_t>& attached() const { return attached_; }
  void attach(std::size_t disk);
  void detach(std::size_t disk);
  [[nodiscard]] DiskWorkload& workload(std::size_t disk) { return *workloads_.at(disk); }
  [[nodiscard]] const std::map<std::size_t, std::unique_ptr<DiskWorkload>>& workloads() const {
    return workloads_;
  }

  // A domain for it; the guest is not in it yet.
  [[nodiscard]] std::unique_ptr<SimulatedDomain> make_domain(SimulatedHost& host,
                                                             std::optional<DomainId> wanted);
  // It begins there: nothing is left of what it did before. add_disk() has been called.
  void boot(std::unique_ptr<SimulatedDomain> domain);
  // It goes on there, with what it has outstanding. Returns the domain that it comes from; null:
  // it comes from a file.
  [[nodiscard]] std::unique_ptr<SimulatedDomain> move_to(std::unique_ptr<SimulatedDomain> domain);
  // Out of its domain into a file.
  [[nodiscard]] std::unique_ptr<SimulatedDomain> save();
  // As long as it is in a file.
  [[nodiscard]] std::optional<TimePoint> saved_at() const { return saved_at_; }
  // It is no more.
  [[nodiscard]] std::unique_ptr<SimulatedDomain> end();
  // Its CPUs.
  void stop();
  void run();

  // Its driver for a disk that the toolstack has just added begins.
  void disk_added(std::size_t disk);
  // A disk is being taken away: what fails now is no surprise, and nothing new is begun.
  void set_leaving(std::size_t disk, bool leaving);
  [[nodiscard]] bool is_leaving(std::size_t disk) const { return leaving_.contains(disk); }
  // Its kernel is started anew, in the same domain.
  void kexec(bool abruptly);

  // The toolstack does one thing with it at a time.
  bool busy = false;

 private:
  void on_ring_completion(SimulatedDomain& domain, std::size_t disk,
                          const FakeFrontend::Completion& completion) override;
  void on_ring_ready(SimulatedDomain& domain, std::size_t disk) override;
  void on_ring_lost(SimulatedDomain& domain, std::size_t disk) override;
  void on_disk_closed(SimulatedDomain& domain, std::size_t disk) override;

  void bind_again_later(std::size_t disk, DomainId id);
  void pause_workloads();
  void forget_luns();
  void lose_workloads();

  SimulatedWorld& world_;
  const std::size_t number_;
  SimulatedHost* host_;
  std::unique_ptr<SimulatedDomain> domain_;
  std::map<std::size_t, std::unique_ptr<DiskWorkload>> workloads_;
  std::set<std::size_t> attached_;
  std::set<std::size_t> leaving_;
  bool process_died_ = false;  // in this domain
  std::optional<TimePoint> saved_at_;
};

}  // namespace iscsi_blkback
