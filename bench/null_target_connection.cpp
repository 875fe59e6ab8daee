#include "bench/null_target_connection.h"

#include <algorithm>
#include <thread>

namespace iscsi_blkback {
namespace {

constexpr auto due_later = [](const auto& a, const auto& b) {
  return a.due != b.due ? a.due > b.due : a.order > b.order;
};

}  // namespace

NullTargetConnection::NullTargetConnection(const NullTargetSettings& settings, SimLun& lun,
                                           std::uint16_t group_tag, std::uint16_t tsih)
    : TargetConnection(settings.protocol),
      settings_(settings),
      lun_(lun),
      group_tag_(group_tag),
      tsih_(tsih) {}

std::size_t NullTargetConnection::consume(std::span<const std::byte> input, bool may_go_direct,
                                          TimePoint now) {
  now_ = now;
  return TargetConnection::consume(input, may_go_direct);
}

void NullTargetConnection::received_direct(std::size_t count, TimePoint now) {
  now_ = now;
  TargetConnection::received_direct(count);
}

std::uint16_t NullTargetConnection::begin_session() {
  if (settings_.protocol.power_on_unit_attention) {
    unit_attentions_.push_back(0x2900);
  }
  return tsih_;
}

std::byte* NullTargetConnection::place(const ScsiCommandPdu& command) const {
  const auto range = transfer_of(command.cdb);
  const SimLunOptions& options = lun_.options;
  if (!range || (command.cdb[0] >= 0x80 && !options.has_16_byte_commands) ||
      !unit_attentions_.empty() || addressed_lun(command.lun) != settings_.lun_number ||
      (options.tpgs != 0 && !lun_.is_active(group_tag_)) || range->first > options.block_count ||
      range->count > options.block_count - range->first || range->count == 0 ||
      range->count * options.block_bytes != command.expected_data_bytes ||
      (range->write && options.read_only) || command.write != range->write ||
      command.read == range->write) {
    return nullptr;
  }
  return lun_.medium().data() + range->first * options.block_bytes;
}

void NullTargetConnection::execute(const ScsiCommandPdu& command, std::byte* place,
                                   std::vector<std::byte>&& data) {
  Answer answer;
  answer.initiator_task_tag = command.initiator_task_tag;
  answer.expected_bytes = command.expected_data_bytes;
  answer.read = command.read && !command.write;
  if (place == nullptr) {
    answer.result = perform(command, data);
  } else if (answer.read) {
    answer.data = place;
    if (settings_.busy > Duration::zero()) [[unlikely]] {
      std::this_thread::sleep_for(settings_.busy);
    }
  }
  if (settings_.latency_max <= Duration::zero()) {
    finish(answer);
    return;
  }
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const auto range =
      static_cast<std::uint64_t>((settings_.latency_max - settings_.latency_min).count()) + 1;
  answer.due = now_ + settings_.latency_min + Duration{static_cast<std::int64_t>(random_ % range)};
  answer.order = order_++;
  delayed_.push_back(std::move(answer));
  std::push_heap(delayed_.begin(), delayed_.end(), due_later);
}

SimScsiResult NullTargetConnection::perform(const ScsiCommandPdu& command,
                                            std::span<const std::byte> data) {
  const Cdb& cdb = command.cdb;
  if (cdb[0] == scsi_operation::kReportLuns) {
    return report_luns(cdb, {&settings_.lun_number, 1});
  }
  if (addressed_lun(command.lun) != settings_.lun_number) {
    return answer_without_lun(cdb);
  }
  if (cdb[0] != scsi_operation::kInquiry && !unit_attentions_.empty()) {
    const std::uint16_t code = unit_attentions_.front();
    unit_attentions_.pop_front();
    return check_condition(SenseKey::unit_attention, code);
  }
  return lun_.execute(cdb, data, group_tag_);
}

void NullTargetConnection::answer_due(TimePoint now) {
  while (!delayed_.empty() && delayed_.front().due <= now && !has_enough()) {
    std::pop_heap(delayed_.begin(), delayed_.end(), due_later);
    finish(delayed_.back());
    delayed_.pop_back();
  }
}

void NullTargetConnection::finish(Answer& finished) {
  SimScsiResult& result = finished.result;
  std::span<const std::byte> data;
  if (finished.data != nullptr) {
    data = {finished.data, finished.expected_bytes};
  } else if (finished.read && result.status == ScsiStatus::good) {
    data = replies.keep(std::move(result.data));
  }
  answer({.initiator_task_tag = finished.initiator_task_tag,
          .expected_bytes = finished.expected_bytes,
          .read = finished.read,
          .status = result.status,
          .data = data,
          .sense = result.sense});
}

template <class Pdu>
void NullTargetConnection::send(const Pdu& pdu, std::span<const std::byte> data) {
  const Digests in_force = digests();
  std::byte* header = replies.stage(kBhsBytes + in_force.header_bytes());
  encode(pdu, BhsBuffer{header, kBhsBytes});
  if (in_force.header) {
    put_digest(crc32c({header, kBhsBytes}), header + kBhsBytes);
  }
  if (data.empty()) {
    return;
  }
  if constexpr (std::is_same_v<Pdu, DataInPdu>) {
    replies.refer(data.data(), data.size());  // they stay where they are until the batch is sent
  } else {
    std::copy(data.begin(), data.end(), replies.stage(data.size()));
  }
  const std::size_t padding = padded(data.size()) - data.size();
  if (const std::size_t trailer = padding + in_force.data_bytes(); trailer != 0) {
    std::byte* end = replies.stage(trailer);
    std::fill_n(end, padding, std::byte{0});
    if (in_force.data) {
      put_digest(crc32c({end, padding}, crc32c(data)), end + padding);
    }
  }
}

}  // namespace iscsi_blkback
