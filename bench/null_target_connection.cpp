#include "bench/null_target_connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <type_traits>

#include "base/byte_order.h"
#include "tests/support/target_answer.h"

namespace iscsi_blkback {
namespace {

// Data of a write that has not arrived whole goes from the socket to the medium from this size on.
constexpr std::size_t kDirectWriteBytes = 16 * 1024;

constexpr auto due_later = [](const auto& a, const auto& b) {
  return a.due != b.due ? a.due > b.due : a.order > b.order;
};

}  // namespace

NullTargetConnection::NullTargetConnection(const NullTargetSettings& settings, SimLun& lun,
                                           std::uint16_t group_tag, std::uint16_t tsih)
    : settings_(settings),
      lun_(lun),
      group_tag_(group_tag),
      tsih_(tsih),
      sequence_(settings.protocol.initial_stat_sn) {}

bool NullTargetConnection::same_nexus(const NullTargetConnection& other) const {
  return logged_in_ && other.logged_in_ &&
         negotiated_.initiator_name == other.negotiated_.initiator_name && isid_ == other.isid_ &&
         group_tag_ == other.group_tag_;
}

void NullTargetConnection::violate(std::string what) {
  violation_ = std::move(what);
  finished_ = true;
}

std::size_t NullTargetConnection::consume(std::span<const std::byte> input, bool may_go_direct,
                                          ReplyBatch& replies, TimePoint now) {
  std::size_t taken = 0;
  while (!finished_ && direct_.empty() && !replies.enough() &&
         !(settings_.one_at_a_time && !replies.empty())) {
    const std::span<const std::byte> rest = input.subspan(taken);
    if (rest.size() < kBhsBytes) {
      break;
    }
    const BhsBytes bytes = rest.first<kBhsBytes>();
    const PduHeader header = decode_header(bytes);
    if (header.data_bytes > settings_.protocol.max_recv_data_segment_length) {
      violate("a data segment larger than MaxRecvDataSegmentLength");
      break;
    }
    const std::size_t data_at = header.data_offset(digests_);
    const bool whole = rest.size() >= header.total_bytes(digests_);
    const bool writes = header.opcode == Opcode::scsi_command || header.opcode == Opcode::data_out;
    // With a digest behind them, data are looked at before they go anywhere.
    const bool direct = may_go_direct && writes && !digests_.data &&
                        header.data_bytes >= kDirectWriteBytes && header.data_bytes % 4 == 0 &&
                        rest.size() >= data_at;
    if (!whole && !direct) {
      break;
    }
    if (digests_.header && !digest_follows(rest.first(data_at - kDigestBytes))) {
      violate("a wrong header digest");
      break;
    }
    if (digests_.data && header.data_bytes != 0 &&
        !digest_follows(rest.subspan(data_at, padded(header.data_bytes)))) {
      violate("a wrong data digest");
      break;
    }
    const std::size_t here = std::min<std::size_t>(header.data_bytes, rest.size() - data_at);
    taken += whole ? header.total_bytes(digests_) : rest.size();
    handle(bytes, header, rest.subspan(data_at, here), replies, now);
  }
  return taken;
}

void NullTargetConnection::received_direct(std::size_t count, ReplyBatch& replies, TimePoint now) {
  direct_ = direct_.subspan(count);
  if (direct_.empty()) {
    const auto write = std::find_if(writes_.begin(), writes_.end(), [this](const Write& candidate) {
      return candidate.initiator_task_tag == direct_tag_;
    });
    ISCSI_BLKBACK_ASSERT(write != writes_.end());
    write_data_arrived(*write, direct_bytes_, replies, now);
  }
}

void NullTargetConnection::handle(BhsBytes bytes, const PduHeader& header,
                                  std::span<const std::byte> data, ReplyBatch& replies,
                                  TimePoint now) {
  if (!logged_in_ && header.opcode != Opcode::login_request) {
    violate(fmt::format("a {} before the end of the login", to_string(header.opcode)));
    return;
  }
  switch (header.opcode) {
    case Opcode::login_request:
      handle_login(decode_login_request(bytes), data, replies);
      return;
    case Opcode::scsi_command:
      handle_command(decode_scsi_command(bytes), data, replies, now);
      return;
    case Opcode::data_out: {
      const DataOutPdu pdu = decode_data_out(bytes);
      if (Write* write = accept_data_out(pdu)) {
        take_write_data(*write, pdu.data_bytes, data, replies, now);
      }
      return;
    }
    case Opcode::nop_out: {
      const NopOutPdu nop = decode_nop_out(bytes);
      if (!nop.immediate || nop.cmd_sn != sequence_.exp_cmd_sn()) {
        violate("a NOP-Out that is not immediate or has a wrong CmdSN");
      } else if (nop.initiator_task_tag != kReservedTag) {
        send(NopInPdu{.data_bytes = 0,
                      .lun = nop.lun,
                      .initiator_task_tag = nop.initiator_task_tag,
                      .target_transfer_tag = kReservedTag,
                      .numbers = numbers(true)},
             {}, false, replies);
      }
      return;
    }
    case Opcode::logout_request: {
      const LogoutRequestPdu logout = decode_logout_request(bytes);
      finished_ = true;
      logged_in_ = false;
      send(LogoutResponsePdu{.response = 0,
                             .initiator_task_tag = logout.initiator_task_tag,
                             .numbers = numbers(true),
                             .time2wait = 0,
                             .time2retain = 0},
           {}, false, replies);
      return;
    }
    default:
      violate(fmt::format("a {}, which this target does not know", to_string(header.opcode)));
  }
}

std::byte* NullTargetConnection::plain_transfer(const ScsiCommandPdu& command) const {
  const auto* cdb = reinterpret_cast<const std::byte*>(command.cdb.data());
  std::uint64_t block = 0;
  std::uint64_t count = 0;
  switch (command.cdb[0]) {
    case scsi_operation::kRead10:
    case scsi_operation::kWrite10:
      block = load_be32(cdb + 2);
      count = load_be16(cdb + 7);
      break;
    case scsi_operation::kRead16:
    case scsi_operation::kWrite16:
      if (!lun_.options.has_16_byte_commands) {
        return nullptr;
      }
      block = load_be64(cdb + 2);
      count = load_be32(cdb + 10);
      break;
    default:
      return nullptr;
  }
  const bool read =
      command.cdb[0] == scsi_operation::kRead10 || command.cdb[0] == scsi_operation::kRead16;
  if (!unit_attentions_.empty() || addressed_lun(command.lun) != settings_.lun_number ||
      (lun_.options.tpgs != 0 && !lun_.is_active(group_tag_)) || block > lun_.options.block_count ||
      count > lun_.options.block_count - block ||
      count * lun_.options.block_bytes != command.expected_data_bytes || count == 0 ||
      (!read && lun_.options.read_only) || command.read != read || command.write == read) {
    return nullptr;
  }
  return lun_.medium().data() + block * lun_.options.block_bytes;
}

void NullTargetConnection::handle_command(const ScsiCommandPdu& command,
                                          std::span<const std::byte> data, ReplyBatch& replies,
                                          TimePoint now) {
  if (!sequence_.take(command.cmd_sn)) {
    violate(sequence_.refusal(command.cmd_sn));
    return;
  }
  if (command.write) {
    begin_write(command, data, replies, now);
    return;
  }
  Answer answer;
  answer.initiator_task_tag = command.initiator_task_tag;
  answer.expected_bytes = command.expected_data_bytes;
  answer.read = command.read;
  answer.data = plain_transfer(command);
  if (answer.data == nullptr) {
    answer.result = execute(command.cdb, command.lun, {});
  } else if (settings_.busy > Duration::zero()) [[unlikely]] {
    std::this_thread::sleep_for(settings_.busy);
  }
  finish(std::move(answer), replies, now);
}

void NullTargetConnection::begin_write(const ScsiCommandPdu& command,
                                       std::span<const std::byte> data, ReplyBatch& replies,
                                       TimePoint now) {
  const std::uint32_t unasked = std::min(negotiated_.first_burst, command.expected_data_bytes);
  if ((command.data_bytes != 0 && !negotiated_.immediate_data) || command.data_bytes > unasked ||
      (!command.final && negotiated_.initial_r2t)) {
    violate("immediate or unsolicited data that was not negotiated");
    return;
  }
  std::byte* destination = plain_transfer(command);
  if (destination != nullptr && data.size() == command.expected_data_bytes && command.final) {
    // All of it is here: what most writes are.
    std::memcpy(destination, data.data(), data.size());
    Answer answer;
    answer.initiator_task_tag = command.initiator_task_tag;
    answer.expected_bytes = command.expected_data_bytes;
    finish(std::move(answer), replies, now);
    return;
  }
  for (const Write& other : writes_) {
    if (other.initiator_task_tag == command.initiator_task_tag) {
      violate("an initiator task tag that is in use");
      return;
    }
  }
  Write& write = writes_.emplace_back();
  write.initiator_task_tag = command.initiator_task_tag;
  write.lun_field = command.lun;
  write.cdb = command.cdb;
  write.expected_bytes = command.expected_data_bytes;
  write.destination = destination;
  if (destination == nullptr) {
    write.buffer.resize(command.expected_data_bytes);
  }
  write.burst_end = command.final ? command.data_bytes : unasked;
  take_write_data(write, command.data_bytes, data, replies, now);
}

NullTargetConnection::Write* NullTargetConnection::accept_data_out(const DataOutPdu& pdu) {
  const auto found = std::find_if(writes_.begin(), writes_.end(), [&](const Write& write) {
    return write.initiator_task_tag == pdu.initiator_task_tag;
  });
  if (found == writes_.end()) {
    violate("a Data-Out for no write");
    return nullptr;
  }
  Write& write = *found;
  if (pdu.target_transfer_tag != write.transfer_tag || pdu.buffer_offset != write.arrived ||
      pdu.data_sn != write.data_sn || pdu.data_bytes > write.burst_end - write.arrived ||
      pdu.lun != write.lun_field) {
    violate("a Data-Out with wrong tag, offset, DataSN, length or LUN");
    return nullptr;
  }
  if (pdu.final != (write.arrived + pdu.data_bytes == write.burst_end)) {
    violate("a Data-Out whose F bit is in the wrong place");
    return nullptr;
  }
  ++write.data_sn;
  return &write;
}

// arrived: the first bytes of a data segment of data_bytes; the rest, if any, comes directly.
void NullTargetConnection::take_write_data(Write& write, std::uint32_t data_bytes,
                                           std::span<const std::byte> arrived, ReplyBatch& replies,
                                           TimePoint now) {
  std::byte* place = write.place() + write.arrived;
  if (!arrived.empty()) {
    std::memcpy(place, arrived.data(), arrived.size());
  }
  if (arrived.size() < data_bytes) {
    direct_ = {place + arrived.size(), data_bytes - arrived.size()};
    direct_tag_ = write.initiator_task_tag;
    direct_bytes_ = data_bytes;
    return;
  }
  write_data_arrived(write, data_bytes, replies, now);
}

void NullTargetConnection::write_data_arrived(Write& write, std::uint32_t bytes,
                                              ReplyBatch& replies, TimePoint now) {
  write.arrived += bytes;
  if (write.arrived == write.burst_end) {
    burst_done(write, replies, now);
  }
}

void NullTargetConnection::burst_done(Write& write, ReplyBatch& replies, TimePoint now) {
  if (write.arrived == write.expected_bytes) {
    Answer answer;
    answer.initiator_task_tag = write.initiator_task_tag;
    answer.expected_bytes = write.expected_bytes;
    if (write.destination == nullptr) {
      answer.result = execute(write.cdb, write.lun_field, write.buffer);
    }
    if (&write != &writes_.back()) {
      write = std::move(writes_.back());
    }
    writes_.pop_back();
    finish(std::move(answer), replies, now);
    return;
  }
  const std::uint32_t desired =
      std::min(negotiated_.max_burst, write.expected_bytes - write.arrived);
  write.burst_end = write.arrived + desired;
  write.data_sn = 0;
  write.transfer_tag = next_transfer_tag_++;
  send(R2tPdu{.lun = write.lun_field,
              .initiator_task_tag = write.initiator_task_tag,
              .target_transfer_tag = write.transfer_tag,
              .numbers = numbers(false),
              .r2t_sn = write.r2t_sn++,
              .buffer_offset = write.arrived,
              .desired_bytes = desired},
       {}, false, replies);
}

SimScsiResult NullTargetConnection::execute(const Cdb& cdb, std::uint64_t lun_field,
                                            std::span<const std::byte> data) {
  if (cdb[0] == scsi_operation::kReportLuns) {
    return report_luns(cdb, {&settings_.lun_number, 1});
  }
  if (addressed_lun(lun_field) != settings_.lun_number) {
    return answer_without_lun(cdb);
  }
  if (cdb[0] != scsi_operation::kInquiry && !unit_attentions_.empty()) {
    const std::uint16_t code = unit_attentions_.front();
    unit_attentions_.pop_front();
    return check_condition(SenseKey::unit_attention, code);
  }
  return lun_.execute(cdb, data, group_tag_);
}

void NullTargetConnection::finish(Answer finished, ReplyBatch& replies, TimePoint now) {
  if (settings_.latency_max <= Duration::zero()) {
    answer(finished, replies);
    return;
  }
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const auto range =
      static_cast<std::uint64_t>((settings_.latency_max - settings_.latency_min).count()) + 1;
  finished.due = now + settings_.latency_min + Duration{static_cast<std::int64_t>(random_ % range)};
  finished.order = order_++;
  delayed_.push_back(std::move(finished));
  std::push_heap(delayed_.begin(), delayed_.end(), due_later);
}

void NullTargetConnection::answer_due(ReplyBatch& replies, TimePoint now) {
  while (!delayed_.empty() && delayed_.front().due <= now && !replies.enough() &&
         !(settings_.one_at_a_time && !replies.empty())) {
    std::pop_heap(delayed_.begin(), delayed_.end(), due_later);
    answer(delayed_.back(), replies);
    delayed_.pop_back();
  }
}

void NullTargetConnection::answer(Answer& finished, ReplyBatch& replies) {
  sequence_.finish();
  SimScsiResult& result = finished.result;
  std::span<const std::byte> data;
  if (finished.data != nullptr) {
    data = {finished.data, finished.expected_bytes};
  } else if (finished.read && result.status == ScsiStatus::good) {
    data = replies.keep(std::move(result.data));
  }
  send_answer(
      {.initiator_task_tag = finished.initiator_task_tag,
       .expected_bytes = finished.expected_bytes,
       .read = finished.read,
       .status = result.status,
       .data = data,
       .sense = result.sense,
       .status_with_data = settings_.protocol.status_with_data,
       .data_in_bytes = negotiated_.data_in_bytes(settings_.protocol)},
      [this](bool advances_stat_sn) { return numbers(advances_stat_sn); },
      [&](const auto& pdu, std::span<const std::byte> segment) {
        // Data stay where they are until the batch is sent; sense is gone by then.
        constexpr bool refer = std::is_same_v<decltype(pdu), const DataInPdu&>;
        send(pdu, segment, refer, replies);
      });
}

TargetNumbers NullTargetConnection::numbers(bool advances_stat_sn) {
  return sequence_.numbers(advances_stat_sn, std::max(settings_.protocol.window, 1U));
}

}  // namespace iscsi_blkback
