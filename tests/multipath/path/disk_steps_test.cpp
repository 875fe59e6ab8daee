// The order in which the consequences of a change come, once per turn.
#include "multipath/path/disk_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <vector>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using testing::ElementsAre;

class DiskStepsTest : public testing::Test {
 protected:
  // One list of steps for each turn.
  std::vector<std::vector<DiskStep>> run() {
    reactor_.run_until_idle();
    return std::exchange(turns_, {});
  }

  SimReactor reactor_{1};
  DiskFacts facts_;
  std::map<DiskStep, std::function<void()>> on_step_;
  std::vector<std::vector<DiskStep>> turns_;
  DiskSteps steps_{reactor_,
                   [](void* self) noexcept { static_cast<DiskStepsTest*>(self)->settle(); }, this};

 private:
  void settle() {
    turns_.emplace_back();
    while (const auto step = steps_.take_next(facts_)) {
      turns_.back().push_back(*step);
      if (const auto found = on_step_.find(*step); found != on_step_.end()) {
        std::exchange(found->second, [] {})();
      }
      if (*step == kLastDiskStep) {
        return;
      }
    }
  }
};

TEST_F(DiskStepsTest, ComeOnceEachInTheWrittenOrder) {
  for (const DiskStep step : {DiskStep::tell, DiskStep::pump, DiskStep::follow_paths,
                              DiskStep::pump, DiskStep::release_held, DiskStep::look_at_others}) {
    steps_.due(step);
  }
  EXPECT_THAT(run(),
              ElementsAre(ElementsAre(DiskStep::follow_paths, DiskStep::look_at_others,
                                      DiskStep::release_held, DiskStep::pump, DiskStep::tell)));
}

TEST_F(DiskStepsTest, ALaterStepIsDoneInTheSameTurn) {
  on_step_[DiskStep::follow_paths] = [this] { steps_.due(DiskStep::tell); };
  steps_.due(DiskStep::follow_paths);
  EXPECT_THAT(run(), ElementsAre(ElementsAre(DiskStep::follow_paths, DiskStep::tell)));
}

TEST_F(DiskStepsTest, AStepThatHasHadItsTimeIsDoneInTheNextTurn) {
  on_step_[DiskStep::pump] = [this] {
    steps_.due(DiskStep::pump);
    steps_.due(DiskStep::follow_paths);
  };
  steps_.due(DiskStep::pump);
  EXPECT_THAT(run(), ElementsAre(ElementsAre(DiskStep::pump),
                                 ElementsAre(DiskStep::follow_paths, DiskStep::pump)));
}

TEST_F(DiskStepsTest, WhenTheDiskClosesNothingIsSentOrFollowedAnyMore) {
  facts_.closing = true;
  for (unsigned step = 0; step <= static_cast<unsigned>(kLastDiskStep); ++step) {
    steps_.due(static_cast<DiskStep>(step));
  }
  EXPECT_THAT(run(), ElementsAre(ElementsAre(DiskStep::release_held, DiskStep::tell,
                                             DiskStep::check_closed)));
}

TEST_F(DiskStepsTest, WhatWaitsForAnEndLooksAtTheOneThatIsMeant) {
  steps_.due_to_end();
  EXPECT_THAT(run(), ElementsAre(ElementsAre(DiskStep::finish_removals)));
  facts_.closing = true;
  steps_.due_to_end();
  EXPECT_THAT(run(), ElementsAre(ElementsAre(DiskStep::check_closed)));
}

TEST_F(DiskStepsTest, TheLastStepMayMakeItselfDueAgain) {
  facts_.closing = true;
  on_step_[DiskStep::check_closed] = [this] { steps_.due(DiskStep::check_closed); };
  steps_.due(DiskStep::check_closed);
  EXPECT_THAT(
      run(), ElementsAre(ElementsAre(DiskStep::check_closed), ElementsAre(DiskStep::check_closed)));
}

TEST_F(DiskStepsTest, NothingIsDoneAfterCancel) {
  steps_.due(DiskStep::tell);
  steps_.cancel();
  EXPECT_THAT(run(), ElementsAre());
}

}  // namespace
}  // namespace iscsi_blkback
