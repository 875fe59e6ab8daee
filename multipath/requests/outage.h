// Outage: what becomes of requests that wait while a disk has no path. Pure functions.
#pragma once

#include <cstdint>

namespace iscsi_blkback {

struct OutageFacts {
  bool expired = false;  // no_path_retry is over (NoPathTimer)
  bool any_up = false;
  bool suspended = false;       // the guest waits for nothing
  bool activating = false;      // the array is being told to make a path usable
  bool answer_is_near = false;  // a path may turn out to be usable in a moment
  bool identifying = false;     // a path is being asked who it is, or changes its access state
};

enum class Outage : std::uint8_t {
  wait,          // there is a path, or there may be one
  await_answer,  // it would be over, but an answer is near
  fail,          // reads and writes fail
};

// A unit attention on the only path is no outage, nor are controllers that change their roles.
[[nodiscard]] constexpr Outage outage_now(const OutageFacts& facts) {
  if (!facts.expired || facts.any_up) {
    return Outage::wait;
  }
  if (facts.answer_is_near) {
    return Outage::await_answer;
  }
  return facts.suspended || facts.activating || facts.identifying ? Outage::wait : Outage::fail;
}

}  // namespace iscsi_blkback
