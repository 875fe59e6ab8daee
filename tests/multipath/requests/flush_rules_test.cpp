// What becomes of a flush that a path has refused.
#include "multipath/requests/flush_rules.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

TEST(FlushRules, ARefusedFlushSucceedsOnlyWhereThereIsNothingToFlush) {
  struct Row {
    const char* what;
    RefusedFlush facts;
    FlushStep step;
  };
  const Row rows[] = {
      {"the path may lead to another LUN",
       {.identity_known = false, .nothing_to_flush = true, .for_good = true},
       FlushStep::as_if_not_sent},
      {"there is no cache", {.nothing_to_flush = true, .for_good = true}, FlushStep::succeed},
      {"there is no cache, and the error may pass", {.nothing_to_flush = true}, FlushStep::succeed},
      {"the error may pass", {.has_cache = true}, FlushStep::like_others},
      {"another path flushes",
       {.for_good = true, .another_flushes = true, .has_cache = true},
       FlushStep::resend},
      {"no path flushes a cache that is there",
       {.for_good = true, .has_cache = true},
       FlushStep::give_up},
      {"nobody has told whether there is one", {.for_good = true}, FlushStep::wait},
      {"nobody has told for too long",
       {.for_good = true, .out_of_waits = true},
       FlushStep::give_up},
      {"the disk is being closed",
       {.for_good = true, .closing = true, .another_flushes = true},
       FlushStep::give_up},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(next_flush_step(row.facts), row.step) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
