// Policies that an operator sets while a disk is in use, against those that it has.
#include "tests/blkback/guest/guest_backend_fixture.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

TEST_F(GuestBackendTest, ASelectorThatContradictsPathWeightsIsNotSet) {
  configuration_.multipath.path_weights = {PathRule{PathRule::Key::portal, "192.0.2.1", 4}};
  FakeFrontend& guest = serve();
  EXPECT_THAT(refusal(set("path_selector", "queue-length")),
              HasSubstr("path_weights is for path_selector service-time and round-robin, not "
                        "queue-length"));
  EXPECT_EQ(map().path_selector, "round-robin 0");
  EXPECT_EQ(refusal(set("path_selector", "service-time")), "");
  do_io(guest);
}

TEST_F(GuestBackendTest, AGroupingThatContradictsThePrioIsNotSet) {
  serve(disk(std::string(kParams) + "?prio=const"));
  EXPECT_THAT(refusal(set("path_grouping_policy", "group_by_prio")),
              HasSubstr("contradicts prio const"));
  EXPECT_EQ(map().path_grouping_policy, "multibus");
}

TEST_F(GuestBackendTest, WhatWasSetBeforeCountsForTheNextChange) {
  configuration_.multipath.rr_min_io = 10;
  configuration_.multipath.path_selector = PathSelectorKind::round_robin;
  serve();
  EXPECT_THAT(refusal(set("path_selector", "service-time")),
              HasSubstr("rr_min_io is for path_selector round-robin, not service-time"));
  EXPECT_EQ(refusal(set("path_grouping_policy", "failover")), "");
  EXPECT_EQ(map().path_selector, "round-robin 0");
}

TEST_F(GuestBackendTest, ARefusedChangeNamesWhereTheOtherSettingComesFrom) {
  serve(disk(std::string(kParams) + "?rr_min_io=3"));
  EXPECT_EQ(refusal(set("path_selector", "queue-length")),
            "rr_min_io is for path_selector round-robin, not queue-length (rr_min_io comes from "
            "the disk's target, path_selector from this command)");
}

TEST_F(GuestBackendTest, WhatIsWrongWithADiskLineIsSaidToBeThere) {
  const FakeDisk bad = disk(std::string(kParams) + "?no_path_retry=soon");
  toolstack_.add(bad);
  start();
  boot(bad);
  ASSERT_TRUE(run_until([&] { return !error_of(bad).empty(); }));
  EXPECT_THAT(error_of(bad), testing::StartsWith("the disk's target: no_path_retry is neither"));
}

}  // namespace
}  // namespace iscsi_blkback
