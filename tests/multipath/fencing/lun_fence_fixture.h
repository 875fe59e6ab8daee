// A disk with a write that one path has lost, held by a target that executes old writes late. For
// the tests of fences by a command of the logical unit through another path; virtual time.
#pragma once

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {

class LunFenceTest : public MultipathTest {
 protected:
  LunFenceTest() {
    options_.fence_settle_time = seconds(5);
    options_.quiesce_time = seconds(60);
  }

  // Portals in groups of their own, so that nobody else can fence.
  void start_apart(bool exclusive) {
    options_.exclusive_luns = exclusive;
    start({1, 2});
    reactor_.run_for(milliseconds(10));
  }

  // Writes until one of them, which is 1, stays at portal 0 or on its way there.
  GuestRequest& write_until_one_stays() {
    while (true) {
      GuestRequest& request = write(0, 8, 1);
      if (!reactor_.run_until([&] { return !pending(request); }, milliseconds(100))) {
        return request;
      }
    }
  }
  // A write that portal 0 keeps, lost there and answered at portal 1.
  void lose_a_write_only() {
    hold_next_write_at(0);
    GuestRequest& first = write_until_one_stays();
    EXPECT_EQ(target_->held(), 1U);
    refuse(0);
    EXPECT_EQ(answer(first, milliseconds(200)), IoStatus::ok);
  }
  // And a newer one that waits.
  GuestRequest& lose_a_write() {
    lose_a_write_only();
    return write(0, 8, 2);
  }
  // The old write does nothing any more.
  void expect_fenced(int newest = 2) {
    target_->release_held();
    reactor_.run_for(seconds(1));
    EXPECT_EQ(target_->counters.executed_after_close, 0U);
    EXPECT_EQ(medium(0), newest);
  }
};

class PreemptTest : public LunFenceTest {
 protected:
  PreemptTest() { options_.reservation_key = 0x5a0000; }
};

}  // namespace iscsi_blkback
