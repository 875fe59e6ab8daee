// DiskEnd: a disk that is being closed, until nothing of it is left: no request, no command of its
// own, no registration, no fence, and nothing that other disks have to wait for. Owned by
// MultipathDevice, which stops its parts before. Reactor thread.
#pragma once

#include <cstdint>

#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"
#include "multipath/path_removals.h"
#include "multipath/requests/request_queue.h"

namespace iscsi_blkback {

struct EndFacts {
  bool under_way = false;         // a request, or something of the disk's own
  bool waits_for_fences = false;  // for those of lost writes, as was asked for
  bool keys_given_back = false;
  bool withdrawn = false;          // from the fences, and from other disks' sight
  bool nothing_at_fences = false;  // nothing is left of what was withdrawn
};

enum class EndStep : std::uint8_t { wait, give_keys_back, withdraw, end };

// The one thing to do next.
[[nodiscard]] constexpr EndStep next_end_step(const EndFacts& facts) {
  if (facts.under_way || facts.waits_for_fences) {
    return EndStep::wait;
  }
  if (!facts.keys_given_back) {
    return EndStep::give_keys_back;
  }
  if (!facts.withdrawn) {
    return EndStep::withdraw;
  }
  return facts.nothing_at_fences ? EndStep::end : EndStep::wait;
}

class DiskEnd {
 public:
  DiskEnd(const RequestQueue& queue, const PathRemovals& removals, const PathSet& paths,
          LunTurn& turn, WriteFence& fence)
      : queue_(queue), removals_(removals), paths_(paths), turn_(turn), fence_(fence) {}

  // on_closed(owner) follows, once.
  void begin(bool wait_for_fences, void (*on_closed)(void* owner) noexcept, void* owner);
  [[nodiscard]] bool begun() const { return begun_; }
  [[nodiscard]] bool over() const { return begun_ && on_closed_ == nullptr; }
  // Fences of lost writes are waited for.
  [[nodiscard]] bool waits_for_fences() const { return begun_ && wait_for_fences_; }

  // Nothing is left of what was withdrawn.
  void on_withdrawn() { nothing_at_fences_ = true; }
  // Goes on as far as it can. May delete the disk. steps: are cancelled before that.
  void check(DiskSteps& steps);

 private:
  [[nodiscard]] EndFacts facts() const;
  [[nodiscard]] bool give_keys_back();

  const RequestQueue& queue_;
  const PathRemovals& removals_;
  const PathSet& paths_;
  LunTurn& turn_;
  WriteFence& fence_;
  bool begun_ = false;
  bool wait_for_fences_ = false;
  bool withdrawn_ = false;
  bool nothing_at_fences_ = false;
  void (*on_closed_)(void* owner) noexcept = nullptr;
  void* owner_ = nullptr;
};

}  // namespace iscsi_blkback
