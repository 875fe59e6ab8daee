// ProductProcess: everything of a guest's process that is not main(), put together as
// blkback/process/guest_process.cpp does it, over simulated reactors. With product_configuration.h
// the only place of the simulation that knows how the product is assembled and what its calls
// between control side and I/O side are: what changes there is changed here.
//
// It also sees what the control side tells the I/O side, which is what a process has noticed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/domain_id.h"
#include "base/result.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/event_channel.h"
#include "blkback/xen/grant_table.h"
#include "blkback/xen/xenstore.h"
#include "multipath/attach/configuration.h"
#include "tests/simulation/host/breakage.h"
#include "tests/simulation/host/plan.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class BlockingBarrier;

class ProductProcess {
 public:
  struct Environment {
    SimReactor& control;
    SimReactor& io;
    GrantTable& grants;
    EventChannels& channels;
    DomainInfo& domains;
    std::function<Result<std::unique_ptr<XenStore>>()> open_store;
    const Configuration& configuration;
    DomainId guest = 0;
    Breakage breakage = Breakage::none;
    std::function<void()> on_finished;  // the process has nothing left to do, and ends
  };

  explicit ProductProcess(Environment environment);
  ~ProductProcess();  // finished, or never started
  ProductProcess(const ProductProcess&) = delete;
  ProductProcess& operator=(const ProductProcess&) = delete;

  [[nodiscard]] Result<void> start();
  // SIGTERM. on_finished follows, or the process gives up after kTerminateTimeout.
  void terminate();
  static constexpr std::chrono::seconds kTerminateTimeout{15};

  // An operator's commands for one disk; whether they are refused does not matter here.
  void remove_path(std::uint32_t device_id, const std::string& portal);
  void add_path(std::uint32_t device_id, const std::string& portal);
  void set(std::uint32_t device_id, const std::string& setting, const std::string& value);

  // Since when the I/O side knows that the guest is suspended; nullopt: it is not, as far as it
  // knows.
  [[nodiscard]] std::optional<TimePoint> suspended_since() const;
  // A write has been sent to that LUN. Whether one has since a disk there was opened that is not
  // closed.
  void note_write(const std::string& target, std::uint16_t lun);
  [[nodiscard]] bool has_written(const std::string& target, std::uint16_t lun) const;
  // As far as the I/O side knows.
  [[nodiscard]] bool guest_has_ended() const;
  // Since when the process has closed every disk that it has had at this LUN.
  [[nodiscard]] std::optional<TimePoint> closed_since(const std::string& target,
                                                      std::uint16_t lun) const;
  // For a person who wants to know why it hangs: what each disk says of itself.
  void describe(std::function<void(std::string)> done);

 private:
  class Inside;
  std::unique_ptr<Inside> inside_;
};

// What fences lost writes, as the product's log tells it; empty: not what this line is about.
[[nodiscard]] std::string_view fence_in_log(std::string_view line);

// Whether a disk that is opened now would wait for what others have left at a LUN of this host.
// run_directory: of the configuration.
[[nodiscard]] bool lun_is_blocked(const std::string& run_directory, const Plan& plan,
                                  std::size_t lun, TimePoint now);
// As if somebody had left something behind there: blocks it for others as long as it exists.
[[nodiscard]] std::shared_ptr<void> block_lun(const std::string& run_directory, const Plan& plan,
                                              std::size_t lun);
// A disk of a guest that is not of the simulated world, at the LUN's barrier of a host.
class RivalDisk {
 public:
  RivalDisk(const std::string& run_directory, const Plan& plan, std::size_t lun);
  ~RivalDisk();
  RivalDisk(const RivalDisk&) = delete;
  RivalDisk& operator=(const RivalDisk&) = delete;

  [[nodiscard]] bool has_the_lun(TimePoint now);
  // Tells that it writes.
  void write();

 private:
  std::unique_ptr<BlockingBarrier> barrier_;
};

// What the service does when it hears that a guest's process has ended.
void note_death(const std::string& run_directory, pid_t pid, TimePoint now);

}  // namespace iscsi_blkback
