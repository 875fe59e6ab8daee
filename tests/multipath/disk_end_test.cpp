// What is done next for a disk that is being closed.
#include "multipath/disk_end.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

TEST(DiskEnd, OneThingAfterTheOther) {
  struct Row {
    const char* what;
    EndFacts facts;
    EndStep step;
  };
  const Row rows[] = {
      {"requests are under way", {.under_way = true}, EndStep::wait},
      {"fences are waited for", {.waits_for_fences = true}, EndStep::wait},
      {"nothing is under way any more", {}, EndStep::give_keys_back},
      {"the keys are back", {.keys_given_back = true}, EndStep::withdraw},
      {"a fence session is going away",
       {.keys_given_back = true, .withdrawn = true},
       EndStep::wait},
      {"nothing is left",
       {.keys_given_back = true, .withdrawn = true, .nothing_at_fences = true},
       EndStep::end},
      {"something has begun again after that",
       {.under_way = true, .keys_given_back = true, .withdrawn = true, .nothing_at_fences = true},
       EndStep::wait},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(next_end_step(row.facts), row.step) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
