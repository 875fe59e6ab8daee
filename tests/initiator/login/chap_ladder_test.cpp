// The ladder of CHAP offers: which targets it comes to terms with, in how many logins, and what is
// remembered of them.
#include "initiator/login/chap_ladder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace iscsi_blkback {
namespace {

using Algorithms = std::vector<ChapAlgorithm>;
using std::chrono::hours;
using std::chrono::minutes;

constexpr auto kMd5 = ChapAlgorithm::md5;
constexpr auto kSha1 = ChapAlgorithm::sha1;
constexpr auto kSha256 = ChapAlgorithm::sha256;
constexpr auto kSha3 = ChapAlgorithm::sha3_256;

const Algorithms kAll = {kSha3, kSha256, kSha1, kMd5};

std::string text_of(const Algorithms& offer) {
  std::string text;
  for (const ChapAlgorithm algorithm : offer) {
    text += (text.empty() ? "" : ",") + std::to_string(static_cast<unsigned>(algorithm));
  }
  return text;
}

// What a target does with an offer.
struct Verdict {
  bool in = false;
  std::optional<ChapAlgorithm> chosen = {};
  ChapFailure failure = ChapFailure::refused;
};
using Target = std::function<Verdict(const Algorithms& offer)>;

bool has(const Algorithms& offer, ChapAlgorithm algorithm) {
  return std::find(offer.begin(), offer.end(), algorithm) != offer.end();
}

// Takes the first of its own that is offered; broken ones mean something else by their number.
Target choosing(Algorithms own, Algorithms broken = {},
                ChapFailure failure = ChapFailure::refused) {
  return [=](const Algorithms& offer) {
    for (const ChapAlgorithm algorithm : own) {
      if (has(offer, algorithm)) {
        return Verdict{!has(broken, algorithm), algorithm, failure};
      }
    }
    return Verdict{false, std::nullopt, ChapFailure::refused};
  };
}
// Takes a list for the name of one algorithm.
Target of_one_value(ChapAlgorithm own, ChapFailure failure) {
  return [=](const Algorithms& offer) {
    return offer == Algorithms{own} ? Verdict{true, own} : Verdict{false, std::nullopt, failure};
  };
}
// Lets nobody in, whatever it has chosen: the secret is another.
Target with_another_secret(const Algorithms& own) {
  return choosing(own, own);
}

// The offers of one login after the other up to the one that is let in, or so many.
std::string logins(ChapLadder& ladder, const Target& target, int at_most = 10) {
  std::string offers;
  for (int login = 0; login < at_most; ++login) {
    const Algorithms offer = ladder.offer();
    offers += (offers.empty() ? "" : " ") + text_of(offer);
    const Verdict verdict = target(offer);
    if (verdict.in) {
      return offers;
    }
    if (ladder.failed(verdict.failure, verdict.chosen) == ChapNext::first_again) {
      offers += " |";
    }
  }
  return offers + " ...";
}

TEST(ChapLadder, ComesToTermsWithTheseTargets) {
  struct Case {
    const char* name;
    Target target;
    const char* offers;
    Algorithms allowed = kAll;
  };
  const Case cases[] = {
      {"LIO of today", choosing({kSha3, kSha256, kSha1, kMd5}), "8,7,6,5"},
      {"one that knows MD5 only", choosing({kMd5}), "8,7,6,5"},
      {"istgt, MD5 first", choosing({kMd5, kSha1}), "8,7,6,5"},
      {"tgt: its 7 is SHA-1", choosing({kSha256, kMd5}, {kSha256}), "8,7,6,5 8,6,5"},
      {"its 8 and 7 are something else", choosing({kSha3, kSha256, kSha1}, {kSha3, kSha256}),
       "8,7,6,5 7,6,5 6,5"},
      {"all but MD5 are something else", choosing(kAll, {kSha3, kSha256, kSha1}),
       "8,7,6,5 7,6,5 6,5 5"},
      {"hangs up when it has chosen SHA3-256", choosing(kAll, {kSha3}, ChapFailure::lost),
       "8,7,6,5 8,7,6,5 7,6,5"},
      {"old LIO: refuses a list", of_one_value(kMd5, ChapFailure::refused), "8,7,6,5 5"},
      {"Synology: hangs up at a list", of_one_value(kMd5, ChapFailure::lost), "8,7,6,5 8,7,6,5 5"},
      {"tgt where SHA-256 is the first choice",
       choosing({kSha256, kMd5}, {kSha256}),
       "7,5 5",
       {kSha256, kMd5}},
      {"refuses a list, and chap_algs has MD5 first",
       of_one_value(kMd5, ChapFailure::refused),
       "5,7 5",
       {kMd5, kSha256}},
      {"knows what chap_algs allows", choosing({kSha256}), "7", {kSha256}},
      {"only MD5, which chap_algs does not allow",
       choosing({kMd5}),
       "8,7 7 | 8,7 7 | 8,7 ...",
       {kSha3, kSha256}},
      {"the secret is another", with_another_secret(kAll), "8,7,6,5 7,6,5 6,5 5 | 8,7,6,5 ..."},
      {"the secret is another, MD5 only", with_another_secret({kMd5}),
       "8,7,6,5 8,7,6 | 8,7,6,5 8,7,6 | 8,7,6,5 ..."},
      {"nothing is ever right", of_one_value(kSha3, ChapFailure::refused),
       "8,7,6,5 5 | 8,7,6,5 5 | 8,7,6,5 ..."},
  };
  for (const Case& one : cases) {
    ChapLadder ladder(one.allowed);
    EXPECT_EQ(logins(ladder, one.target, 5), one.offers) << one.name;
  }
}

// Whatever is allowed, whichever the target prefers, and of whichever numbers it means the same:
// where there is one, it is come to without asking twice.
TEST(ChapLadder, ComesToTermsWithEveryPreference) {
  for (unsigned allowed_bits = 1; allowed_bits < 16; ++allowed_bits) {
    for (unsigned right_bits = 1; right_bits < 16; ++right_bits) {
      Algorithms allowed;
      Algorithms broken;
      for (std::size_t at = 0; at < kAll.size(); ++at) {
        if ((allowed_bits >> at & 1) != 0) {
          allowed.push_back(kAll[at]);
        }
        if ((right_bits >> at & 1) == 0) {
          broken.push_back(kAll[at]);
        }
      }
      if ((allowed_bits & right_bits) == 0) {
        continue;
      }
      Algorithms preference = kAll;
      std::sort(preference.begin(), preference.end());
      do {
        for (const ChapFailure failure : {ChapFailure::refused, ChapFailure::lost}) {
          ChapLadder ladder(allowed);
          const int most =
              static_cast<int>(allowed.size()) * (failure == ChapFailure::lost ? 2 : 1);
          const std::string offers = logins(ladder, choosing(preference, broken, failure), most);
          ASSERT_EQ(offers.find_first_of(".|"), std::string::npos)
              << offers << " of " << text_of(allowed) << " where the target prefers "
              << text_of(preference) << " and does not know " << text_of(broken);
        }
      } while (std::next_permutation(preference.begin(), preference.end()));
    }
  }
}

TEST(ChapLadder, OneLostLoginChangesNothing) {
  ChapLadder ladder(kAll);
  EXPECT_EQ(ladder.failed(ChapFailure::lost, kMd5), ChapNext::same);
  EXPECT_EQ(text_of(ladder.offer()), "8,7,6,5");
  EXPECT_EQ(ladder.failed(ChapFailure::lost, std::nullopt), ChapNext::same) << "in another place";
  EXPECT_EQ(text_of(ladder.offer()), "8,7,6,5");
  EXPECT_EQ(ladder.failed(ChapFailure::refused, kSha256), ChapNext::next);
  EXPECT_EQ(ladder.failed(ChapFailure::lost, std::nullopt), ChapNext::same)
      << "the refusal was between them";
  EXPECT_EQ(text_of(ladder.offer()), "8,6,5");
  ASSERT_TRUE(ladder.succeeded());
}

TEST(ChapLadder, TellsOfARungWhetherALossHasLedThere) {
  ChapLadder ladder(kAll);
  EXPECT_EQ(ladder.failed(ChapFailure::refused, kSha3), ChapNext::next);
  EXPECT_FALSE(ladder.succeeded()->by_loss);
  ChapLadder another(kAll);
  EXPECT_EQ(another.failed(ChapFailure::lost, kSha3), ChapNext::same);
  EXPECT_EQ(another.failed(ChapFailure::lost, kSha3), ChapNext::next);
  EXPECT_EQ(another.failed(ChapFailure::refused, kSha256), ChapNext::next);
  EXPECT_TRUE(another.succeeded()->by_loss);
}

TEST(ChapLadder, NothingIsRememberedOfATargetThatHadRefusedEverything) {
  ChapLadder ladder(kAll);
  EXPECT_EQ(logins(ladder, with_another_secret({kMd5}), 2), "8,7,6,5 8,7,6 | ...");
  EXPECT_EQ(ladder.failed(ChapFailure::refused, kSha256), ChapNext::next);
  EXPECT_FALSE(ladder.succeeded());
}

TEST(ChapLadder, WhatHasWorkedComesFirstAndThenEverythingElse) {
  ChapLadder ladder(kAll);
  ladder.begin_at({.left_out = {kSha256}});
  EXPECT_EQ(logins(ladder, choosing({kSha256, kMd5}, {kSha256})), "8,6,5");
  ladder.begin_at({.left_out = {}, .alone = true});
  EXPECT_EQ(logins(ladder, choosing({kSha256})), "5 8,7,6,5") << "the target has learned";
}

TEST(ChapLadder, ARungOfASessionThatAllowedMoreIsNoneOfThisOne) {
  ChapLadder ladder(Algorithms{kSha256});
  ladder.begin_at({.left_out = {kSha256}});
  EXPECT_EQ(text_of(ladder.offer()), "7");
  EXPECT_EQ(ladder.failed(ChapFailure::refused, kSha256), ChapNext::first_again);
}

TEST(ChapLadder, ARungThatMakesNoDifferenceIsNotTriedTwice) {
  for (const ChapRung& rung :
       {ChapRung{.left_out = {kSha256}}, ChapRung{.left_out = {}, .alone = true}}) {
    ChapLadder ladder(Algorithms{kMd5});
    ladder.begin_at(rung);
    EXPECT_EQ(logins(ladder, with_another_secret(kAll), 2), "5 | 5 | ...");
  }
}

class ChapMemoryTest : public ::testing::Test {
 protected:
  ChapMemory memory;
  TimePoint now{hours(5)};
  const ChapRung rung{.left_out = {kSha256}};
};

TEST_F(ChapMemoryTest, KnowsEachTargetByItsName) {
  memory.remember("iqn.a:b", rung, now);
  EXPECT_EQ(memory.recall("iqn.a:b", now + hours(10000)), rung);
  EXPECT_FALSE(memory.recall("iqn.a:c", now));
  memory.remember("iqn.a:b", ChapRung{}, now);
  EXPECT_FALSE(memory.recall("iqn.a:b", now)) << "it takes everything now";
  memory.remember("iqn.a:b", rung, now);
  memory.remember("iqn.a:b", std::nullopt, now);
  EXPECT_FALSE(memory.recall("iqn.a:b", now));
}

// The network may have lost those logins.
TEST_F(ChapMemoryTest, ALossBlamesAnAlgorithmForAnHour) {
  ChapRung doubtful = rung;
  doubtful.by_loss = true;
  memory.remember("iqn.a:b", doubtful, now);
  memory.remember("iqn.a:b", doubtful, now + minutes(30));  // no later loss
  EXPECT_TRUE(memory.recall("iqn.a:b", now + minutes(59)));
  EXPECT_FALSE(memory.recall("iqn.a:b", now + minutes(60)));
}

TEST_F(ChapMemoryTest, ForgetsTheTargetNotHeardOfForLongest) {
  for (std::size_t at = 0; at < ChapMemory::kMaxTargets; ++at) {
    memory.remember("iqn.a:" + std::to_string(at), rung, now);
  }
  EXPECT_TRUE(memory.recall("iqn.a:0", now));
  memory.remember("iqn.a:new", rung, now);
  EXPECT_TRUE(memory.recall("iqn.a:0", now));
  EXPECT_FALSE(memory.recall("iqn.a:1", now));
}

}  // namespace
}  // namespace iscsi_blkback
