// Which path carries a command that fences lost writes, and what that reaches.
#include "multipath/fencing/fence_carrier.h"

#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

namespace iscsi_blkback {
namespace {

using std::chrono::seconds;
using Ready = LunFence::Command::Ready;

constexpr TimePoint kSettled{std::chrono::hours(100)};
constexpr std::uint32_t kLost = 0;
constexpr std::uint32_t kOther = 1;
constexpr std::uint32_t kThird = 2;

// The path that is preempted, and the one that carries it.
using Pair = std::optional<std::pair<std::uint32_t, std::uint32_t>>;

LoginNexus nexus_at(std::uint32_t portal) {
  return {.portal = SocketAddress::parse("10.0.0." + std::to_string(portal), 3260).value(),
          .portal_group = static_cast<std::uint16_t>(portal)};
}

// A disk of three paths, each through a portal of its own and that in a group of its own. The first
// one is down, the others may carry a command.
struct ThreePaths {
  ThreePaths() {
    for (const std::uint32_t index : {kLost, kOther, kThird}) {
      sessions.at(index).target_name = "iqn.t";
      const bool works = index != kLost;
      known.paths.push_back({.index = index,
                             .up = works,
                             .answering = works,
                             .logged_in = works,
                             .allowed = true,
                             .key = nexus_at(index),
                             .session = &sessions.at(index),
                             .nexus = nexus_at(index),
                             .login_epoch = 3});
    }
  }
  ThreePaths(const ThreePaths&) = delete;
  ThreePaths& operator=(const ThreePaths&) = delete;

  FencePath& path(std::uint32_t index) { return known.paths.at(index); }
  // Both have been at one target in their last logins, as trials have shown.
  void prove(std::uint32_t one, std::uint32_t other) { path(one).space = path(other).space = 7; }
  // By the path, in its last login.
  UnfencedWrite write_of(std::uint32_t index) {
    return {.first_sector = 0,
            .end_sector = 8,
            .owner = 1,
            .path = index,
            .nexus = path(index).nexus,
            .login_epoch = path(index).login_epoch,
            .harmless_at = kSettled};
  }
  void lose(const UnfencedWrite& write) { ASSERT_TRUE(unfenced.add(write)); }
  [[nodiscard]] std::optional<std::uint32_t> carrier() const {
    return carrier_of_reset(known, unfenced, kSettled);
  }
  [[nodiscard]] Pair preemption() const {
    const auto chosen = choose_preemption(known, unfenced, kSettled);
    return chosen ? Pair({chosen->lost, chosen->carrier}) : std::nullopt;
  }

  std::array<SessionOptions, 3> sessions;
  FencePaths known;
  UnfencedWrites unfenced{16};
};

TEST(FenceCarrier, APathCarriesACommandIfItAnswersAndMay) {
  struct Row {
    const char* what;
    void (*spoil)(FencePath& path);
  };
  const Row rows[] = {
      {"it is silent", [](FencePath& path) { path.answering = false; }},
      {"its session is down", [](FencePath& path) { path.logged_in = false; }},
      {"it is being identified", [](FencePath& path) { path.identifying = true; }},
      {"it has no key, or a reset is refused", [](FencePath& path) { path.allowed = false; }},
  };
  for (const Row& row : rows) {
    ThreePaths disk;
    disk.known.one_target = true;
    disk.lose(disk.write_of(kLost));
    EXPECT_EQ(disk.carrier(), kOther);
    EXPECT_EQ(disk.preemption(), Pair({kLost, kOther}));
    row.spoil(disk.path(kOther));
    EXPECT_EQ(disk.carrier(), kThird) << row.what;
    EXPECT_EQ(disk.preemption(), Pair({kLost, kThird})) << row.what;
    row.spoil(disk.path(kThird));
    EXPECT_EQ(disk.carrier(), std::nullopt) << row.what;
    EXPECT_EQ(disk.preemption(), std::nullopt) << row.what;
  }
}

TEST(FenceCarrier, ACommandReachesItsOwnPortalAndWhatIsProvenOrVouchedFor) {
  struct Row {
    const char* what;
    bool fenced;
    void (*change)(ThreePaths& disk, UnfencedWrite& write);
  };
  const Row rows[] = {
      {"another portal", false, [](ThreePaths&, UnfencedWrite&) {}},
      {"its own portal", true,
       [](ThreePaths&, UnfencedWrite& write) { write.nexus = nexus_at(kOther); }},
      {"its own portal, by another interface", false,
       [](ThreePaths& disk, UnfencedWrite& write) {
         write.nexus = nexus_at(kOther);
         disk.sessions[kOther].interface_binding.name = "eth1";
       }},
      {"its own portal, of another target", false,
       [](ThreePaths& disk, UnfencedWrite& write) {
         write.nexus = nexus_at(kOther);
         disk.sessions[kOther].target_name = "iqn.other";
       }},
      {"its own portal, which the lost session has left since", true,
       [](ThreePaths& disk, UnfencedWrite& write) {
         write.nexus = nexus_at(kOther);
         disk.path(kLost).login_epoch = 4;
       }},
      {"another portal, although the lost session leads to its own now", false,
       [](ThreePaths& disk, UnfencedWrite&) { disk.path(kLost).nexus = nexus_at(kOther); }},
      {"another portal whose group has the same number", false,
       [](ThreePaths&, UnfencedWrite& write) { write.nexus.portal_group = std::uint16_t{kOther}; }},
      {"another portal, by a trial", true,
       [](ThreePaths& disk, UnfencedWrite&) { disk.prove(kLost, kOther); }},
      {"another portal, by a trial of others", false,
       [](ThreePaths& disk, UnfencedWrite&) {
         disk.path(kLost).space = 7;
         disk.path(kOther).space = 8;
       }},
      {"another portal, by a trial of a later login", false,
       [](ThreePaths& disk, UnfencedWrite& write) {
         disk.prove(kLost, kOther);
         write.login_epoch = 2;
       }},
      {"another portal, of another target, by a trial", false,
       [](ThreePaths& disk, UnfencedWrite&) {
         disk.prove(kLost, kOther);
         disk.sessions[kOther].target_name = "iqn.other";
       }},
      {"another portal, as the operator says", true,
       [](ThreePaths& disk, UnfencedWrite&) { disk.known.one_target = true; }},
      {"several paths", false, [](ThreePaths&, UnfencedWrite& write) { write.path = ~0U; }},
      {"several paths, as the operator says", true,
       [](ThreePaths& disk, UnfencedWrite& write) {
         write.path = ~0U;
         disk.known.one_target = true;
       }},
      {"what has not settled", false,
       [](ThreePaths& disk, UnfencedWrite& write) {
         write.harmless_at += seconds(1);
         disk.known.one_target = true;
       }},
  };
  for (const Row& row : rows) {
    ThreePaths disk;
    UnfencedWrite write = disk.write_of(kLost);
    row.change(disk, write);
    EXPECT_EQ(fenced_by_reset(disk.known, kOther, write, kSettled), row.fenced) << row.what;
  }
}

TEST(FenceCarrier, AResetGoesByAPathThatReachesSomethingThatHasSettled) {
  ThreePaths disk;
  EXPECT_EQ(disk.carrier(), std::nullopt) << "nothing is lost";
  disk.lose(disk.write_of(kLost));
  EXPECT_EQ(disk.carrier(), std::nullopt) << "no path reaches it";
  UnfencedWrite write = disk.write_of(kLost);
  write.nexus = nexus_at(kThird);
  write.harmless_at += seconds(1);
  disk.lose(write);
  EXPECT_EQ(disk.carrier(), std::nullopt) << "it has not settled";
  write.harmless_at = kSettled;
  disk.lose(write);
  EXPECT_EQ(disk.carrier(), kThird);
}

TEST(FenceCarrier, APathIsPreemptedWhenItIsDownAndAllThatItHasLostInItsKeysNexusHasSettled) {
  ThreePaths disk;
  disk.known.one_target = true;
  EXPECT_EQ(disk.preemption(), std::nullopt) << "nothing is lost";
  disk.lose(disk.write_of(kLost));
  EXPECT_EQ(disk.preemption(), Pair({kLost, kOther}));
  disk.path(kLost).logged_in = true;
  EXPECT_EQ(disk.preemption(), std::nullopt) << "its login has fenced it, and it has new commands";
  disk.path(kLost).logged_in = false;
  disk.path(kLost).key = nexus_at(kThird);
  EXPECT_EQ(disk.preemption(), std::nullopt) << "the key is not the writes'";
  disk.path(kLost).key = std::nullopt;
  EXPECT_EQ(disk.preemption(), std::nullopt) << "it has none";
  disk.path(kLost).key = disk.path(kLost).nexus;
  UnfencedWrite later = disk.write_of(kLost);
  later.harmless_at += seconds(1);
  disk.lose(later);
  EXPECT_EQ(disk.preemption(), std::nullopt) << "the key would be gone before that one has settled";
}

TEST(FenceCarrier, APreemptionGoesByAPathThatReachesAllThatTheOtherOneHasLost) {
  ThreePaths disk;
  disk.path(kLost).nexus = nexus_at(kThird);
  disk.path(kLost).key = nexus_at(kThird);
  disk.lose(disk.write_of(kLost));
  EXPECT_EQ(disk.preemption(), Pair({kLost, kThird}));
  disk.lose(disk.write_of(kOther));
  EXPECT_EQ(disk.preemption(), Pair({kLost, kThird})) << "what another path has lost is no concern";
  UnfencedWrite elsewhere = disk.write_of(kLost);
  elsewhere.nexus = nexus_at(kOther);
  disk.lose(elsewhere);
  EXPECT_EQ(disk.preemption(), std::nullopt);
}

TEST(FenceCarrier, AResetIsSentWhenNothingOfOursIsAtTheLun) {
  struct Row {
    const char* what;
    Ready ready;
    bool activating;
    void (*change)(ThreePaths& disk);
  };
  const Row rows[] = {
      {"nothing is", Ready::yes, false, [](ThreePaths&) {}},
      {"it is silent", Ready::yes, false,
       [](ThreePaths& disk) { disk.path(kOther).answering = false; }},
      {"it is not up", Ready::no_path, false,
       [](ThreePaths& disk) { disk.path(kOther).up = false; }},
      {"it is not up, and busy", Ready::no_path, true,
       [](ThreePaths& disk) { disk.path(kOther).up = false; }},
      {"it is gone", Ready::no_path, false,
       [](ThreePaths& disk) { disk.known.paths.erase(disk.known.paths.begin() + kOther); }},
      {"another path has commands", Ready::busy, false,
       [](ThreePaths& disk) { disk.path(kThird).busy = true; }},
      {"another path is identified", Ready::busy, false,
       [](ThreePaths& disk) { disk.path(kThird).identifying = true; }},
      {"what a lost path has is not at the LUN", Ready::yes, false,
       [](ThreePaths& disk) { disk.path(kLost).busy = disk.path(kLost).identifying = true; }},
      {"the array is being told", Ready::busy, true, [](ThreePaths&) {}},
  };
  for (const Row& row : rows) {
    ThreePaths disk;
    row.change(disk);
    EXPECT_EQ(ready_for_reset(disk.known, kOther, row.activating), row.ready) << row.what;
  }
}

}  // namespace
}  // namespace iscsi_blkback
