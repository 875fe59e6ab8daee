// A disk over four portals of a simulated array with two sides, whose groups and priorities are
// looked at.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/multipath/multipath_fixture.h"

namespace iscsi_blkback {

using Ints = std::vector<int>;

// Four portals: 0 and 1 are ports 1 and 2 of target port group 1 (active/optimized), 2 and 3 are
// ports 3 and 4 of group 2 (active/non-optimized).
class PathPolicyTest : public MultipathTest {
 protected:
  void use_alua(std::uint8_t tpgs = 1) {
    lun_options_.tpgs = tpgs;
    lun_options_.port_groups = {
        {.tag = 1, .state = AccessState::active_optimized, .ports = {1, 2}},
        {.tag = 2, .state = AccessState::active_non_optimized, .ports = {3, 4}}};
  }
  void start_four() { start({1, 1, 2, 2}); }
  void set_states(AccessState first, AccessState second, bool tell = true) {
    lun_->options.port_groups[0].state = first;
    lun_->options.port_groups[1].state = second;
    if (tell) {
      target_->add_unit_attention(0x2a06);
    }
  }
  // How many of the next reads each portal gets.
  std::vector<int> spread(int reads = 12) {
    std::vector<int> counts(target_options_.portals.size());
    for (int i = 0; i < reads; ++i) {
      std::vector<std::uint64_t> before;
      for (std::size_t at = 0; at < counts.size(); ++at) {
        before.push_back(path(at).requests);
      }
      EXPECT_EQ(answer(read(0, 8)), IoStatus::ok);
      for (std::size_t at = 0; at < counts.size(); ++at) {
        counts[at] += static_cast<int>(path(at).requests - before[at]);
      }
    }
    return counts;
  }
  [[nodiscard]] MultipathSnapshot snapshot() const { return device_->snapshot(); }
  [[nodiscard]] std::vector<int> priorities() const {
    std::vector<int> result;
    for (const PathSnapshot& one : snapshot().paths) {
      result.push_back(one.priority);
    }
    return result;
  }
  void lose_first_side() {
    cut(0);
    cut(1);
    ASSERT_TRUE(wait_for_up(2));
  }
  bool first_side_back() {
    restore(0);
    restore(1);
    return wait_for_up(4);
  }
};

}  // namespace iscsi_blkback
