// SimulatedDomain: one domain in which a guest runs on a host: the frontends of its disks, which do
// something only while its CPUs run and xenstored answers. A guest that moves gets another one;
// this one is then destroyed, and is there until nobody maps its pages any more, as in Xen.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "tests/simulation/host/simulated_world.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_toolstack.h"

namespace iscsi_blkback {

class SimulatedDomain {
 public:
  class Owner {
   public:
    virtual void on_ring_completion(SimulatedDomain& domain, std::size_t disk,
                                    const FakeFrontend::Completion& completion) = 0;
    // The disk can be used (again).
    virtual void on_ring_ready(SimulatedDomain& domain, std::size_t disk) = 0;
    // What was in its ring will not be answered any more.
    virtual void on_ring_lost(SimulatedDomain& domain, std::size_t disk) = 0;
    // The disk was closed, by whomever.
    virtual void on_disk_closed(SimulatedDomain& domain, std::size_t disk) = 0;

   protected:
    ~Owner() = default;
  };

  // wanted: its number; nullopt: a new one. handle: the guest's, wherever it is.
  SimulatedDomain(SimulatedWorld& world, SimulatedHost& host, std::optional<DomainId> wanted,
                  const DomainHandle& handle, Owner& owner);
  ~SimulatedDomain();  // gone
  SimulatedDomain(const SimulatedDomain&) = delete;
  SimulatedDomain& operator=(const SimulatedDomain&) = delete;

  [[nodiscard]] DomainId id() const { return id_; }
  [[nodiscard]] SimulatedHost& host() { return host_; }

  // What libxl does. disk: its place in the plan.
  void add_disk(std::size_t disk);
  [[nodiscard]] bool has_disk(std::size_t disk) const { return disks_.contains(disk); }
  [[nodiscard]] std::vector<std::size_t> disks() const;
  [[nodiscard]] const FakeDisk& node(std::size_t disk) const { return disks_.at(disk).node; }
  // Its nodes are removed; its frontend goes.
  void remove_disk(std::size_t disk);

  // What the guest's kernel does: its driver begins, or goes on after it has been moved.
  void boot(std::size_t disk);
  void resume(std::size_t disk);
  void restart(std::size_t disk, bool abruptly);
  // Null: no driver has begun.
  [[nodiscard]] FakeFrontend* frontend(std::size_t disk);
  [[nodiscard]] bool usable(std::size_t disk);
  // It has been usable at some time in this domain.
  [[nodiscard]] bool was_served(std::size_t disk) const { return disks_.at(disk).was_served; }
  // Unlike that of any other ring. Only while there is one.
  [[nodiscard]] std::uint64_t ring_number(std::size_t disk) const {
    return disks_.at(disk).ring_number;
  }

  // The CPUs, which run at first.
  void run();
  void stop();
  [[nodiscard]] bool runs() const { return runs_; }

  // Nothing of it runs any more; gone() when nothing of it is mapped, either.
  void destroy();
  [[nodiscard]] bool destroyed() const { return destroyed_; }
  [[nodiscard]] bool gone() const { return gone_; }

 private:
  // Of a disk: its first queue, which speaks for all, and the others.
  struct Driver {
    Driver(MemXen& xen, const FakeFrontend::Options& options, std::size_t queues);

    [[nodiscard]] bool pages_are_mapped(const MemGrants& grants) const;

    std::vector<std::unique_ptr<FakeFrontend>> queues;
    FakeFrontend& frontend;
  };
  struct Disk {
    SimulatedDomain* domain = nullptr;
    std::size_t number = 0;
    FakeDisk node;
    std::unique_ptr<Driver> driver;  // null: none has begun
    std::uint32_t ring_life = 0;     // the ring whose requests are open; 0: none
    std::uint64_t ring_number = 0;
    bool was_usable = false;
    bool was_served = false;
    bool step_due = false;
    std::unique_ptr<FdWatch> store_watch;
    std::vector<std::unique_ptr<FdWatch>> bell_watches;  // of its queues
  };

  void make_driver(Disk& disk);
  void watch(Disk& disk);
  void step_soon(Disk& disk);
  void step(std::size_t disk);
  [[nodiscard]] bool has_nodes(const Disk& disk);
  void let_go(Disk& disk);
  void look_at_ring(Disk& disk);
  void look_whether_gone();

  SimulatedWorld& world_;
  SimulatedHost& host_;
  const DomainId id_;
  Owner& owner_;
  std::map<std::size_t, Disk> disks_;
  std::vector<std::unique_ptr<Driver>> leaving_;  // their pages may still be mapped
  bool runs_ = true;
  bool destroyed_ = false;
  bool gone_ = false;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace iscsi_blkback
