// SimulatedXenstored: how the processes of one simulated host reach xenstored and the hypervisor.
// xenstored may die and be started again, and calls may fail now and then. Toolstack and guests
// talk to the in-memory twin directly: they wait while it is down.
//
// The death is what XenStore promises: the descriptor becomes readable, next_event() fails, and every
// other call fails with unavailable. The tree stays.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "blkback/xen/domain_info.h"
#include "blkback/xen/xenstore.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_random.h"

namespace iscsi_blkback {

// Makes some of the calls that come next fail: count of them, about every second one.
class FailingCalls {
 public:
  void fail_next(std::int64_t count, std::uint64_t seed) {
    left_ = count;
    random_ = SimRandom(seed);
  }
  void stop() { left_ = 0; }
  [[nodiscard]] bool fails() {
    if (left_ == 0 || random_.one_in(2)) {
      return false;
    }
    --left_;
    ++failed_;
    return true;
  }
  [[nodiscard]] std::uint64_t failed() const { return failed_; }

 private:
  std::int64_t left_ = 0;
  SimRandom random_{0};
  std::uint64_t failed_ = 0;
};

class SimulatedXenstored {
 public:
  explicit SimulatedXenstored(MemXen& xen) : xen_(xen) {}
  ~SimulatedXenstored();  // without connections
  SimulatedXenstored(const SimulatedXenstored&) = delete;
  SimulatedXenstored& operator=(const SimulatedXenstored&) = delete;

  // For a process in domain 0. owner: whose connections end together.
  [[nodiscard]] Result<std::unique_ptr<XenStore>> connect(const void* owner);
  [[nodiscard]] std::unique_ptr<DomainInfo> open_domain_info();

  void die();
  void start() { up_ = true; }
  [[nodiscard]] bool up() const { return up_; }
  // A process has died: its connections need not be destroyed.
  void owner_died(const void* owner);

  FailingCalls store_calls;
  FailingCalls domain_calls;

 private:
  class Connection;
  class Domains;

  MemXen& xen_;
  bool up_ = true;
  std::vector<Connection*> connections_;
};

}  // namespace iscsi_blkback
