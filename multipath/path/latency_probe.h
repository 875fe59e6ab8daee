// LatencyProbe: measures a path that carries too few requests to know how fast it is (prio
// path_latency), with reads of the first block, one after the other, as multipath-tools'
// prioritizer does. Owned by Path; MultipathDevice decides when. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/path/latency_estimate.h"

namespace iscsi_blkback {

class LatencyProbe {
 public:
  class Owner {
   public:
    // As many as make a mean; once for each start() that nothing has gone wrong with.
    virtual void on_measured(const LatencyEstimate& measured) noexcept = 0;
    // Nothing was measured. What it means for the path, requests and checks find out.
    virtual void on_probe_failed() noexcept = 0;
    // Whether the next read may be sent.
    [[nodiscard]] virtual bool goes_on_measuring() const noexcept = 0;

   protected:
    ~Owner() = default;
  };

  LatencyProbe(Reactor& reactor, LogicalUnit& logical_unit, Owner& owner);
  ~LatencyProbe();  // not while outstanding()
  LatencyProbe(const LatencyProbe&) = delete;
  LatencyProbe& operator=(const LatencyProbe&) = delete;

  // Not while outstanding().
  void start();
  [[nodiscard]] bool outstanding() const { return outstanding_; }

 private:
  void send();
  void on_complete();

  Reactor& reactor_;
  LogicalUnit& logical_unit_;
  Owner& owner_;
  bool outstanding_ = false;
  LatencyEstimate measured_;
  TimePoint sent_at_{};
  ScsiTask task_;
  std::array<std::byte, 4096> buffer_{};  // a block of any size
};

}  // namespace iscsi_blkback
