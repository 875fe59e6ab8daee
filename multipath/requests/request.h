// Request: one request under way in a RequestQueue, a slot of its pool. It is in exactly one of the
// queue's lists, or at a path. Reactor thread.
#pragma once

#include <cstdint>
#include <optional>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "multipath/path/error_policy.h"
#include "multipath/path/path.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

struct Hedge;
class RequestQueue;

struct Request : ListHook<Request>, PathCommand {
  enum class Place : std::uint8_t {
    free,
    queued,    // no path, or no room on one
    delayed,   // its timer brings it back
    held,      // until a fence, until an overlapping write has ended, or for another disk
    at_path,   // in no list; the path has its command
    finished,  // to be completed later in this turn
    hedged,    // in no list: lost at its path, its hedge will answer
    answered,  // in no list: its hedge has answered, the path still has its command
    withheld,  // ended, to be answered when its lost copies are fenced
    doubted,   // ended at a path that may lead to another LUN by now
  };

  // guests: false for a slot that hedges use.
  Request(Reactor& reactor, Timer::Callback on_delay_over, RequestQueue* owner, bool guests)
      : queue(owner), is_guests(guests), timer(reactor, on_delay_over, this) {}

  using ListHook<Request>::unlink;
  // It changes what the LUN holds: it is kept in order with others, and fenced when it is lost.
  [[nodiscard]] bool is_write() const {
    return block->operation == BlockOperation::write || is_discard();
  }
  [[nodiscard]] bool is_discard() const { return block->operation == BlockOperation::discard; }
  [[nodiscard]] bool is_flush() const { return block->operation == BlockOperation::flush; }
  [[nodiscard]] std::uint64_t first_sector() const { return block->sector; }
  [[nodiscard]] std::uint64_t end_sector() const { return block->sector + block->sector_count; }
  [[nodiscard]] std::uint32_t length_bytes() const {
    return static_cast<std::uint32_t>(block->length_bytes());
  }

  RequestQueue* queue;
  bool is_guests;
  Hedge* hedge = nullptr;
  Place place = Place::free;
  BlockRequest* block = nullptr;        // null: it is answered
  std::uint64_t serial = 0;             // unlike any other request's of this disk
  TimePoint chosen_at{};                // when its path was, see GroupController
  std::uint32_t done_sectors = 0;       // of a request that goes in pieces
  std::uint32_t sent_sectors = 0;       // of what is at the path
  std::optional<std::uint32_t> prefer;  // a retry on the same path
  PathMask avoid = 0;                   // a retry preferably elsewhere
  RetryState retries;
  bool waits_for_space = false;  // delayed, or tried again since
  bool has_waiter = false;       // a held request waits for the end of this one
  std::uint8_t cache_waits = 0;  // of a refused flush; see FlushRules::after_refusal()
  IoStatus result = IoStatus::ok;
  Timer timer;
};

}  // namespace iscsi_blkback
