#include "multipath/path/latency_probe.h"

#include "base/result.h"
#include "initiator/scsi/error_class.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {

LatencyProbe::LatencyProbe(Reactor& reactor, LogicalUnit& logical_unit, Owner& owner)
    : reactor_(reactor), logical_unit_(logical_unit), owner_(owner) {}

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
  read.sector_count = logical_unit_.logical_block_bytes() / kSectorBytes;
  read.data = buffer_.data();
  logical_unit_.prepare_io(task_, read);
  task_.owner = this;
  task_.on_complete = [](ScsiTask& task) noexcept {
    static_cast<LatencyProbe*>(task.owner)->on_complete();
  };
  outstanding_ = true;
  sent_at_ = reactor_.now();
  logical_unit_.session().submit(task_);
}

void LatencyProbe::on_complete() {
  outstanding_ = false;
  const ErrorClass outcome = classify(task_);
  const bool other_form =
      outcome == ErrorClass::command_unsupported && logical_unit_.try_other_form(task_);
  if (outcome != ErrorClass::success && !other_form) {
    owner_.on_probe_failed();
    return;
  }
  if (!other_form) {
    measured_.add(reactor_.now() - sent_at_);
  }
  if (measured_.mean()) {
    owner_.on_measured(measured_);
  } else if (owner_.goes_on_measuring()) {
    send();
  } else {
    owner_.on_probe_failed();
  }
}

}  // namespace iscsi_blkback
