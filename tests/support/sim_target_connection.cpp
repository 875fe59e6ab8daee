#include "tests/support/sim_target_connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "initiator/lun/logical_unit.h"
#include "tests/support/target_answer.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kReceiveBytes = 256 * 1024;

}  // namespace

SimTargetConnection::SimTargetConnection(SimTarget& target, std::size_t portal_index,
                                         std::unique_ptr<SimStream> stream)
    : portal(portal_index),
      target_(target),
      stream_(std::move(stream)),
      wire_(stream_->connection().shared_from_this()),
      receive_buffer_(kReceiveBytes),
      sequence_(target.options_.initial_stat_sn) {}

void SimTargetConnection::begin() {
  stream_->set_owner(*this);
  resume();
}

void SimTargetConnection::resume() {
  if (dead_) {
    return;
  }
  parse();
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
    if (finish_after_send_) {
      stream_->finish();
    }
    return;
  }
  sending_.swap(outbox_);
  const iovec part{.iov_base = sending_.data(), .iov_len = sending_.size()};
  stream_->send({&part, 1});
}

TargetNumbers SimTargetConnection::numbers(bool advances_stat_sn) {
  const std::uint32_t window = std::max(target_.options_.window, 1U);
  return sequence_.numbers(advances_stat_sn, target_.window_closed_ ? 0 : window);
}

void SimTargetConnection::violation(std::string what) {
  target_.violations.push_back(std::move(what));
  kill();
}

void SimTargetConnection::parse() {
  while (!dead_ && !target_.hung_ && inbox_.size() >= kBhsBytes) {
    const PduHeader header = decode_header(BhsBytes{inbox_.data(), kBhsBytes});
    if (header.data_bytes > target_.options_.max_recv_data_segment_length) {
      violation("a data segment larger than MaxRecvDataSegmentLength");
      return;
    }
    const std::size_t total_bytes = header.total_bytes(digests_);
    if (inbox_.size() < total_bytes) {
      return;
    }
    const std::vector<std::byte> pdu(inbox_.begin(),
                                     inbox_.begin() + static_cast<std::ptrdiff_t>(total_bytes));
    if (!digests_match(pdu, header, digests_)) {
      violation(fmt::format("a {} with a wrong digest", to_string(header.opcode)));
      return;
    }
    inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(pdu.size()));
    if (const std::optional<TimePoint> since = wire_->client_gone_since();
        since && target_.options_.late_arrival_limit != Duration::zero() &&
        target_.reactor_.now() - *since > target_.options_.late_arrival_limit) {
      kill();
      return;
    }
    handle(BhsBytes{pdu.data(), kBhsBytes}, header,
           std::span{pdu}.subspan(header.data_offset(digests_), header.data_bytes));
  }
}

void SimTargetConnection::handle(BhsBytes bytes, const PduHeader& header,
                                 std::span<const std::byte> data) {
  if (!logged_in_ && header.opcode != Opcode::login_request) {
    violation(fmt::format("a {} before the end of the login", to_string(header.opcode)));
    return;
  }
  switch (header.opcode) {
    case Opcode::login_request:
      handle_login(decode_login_request(bytes), data);
      return;
    case Opcode::scsi_command:
      handle_command(decode_scsi_command(bytes), data);
      return;
    case Opcode::data_out:
      handle_data_out(decode_data_out(bytes), data);
      return;
    case Opcode::nop_out: {
      const NopOutPdu nop = decode_nop_out(bytes);
      if (!nop.immediate || nop.cmd_sn != sequence_.exp_cmd_sn()) {
        violation("a NOP-Out that is not immediate or has a wrong CmdSN");
      } else if (nop.initiator_task_tag != kReservedTag) {
        send(NopInPdu{.data_bytes = 0,
                      .lun = nop.lun,
                      .initiator_task_tag = nop.initiator_task_tag,
                      .target_transfer_tag = kReservedTag,
                      .numbers = numbers(true)});
      } else {
        ++target_.counters.pings_answered;
      }
      return;
    }
    case Opcode::task_management_request:
      handle_function(decode_task_management_request(bytes));
      return;
    case Opcode::logout_request: {
      const LogoutRequestPdu logout = decode_logout_request(bytes);
      ++target_.counters.logouts;
      finish_after_send_ = true;
      logged_in_ = false;
      send(LogoutResponsePdu{.response = 0,
                             .initiator_task_tag = logout.initiator_task_tag,
                             .numbers = numbers(true),
                             .time2wait = 0,
                             .time2retain = 0});
      return;
    }
    default:
      violation(fmt::format("a {}, which this target does not know", to_string(header.opcode)));
  }
}

void SimTargetConnection::handle_command(const ScsiCommandPdu& command,
                                         std::span<const std::byte> data) {
  if (!sequence_.take(command.cmd_sn)) {
    violation(sequence_.refusal(command.cmd_sn));
    return;
  }
  auto task = std::make_shared<SimTarget::Task>();
  task->command = {.portal = portal,
                   .initiator_name = initiator_name(),
                   .isid = isid,
                   .lun = addressed_lun(command.lun),
                   .cdb = command.cdb,
                   .expected_bytes = command.expected_data_bytes,
                   .chap_name = negotiated_.chap_name};
  task->lun_field = command.lun;
  task->initiator_task_tag = command.initiator_task_tag;
  task->read = command.read;
  task->write = command.write;
  task->group_tag = target_.options_.portals[portal].group_tag;
  task->connection = weak_from_this();
  task->wire = wire_;
  if (!command.write) {
    target_.arrived(std::move(task));
    return;
  }
  const std::uint32_t unasked = std::min(negotiated_.first_burst, command.expected_data_bytes);
  if ((!data.empty() && !negotiated_.immediate_data) || data.size() > unasked ||
      (!command.final && negotiated_.initial_r2t)) {
    violation("immediate or unsolicited data that was not negotiated");
    return;
  }
  task->data.assign(data.begin(), data.end());
  task->data.resize(command.expected_data_bytes);
  Write write{.task = std::move(task), .arrived = static_cast<std::uint32_t>(data.size())};
  write.burst_end = command.final ? write.arrived : unasked;
  const auto [at, inserted] = writes_.insert({command.initiator_task_tag, std::move(write)});
  if (!inserted) {
    violation("an initiator task tag that is in use");
    return;
  }
  if (at->second.arrived == at->second.burst_end) {
    burst_done(at->first, at->second);
  }
}

void SimTargetConnection::handle_function(const TaskManagementRequestPdu& request) {
  if (request.cmd_sn != sequence_.exp_cmd_sn()) {
    violation("a task management function with a wrong CmdSN");
    return;
  }
  if (request.function == TaskFunction::abort_task &&
      !serial_before(request.ref_cmd_sn, request.cmd_sn)) {
    violation("an ABORT TASK of a command that was not sent");
    return;
  }
  SimFunctionFault fault;
  if (const auto found = target_.function_faults_.find(request.function);
      found != target_.function_faults_.end()) {
    fault = found->second;
  }
  if (fault.delay == Duration::zero()) {
    execute_function(request, fault);
    return;
  }
  target_.reactor_.schedule(fault.delay, [self = shared_from_this(), request, fault] {
    if (!self->dead_) {
      self->execute_function(request, fault);
    }
  });
}

void SimTargetConnection::execute_function(const TaskManagementRequestPdu& request,
                                           const SimFunctionFault& fault) {
  if (!fault.answer) {
    return;
  }
  const std::uint8_t response = fault.execute ? target_.manage(*this, request) : std::uint8_t{0};
  send(TaskManagementResponsePdu{.response = fault.response != 0 ? fault.response : response,
                                 .initiator_task_tag = request.initiator_task_tag,
                                 .numbers = numbers(true)});
}

bool SimTargetConnection::forget_write(std::uint32_t tag) {
  const auto found = writes_.find(tag);
  if (found == writes_.end()) {
    return false;
  }
  target_.over(*found->second.task);
  writes_.erase(found);
  sequence_.finish();
  return true;
}

void SimTargetConnection::handle_data_out(const DataOutPdu& pdu, std::span<const std::byte> data) {
  const auto found = writes_.find(pdu.initiator_task_tag);
  if (found == writes_.end()) {
    return;  // of a command that was answered early, or aborted
  }
  Write& write = found->second;
  if (pdu.target_transfer_tag != write.transfer_tag || pdu.buffer_offset != write.arrived ||
      pdu.data_sn != write.data_sn || data.size() > write.burst_end - write.arrived ||
      pdu.lun != write.task->lun_field) {
    violation("a Data-Out with wrong tag, offset, DataSN, length or LUN");
    return;
  }
  ++write.data_sn;
  std::memcpy(write.task->data.data() + write.arrived, data.data(), data.size());
  write.arrived += static_cast<std::uint32_t>(data.size());
  if (pdu.final != (write.arrived == write.burst_end)) {
    violation("a Data-Out whose F bit is in the wrong place");
    return;
  }
  if (pdu.final) {
    burst_done(found->first, write);
  }
}

void SimTargetConnection::burst_done(std::uint32_t tag, Write& write) {
  const auto expected = static_cast<std::uint32_t>(write.task->data.size());
  if (write.arrived == expected) {
    std::shared_ptr<SimTarget::Task> task = std::move(write.task);
    writes_.erase(tag);
    target_.arrived(std::move(task));
    return;
  }
  const std::uint32_t desired = std::min(negotiated_.max_burst, expected - write.arrived);
  write.burst_end = write.arrived + desired;
  write.data_sn = 0;
  write.transfer_tag = next_transfer_tag_++;
  send(R2tPdu{.lun = write.task->lun_field,
              .initiator_task_tag = tag,
              .target_transfer_tag = write.transfer_tag,
              .numbers = numbers(false),
              .r2t_sn = write.r2t_sn++,
              .buffer_offset = write.arrived,
              .desired_bytes = desired});
}

void SimTargetConnection::answer(const SimTarget::Task& task, const SimScsiResult& result) {
  sequence_.finish();
  send_answer(
      {.initiator_task_tag = task.initiator_task_tag,
       .expected_bytes = task.command.expected_bytes,
       .read = task.read,
       .response = task.fault ? task.fault->response_code : std::uint8_t{0},
       .status = result.status,
       .data = result.data,
       .sense = result.sense,
       .overflow_bytes = task.fault ? task.fault->overflow_bytes : 0,
       .status_with_data = target_.options_.status_with_data,
       .data_in_bytes = negotiated_.data_in_bytes(target_.options_)},
      [this](bool advances_stat_sn) { return numbers(advances_stat_sn); },
      [this](const auto& pdu, std::span<const std::byte> data) { send(pdu, data); });
}

void SimTargetConnection::ping() {
  if (logged_in()) {
    send(NopInPdu{.data_bytes = 0,
                  .lun = 0,
                  .initiator_task_tag = kReservedTag,
                  .target_transfer_tag = next_transfer_tag_++,
                  .numbers = numbers(false)});
  }
}

void SimTargetConnection::send_async_message(AsyncEvent event, std::uint16_t parameter1,
                                             std::uint16_t parameter2, std::uint16_t parameter3) {
  if (logged_in()) {
    send(AsyncMessagePdu{.event = event,
                         .data_bytes = 0,
                         .lun = 0,
                         .numbers = numbers(true),
                         .parameter1 = parameter1,
                         .parameter2 = parameter2,
                         .parameter3 = parameter3});
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
