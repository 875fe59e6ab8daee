// StatisticsWriter: keeps a disk's StatisticsPage up to date while it has a ring, and counts on where
// the ring before it has ended. Owned by OpenDisk, reactor thread only.
#pragma once

#include <chrono>
#include <memory>

#include "base/reactor.h"
#include "blkback/guest/statistics_page.h"
#include "blkback/ring/vbd.h"

namespace iscsi_blkback {

class StatisticsWriter {
 public:
  explicit StatisticsWriter(Reactor& reactor);

  // A ring is served; vbd outlives end(). page: null: nobody reads.
  void begin(const Vbd& vbd, std::shared_ptr<StatisticsPage> page);
  // It is not any more: what it has come to is written.
  void end();

  // xentop looks once a second at most.
  static constexpr std::chrono::milliseconds kInterval{500};

 private:
  void write();

  std::shared_ptr<StatisticsPage> page_;  // null: there is no ring, or nobody reads
  const Vbd* vbd_ = nullptr;
  Vbd3Statistics earlier_;  // rings
  Timer timer_;
};

}  // namespace iscsi_blkback
