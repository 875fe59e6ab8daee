// ChapLadder: which algorithms of CHAP the next login offers after others have failed. Targets do
// not agree on what CHAP_A means: tgt takes 7 for SHA-1, which by IANA is SHA-256, and old ones
// take a list for the name of one algorithm that they do not know. From the top:
//
//   what has worked at this target before (ChapMemory)
//   all that is allowed, the first choice first
//   what is left of it when the target has refused our answer with one, as often as that happens
//   the weakest alone, which every target knows (MD5), when the target has chosen nothing
//
// then all of it again. A target's verdict counts at once. A login that was lost, or that the
// target could not serve, counts when the next one with the same offer is lost in the same place.
// Plain data and decisions; the owner's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "initiator/login/chap.h"

namespace iscsi_blkback {

// A place on the ladder.
struct ChapRung {
  std::vector<ChapAlgorithm> left_out;
  bool alone = false;    // only the weakest of what is left
  bool by_loss = false;  // a lost login, no verdict, led here

  bool operator==(const ChapRung&) const = default;
};

// How a login has ended that had come to CHAP and was not let in.
enum class ChapFailure : std::uint8_t {
  refused,  // by the target, or the target did not prove itself
  lost,     // nobody has said that CHAP was the reason
};

// What the next login offers then.
enum class ChapNext : std::uint8_t {
  same,         // what this one has offered
  next,         // another rung, not tried since the ladder began or began again
  first_again,  // every rung has failed
};

class ChapLadder {
 public:
  // allowed: the first choice first; see usable_chap_algorithms().
  explicit ChapLadder(std::span<const ChapAlgorithm> allowed)
      : allowed_(allowed.begin(), allowed.end()) {}

  // Begins at a rung on which a login has succeeded; not in the middle of failures.
  void begin_at(const ChapRung& rung);

  // What the next login offers; empty only where nothing is allowed.
  [[nodiscard]] std::vector<ChapAlgorithm> offer() const;

  // chosen: what the target had chosen; nothing where it had not.
  [[nodiscard]] ChapNext failed(ChapFailure failure, std::optional<ChapAlgorithm> chosen);

  // A login with offer() has succeeded. What there is to remember of it: nothing when every rung
  // had failed before, because the secret was wrong then, and refusals say nothing.
  [[nodiscard]] std::optional<ChapRung> succeeded();

  // There were failures since the last success, or since it began.
  [[nodiscard]] bool climbing() const { return climbing_; }
  // Every rung has failed since then, at least once.
  [[nodiscard]] bool all_failed() const { return all_failed_; }

 private:
  [[nodiscard]] std::vector<ChapAlgorithm> rest() const;

  std::vector<ChapAlgorithm> allowed_;
  ChapRung rung_;
  bool remembered_ = false;  // rung_ is one on which a login has succeeded
  bool climbing_ = false;
  bool all_failed_ = false;
  // The last login was lost after the target had chosen this, or nothing.
  bool lost_ = false;
  std::optional<ChapAlgorithm> lost_at_;
};

// ChapMemory: on which rungs logins have succeeded, by target, for whatever session comes next.
// Any thread; a lock, which logins take and no I/O.
class ChapMemory {
 public:
  static constexpr std::size_t kMaxTargets = 1024;  // the one not heard of for longest is forgotten
  // What led to a weaker offer by a loss, which may have been the network's, is tried again then.
  static constexpr std::chrono::hours kLossCounts{1};

  [[nodiscard]] std::optional<ChapRung> recall(const std::string& target, TimePoint now);
  // Nothing, and a rung on which all is offered, forgets the target.
  void remember(const std::string& target, const std::optional<ChapRung>& rung, TimePoint now);

 private:
  struct Entry {
    std::string target;
    ChapRung rung;
    TimePoint since;
  };

  std::mutex mutex_;
  std::list<Entry> entries_;  // the latest first
};

// One for the whole process.
[[nodiscard]] ChapMemory& process_chap_memory();

}  // namespace iscsi_blkback
