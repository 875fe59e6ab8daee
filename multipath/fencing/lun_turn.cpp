#include "multipath/fencing/lun_turn.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace iscsi_blkback {
namespace {

// How often a disk looks at the others of its LUN when nobody tells of a change.
constexpr std::chrono::seconds kLook{1};
// While another disk is waited for it is looked at so often at first, and then less and less often:
// an eighth of the time that has been waited so far.
constexpr Duration kShortestLook = std::chrono::milliseconds(20);
constexpr Duration kLongestLook = std::chrono::milliseconds(250);
// How often the log says that this goes on.
constexpr std::chrono::seconds kReminder{60};
// Guests that start together come to the barrier's folder together: each waits for its turn, which
// is nobody's trouble for so long.
constexpr std::chrono::seconds kTurnTime{5};

std::int64_t milliseconds_of(Duration time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace

struct LunTurn::Entering final : BarrierJob {
  Entering(LunTurn& of, std::string the_key, LunWriteBarrier::Holder the_holder)
      : turn(of),
        directory(of.options_.directory),
        key(std::move(the_key)),
        holder(std::move(the_holder)),
        now(of.reactor_.now()),
        names(of.names_) {}

  void work() override {
    barrier = LunWriteBarrier::enter(directory, key, holder, now, names);
    if (barrier) {
      barrier->search_removed(now);
    }
  }
  void done() noexcept override { turn.on_entered(std::move(barrier)); }

  LunTurn& turn;  // for done()
  const std::string directory;
  const std::string key;
  const LunWriteBarrier::Holder holder;
  const TimePoint now;
  const BarrierNames names;
  Result<LunWriteBarrier> barrier;
};

struct LunTurn::Following final : BarrierJob {
  Following(LunTurn& of, BarrierFollow follow_of) : turn(of), follow(std::move(follow_of)) {}

  void work() override { follow.run(); }
  void done() noexcept override { turn.on_followed(std::move(follow)); }

  LunTurn& turn;  // for done()
  BarrierFollow follow;
};

LunTurn::LunTurn(Reactor& reactor, Options options, SharedFencing& fencing, const PathSet& paths,
                 DiskSteps& steps, DiskLog& log, Owner& owner)
    : reactor_(reactor),
      options_(std::move(options)),
      paths_(paths),
      steps_(steps),
      log_(log),
      owner_(owner),
      jobs_(fencing.barrier_jobs),
      predecessors_(reactor, fencing, *this),
      timer_(
          reactor, [](void* self) noexcept { static_cast<LunTurn*>(self)->on_timer(); }, this) {}

void LunTurn::enter(const LunNames& told, const std::string& target_name, std::uint16_t lun,
                    SerialNumberIs serial, bool read_only) {
  names_.serial = serial;
  (void)names_.add(told, target_name);
  target_name_ = target_name;
  lun_ = lun;
  if (!read_only) {
    waits_for_job_ = !options_.directory.empty();
    try_to_enter();
  }
}

void LunTurn::run(std::unique_ptr<BarrierJob> job) {
  job_is_out_ = true;
  if (jobs_ != nullptr) {
    jobs_->run(std::move(job));
  } else {
    job->work();
    job->done();
  }
}

void LunTurn::try_to_enter() {
  if (options_.directory.empty()) {
    look();
    return;
  }
  run(std::make_unique<Entering>(
      *this, lun_barrier_key(barrier_name_of(owner_.names()), target_name_, lun_),
      LunWriteBarrier::Holder{.name = options_.holder_name,
                              .vm = guest_.vm,
                              .domain = options_.holder_domain,
                              .shared = options_.shared,
                              .quiesce_time = options_.quiesce_time}));
}

void LunTurn::on_entered(Result<LunWriteBarrier> barrier) {
  job_is_out_ = false;
  error_ = barrier ? "" : barrier.error().message;
  note_folder(barrier ? nullptr : &barrier.error());
  if (barrier) {
    barrier_ = std::move(*barrier);
    tell_use();
    for (Path* path : paths_.all()) {
      if (path->session().login_epoch() != 0) {
        tell_nexus(*path);
      }
    }
    if (barrier_.learn(names_)) {  // in the meantime
      follow_file_first();
      return;
    }
  }
  end_wait_for_job();
  if (closing_) {
    go_on();
  } else {
    look();
  }
}

void LunTurn::learn(const LunNames& told, const std::string& target_name, SerialNumberIs serial) {
  names_.serial = serial;
  (void)names_.add(told, target_name);
  if (barrier_.learn(told, target_name)) {
    follow_file_first();
  }
}

std::string LunTurn::why() const {
  return waits_for_folder() ? std::string() : why_;
}

void LunTurn::path_added(Path& path) {
  predecessors_.path_added(path.session());
}

void LunTurn::path_leaves(const Path& path) {
  predecessors_.path_leaves(path.session());
  barrier_.forget_nexus(path.index());
}

void LunTurn::set_guest(const GuestNow& guest) {
  guest_ = guest;
  tell_use();
}

void LunTurn::close() {
  closing_ = true;
  tell_use();
  timer_.start_after(kLook);
  predecessors_.stop();
}

void LunTurn::leave() {
  if (keeps_the_place()) {
    barrier_.leave_place(reactor_.now());
  } else {
    barrier_.leave();
  }
  timer_.stop();
}

void LunTurn::note_folder(const Error* error) {
  if (error == nullptr || error->code != ErrorCode::unavailable) {
    folder_since_.reset();
  } else {
    folder_since_ = folder_since_.value_or(reactor_.now());
  }
}

bool LunTurn::waits_for_folder() const {
  return folder_since_ && reactor_.now() < *folder_since_ + kTurnTime;
}

Duration LunTurn::look_interval() const {
  return waits_for_folder() ? Duration{kShortestLook} : Duration{kLook};
}

void LunTurn::follow_file() {
  if (job_is_out_) {
    return;
  }
  if (barrier_.entered()) {
    run(std::make_unique<Following>(*this, barrier_.begin_follow()));
  } else {
    go_on();
  }
}

void LunTurn::follow_file_first() {
  waits_for_job_ = true;
  follows_again_ = job_is_out_;
  follow_file();
}

void LunTurn::on_followed(BarrierFollow follow) {
  job_is_out_ = false;
  const bool followed = note_followed(barrier_.end_follow(std::move(follow), reactor_.now()));
  if (std::exchange(follows_again_, false) || (followed && barrier_.must_search())) {
    follow_file();
    return;
  }
  barrier_.tell_use(use(), guest_.vm, reactor_.now());
  end_wait_for_job();
  go_on();
}

bool LunTurn::note_followed(const Result<bool>& followed) {
  note_folder(followed ? nullptr : &followed.error());
  if (!followed) {
    if (!waits_for_folder()) {
      log_.warning("other disks of this host do not see it: {}", followed.error().message);
    }
  } else if (*followed) {
    log_message(LogLevel::error, "multipath",
                fmt::format("{}: its LUN has a name by which other disks of this host knew it, "
                            "which had not seen this one: if both were in use, their writes may "
                            "have overtaken each other until now",
                            log_.disk_name()));
  }
  return followed.has_value();
}

void LunTurn::end_wait_for_job() {
  if (std::exchange(waits_for_job_, false)) {
    steps_.due(DiskStep::release_held);
    steps_.due(DiskStep::tell);
  }
}

void LunTurn::go_on() {
  if (closing_ || (guest_.state != GuestState::runs && why_.empty())) {
    timer_.start_after(look_interval());
    steps_.due_to_end();
  } else {
    look();
  }
}

// A guest that is in doubt runs, for others: as soon as its disk went to another one, it would have
// to wait for that one's end, and what it had asked for before would come too late.
HolderUse LunTurn::use() const {
  HolderUse use = HolderUse::runs;
  if (guest_.state == GuestState::suspended || guest_.state == GuestState::moved ||
      (closing_ && keeps_the_place())) {
    use = HolderUse::suspended;  // the process may end before the disk is closed
  } else if (guest_.state == GuestState::ended || closing_) {
    use = HolderUse::ended;
  }
  return use;
}

void LunTurn::tell_use() {
  if (barrier_.resumes(use())) {
    follow_file_first();  // to where a disk that has taken the guest over may be
  } else {
    barrier_.tell_use(use(), guest_.vm, reactor_.now());
  }
}

// When it closes: its guest has another disk soon, here or where it is restored. The toolstack
// takes the disks of a guest that it saves away before the guest has ended.
bool LunTurn::keeps_the_place() const {
  return guest_.state == GuestState::runs ? keeps_place_ : guest_.state != GuestState::ended;
}

void LunTurn::on_timer() {
  if (job_is_out_) {
    return;  // which goes on when it is back
  }
  if (!error_.empty() && !closing_) {
    try_to_enter();
  } else {
    follow_file();
  }
}

void LunTurn::tell_nexus(const Path& path) {
  const SessionOptions& session = path.session().options();
  const auto told =
      barrier_.set_nexus(path.index(), {.isid = session.isid,
                                        .session_number = session.session_number,
                                        .initiator_name = session.initiator_name,
                                        .target_name = session.target_name,
                                        .portal = path.session().portal_address(),
                                        .interface_binding = session.interface_binding,
                                        .login = login_nexus(path.session())});
  if (!told) {
    log_.warning("should its process die, the next disk has to wait for quiesce_time: {}",
                 told.error().message);
  }
}

void LunTurn::look() {
  if (closing_) {
    return;
  }
  const bool was_due = std::exchange(look_is_due_, false);
  const LunWriteBarrier::Others others = barrier_.look(reactor_.now());
  fence_dead_holders(others.dead);
  if (others.overtaken && !std::exchange(overtaken_, true)) {
    owner_.on_overtaken();
  }
  const std::string before = std::exchange(why_, why_it_waits(others));
  if (before != why_) {
    steps_.due(DiskStep::tell);
  }
  if (!why_.empty()) {
    if (before.empty() || (overtaken_ && before != why_)) {
      waits_since_ = reminder_at_ = reactor_.now();
    }
    wait();
    return;
  }
  if (!before.empty()) {
    log_info("multipath", "{}: the LUN is its own after {} ms", log_.disk_name(),
             milliseconds_of(reactor_.now() - waits_since_));
  }
  if (was_due || !before.empty()) {
    steps_.due(DiskStep::release_held);
  }
  if (barrier_.entered()) {
    timer_.start_after(look_interval());
  } else {
    timer_.stop();
  }
}

// Empty: it does not. The hotplug script knows by "the LUN is not served until" what ends by
// itself.
std::string LunTurn::why_it_waits(const LunWriteBarrier::Others& others) const {
  if (overtaken_) {
    return "the LUN is not served any more: another disk of this host has written there while the "
           "guest was suspended, and the guest knows nothing of it; destroy the guest";
  }
  if (!error_.empty()) {
    return fmt::format(
        "the LUN is not served, because its writes cannot be kept in order with those of other "
        "disks of this host: {}",
        error_);
  }
  if (!others.in_use_by.empty()) {
    return fmt::format(
        "the LUN is in use by {}: it is served when that is over, or at once if both disks are "
        "shared",
        others.in_use_by);
  }
  if (!others.late_writes_of.empty()) {
    return fmt::format("the LUN is not served until no write of {} can land there any more",
                       others.late_writes_of);
  }
  const double quiesce_s = std::chrono::duration<double>(options_.quiesce_time).count();
  if (!others.dead.empty()) {
    return fmt::format(
        "the LUN is not served until what a process of this host that has died had sent there is "
        "fenced, or for quiesce_time ({} s) after its death",
        quiesce_s);
  }
  if (options_.host_started_at &&
      reactor_.now() < *options_.host_started_at + options_.quiesce_time) {
    return fmt::format(
        "the LUN is not served until this host has run for quiesce_time ({} s): it had not ended "
        "in order, and what it had sent before may still be executed",
        quiesce_s);
  }
  return {};
}

void LunTurn::wait() {
  const TimePoint now = reactor_.now();
  if (now >= reminder_at_ && !waits_for_folder()) {
    LogLevel level = now == waits_since_ ? LogLevel::info : LogLevel::warning;
    level = overtaken_ ? LogLevel::error : level;
    log_message(level, "multipath", fmt::format("{}: {}", log_.disk_name(), why_));
    reminder_at_ = now + kReminder;
    steps_.due(DiskStep::tell);
  }
  timer_.start_after(
      error_.empty() || waits_for_folder()
          ? std::clamp<Duration>((now - waits_since_) / 8, kShortestLook, kLongestLook)
          : kLook);
}

void LunTurn::fence_dead_holders(const std::vector<LunWriteBarrier::DeadHolder>& dead) {
  std::vector<PredecessorPath> wanted;
  for (const LunWriteBarrier::DeadHolder& holder : dead) {
    for (std::uint32_t path = 0; path < kMaxPaths; ++path) {
      if ((holder.paths & path_bit(path)) == 0) {
        continue;
      }
      const PredecessorPath predecessor{holder.slot, holder.turn, path};
      const auto nexus = barrier_.nexus_of(predecessor);
      const SessionOptions* like = nexus ? session_at(nexus->target_name) : nullptr;
      if (like != nullptr) {
        wanted.push_back(predecessor);
        predecessors_.fence(predecessor, *nexus, *like);
      }
    }
  }
  predecessors_.keep_only(wanted);
}

// The options of a session with that target; null: no path leads there.
const SessionOptions* LunTurn::session_at(const std::string& target_name) const {
  const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const Path* path) {
    return path->session().options().target_name == target_name;
  });
  return found == paths_.end() ? nullptr : &(*found)->session().options();
}

void LunTurn::on_predecessor_fenced(const PredecessorPath& predecessor) noexcept {
  barrier_.reinstated(predecessor);
  want_look();
}

std::vector<Session*> LunTurn::path_sessions() const {
  std::vector<Session*> sessions;
  for (const Path* path : paths_) {
    sessions.push_back(&path->session());
  }
  return sessions;
}

}  // namespace iscsi_blkback
