// What becomes of requests that wait while a disk has no path.
#include "multipath/requests/outage.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

TEST(Outage, FailsOnlyWhenNothingCanComeOfWaiting) {
  struct Row {
    const char* what;
    OutageFacts facts;
    Outage outage;
  };
  const Row rows[] = {
      {"the time is not over", {}, Outage::wait},
      {"it is over", {.expired = true}, Outage::fail},
      {"a path is up", {.expired = true, .any_up = true}, Outage::wait},
      {"the guest is suspended", {.expired = true, .suspended = true}, Outage::wait},
      {"the array moves the LUN", {.expired = true, .activating = true}, Outage::wait},
      {"a path is identified", {.expired = true, .identifying = true}, Outage::wait},
      {"an answer is near", {.expired = true, .answer_is_near = true}, Outage::await_answer},
      {"an answer is near, and suspended",
       {.expired = true, .suspended = true, .answer_is_near = true},
       Outage::await_answer},
      {"an answer is near, with time left", {.answer_is_near = true}, Outage::wait},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(outage_now(row.facts), row.outage) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
