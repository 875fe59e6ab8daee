#include "tests/simulation/host/breakage.h"

#include <array>

namespace iscsi_blkback {
namespace {

constexpr std::array<std::string_view, 17> kBreakages = {
    "none",
    "lonely_processes",
    "suspend_is_missed",
    "close_is_missed",
    "pages_stay_mapped",
    "later_queues_stay_mapped",
    "later_queues_are_missed",
    "requests_fail",
    "everything_exclusive",
    "doubt_is_an_end",
    "one_login_for_all",
    "processes_stay_away",
    "target_takes_less",
    "discards_are_skipped",
    "discards_come_again",
    "lun_is_held",
    "run_crashes",
};
static_assert(static_cast<std::size_t>(Breakage::run_crashes) + 1 == kBreakages.size());

}  // namespace

std::string_view to_string(Breakage breakage) {
  return kBreakages[static_cast<std::size_t>(breakage)];
}

std::optional<Breakage> breakage_named(std::string_view name) {
  for (std::size_t number = 0; number < kBreakages.size(); ++number) {
    if (kBreakages[number] == name) {
      return static_cast<Breakage>(number);
    }
  }
  return std::nullopt;
}

}  // namespace iscsi_blkback
