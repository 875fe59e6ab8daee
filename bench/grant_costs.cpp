// How granted pages get their data to us, and what each way costs: copied by Xen (what the product does), mapped and
// unmapped for each request, or kept mapped and copied by the processor (persistent grants, where the guest copies once
// more on its side). Runs in a Xen domain, which grants the pages to itself. Prints microseconds of one call for each size.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/blkback/xen/xen_rig.h"

namespace iscsi_blkback {
namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

constexpr int kRounds = 15;
constexpr auto kTimeOfARound = std::chrono::milliseconds(20);

// Median over the rounds of what one call takes.
template <class Call>
double time_of(Call&& call) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const Clock::time_point begin = Clock::now();
    std::size_t calls = 0;
    Clock::time_point now = begin;
    for (; now - begin < kTimeOfARound; now = Clock::now()) {
      call();
      ++calls;
    }
    rounds.push_back(Microseconds(now - begin).count() / static_cast<double>(calls));
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

int run() {
  std::string why;
  const std::unique_ptr<XenRig> rig = make_real_rig(&why);
  if (rig == nullptr) {
    fmt::print(stderr, "grant_costs: {}\n", why);
    return 1;
  }
  auto table = rig->grant_table();
  if (!table) {
    fmt::print(stderr, "grant_costs: {}\n", table.error().message);
    return 1;
  }
  fmt::print("pages copied mapped kept_mapped\n");
  for (const std::size_t pages : {std::size_t{1}, std::size_t{11}, std::size_t{32}}) {
    const XenRig::SharedPages shared = rig->share(pages, true);
    if (shared.bytes.empty()) {
      fmt::print(stderr, "grant_costs: {} pages cannot be granted\n", pages);
      return 1;
    }
    std::vector<std::byte> ours(pages * kXenPageBytes);
    std::vector<GrantCopySegment> segments;
    for (std::size_t page = 0; page < pages; ++page) {
      segments.push_back({.direction = GrantCopyDirection::from_guest,
                          .domain = rig->guest(),
                          .reference = shared.references[page],
                          .offset_bytes = 0,
                          .length_bytes = kXenPageBytes,
                          .local = ours.data() + page * kXenPageBytes});
    }
    bool good = true;
    const double copied = time_of([&] { good = good && (*table)->copy(segments); });
    for (const GrantCopySegment& segment : segments) {
      good = good && segment.ok;
    }
    const double mapped = time_of([&] {
      auto map = (*table)->map(rig->guest(), shared.references);
      good = good && map;
      if (map) {
        std::memcpy(ours.data(), (*map)->bytes().data(), ours.size());
      }
    });
    auto kept = (*table)->map(rig->guest(), shared.references);
    good = good && kept;
    const double memcpy_alone = kept ? time_of([&] {
      std::memcpy(ours.data(), (*kept)->bytes().data(), ours.size());
      // The compiler may not leave out a copy that nobody reads.
      asm volatile("" : : "r"(ours.data()) : "memory");
    })
                                     : 0;
    if (!good) {
      fmt::print(stderr, "grant_costs: a copy or a mapping of {} pages has failed\n", pages);
      return 1;
    }
    fmt::print("{} {:.1f} {:.1f} {:.1f}\n", pages, copied, mapped, memcpy_alone);
  }
  return 0;
}

}  // namespace
}  // namespace iscsi_blkback

int main() {
  return iscsi_blkback::run();
}
