#include "multipath/requests/request_queue.h"

#include <algorithm>
#include <utility>

#include "multipath/requests/request_piece.h"

namespace iscsi_blkback {
namespace {

// Each write that a full LUN has refused is tried again so often.
constexpr std::chrono::seconds kSpaceRetryInterval{5};

}  // namespace

RequestQueue::RequestQueue(Reactor& reactor, const Options& options, PathSet& paths,
                           GroupController& groups, WriteFence& fence, LunTurn& turn,
                           DiskSteps& steps, DiskLog& log)
    : reactor_(reactor),
      holds_when_full_(options.holds_when_full),
      paths_(paths),
      groups_(groups),
      fence_(fence),
      turn_(turn),
      steps_(steps),
      log_(log),
      order_(paths, fence, turn),
      flushes_(paths),
      pool_(
          reactor, std::max(options.most_requests, 1U),
          [](void* self) noexcept {
            auto& request = *static_cast<Request*>(self);
            request.queue->on_delay_over(request);
          },
          this),
      hedger_(std::max(options.most_requests, 1U), paths, steps, *this),
      finish_(
          reactor,
          [](void* self) noexcept { static_cast<RequestQueue*>(self)->complete_finished(); },
          this) {}

void RequestQueue::set_suspended(bool suspended) {
  suspended_ = suspended;
  if (suspended_ || closing_) {
    hedger_.pause();
  } else {
    hedger_.resume();
  }
}

void RequestQueue::close() {
  closing_ = true;
  hedger_.pause();
  abort_waiting();
  pool_.for_each([](Request& request) {
    request.task.silences = 0;  // a target that does not answer is waited for no longer than usual
  });
}

void RequestQueue::forget_path(std::uint32_t index) {
  pool_.for_each([index](Request& request) {
    request.avoid &= ~path_bit(index);
    if (request.prefer == index) {
      request.prefer.reset();
    }
  });
}

void RequestQueue::submit(BlockRequest& block) {
  Request* slot = pool_.take();
  if (slot == nullptr) {
    waiting_for_slot_.push_back(block);
    return;
  }
  start(*slot, block);
}

void RequestQueue::start(Request& request, BlockRequest& block) {
  request.block = &block;
  request.done_sectors = 0;
  request.serial = ++last_serial_;
  request.prefer.reset();
  request.avoid = 0;
  request.retries = RetryState();
  request.task.silences = request.task.stuck = 0;
  request.has_waiter = false;
  request.cache_waits = 0;
  request.hedge = nullptr;
  if (closing_) {
    finish(request, IoStatus::aborted);
    return;
  }
  if (read_only_ && block.operation != BlockOperation::read) {
    // No write command leaves, and there is nothing of ours to flush.
    finish(request, request.is_write() ? IoStatus::write_protected : IoStatus::ok);
    return;
  }
  dispatch(request);
}

// Some functions of this file are inline: each request comes by, and there are one or two callers.
// True: it does not go to a path now.
inline bool RequestQueue::keep_back(Request& request) {
  const bool held = order_.must_wait(request);
  if (turn_.overtaken()) [[unlikely]] {
    finish(request, IoStatus::aborted);
    return true;
  }
  if (held) {
    request.place = Request::Place::held;
    request.retries.wait(reactor_.turn_time());
    held_.push_back(request);
    ++held_count_;
  }
  return held;
}

// Brings a request that is in no list to a path, or to where it waits.
void RequestQueue::dispatch(Request& request) {
  if (keep_back(request)) {
    steps_.due(DiskStep::follow_outage);
    return;
  }
  // Not past those that wait for room already, or for the guest to go on.
  const bool waits = !queued_.empty() && !(suspended_ && request.is_flush());
  if (waits || !try_send(request)) {
    queue(request);
  }
}

bool RequestQueue::try_send(Request& request) {
  // Of a suspended guest a flush is sent, which changes nothing for who goes on with the LUN: the device model
  // of an HVM guest flushes its disks after the guest has been suspended, before anybody saves or moves it.
  if ((suspended_ && !request.is_flush()) || fence_.pausing()) [[unlikely]] {
    return false;
  }
  const GroupController::Choice choice = groups_.choose(
      {.length_bytes = request.length_bytes(), .prefer = request.prefer, .avoid = request.avoid});
  if (choice.path == nullptr) {
    return false;
  }
  request.chosen_at = choice.at;
  send(request, *choice.path);
  return true;
}

void RequestQueue::queue(Request& request) {
  request.place = Request::Place::queued;
  request.retries.wait(reactor_.turn_time());
  queued_.push_back(request);
  ++queued_count_;
  if (paths_.able() != 0) {
    steps_.due(DiskStep::pump);
  } else {
    steps_.due(DiskStep::follow_outage);
  }
}

void RequestQueue::send(Request& request, Path& chosen) {
  Path* const to = request.is_flush() ? flushes_.path_for_flush(chosen) : &chosen;
  if (to == nullptr) [[unlikely]] {
    finish(request, IoStatus::ok);
    return;
  }
  Path& path = *to;
  request.place = Request::Place::at_path;
  request.prefer.reset();
  request.avoid = 0;
  request.on_done = [](PathCommand& command, ErrorClass error) noexcept {
    auto& done = static_cast<Request&>(command);
    done.queue->on_command_done(done, error);
  };
  request.retries.go_on(reactor_.turn_time());
  request.load_bytes = request.length_bytes();
  const BlockRequest& whole = *request.block;
  if (whole.sector_count <= piece_sectors_ && !request.is_discard()) [[likely]] {
    request.sent_sectors = whole.sector_count;
    path.submit(request, whole);
  } else {
    BlockRequest piece;
    cut_piece(whole, request.done_sectors, piece_sectors_, discards_, piece);
    request.discard_form = discards_.form;
    request.sent_sectors = piece.sector_count;
    path.submit(request, piece);
  }
  if (path.writes_in_flight() == 1 && request.is_write()) {
    turn_.set_outstanding(path, true);
  }
  if (!path.able()) [[unlikely]] {
    paths_.note_room(path);
  }
}

// Nobody hears what a hedge says.
inline IoStatus RequestQueue::status_of_success(const Request& request) {
  return request.is_flush() && request.is_guests && flushes_.loss().fails(request.serial)
             ? IoStatus::medium_error
             : IoStatus::ok;
}

inline void RequestQueue::release(Request& request) {
  pool_.give_back(request);
  if (!request.is_guests) [[unlikely]] {
    hedger_.on_spare_free();
  }
  if (!waiting_for_slot_.empty()) [[unlikely]] {
    start_waiting();
  }
  if (closing_) {
    steps_.due(DiskStep::check_closed);
  }
}

void RequestQueue::on_command_done(Request& request, ErrorClass error) {
  Path& path = *request.path;
  if (request.task.direction == DataDirection::out) {
    if (error == ErrorClass::connection_lost) [[unlikely]] {
      const UnfencedSectors unfenced = unfenced_sectors(request);
      fence_.lost(path, unfenced.first, unfenced.end, request.serial);
    }
    if (path.writes_in_flight() == 0) {
      turn_.set_outstanding(path, false);
    }
  }
  groups_.ended(path, request.chosen_at, error == ErrorClass::success);
  if (error != ErrorClass::success || !PathSet::has(paths_.able(), path)) [[unlikely]] {
    paths_.note_room(path);  // there may be room again, or less of it
    if (paths_.is_leaving(path)) {
      steps_.due_to_end();
    }
  }
  if (!queued_.empty() && paths_.able() != 0) {
    steps_.due(DiskStep::pump);
  }
  if (request.has_waiter) {
    request.has_waiter = false;
    steps_.due(DiskStep::release_held);
  }
  if (request.task.direction == DataDirection::none && tells_loss_at_flush(error)) [[unlikely]] {
    log_.error(
        "the target cannot write its cache: {}; what the guest has not flushed before "
        "may be lost",
        to_string(error));
    note_loss();
    if (request.place != Request::Place::answered) {
      complete(request, IoStatus::ok);  // which says it
      return;
    }
  }
  if (request.place == Request::Place::answered) [[unlikely]] {
    release(request);
    return;
  }
  if (error == ErrorClass::success) [[likely]] {
    take_answer(request, IoStatus::ok);
    return;
  }

  const ErrorRule rule = rule_for(error);
  if (concerns_path(error)) {
    groups_.note_error(path);
  }
  switch (rule.path) {
    case PathVerdict::keep:
    case PathVerdict::verify:  // the path knows by now: see Path::on_scsi_event()
      break;
    case PathVerdict::fail:
      path.fail(error);
      break;
  }
  if (request.hedge != nullptr &&
      (Hedger::has_succeeded(request) || error == ErrorClass::connection_lost ||
       error == ErrorClass::not_sent)) [[unlikely]] {
    hedger_.leave_to_hedge(request);
    return;
  }
  retry(request, error, rule);
}

// An answer that the guest would be told. Where the path may lead to another LUN by now, that waits
// until it is known; and where it does, or nobody can tell, the request is as good as not sent: a
// write was executed there, if at all, and is over.
void RequestQueue::take_answer(Request& request, IoStatus status) {
  const Path::Identity identity = request.path->identity();
  if (identity != Path::Identity::known) [[unlikely]] {
    if (request.hedge == nullptr && identity == Path::Identity::in_doubt) {
      request.place = Request::Place::doubted;
      request.result = status;
      doubted_.push_back(request);
    } else {
      as_if_not_sent(request);
    }
    return;
  }
  if (status != IoStatus::ok) {
    complete(request, status);
    return;
  }
  request.done_sectors += request.sent_sectors;
  if (request.done_sectors < request.block->sector_count) [[unlikely]] {
    send_next_piece(request);
  } else {
    complete(request, IoStatus::ok);
  }
}

void RequestQueue::as_if_not_sent(Request& request) {
  if (request.hedge != nullptr) {
    hedger_.leave_to_hedge(request);
  } else {
    retry(request, ErrorClass::not_sent, rule_for(ErrorClass::not_sent));
  }
}

void RequestQueue::on_path_identity(const Path& path) {
  if (path.identity() == Path::Identity::in_doubt || doubted_.empty()) {
    return;
  }
  IntrusiveList<Request> doubted;
  doubted.take_all(doubted_);
  while (Request* request = doubted.pop_front()) {
    take_answer(*request, request->result);  // of another path it may stay in doubt
  }
}

// What the LUN takes at most with one command is less than the request. Its range as a whole is
// what overlapping writes wait for, so that a piece that is lost is fenced like any write.
void RequestQueue::send_next_piece(Request& request) {
  if (closing_) {
    complete(request, IoStatus::aborted);
    return;
  }
  if (Hedger::has_succeeded(request)) {
    hedger_.leave_to_hedge(request);
    return;
  }
  request.retries = RetryState();
  dispatch(request);
}

void RequestQueue::retry(Request& request, ErrorClass error, const ErrorRule& rule) {
  if (error == ErrorClass::no_space && holds_when_full_ && !closing_) {
    wait_for_space(request);
    return;
  }
  if (request.is_flush()) {
    if (refuses_flush(error) && take_refused_flush(request)) {
      return;
    }
  } else if (error != ErrorClass::not_sent && refuses_form_of_transfer(request.task) && !closing_ &&
             request.path->logical_unit().try_other_form(request.task)) {
    request.prefer = request.path->index();
    dispatch(request);
    return;
  }
  RetryState::Step step = request.retries.next(error, rule, reactor_.now());
  RetryDelay delay_kind = rule.delay;
  if ((step == RetryState::Step::answer || error == ErrorClass::command_stuck) &&
      request.is_flush() && flushes_.is_needless(*request.path)) {
    take_answer(request, IoStatus::ok);
    return;
  }
  if (step == RetryState::Step::answer && rule.answer == IoStatus::no_path) {
    request.path->fail(error);
    step = RetryState::Step::elsewhere;
    delay_kind = RetryDelay::none;
  }
  if (step == RetryState::Step::answer) {
    const bool not_taken = request.is_discard() && refuses_discard(request.task);
    take_answer(request, not_taken ? IoStatus::not_supported : rule.answer);
    return;
  }
  if (closing_) {
    complete(request, IoStatus::aborted);
    return;
  }
  if (step == RetryState::Step::here) {
    request.prefer = request.path->index();
  } else {
    request.avoid = path_bit(request.path->index());
  }
  Duration pause = request.retries.delay(delay_kind, reactor_.random());
  if (delay_kind == RetryDelay::pause && request.retries.first() &&
      (paths_.able() & ~request.avoid) != 0) {
    pause = Duration::zero();  // the other path may be ready now
  }
  if (pause == Duration::zero()) {
    dispatch(request);
    return;
  }
  delay(request, pause);
}

void RequestQueue::delay(Request& request, Duration time) {
  request.place = Request::Place::delayed;
  delayed_.push_back(request);
  request.timer.start_after(time);
}

// False: as any other request that fails so.
bool RequestQueue::take_refused_flush(Request& request) {
  const FlushRules::Next next = flushes_.after_refusal(request, request.cache_waits, closing_);
  if (next.path != nullptr) {
    request.prefer = next.path->index();
  }
  switch (next.step) {
    case FlushStep::like_others:
      return false;
    case FlushStep::as_if_not_sent:
      as_if_not_sent(request);
      return true;
    case FlushStep::succeed:
      take_answer(request, IoStatus::ok);
      return true;
    case FlushStep::give_up:
      take_answer(request, IoStatus::not_supported);
      return true;
    case FlushStep::resend:
      dispatch(request);
      return true;
    case FlushStep::wait:
      delay(request, next.wait);
      return true;
  }
  return false;
}

// The target has refused the write for good: nothing of it is left there.
void RequestQueue::wait_for_space(Request& request) {
  if (!std::exchange(request.waits_for_space, true) && waiting_for_space_++ == 0) {
    log_.error("the LUN has no space left; writes wait until it has (no_space = \"hold\")");
    steps_.due(DiskStep::tell);
  }
  request.retries.wait(reactor_.turn_time());
  delay(request, kSpaceRetryInterval);
}

void RequestQueue::end_wait_for_space(Request& request, IoStatus status) {
  request.waits_for_space = false;
  if (--waiting_for_space_ == 0 && status == IoStatus::ok) {
    log_.info("the LUN has space again");
    steps_.due(DiskStep::tell);
  }
}

void RequestQueue::on_delay_over(Request& request) {
  request.unlink();
  dispatch(request);
}

void RequestQueue::release_held() {
  IntrusiveList<Request> released;
  released.take_all(held_);
  held_count_ = 0;
  while (Request* request = released.pop_front()) {
    dispatch(*request);
  }
  release_withheld();
}

void RequestQueue::release_withheld() {
  IntrusiveList<Request> released;
  released.take_all(withheld_);
  withheld_count_ = 0;
  while (Request* request = released.pop_front()) {
    complete(*request, request->result);  // or it is withheld once more
  }
}

void RequestQueue::pump() {
  while (!queued_.empty() && paths_.able() != 0) {
    Request& request = queued_.front();
    request.unlink();
    --queued_count_;
    if (!keep_back(request) && !try_send(request)) {
      request.place = Request::Place::queued;
      queued_.push_front(request);
      ++queued_count_;
      return;
    }
  }
}

void RequestQueue::finish(Request& request, IoStatus status) {
  request.place = Request::Place::finished;
  request.result = status;
  finished_.push_back(request);
  finish_.schedule();
}

void RequestQueue::abort_waiting() {
  for (IntrusiveList<Request>* waiting : {&queued_, &delayed_, &held_, &withheld_, &doubted_}) {
    while (Request* request = waiting->pop_front()) {
      request->timer.stop();
      finish(*request, IoStatus::aborted);
    }
  }
  queued_count_ = held_count_ = withheld_count_ = 0;
}

void RequestQueue::complete(Request& request, IoStatus status) {
  if (order_.withholds_answer(request)) [[unlikely]] {
    if (!closing_) {
      request.place = Request::Place::withheld;
      request.result = status;
      withheld_.push_back(request);
      ++withheld_count_;
      return;
    }
    status = IoStatus::aborted;
  }
  if (request.hedge != nullptr) [[unlikely]] {
    hedger_.leave(request);
  }
  BlockRequest& block = *request.block;
  if (request.waits_for_space) [[unlikely]] {
    end_wait_for_space(request, status);
  }
  if (status == IoStatus::ok) {
    status = status_of_success(request);
  }
  release(request);
  block.on_complete(block, status);
}

void RequestQueue::start_waiting() {
  if (!waiting_for_slot_.empty() && pool_.has_free()) {
    BlockRequest* next = waiting_for_slot_.pop_front();
    start(*pool_.take(), *next);
  }
}

void RequestQueue::complete_finished() {
  // Only those of now: a completion that submits anew must not keep this loop alive.
  IntrusiveList<Request> finished;
  finished.take_all(finished_);
  while (Request* request = finished.pop_front()) {
    complete(*request, request->result);
  }
}

void RequestQueue::fail_waiting() {
  queued_.for_each([this](Request& request) {
    if (!request.is_flush()) {
      request.unlink();
      --queued_count_;
      finish(request, IoStatus::no_path);
    }
  });
  while (Request* request = held_.pop_front()) {
    --held_count_;
    finish(*request, IoStatus::no_path);
  }
}

void RequestQueue::take_out(Request& request) {
  if (request.place == Request::Place::queued) {
    --queued_count_;
  }
  request.timer.stop();
  request.unlink();
}

// The path still has the command, so that the request holds its slot for longer than the guest
// knows of it: the guest gets another in its place.
void RequestQueue::answer_early(Request& request) {
  BlockRequest& block = *request.block;
  const IoStatus status = status_of_success(request);
  request.place = Request::Place::answered;
  request.block = nullptr;  // the guest's again
  hedger_.leave(request);
  if (request.is_guests) {
    pool_.make_spare(request);
    start_waiting();
  }
  block.on_complete(block, status);
}

void RequestQueue::drop_if_silent(Path& path) {
  if (path.silence_goes_on()) {
    path.session().drop(
        Error{ErrorCode::timed_out, "the connection has gone silent in the middle of an answer"});
  }
}

}  // namespace iscsi_blkback
