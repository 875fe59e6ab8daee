// When a path's silence counts as its failure.
#include "multipath/silent_paths.h"

#include <gtest/gtest.h>

namespace iscsi_blkback {
namespace {

TEST(SilentPaths, ASilenceCountsOnceAndOnlyAgainstThePath) {
  struct Row {
    const char* what;
    StallFacts facts;
    bool counts;
  };
  const Row rows[] = {
      {"another path answers", {.suspect = true, .others_answer = true}, true},
      {"it has just answered", {.others_answer = true}, false},
      {"the whole target is silent", {.suspect = true}, false},
      {"it is being removed", {.suspect = true, .others_answer = true, .leaving = true}, false},
      {"it has counted already", {.suspect = true, .others_answer = true, .counted = true}, false},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(counts_as_failure(row.facts), row.counts) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
