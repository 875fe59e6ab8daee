#include "multipath/requests/hedger.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxHedgeBytes = std::size_t{16} << 20;

}  // namespace

Hedger::Hedger(std::size_t hedges, const PathSet& paths, DiskSteps& steps, Owner& owner)
    : paths_(paths), steps_(steps), owner_(owner) {
  for (std::size_t hedge = 0; hedge < hedges; ++hedge) {
    free_.push_back(hedges_.emplace_back(*this));
  }
}

Hedger::~Hedger() {
  ISCSI_BLKBACK_ASSERT(bytes_ == 0);
  while (free_.pop_front() != nullptr) {
  }
}

// All that waits at a suspect path, as long as there is a better one. What was not sent there has
// come back by then: see PathSet::note_room().
void Hedger::look() {
  if (paths_.suspect() == 0 || paths_.answering() == 0 || paused_) [[likely]] {
    return;
  }
  wanted_ = false;
  for (Path* path : paths_.all()) {
    if (!PathSet::has(paths_.suspect(), *path)) {
      continue;
    }
    path->for_each_command([this](PathCommand& command) {
      auto& request = static_cast<Request&>(command);
      if (!wanted_ && request.place == Request::Place::at_path && !request.is_write() &&
          request.hedge == nullptr && !hedge(request)) {
        wanted_ = true;
      }
    });
  }
}

bool Hedger::hedge(Request& request) {
  const std::size_t done_bytes = std::size_t{request.done_sectors} * kSectorBytes;
  const std::size_t bytes = request.length_bytes() - done_bytes;
  if (free_.empty() || !owner_.has_spare() || (bytes_ != 0 && bytes_ + bytes > kMaxHedgeBytes)) {
    return false;
  }
  std::unique_ptr<std::byte[]> buffer;
  if (bytes != 0) {
    buffer.reset(new (std::nothrow) std::byte[bytes]);
    if (buffer == nullptr) {
      return false;
    }
  }
  Hedge& hedge = *free_.pop_front();
  bytes_ += bytes;
  hedge.buffer = std::move(buffer);
  hedge.first_byte = done_bytes;
  hedge.original = &request;
  hedge.succeeded = false;
  hedge.block.operation = request.block->operation;
  hedge.block.sector = request.first_sector() + request.done_sectors;
  hedge.block.sector_count = request.block->sector_count - request.done_sectors;
  hedge.block.data = hedge.buffer.get();
  hedge.block.owner = &hedge;
  hedge.block.on_complete = [](BlockRequest& block, IoStatus status) noexcept {
    Hedge& ended = *static_cast<Hedge*>(block.owner);
    ended.hedger.on_complete(ended, status);
  };
  request.hedge = &hedge;
  ++hedged_;
  hedge.second = &owner_.take_spare();
  owner_.start(*hedge.second, hedge.block);
  hedge.second->task.silences = request.task.silences;
  return true;
}

void Hedger::on_complete(Hedge& hedge, IoStatus status) {
  hedge.second = nullptr;
  if (hedge.original == nullptr) {
    release(hedge);
    return;
  }
  Request& request = *hedge.original;
  if (status != IoStatus::ok) {
    leave(request);
    if (request.place == Request::Place::hedged) {
      owner_.complete(request, status);
    }
    return;
  }
  switch (request.place) {
    case Request::Place::at_path:
      if (let_go_of_buffer(request)) {
        answer_from(hedge);
      } else {
        hedge.succeeded = true;
        owner_.drop_if_silent(*request.path);
      }
      return;
    case Request::Place::queued:
    case Request::Place::delayed:
      owner_.take_out(request);
      [[fallthrough]];
    case Request::Place::hedged:
      answer_from(hedge);
      return;
    case Request::Place::finished:
    case Request::Place::free:
    case Request::Place::held:
    case Request::Place::withheld:
    case Request::Place::doubted:
    case Request::Place::answered:
      leave(request);
      return;
  }
}

// Whether the guest's buffer is ours from now on.
bool Hedger::let_go_of_buffer(Request& request) {
  if (request.block->data == nullptr) {
    return true;  // a flush
  }
  // A mistake that the simulation makes on purpose, to see that it is noticed: the guest's buffer counts
  // as free while the session may still receive into it. With the buffer of a Hedge it would be a use of
  // freed memory in the simulation itself.
  if (!discards_answered_reads_ && request.is_guests) {
    return true;
  }
  return owner_.take_buffer(request);
}

// The guest gets the answer of the hedge. At a path, the request stays behind until the path has
// let go of it.
void Hedger::answer_from(Hedge& hedge) {
  Request& request = *hedge.original;
  const BlockRequest& block = *request.block;
  if (block.data != nullptr) {
    std::memcpy(block.data + hedge.first_byte, hedge.buffer.get(), hedge.block.length_bytes());
  }
  if (request.place == Request::Place::at_path) {
    owner_.answer_early(request);
  } else {
    owner_.complete(request, IoStatus::ok);
  }
}

void Hedger::drop_if_stuck(Path& path) {
  bool stuck = false;
  path.for_each_command([&stuck](const PathCommand& command) {
    const auto& request = static_cast<const Request&>(command);
    stuck = stuck || (request.place == Request::Place::at_path && has_succeeded(request));
  });
  if (stuck) {
    owner_.drop_if_silent(path);
  }
}

void Hedger::leave_to_hedge(Request& request) {
  request.place = Request::Place::hedged;
  if (request.hedge->succeeded) {
    answer_from(*request.hedge);
    return;
  }
  // What was given up for silence is the same command: where it is one target that is silent by
  // both paths, the second execution is waited for.
  ScsiTask& again = request.hedge->second->task;
  again.silences = std::max(again.silences, request.task.silences);
}

void Hedger::leave(Request& request) {
  Hedge& hedge = *std::exchange(request.hedge, nullptr);
  hedge.original = nullptr;
  if (hedge.second == nullptr) {
    release(hedge);
  }
}

void Hedger::release(Hedge& hedge) {
  bytes_ -= hedge.block.length_bytes();
  hedge.buffer.reset();
  free_.push_front(hedge);
  if (wanted_) {
    steps_.due(DiskStep::hedge);
  }
}

}  // namespace iscsi_blkback
