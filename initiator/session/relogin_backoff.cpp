#include "initiator/session/relogin_backoff.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

void ReloginBackoff::start(TimePoint now) {
  failures_ = 0;
  ends_ = {};
  trying_since_ = now;
  demanded_ = {};
}

void ReloginBackoff::demand(std::chrono::seconds time2wait) {
  demanded_ = std::min(time2wait, kMaxTime2Wait);
}

void ReloginBackoff::lost(TimePoint now) {
  if (now - up_since_ >= kStableAfter) {
    failures_ = 0;
    trying_since_ = now;
  }
}

bool ReloginBackoff::ended(TimePoint now, bool was_up, std::chrono::seconds time2wait) {
  ends_.on_end(cause_, was_up ? std::max<Duration>(now - up_since_, Duration{1}) : Duration::zero(),
               std::max<Duration>(waited_at_most_, time2wait));
  return cause_ != Cause::other && (ends_.recognised() || ends_.by_another_host());
}

Error ReloginBackoff::that_it_keeps_ending(const Error& why, const std::string& where) const {
  if (ends_.cause() == Cause::ended_by_target) {
    return {why.code,
            fmt::format("{} has ended this session {} its login, {} times in a row: most "
                        "likely another host logs in with the same initiator name ({}) and ISID "
                        "({:02x}), and each login ends the other one's session; give each host an "
                        "initiator name of its own",
                        where, ends_.recognised() ? "shortly after" : "within a minute of",
                        ends_.times(), options_.initiator_name, fmt::join(options_.isid, ""))};
  }
  return {why.code,
          fmt::format("{} ({} times in a row, so that it is tried only every {} s now)",
                      why.message, ends_.times(),
                      std::chrono::duration_cast<std::chrono::seconds>(ends_.wait()).count())};
}

Duration ReloginBackoff::next_wait(std::uint64_t random, bool same_login) {
  const std::uint32_t doublings = same_login ? 0 : std::min(failures_++, 16U);
  const Duration longest =
      std::max(ends_.wait(), std::min<Duration>(options_.relogin_backoff_max,
                                                options_.relogin_backoff_min * (1U << doublings)));
  // Between half and all of it, so that the paths of many guests do not come back in step.
  const auto half = static_cast<std::uint64_t>(longest.count() / 2);
  const Duration jittered = longest / 2 + Duration{static_cast<std::int64_t>(random % (half + 1))};
  const Duration demanded = std::exchange(demanded_, Duration::zero());
  waited_at_most_ = std::max(longest, demanded);
  return std::max(jittered, demanded);
}

bool ReloginBackoff::still_trying(TimePoint now) const {
  const Duration time = now - trying_since_;
  return time < kFewTriesMost && (failures_ < kFewTries || time < kFewTriesLeast);
}

}  // namespace iscsi_blkback
