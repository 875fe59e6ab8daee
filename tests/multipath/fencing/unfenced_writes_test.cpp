#include "multipath/fencing/unfenced_writes.h"

#include <gtest/gtest.h>

#include "tests/support/sim_random.h"

namespace iscsi_blkback {
namespace {

TimePoint at(std::int64_t after_s) {
  return TimePoint(std::chrono::seconds(after_s));
}

LoginNexus nexus_of(const char* host, std::optional<std::uint16_t> group) {
  return {.portal = SocketAddress::parse(host, 3260).value(), .portal_group = group};
}
const LoginNexus kNexus = nexus_of("10.0.0.1", 1);

auto harmless_at(std::int64_t after_s) {
  return [after_s](const UnfencedWrite& write) { return write.harmless_at <= at(after_s); };
}

UnfencedWrite write_of(std::uint64_t first, std::uint64_t end, std::uint64_t owner = 1) {
  return {.first_sector = first,
          .end_sector = end,
          .owner = owner,
          .path = 0,
          .nexus = kNexus,
          .login_epoch = 1,
          .harmless_at = at(60)};
}

TEST(UnfencedWrites, EmptyEndangersNothing) {
  UnfencedWrites writes(8);
  EXPECT_TRUE(writes.empty());
  EXPECT_FALSE(writes.endangers(0, ~std::uint64_t{0}, 9));
}

TEST(UnfencedWrites, EndangersWhatOverlapsAndNothingBeside) {
  UnfencedWrites writes(8);
  writes.add(write_of(100, 108));
  EXPECT_FALSE(writes.endangers(92, 100, 9));
  EXPECT_TRUE(writes.endangers(92, 101, 9));
  EXPECT_TRUE(writes.endangers(103, 104, 9));
  EXPECT_TRUE(writes.endangers(0, 1000, 9));
  EXPECT_TRUE(writes.endangers(107, 108, 9));
  EXPECT_FALSE(writes.endangers(108, 116, 9));
}

TEST(UnfencedWrites, DoesNotEndangerItsOwnRetry) {
  UnfencedWrites writes(8);
  writes.add(write_of(100, 108, 5));
  EXPECT_FALSE(writes.endangers(100, 108, 5));
  EXPECT_TRUE(writes.endangers(100, 108, 6));
  EXPECT_TRUE(writes.has_owner(5));
  EXPECT_FALSE(writes.has_owner(6));
  EXPECT_TRUE(writes.has_copy(100, 108, 5));
  EXPECT_FALSE(writes.has_copy(100, 108, 6));
}

TEST(UnfencedWrites, AFenceClearsItsPathUpToItsEpochOnly) {
  UnfencedWrites writes(8);
  UnfencedWrite other_path = write_of(0, 8);
  other_path.path = 1;
  UnfencedWrite later = write_of(16, 24);
  later.login_epoch = 3;
  writes.add(write_of(8, 16));
  writes.add(other_path);
  writes.add(later);

  EXPECT_TRUE(writes.fence(0, kNexus, 2));
  EXPECT_FALSE(writes.endangers(8, 16, 9));
  EXPECT_TRUE(writes.endangers(0, 8, 9));
  EXPECT_TRUE(writes.endangers(16, 24, 9));
  EXPECT_FALSE(writes.fence(0, kNexus, 2));
  EXPECT_TRUE(writes.fence(0, kNexus, 3));
  EXPECT_TRUE(writes.fence(1, kNexus, 1));
  EXPECT_TRUE(writes.empty());
}

TEST(UnfencedWrites, AFenceInAnotherPortalGroupClearsNothing) {
  UnfencedWrites writes(8);
  writes.add(write_of(0, 8));
  EXPECT_FALSE(writes.fence(0, nexus_of("10.0.0.1", 2), 9));
  EXPECT_TRUE(writes.endangers(0, 8, 9));
}

TEST(UnfencedWrites, AFenceAtAnotherAddressClearsNothing) {
  UnfencedWrites writes(8);
  writes.add(write_of(0, 8));
  EXPECT_FALSE(writes.fence(0, nexus_of("10.0.0.2", 1), 9));
  EXPECT_FALSE(writes.fence(0, nexus_of("10.0.0.2", std::nullopt), 9));
  EXPECT_TRUE(writes.endangers(0, 8, 9));
}

TEST(UnfencedWrites, AnUnknownPortalGroupIsThatOfItsAddressAndOfNoOther) {
  UnfencedWrites writes(8);
  UnfencedWrite write = write_of(0, 8);
  write.nexus.portal_group.reset();
  writes.add(write);
  EXPECT_FALSE(writes.fence(0, nexus_of("10.0.0.2", 0), 9));
  EXPECT_FALSE(writes.fence(0, nexus_of("10.0.0.2", std::nullopt), 9));
  EXPECT_TRUE(writes.fence(0, nexus_of("10.0.0.1", std::nullopt), 9));
  EXPECT_TRUE(writes.empty());
}

TEST(UnfencedWrites, ExpireWhenTheTargetHasGivenUp) {
  UnfencedWrites writes(8);
  UnfencedWrite later = write_of(8, 16);
  later.harmless_at = at(61);
  writes.add(later);
  writes.add(write_of(0, 8));
  EXPECT_EQ(writes.next_expiry(), at(60));
  EXPECT_FALSE(writes.expire(at(59)));
  EXPECT_TRUE(writes.expire(at(60)));
  EXPECT_FALSE(writes.endangers(0, 8, 9));
  EXPECT_TRUE(writes.endangers(8, 16, 9));
  EXPECT_EQ(writes.next_expiry(), at(61));
}

TEST(UnfencedWrites, BeyondTheLimitARangeIsWidenedAndClearedByTimeAlone) {
  UnfencedWrites writes(2);
  writes.add(write_of(0, 8, 1));
  writes.add(write_of(100, 108, 2));
  UnfencedWrite third = write_of(200, 208, 3);
  third.harmless_at = at(70);
  writes.add(third);
  EXPECT_EQ(writes.size(), 2U);
  EXPECT_TRUE(writes.endangers(150, 151, 9));
  for (const std::uint64_t owner : {2U, 3U}) {
    EXPECT_FALSE(writes.has_owner(owner));
    EXPECT_TRUE(writes.has_copy(owner * 100 - 100, owner * 100 - 92, owner)) << "it may be";
    EXPECT_FALSE(writes.has_copy(92, 100, owner));
    EXPECT_FALSE(writes.has_copy(208, 216, owner));
    EXPECT_TRUE(writes.endangers(100, 108, owner)) << "what it asks for may be another one's";
    EXPECT_TRUE(writes.endangers(200, 208, owner));
  }
  UnfencedWrite fourth = write_of(150, 158, 4);
  fourth.harmless_at = at(65);
  writes.add(fourth);
  EXPECT_TRUE(writes.endangers(100, 101, 9)) << "it only grows";
  EXPECT_TRUE(writes.endangers(207, 208, 9));

  EXPECT_TRUE(writes.fence(0, kNexus, 9));
  EXPECT_FALSE(writes.endangers(0, 8, 9));
  EXPECT_TRUE(writes.endangers(100, 208, 9));
  EXPECT_FALSE(writes.expire(at(60)));
  EXPECT_TRUE(writes.expire(at(70)));
  EXPECT_TRUE(writes.empty());
}

TEST(UnfencedWrites, AreWhereTheirPathLeadsOrElsewhere) {
  UnfencedWrites writes(2);
  UnfencedWrite lost = write_of(0, 8, 1);
  lost.path = 3;
  writes.add(lost);
  const auto leads_to = [](const LoginNexus& nexus) {
    return [nexus](std::uint32_t path) {
      EXPECT_EQ(path, 3U) << "nothing else is known to be lost at a path";
      return nexus;
    };
  };
  EXPECT_EQ(writes.whereabouts(leads_to(kNexus)).paths, path_bit(3));
  EXPECT_FALSE(writes.whereabouts(leads_to(kNexus)).elsewhere);
  const LoginNexus other = nexus_of("10.0.0.2", 2);
  EXPECT_EQ(writes.whereabouts(leads_to(other)).paths, 0U);
  EXPECT_TRUE(writes.whereabouts(leads_to(other)).elsewhere);
  writes.add(write_of(100, 108, 2));
  EXPECT_FALSE(writes.add(write_of(200, 208, 3))) << "the limit";
  EXPECT_EQ(writes.whereabouts(leads_to(kNexus)).paths, path_bit(3));
  EXPECT_TRUE(writes.whereabouts(leads_to(kNexus)).elsewhere) << "the range";
}

TEST(UnfencedWrites, AFenceOfOnePathLeavesWhatHasNotSettled) {
  UnfencedWrites writes(8);
  for (std::uint32_t path = 0; path < 2; ++path) {
    for (const int time : {60, 70}) {
      UnfencedWrite write = write_of(0, 8, 1 + path);
      write.path = path;
      write.harmless_at = at(time);
      writes.add(write);
    }
  }
  EXPECT_FALSE(writes.any_of(harmless_at(59)));
  EXPECT_TRUE(writes.any_of(harmless_at(60)));
  EXPECT_FALSE(writes.remove_if(harmless_at(59)));
  EXPECT_FALSE(writes.all_until(1, kNexus, at(69))) << "the later one has not settled";
  EXPECT_TRUE(writes.all_until(1, kNexus, at(70)));
  EXPECT_FALSE(writes.all_until(2, kNexus, at(70))) << "it has none";
  EXPECT_FALSE(writes.fence_until(0, kNexus, at(59)));
  EXPECT_FALSE(writes.fence_until(0, nexus_of("10.0.0.1", 2), at(60))) << "another nexus";
  EXPECT_TRUE(writes.fence_until(0, kNexus, at(60)));
  EXPECT_EQ(writes.size(), 3U);
}

// Against a bitmap, with everything random.
TEST(UnfencedWrites, AgreesWithAModel) {
  SimRandom random(7);
  for (int round = 0; round < 200; ++round) {
    UnfencedWrites writes(64);
    std::vector<UnfencedWrite> model;
    for (int step = 0; step < 60; ++step) {
      const std::uint64_t first = random.below(64);
      const std::uint64_t end = first + 1 + random.below(16);
      if (random.one_in(2)) {
        UnfencedWrite write = write_of(first, end, 1 + random.below(8));
        write.path = static_cast<std::uint32_t>(random.below(3));
        write.login_epoch = random.below(4);
        writes.add(write);
        model.push_back(write);
      } else if (random.one_in(4)) {
        const auto path = static_cast<std::uint32_t>(random.below(3));
        const std::uint64_t epoch = random.below(4);
        writes.fence(path, kNexus, epoch);
        std::erase_if(model, [&](const UnfencedWrite& write) {
          return write.path == path && write.login_epoch <= epoch;
        });
      }
      const std::uint64_t asking = random.below(9);
      bool expected = false;
      for (const UnfencedWrite& write : model) {
        for (std::uint64_t sector = first; sector < end; ++sector) {
          expected = expected || (write.owner != asking && sector >= write.first_sector &&
                                  sector < write.end_sector);
        }
      }
      ASSERT_EQ(writes.endangers(first, end, asking), expected);
      ASSERT_EQ(writes.size(), model.size());
    }
  }
}

}  // namespace
}  // namespace iscsi_blkback
