// LatencyProbe: measures a path that carries too few requests to know how fast it is (prio
// path_latency), with reads of the first block, one after the other, as multipath-tools'
// prioritizer does. One for each path; the owner decides when. Reactor thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "multipath/groups/prioritizer.h"
#include "multipath/path/path.h"

namespace iscsi_blkback {

class LatencyProbe {
 public:
  class Owner {
   public:
    // As many as make a mean; once for each start() that nothing has gone wrong with.
    virtual void on_latency_measured(const Path& path,
                                     const LatencyEstimate& measured) noexcept = 0;
    // Nothing was measured. What it means for the path, requests and checks find out.
    virtual void on_probe_failed(const Path& path) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  LatencyProbe(Reactor& reactor, Path& path, Owner& owner);
  ~LatencyProbe();  // not while outstanding()
  LatencyProbe(const LatencyProbe&) = delete;
  LatencyProbe& operator=(const LatencyProbe&) = delete;

  // Not while outstanding(). A path that is stopped or not up any more ends it.
  void start();
  [[nodiscard]] bool outstanding() const { return outstanding_; }

 private:
  void send();
  void on_complete();

  Reactor& reactor_;
  Path& path_;
  Owner& owner_;
  bool outstanding_ = false;
  LatencyEstimate measured_;
  TimePoint sent_at_{};
  ScsiTask task_;
  std::array<std::byte, 4096> buffer_{};  // a block of any size
};

}  // namespace iscsi_blkback
