#include "tests/support/sim_target_connection.h"

#include "initiator/lun/logical_unit.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kReceiveBytes = 256 * 1024;

}  // namespace

SimTargetConnection::SimTargetConnection(SimTarget& target, std::size_t portal_index,
                                         std::unique_ptr<SimStream> stream)
    : TargetConnection(target.options_),
      portal(portal_index),
      target_(target),
      stream_(std::move(stream)),
      wire_(stream_->connection().shared_from_this()),
      receive_buffer_(kReceiveBytes) {}

void SimTargetConnection::begin() {
  stream_->set_owner(*this);
  resume();
}

void SimTargetConnection::resume() {
  if (dead_) {
    return;
  }
  const std::size_t taken = consume(inbox_, false);
  inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(taken));
  if (!dead_ && !receiving_ && !target_.hung_) {
    receiving_ = true;
    const iovec part{.iov_base = receive_buffer_.data(), .iov_len = receive_buffer_.size()};
    stream_->receive({&part, 1});
  }
}

void SimTargetConnection::kill() {
  if (!dead_) {
    gone();
    stream_->reset();
  }
}

void SimTargetConnection::on_closed(const Error&) noexcept {
  if (!dead_) {
    gone();
  }
}

void SimTargetConnection::gone() {
  dead_ = true;
  target_.forget(*this);
  if (target_.observer_ != nullptr) {
    target_.observer_->on_connection_gone(number());
  }
}

void SimTargetConnection::on_received(std::size_t count) noexcept {
  receiving_ = false;
  inbox_.insert(inbox_.end(), receive_buffer_.begin(),
                receive_buffer_.begin() + static_cast<std::ptrdiff_t>(count));
  resume();
}

void SimTargetConnection::on_sent() noexcept {
  sending_.clear();
  pump();
}

void SimTargetConnection::pump() {
  if (dead_ || !sending_.empty()) {
    return;
  }
  if (outbox_.empty()) {
    if (finished()) {
      stream_->finish();
    }
    return;
  }
  sending_.swap(outbox_);
  const iovec part{.iov_base = sending_.data(), .iov_len = sending_.size()};
  stream_->send({&part, 1});
}

void SimTargetConnection::violate(std::string what) {
  target_.violations.push_back(std::move(what));
  kill();
}

bool SimTargetConnection::admits() {
  const std::optional<TimePoint> since = wire_->client_gone_since();
  const Duration limit = target_.options_.late_arrival_limit;
  if (since && limit != Duration::zero() && target_.reactor_.now() - *since > limit) {
    kill();
  }
  return !dead_;
}

LoginDiversion SimTargetConnection::divert_login() const {
  const SimTarget::Portal& at = *target_.portals_[portal];
  if (at.login_status != 0 || at.redirect.empty()) {
    return {at.login_status};
  }
  return {at.redirect_status, "TargetAddress=" + at.redirect + '\0'};
}

std::uint16_t SimTargetConnection::begin_session() {
  const std::uint16_t tsih = target_.next_tsih_++;
  const std::size_t terminated = target_.reinstate(*this);
  ++target_.counters.logins;
  if (target_.observer_ != nullptr) {
    target_.observer_->on_login(number(), portal, isid(), terminated);
  }
  if (target_.options_.power_on_unit_attention) {
    for (const auto& [number, lun] : target_.luns_) {
      unit_attentions[number].push_back(0x2900);
    }
  }
  return tsih;
}

void SimTargetConnection::execute(const ScsiCommandPdu& command, std::byte*,
                                  std::vector<std::byte>&& data) {
  auto task = std::make_shared<SimTarget::Task>();
  task->command = {.portal = portal,
                   .initiator_name = initiator_name(),
                   .isid = isid(),
                   .lun = addressed_lun(command.lun),
                   .cdb = command.cdb,
                   .expected_bytes = command.expected_data_bytes,
                   .chap_name = chap_name()};
  task->initiator_task_tag = command.initiator_task_tag;
  task->read = command.read;
  task->group_tag = group_tag();
  task->data = std::move(data);
  task->connection = weak_from_this();
  task->wire = wire_;
  target_.arrived(std::move(task));
}

bool SimTargetConnection::handle_other(Opcode opcode, BhsBytes bytes) {
  if (opcode != Opcode::task_management_request) {
    return false;
  }
  const TaskManagementRequestPdu request = decode_task_management_request(bytes);
  if (request.cmd_sn != expected_cmd_sn()) {
    violate("a task management function with a wrong CmdSN");
    return true;
  }
  if (request.function == TaskFunction::abort_task &&
      !serial_before(request.ref_cmd_sn, request.cmd_sn)) {
    violate("an ABORT TASK of a command that was not sent");
    return true;
  }
  SimFunctionFault fault;
  if (const auto found = target_.function_faults_.find(request.function);
      found != target_.function_faults_.end()) {
    fault = found->second;
  }
  if (fault.delay == Duration::zero()) {
    execute_function(request, fault);
    return true;
  }
  target_.reactor_.schedule(fault.delay, [self = shared_from_this(), request, fault] {
    if (!self->dead_) {
      self->execute_function(request, fault);
    }
  });
  return true;
}

void SimTargetConnection::execute_function(const TaskManagementRequestPdu& request,
                                           const SimFunctionFault& fault) {
  if (!fault.answer) {
    return;
  }
  const std::uint8_t response = fault.execute ? target_.manage(*this, request) : std::uint8_t{0};
  send(TaskManagementResponsePdu{.response = fault.response != 0 ? fault.response : response,
                                 .initiator_task_tag = request.initiator_task_tag,
                                 .numbers = numbers(true)},
       {});
}

bool SimTargetConnection::forget_write(std::uint32_t tag) {
  const bool known = abort_write(tag);
  if (known && target_.observer_ != nullptr) {
    target_.observer_->on_command_over(number(), tag);
  }
  return known;
}

void SimTargetConnection::answer_task(const SimTarget::Task& task, const SimScsiResult& result) {
  answer({.initiator_task_tag = task.initiator_task_tag,
          .expected_bytes = task.command.expected_bytes,
          .read = task.read,
          .response = task.fault ? task.fault->response_code : std::uint8_t{0},
          .status = result.status,
          .data = result.data,
          .sense = result.sense,
          .overflow_bytes = task.fault ? task.fault->overflow_bytes : 0});
}

void SimTargetConnection::ping() {
  if (logged_in()) {
    send(NopInPdu{.target_transfer_tag = new_transfer_tag(), .numbers = numbers(false)}, {});
  }
}

void SimTargetConnection::send_async_message(AsyncEvent event, std::uint16_t parameter1,
                                             std::uint16_t parameter2, std::uint16_t parameter3) {
  if (logged_in()) {
    send(AsyncMessagePdu{.event = event,
                         .numbers = numbers(true),
                         .parameter1 = parameter1,
                         .parameter2 = parameter2,
                         .parameter3 = parameter3},
         {});
  }
}

void SimTargetConnection::send_scsi_event(std::uint16_t lun, SenseKey key, std::uint16_t code) {
  if (!logged_in()) {
    return;
  }
  const std::vector<std::byte> segment = sense_segment(make_sense(key, code));
  send(AsyncMessagePdu{.event = AsyncEvent::scsi_event,
                       .data_bytes = static_cast<std::uint32_t>(segment.size()),
                       .lun = encode_lun(lun),
                       .numbers = numbers(true)},
       segment);
}

}  // namespace iscsi_blkback
