#include "multipath/groups/latency_probe.h"

#include "base/result.h"

namespace iscsi_blkback {

LatencyProbe::LatencyProbe(Reactor& reactor, Path& path, Owner& owner)
    : reactor_(reactor), path_(path), owner_(owner) {}

LatencyProbe::~LatencyProbe() {
  ISCSI_BLKBACK_ASSERT(!outstanding());
}

void LatencyProbe::start() {
  ISCSI_BLKBACK_ASSERT(!outstanding());
  measured_.clear();
  send();
}

void LatencyProbe::send() {
  BlockRequest read;
  read.operation = BlockOperation::read;
  read.sector_count = path_.logical_unit().logical_block_bytes() / kSectorBytes;
  read.data = buffer_.data();
  path_.logical_unit().prepare_io(task_, read);
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<LatencyProbe*>(task.owner)->on_complete();
  };
  outstanding_ = true;
  sent_at_ = reactor_.now();
  path_.session().submit(task_);
}

void LatencyProbe::on_complete() {
  outstanding_ = false;
  const ErrorClass outcome = classify(task_);
  const bool other_form =
      outcome == ErrorClass::command_unsupported && path_.logical_unit().try_other_form(task_);
  if (outcome != ErrorClass::success && !other_form) {
    owner_.on_probe_failed(path_);
    return;
  }
  if (!other_form) {
    measured_.add(reactor_.now() - sent_at_);
  }
  if (measured_.mean()) {
    owner_.on_latency_measured(path_, measured_);
  } else if (path_.state() == PathState::up && !path_.stopped() &&
             path_.session().state() == SessionState::logged_in) {
    send();
  } else {
    owner_.on_probe_failed(path_);
  }
}

}  // namespace iscsi_blkback
