// Silent paths of a MultipathDevice. While a path is suspect (path_silence.h), other paths take
// what is new and what waits for room on the connection; and the reads and flushes that were sent
// there are asked for once more elsewhere: which of the two is answered first, counts. A write that
// was sent waits until its path answers or is gone: only then is it known what can still become of
// it.
//
// The rule of the buffers. The guest's buffer belongs to the first command until its connection has
// answered it or is gone. So the second one, the hedge, reads into a buffer of its own. When that
// has arrived first, the session is told to throw away what may still come for the first command;
// from then on nothing reaches the guest's buffer, it takes a copy of the data, and the guest gets
// its answer. If just then the connection is receiving into the guest's buffer, in the middle of a
// PDU, that cannot be taken away from it: unless it goes on in a moment, it is dropped.
//
// A hedge's buffer is needed only until then. So a bounded number of bytes goes through a full
// queue in a few round trips of the other path: what finds no room waits for the next that is
// released.
#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "multipath/multipath_device_impl.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxHedgeBytes = std::size_t{16} << 20;

}  // namespace

void MultipathDevice::Impl::on_suspect(Path& path) noexcept {
  paths_.note_suspect(path, true);
  // What has silenced it may have silenced others that have nothing to do: before a write goes
  // there, that shall be known.
  for (Path* other : paths_.all()) {
    other->probe_silence();
  }
  hedge_more_.schedule();
  pump_.schedule();
  notify_.schedule();
}

void MultipathDevice::Impl::on_suspicion_over(Path& path) noexcept {
  if (path.session().state() == SessionState::logged_in) {
    paths_.forget_silence(path);  // else it goes down now, which is the same failure
  }
  paths_.note_suspect(path, false);
  hedge_more_.schedule();
  pump_.schedule();
  notify_.schedule();
}

void MultipathDevice::Impl::on_silence_goes_on(Path& path) noexcept {
  drop_if_stuck_in_answer(path);
  // Where no other path answers, it is the target.
  if (PathSet::has(paths_.suspect(), path) && paths_.answering() != 0 && !paths_.is_leaving(path) &&
      !closing_ && paths_.count_silence(path)) {
    groups_.note_failure(path);
  }
}

// All that waits at a suspect path, as long as there is a better one. What was not sent there has
// come back by then: see PathSet::note_room().
void MultipathDevice::Impl::hedge_silent_paths() {
  if (paths_.suspect() == 0 || paths_.answering() == 0 || closing_ || suspended()) [[likely]] {
    return;
  }
  hedge_wanted_ = false;
  for (Request& request : pool_) {
    if (request.place == Request::Place::at_path && !request.is_write() &&
        request.hedge == nullptr && (paths_.suspect() & path_bit(request.path->index())) != 0 &&
        !hedge(request)) {
      hedge_wanted_ = true;
      return;
    }
  }
}

bool MultipathDevice::Impl::hedge(Request& request) {
  const std::size_t done_bytes = std::size_t{request.done_sectors} * kSectorBytes;
  const std::size_t bytes = request.length_bytes() - done_bytes;
  if (free_hedges_.empty() || spare_.empty() ||
      (hedge_bytes_ != 0 && hedge_bytes_ + bytes > kMaxHedgeBytes)) {
    return false;
  }
  std::unique_ptr<std::byte[]> buffer;
  if (bytes != 0) {
    buffer.reset(new (std::nothrow) std::byte[bytes]);
    if (buffer == nullptr) {
      return false;
    }
  }
  Hedge& hedge = *free_hedges_.pop_front();
  hedge_bytes_ += bytes;
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
    ended.impl.on_hedge_complete(ended, status);
  };
  request.hedge = &hedge;
  ++hedged_;
  hedge.second = spare_.pop_front();
  start(*hedge.second, hedge.block);
  hedge.second->task.silences = request.task.silences;
  return true;
}

void MultipathDevice::Impl::on_hedge_complete(Hedge& hedge, IoStatus status) {
  hedge.second = nullptr;
  if (hedge.original == nullptr) {
    release(hedge);
    return;
  }
  Request& request = *hedge.original;
  if (status != IoStatus::ok) {
    leave_hedge(request);
    if (request.place == Request::Place::hedged) {
      complete(request, status);
    }
    return;
  }
  switch (request.place) {
    case Request::Place::at_path:
      if (let_go_of_buffer(request)) {
        answer_from(hedge);
      } else {
        hedge.succeeded = true;
        if (request.path->silence_goes_on()) {
          drop_if_stuck_in_answer(*request.path);
        }
      }
      return;
    case Request::Place::queued:
      --queued_count_;
      [[fallthrough]];
    case Request::Place::delayed:
      request.timer.stop();
      request.unlink();
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
      leave_hedge(request);
      return;
  }
}

// Whether the guest's buffer is ours from now on.
bool MultipathDevice::Impl::let_go_of_buffer(Request& request) {
  if (request.block->data == nullptr) {
    return true;  // a flush
  }
  if (!discard_answered_reads_ && is_the_guests(request)) {
    return true;  // the canary gives away the guest's buffers; a hedge's would be no memory any
                  // more
  }
  return request.path->session().discard(request.task);
}

// The guest gets the answer of the hedge. At a path, the request stays behind until the path has
// let go of it.
void MultipathDevice::Impl::answer_from(Hedge& hedge) {
  Request& request = *hedge.original;
  BlockRequest& block = *request.block;
  if (block.data != nullptr) {
    std::memcpy(block.data + hedge.first_byte, hedge.buffer.get(), hedge.block.length_bytes());
  }
  if (request.place != Request::Place::at_path) {
    complete(request, IoStatus::ok);
    return;
  }
  const IoStatus status = status_of_success(request);
  request.place = Request::Place::answered;
  request.block = nullptr;  // the guest's again
  leave_hedge(request);
  // It holds its slot for longer than the guest knows of it: the guest gets another in its place.
  if (is_the_guests(request)) {
    Request& spare = *spare_.pop_front();  // the hedge's, at least
    request.home = &spare_;
    spare.home = &free_;
    free_.push_front(spare);
    start_waiting();
  }
  block.on_complete(block, status);
}

void MultipathDevice::Impl::drop_if_stuck_in_answer(Path& path) {
  const bool stuck = std::any_of(pool_.begin(), pool_.end(), [&path](const Request& request) {
    return request.place == Request::Place::at_path && request.path == &path &&
           request.hedge != nullptr && request.hedge->succeeded;
  });
  if (stuck) {
    path.session().drop(
        Error{ErrorCode::timed_out, "the connection has gone silent in the middle of an answer"});
  }
}

void MultipathDevice::Impl::leave_to_hedge(Request& request) {
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

void MultipathDevice::Impl::leave_hedge(Request& request) {
  Hedge& hedge = *std::exchange(request.hedge, nullptr);
  hedge.original = nullptr;
  if (hedge.second == nullptr) {
    release(hedge);
  }
}

void MultipathDevice::Impl::release(Hedge& hedge) {
  hedge_bytes_ -= hedge.block.length_bytes();
  hedge.buffer.reset();
  free_hedges_.push_front(hedge);
  if (hedge_wanted_) {
    hedge_more_.schedule();
  }
}

}  // namespace iscsi_blkback
