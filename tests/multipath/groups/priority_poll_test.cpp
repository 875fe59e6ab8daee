// How often an array is asked for what it does not say by itself.
#include "multipath/groups/priority_poll.h"

#include <gtest/gtest.h>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;

class PriorityPollTest : public testing::Test, public PriorityPoll::Owner {
 protected:
  void update_priorities() override { ++updates_; }

  SimReactor reactor_{1};
  PathSet paths_;
  PriorityPoll poll_{reactor_, seconds(5), seconds(20), paths_, *this};
  int updates_ = 0;
};

TEST_F(PriorityPollTest, LatenciesAreLookedAtAlwaysAsOften) {
  poll_.set_prioritizer(PrioritizerKind::path_latency);
  poll_.start();
  reactor_.run_for(seconds(1000));
  EXPECT_GE(updates_, 150);
  EXPECT_LE(updates_, 250);
}

TEST_F(PriorityPollTest, FixedPrioritiesAreNotAskedFor) {
  poll_.set_prioritizer(PrioritizerKind::path_latency);
  poll_.start();
  poll_.set_prioritizer(PrioritizerKind::constant);
  poll_.start();
  poll_.follow_closely();
  reactor_.run_for(seconds(1000));
  EXPECT_EQ(updates_, 0);
}

TEST_F(PriorityPollTest, NothingIsAskedForAfterTheEnd) {
  poll_.set_prioritizer(PrioritizerKind::path_latency);
  poll_.start();
  poll_.stop();
  poll_.follow_closely();
  reactor_.run_for(seconds(1000));
  EXPECT_EQ(updates_, 0);
}

}  // namespace
}  // namespace iscsi_blkback
