// SimulatedHost: one computer of the simulation: an in-memory Xen, a run directory of its own, the
// service's control side (GuestSupervisor, with a launcher that starts simulated processes), the
// processes of its guests, and its domains. Everything on the main reactor but what processes do.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blkback/process/guest_supervisor.h"
#include "tests/simulation/host/simulated_process.h"
#include "tests/simulation/host/simulated_world.h"
#include "tests/simulation/host/simulated_xenstored.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/mem_xen.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class SimulatedHost final : private GuestLauncher, private SimulatedProcess::Owner {
 public:
  SimulatedHost(SimulatedWorld& world, std::size_t number);
  ~SimulatedHost() override;
  SimulatedHost(const SimulatedHost&) = delete;
  SimulatedHost& operator=(const SimulatedHost&) = delete;

  [[nodiscard]] std::size_t number() const { return number_; }
  [[nodiscard]] unsigned computer() const { return static_cast<unsigned>(number_); }
  [[nodiscard]] MemXen& xen() { return xen_; }
  [[nodiscard]] SimulatedXenstored& xenstored() { return xenstored_; }
  [[nodiscard]] FakeToolstack& toolstack() { return toolstack_; }
  [[nodiscard]] const std::string& run_directory() const { return run_directory_.path(); }

  // The service; systemd starts it again when it ends.
  void start_service();
  void kill_service(Duration until_started);

  // xenstored dies, and is started again. The toolstack waits until processes have had the time to
  // notice: an operator looks first, too.
  void stop_xenstored(Duration length);
  void start_xenstored();
  [[nodiscard]] bool toolstack_works() const;

  // A new domain; the number is another one each time, or the one that is given, which must be
  // free.
  [[nodiscard]] DomainId create_domain(std::optional<DomainId> wanted, const DomainHandle& handle);
  [[nodiscard]] bool domain_exists(DomainId domain) const { return domains_.contains(domain); }
  void set_domain(DomainId domain, DomainLife life,
                  ShutdownReason reason = ShutdownReason::poweroff);

  // Null: none runs now.
  [[nodiscard]] SimulatedProcess* process_of(DomainId guest);
  [[nodiscard]] SimulatedProcess* process_of_thread(const SimReactor& thread);
  [[nodiscard]] std::vector<SimulatedProcess*> processes();
  [[nodiscard]] std::size_t waiting_guests() const;  // for a process to be started again

 private:
  // GuestLauncher
  Result<pid_t> start(DomainId guest) override;
  Result<std::optional<pid_t>> adopt(DomainId guest) override;
  // SimulatedProcess::Owner
  void on_process_ended(SimulatedProcess& process, bool clean) override;

  void stop_service();
  [[nodiscard]] static std::string run_parent();

  SimulatedWorld& world_;
  const std::size_t number_;
  TemporaryFolder run_directory_{run_parent()};
  const Configuration configuration_;
  MemXen xen_;
  SimulatedXenstored xenstored_{xen_};
  FakeToolstack toolstack_{xen_};
  TimePoint xenstored_up_since_{};
  std::map<DomainId, DomainStatus> domains_;  // without those that are gone
  DomainId next_domain_;
  pid_t next_pid_;
  pid_t first_process_ = 0;  // that ever served a guest here
  std::vector<std::unique_ptr<SimulatedProcess>> processes_;
  std::unique_ptr<KernelProcess> service_kernel_;
  std::unique_ptr<SimReactor> service_reactor_;
  std::unique_ptr<GuestSupervisor> supervisor_;  // null while the service does not run
  std::uint64_t service_life_ = 0;
};

}  // namespace iscsi_blkback
