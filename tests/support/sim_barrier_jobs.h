// SimBarrierJobs: BarrierThread in virtual time, on the thread of the test: a job is worked on a while
// after it has come, and is back at once or a while later. How long that takes is the seed's choice.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "multipath/fencing/barrier_jobs.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class SimBarrierJobs final : public BarrierJobs {
 public:
  // later: in between, the folder may be locked by what the job has found, and whoever comes there
  // must be ready for that.
  enum class Back : std::uint8_t { at_once, later };
  SimBarrierJobs(SimReactor& reactor, Back back) : reactor_(reactor), back_(back) {}

  void run(std::unique_ptr<BarrierJob> job) override {
    reactor_.schedule(a_while(), [this, job = std::shared_ptr<BarrierJob>(std::move(job))] {
      job->work();
      if (back_ == Back::later) {
        reactor_.schedule(a_while(), [job] { job->done(); });
      } else {
        reactor_.post([job] { job->done(); });
      }
    });
  }

 private:
  // Mostly what files in memory take; now and then the thread does not run.
  [[nodiscard]] Duration a_while() {
    const std::uint64_t longest_us = reactor_.schedule_random().one_in(20) ? 50'000 : 200;
    return std::chrono::microseconds(reactor_.schedule_random().below(longest_us));
  }

  SimReactor& reactor_;
  const Back back_;
};

}  // namespace iscsi_blkback
