// LatencyEstimate: the mean time of a path's reads and writes; what happened long ago is forgotten.
// A value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace iscsi_blkback {

class LatencyEstimate {
 public:
  // Requests before the mean counts, and how many of the last ones it is made of.
  static constexpr std::uint32_t kRequestsMin = 16;
  static constexpr std::uint32_t kRequestsMax = 128;

  void add(Duration took) {
    requests_ = std::min(requests_ + 1, kRequestsMax);
    mean_ += (took - mean_) / static_cast<Duration::rep>(requests_);
  }
  // nullopt: too few requests yet to tell.
  [[nodiscard]] std::optional<Duration> mean() const {
    return requests_ < kRequestsMin ? std::nullopt : std::optional(mean_);
  }
  void clear() { *this = LatencyEstimate(); }

 private:
  Duration mean_{};
  std::uint32_t requests_ = 0;
};

}  // namespace iscsi_blkback
