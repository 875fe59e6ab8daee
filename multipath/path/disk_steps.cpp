#include "multipath/path/disk_steps.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t bit_of(DiskStep step) {
  return std::uint32_t{1} << static_cast<unsigned>(step);
}

}  // namespace

bool applies(DiskStep step, const DiskFacts& facts) {
  switch (step) {
    case DiskStep::follow_paths:
    case DiskStep::activate:
    case DiskStep::follow_outage:
    case DiskStep::look_at_others:
    case DiskStep::hedge:
    case DiskStep::pump:
    case DiskStep::finish_removals:
      return !facts.closing;
    case DiskStep::release_held:
    case DiskStep::tell:
      return true;
    case DiskStep::check_closed:
      return facts.closing;
  }
  return false;
}

std::optional<DiskStep> next_step(std::uint32_t due, std::optional<DiskStep> after,
                                  const DiskFacts& facts) {
  const unsigned first = after ? static_cast<unsigned>(*after) + 1 : 0;
  for (unsigned number = first; number <= static_cast<unsigned>(kLastDiskStep); ++number) {
    const auto step = static_cast<DiskStep>(number);
    if ((due & bit_of(step)) != 0 && applies(step, facts)) {
      return step;
    }
  }
  return std::nullopt;
}

void DiskSteps::due(DiskStep step) {
  due_ |= bit_of(step);
  if (!current_ || step <= *current_) {
    settle_.schedule();
  }
}

std::optional<DiskStep> DiskSteps::take_next(const DiskFacts& facts) {
  const std::optional<DiskStep> next = next_step(due_, current_, facts);
  if (next) {
    due_ &= ~bit_of(*next);
  }
  current_ = next == kLastDiskStep ? std::nullopt : next;
  return next;
}

}  // namespace iscsi_blkback
