// SimulatedProcess: one process of a guest on a simulated host: the product's code over two
// reactors of its own, the control thread's and the I/O thread's, that share the virtual time of
// the run. It can be stopped for a while, asked to end, and killed at any instant: then nothing of
// it runs any more, the kernel takes back what it held, and its objects stay where they are, never
// to be destroyed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "tests/simulation/host/kernel_process.h"
#include "tests/simulation/host/product_process.h"
#include "tests/simulation/host/simulated_xenstored.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class SimulatedProcess {
 public:
  class Owner {
   public:
    // From the main reactor; it may delete the process. clean: with status 0.
    virtual void on_process_ended(SimulatedProcess& process, bool clean) = 0;

   protected:
    ~Owner() = default;
  };

  struct Environment {
    SimReactor& main;
    unsigned computer = 0;
    MemXen& xen;
    SimulatedXenstored& xenstored;
    const Configuration& configuration;
    Breakage breakage = Breakage::none;
    Owner& owner;
  };

  SimulatedProcess(const Environment& environment, DomainId guest, pid_t pid);
  ~SimulatedProcess();  // ended, or killed, or not started
  SimulatedProcess(const SimulatedProcess&) = delete;
  SimulatedProcess& operator=(const SimulatedProcess&) = delete;

  // main() begins. It may end at once, in on_process_ended().
  void start();
  void kill();       // SIGKILL; on_process_ended() follows
  void terminate();  // SIGTERM
  enum class Threads : std::uint8_t { both, control, io };
  void stall(Threads threads, Duration length);
  // Until when a thread of it is not scheduled; in the past: both are.
  [[nodiscard]] TimePoint stalled_until() const { return stalled_until_; }

  [[nodiscard]] DomainId guest() const { return guest_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Null before main() and after the end.
  [[nodiscard]] ProductProcess* product() { return product_.get(); }
  [[nodiscard]] bool is_thread(const SimReactor& reactor) const {
    return &reactor == control_.get() || &reactor == io_.get();
  }
  // Runs something as a part of the process.
  void run(const std::function<void(ProductProcess&)>& what);

 private:
  void end(bool clean);
  // Runs as an event of the main reactor, if the process is still there then.
  void soon(Duration delay, void (SimulatedProcess::*what)());
  void end_cleanly() { end(true); }
  void give_up() { kill(); }  // _exit(1): to the kernel it is the same

  const Environment environment_;
  const DomainId guest_;
  const pid_t pid_;
  std::unique_ptr<KernelProcess> kernel_;
  std::unique_ptr<SimReactor> control_;
  std::unique_ptr<SimReactor> io_;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<MemEventChannels> channels_;
  std::unique_ptr<DomainInfo> domains_;
  std::unique_ptr<ProductProcess> product_;
  TimePoint stalled_until_{};
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace iscsi_blkback
