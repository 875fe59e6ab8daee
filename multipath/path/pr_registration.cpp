#include "multipath/path/pr_registration.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "initiator/session/session.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMaxKeyAttentions = 8;  // in a row

}  // namespace

// On the heap, and its own owner while the session has it: it may outlive path and device.
struct PrRegistration::Return {
  PrRegistration* key = nullptr;  // null: nobody waits for it
  RegistrationTable* table = nullptr;
  const Session* session = nullptr;
  std::uint16_t lun = 0;
  ScsiTask task;
  std::array<std::byte, kReserveOutListBytes> buffer{};
};

PrRegistration::PrRegistration(Reactor& reactor, LogicalUnit& logical_unit, std::uint16_t lun,
                               std::uint64_t host_key, RegistrationTable& table, Owner& owner)
    : logical_unit_(logical_unit),
      lun_(lun),
      session_(logical_unit.session()),
      reactor_(reactor),
      host_key_(host_key),
      table_(table),
      owner_(owner),
      timer_(
          reactor, [](void* self) noexcept { static_cast<PrRegistration*>(self)->on_timer(); },
          this) {
  ISCSI_BLKBACK_ASSERT(host_key <= kMaxHostKey);
}

PrRegistration::~PrRegistration() {
  ISCSI_BLKBACK_ASSERT(!registering_);
  if (return_ != nullptr) {
    return_->key = nullptr;
  }
}

std::uint64_t PrRegistration::value() const {
  const Isid& isid = session_.options().isid;
  std::uint64_t key = host_key_;
  for (std::size_t i = 1; i < isid.size(); ++i) {
    key = key << 8 | isid[i];
  }
  return key;
}

bool PrRegistration::registered() const {
  return registered_epoch_ == session_.login_epoch();
}

void PrRegistration::register_key() {
  if (host_key_ == 0 || registering_ || ends_ || session_.state() != SessionState::logged_in ||
      registered()) {
    return;
  }
  logical_unit_.prepare_reserve_out(task_, ReserveOutAction::register_and_ignore_existing_key,
                                    ReservationType::none, {.service_action_key = value()},
                                    buffer_);
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<PrRegistration*>(task.owner)->on_registered();
  };
  sent_epoch_ = session_.login_epoch();
  sent_nexus_ = login_nexus(session_);
  registering_ = maybe_at_target_ = true;
  session_.submit(task_);
}

void PrRegistration::on_registered() {
  registering_ = false;
  if (std::exchange(invalidated_, false)) {
    register_key();
  } else if (classify(task_) == ErrorClass::success) {
    registered_epoch_ = sent_epoch_;
    stray_ = false;
    nexus_ = sent_nexus_;
    attentions_ = 0;
  } else if (task_.status == ScsiStatus::check_condition && task_.sense.valid &&
             task_.sense.key == SenseKey::unit_attention && attentions_++ < kMaxKeyAttentions) {
    register_key();
  } else if (task_.outcome == TaskOutcome::completed) {
    owner_.on_key_refused(to_string(classify(task_)));
  }
  stray_ = stray_ || task_.outcome == TaskOutcome::connection_lost;
  owner_.on_key_settled();
}

void PrRegistration::gone_at_target() {
  registered_epoch_ = 0;
  nexus_.reset();
  maybe_at_target_ = registering_ || stray_;
}

void PrRegistration::unregister() {
  if (std::exchange(ends_, true) || !maybe_at_target_) {
    return;
  }
  if (session_.state() != SessionState::logged_in) {
    owner_.on_key_kept("the path is down");
    return;
  }
  give_up_at_ = reactor_.now() + kUnregisterTime;
  send_return();
}

void PrRegistration::send_return() {
  timer_.start_at(give_up_at_);
  return_ = std::make_unique<Return>().release();  // until it completes
  return_->key = this;
  return_->table = &table_;
  return_->session = &session_;
  return_->lun = lun_;
  logical_unit_.prepare_reserve_out(return_->task,
                                    ReserveOutAction::register_and_ignore_existing_key,
                                    ReservationType::none, {}, return_->buffer);
  return_->task.owner = return_;
  return_->task.on_complete = [](ScsiTask& task) noexcept {
    const std::unique_ptr<Return> ended(static_cast<Return*>(task.owner));
    if (ended->key != nullptr) {
      ended->key->on_returned(ended->task);
    }
    ended->table->key_taken_back(*ended->session, ended->lun);
  };
  session_.submit(return_->task);
}

void PrRegistration::on_returned(const ScsiTask& task) {
  return_ = nullptr;
  const ErrorClass error = classify(task);
  if (error == ErrorClass::success) {
    gone_at_target();
    stop_unregistering(nullptr);
    return;
  }
  const ErrorRule rule = rule_for(error);
  if (task.outcome != TaskOutcome::completed || rule.path == PathVerdict::fail ||
      retries_.next(error, rule, reactor_.now()) == RetryState::Step::answer) {
    stop_unregistering(to_string(error));
    return;
  }
  timer_.start_at(
      std::min(give_up_at_, reactor_.now() + retries_.delay(rule.delay, reactor_.random())));
}

void PrRegistration::on_timer() {
  if (return_ != nullptr) {
    std::exchange(return_, nullptr)->key = nullptr;
    stop_unregistering("not answered yet");
  } else if (reactor_.now() >= give_up_at_ || session_.state() != SessionState::logged_in) {
    stop_unregistering("it does not become ready");
  } else {
    send_return();
  }
}

void PrRegistration::stop_unregistering(const char* kept_because) {
  timer_.stop();
  if (kept_because != nullptr) {
    owner_.on_key_kept(kept_because);
  }
  owner_.on_key_settled();
}

}  // namespace iscsi_blkback
