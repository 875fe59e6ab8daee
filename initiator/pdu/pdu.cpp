#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

using namespace bhs_fields;

namespace {

void put_numbers(BhsBuffer bytes, const TargetNumbers& numbers) {
  put(bytes, kStatSn, numbers.stat_sn);
  put(bytes, kExpCmdSn, numbers.exp_cmd_sn);
  put(bytes, kMaxCmdSn, numbers.max_cmd_sn);
}

std::uint8_t login_flags(bool transit, bool more, LoginStage current, LoginStage next) {
  return all_of(bit(transit, 0x80), bit(more, 0x40), static_cast<std::uint8_t>(current) << 2,
                transit ? static_cast<std::uint8_t>(next) : std::uint8_t{0});
}

LoginStage stage_of(int bits) {
  return static_cast<LoginStage>(bits & 3);
}

void put_isid(BhsBuffer bytes, const Isid& isid, std::uint16_t tsih) {
  std::memcpy(bytes.data() + kLun, isid.data(), isid.size());
  put(bytes, 14, tsih);
}

Isid isid_of(BhsBytes bytes) {
  Isid isid;
  std::memcpy(isid.data(), bytes.data() + kLun, isid.size());
  return isid;
}

}  // namespace

const char* to_string(Opcode opcode) {
  switch (opcode) {
    case Opcode::nop_out:
      return "NOP-Out";
    case Opcode::scsi_command:
      return "SCSI Command";
    case Opcode::task_management_request:
      return "Task Management Request";
    case Opcode::login_request:
      return "Login Request";
    case Opcode::text_request:
      return "Text Request";
    case Opcode::data_out:
      return "Data-Out";
    case Opcode::logout_request:
      return "Logout Request";
    case Opcode::snack_request:
      return "SNACK Request";
    case Opcode::nop_in:
      return "NOP-In";
    case Opcode::scsi_response:
      return "SCSI Response";
    case Opcode::task_management_response:
      return "Task Management Response";
    case Opcode::login_response:
      return "Login Response";
    case Opcode::text_response:
      return "Text Response";
    case Opcode::data_in:
      return "Data-In";
    case Opcode::logout_response:
      return "Logout Response";
    case Opcode::r2t:
      return "R2T";
    case Opcode::async_message:
      return "Asynchronous Message";
    case Opcode::reject:
      return "Reject";
  }
  return "PDU of unknown opcode";
}

ScsiCommandPdu decode_scsi_command(BhsBytes bytes) {
  ScsiCommandPdu pdu;
  const std::uint8_t flags = byte_at(bytes, kFlags);
  pdu.final = (flags & kFinalBit) != 0;
  pdu.read = (flags & 0x40) != 0;
  pdu.write = (flags & 0x20) != 0;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.expected_data_bytes = u32_at(bytes, 20);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  std::memcpy(pdu.cdb.data(), bytes.data() + kCdb, pdu.cdb.size());
  return pdu;
}

void encode(const ScsiResponsePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::scsi_response, false,
        all_of(kFinalBit, bit(pdu.bidirectional_overflow, 0x10),
               bit(pdu.bidirectional_underflow, 0x08), bit(pdu.overflow, kOverflowBit),
               bit(pdu.underflow, kUnderflowBit)),
        pdu.data_bytes);
  put(bytes, 2, pdu.response);
  put(bytes, 3, pdu.status);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, kDataSn, pdu.exp_data_sn);
  put(bytes, kResidual, pdu.residual_bytes);
}

ScsiResponsePdu decode_scsi_response(BhsBytes bytes) {
  ScsiResponsePdu pdu;
  const std::uint8_t flags = byte_at(bytes, kFlags);
  pdu.bidirectional_overflow = (flags & 0x10) != 0;
  pdu.bidirectional_underflow = (flags & 0x08) != 0;
  pdu.overflow = (flags & kOverflowBit) != 0;
  pdu.underflow = (flags & kUnderflowBit) != 0;
  pdu.response = byte_at(bytes, 2);
  pdu.status = byte_at(bytes, 3);
  pdu.data_bytes = data_length(bytes);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.exp_data_sn = u32_at(bytes, kDataSn);
  pdu.residual_bytes = u32_at(bytes, kResidual);
  return pdu;
}

void encode(const TaskManagementRequestPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::task_management_request, true,
        all_of(kFinalBit, static_cast<std::uint8_t>(pdu.function)), 0);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kReferencedTaskTag, pdu.referenced_task_tag);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
  put(bytes, kRefCmdSn, pdu.ref_cmd_sn);
}

TaskManagementRequestPdu decode_task_management_request(BhsBytes bytes) {
  TaskManagementRequestPdu pdu;
  pdu.function = static_cast<TaskFunction>(byte_at(bytes, kFlags) & 0x7f);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.referenced_task_tag = u32_at(bytes, kReferencedTaskTag);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  pdu.ref_cmd_sn = u32_at(bytes, kRefCmdSn);
  return pdu;
}

void encode(const TaskManagementResponsePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::task_management_response, false, kFinalBit, 0);
  put(bytes, 2, pdu.response);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put_numbers(bytes, pdu.numbers);
}

TaskManagementResponsePdu decode_task_management_response(BhsBytes bytes) {
  TaskManagementResponsePdu pdu;
  pdu.response = byte_at(bytes, 2);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.numbers = decode_target_numbers(bytes);
  return pdu;
}

void encode(const DataOutPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::data_out, false, bit(pdu.final, kFinalBit), pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
  put(bytes, kDataSn, pdu.data_sn);
  put(bytes, kBufferOffset, pdu.buffer_offset);
}

DataOutPdu decode_data_out(BhsBytes bytes) {
  DataOutPdu pdu;
  pdu.final = (byte_at(bytes, kFlags) & kFinalBit) != 0;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  pdu.data_sn = u32_at(bytes, kDataSn);
  pdu.buffer_offset = u32_at(bytes, kBufferOffset);
  return pdu;
}

void encode(const DataInPdu& pdu, BhsBuffer bytes) {
  begin(
      bytes, Opcode::data_in, false,
      all_of(bit(pdu.final, kFinalBit), bit(pdu.acknowledge, 0x40), bit(pdu.overflow, kOverflowBit),
             bit(pdu.underflow, kUnderflowBit), bit(pdu.has_status, 0x01)),
      pdu.data_bytes);
  put(bytes, 3, pdu.status);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, kDataSn, pdu.data_sn);
  put(bytes, kBufferOffset, pdu.buffer_offset);
  put(bytes, kResidual, pdu.residual_bytes);
}

void encode(const R2tPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::r2t, false, kFinalBit, 0);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, kDataSn, pdu.r2t_sn);
  put(bytes, kBufferOffset, pdu.buffer_offset);
  put(bytes, kResidual, pdu.desired_bytes);
}

R2tPdu decode_r2t(BhsBytes bytes) {
  R2tPdu pdu;
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.r2t_sn = u32_at(bytes, kDataSn);
  pdu.buffer_offset = u32_at(bytes, kBufferOffset);
  pdu.desired_bytes = u32_at(bytes, kResidual);
  return pdu;
}

void encode(const NopOutPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::nop_out, pdu.immediate, kFinalBit, pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
}

NopOutPdu decode_nop_out(BhsBytes bytes) {
  NopOutPdu pdu;
  pdu.immediate = (byte_at(bytes, 0) & kImmediateBit) != 0;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  return pdu;
}

void encode(const NopInPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::nop_in, false, kFinalBit, pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put_numbers(bytes, pdu.numbers);
}

NopInPdu decode_nop_in(BhsBytes bytes) {
  NopInPdu pdu;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.numbers = decode_target_numbers(bytes);
  return pdu;
}

void encode(const LoginRequestPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::login_request, true,
        login_flags(pdu.transit, pdu.more, pdu.current_stage, pdu.next_stage), pdu.data_bytes);
  put(bytes, 2, pdu.version_max);
  put(bytes, 3, pdu.version_min);
  put_isid(bytes, pdu.isid, pdu.tsih);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, 20, pdu.cid);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
}

LoginRequestPdu decode_login_request(BhsBytes bytes) {
  LoginRequestPdu pdu;
  const std::uint8_t flags = byte_at(bytes, kFlags);
  pdu.transit = (flags & 0x80) != 0;
  pdu.more = (flags & 0x40) != 0;
  pdu.current_stage = stage_of(flags >> 2);
  pdu.next_stage = stage_of(flags);
  pdu.version_max = byte_at(bytes, 2);
  pdu.version_min = byte_at(bytes, 3);
  pdu.data_bytes = data_length(bytes);
  pdu.isid = isid_of(bytes);
  pdu.tsih = u16_at(bytes, 14);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.cid = u16_at(bytes, 20);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  return pdu;
}

void encode(const LoginResponsePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::login_response, false,
        login_flags(pdu.transit, pdu.more, pdu.current_stage, pdu.next_stage), pdu.data_bytes);
  put(bytes, 2, pdu.version_max);
  put(bytes, 3, pdu.version_active);
  put_isid(bytes, pdu.isid, pdu.tsih);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, 36, pdu.status_class);
  put(bytes, 37, pdu.status_detail);
}

LoginResponsePdu decode_login_response(BhsBytes bytes) {
  LoginResponsePdu pdu;
  const std::uint8_t flags = byte_at(bytes, kFlags);
  pdu.transit = (flags & 0x80) != 0;
  pdu.more = (flags & 0x40) != 0;
  pdu.current_stage = stage_of(flags >> 2);
  pdu.next_stage = stage_of(flags);
  pdu.version_max = byte_at(bytes, 2);
  pdu.version_active = byte_at(bytes, 3);
  pdu.data_bytes = data_length(bytes);
  pdu.isid = isid_of(bytes);
  pdu.tsih = u16_at(bytes, 14);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.status_class = byte_at(bytes, 36);
  pdu.status_detail = byte_at(bytes, 37);
  return pdu;
}

void encode(const TextRequestPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::text_request, pdu.immediate,
        all_of(bit(pdu.final, kFinalBit), bit(pdu.more, kContinueBit)), pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
}

TextRequestPdu decode_text_request(BhsBytes bytes) {
  TextRequestPdu pdu;
  pdu.immediate = (byte_at(bytes, 0) & kImmediateBit) != 0;
  pdu.final = (byte_at(bytes, kFlags) & kFinalBit) != 0;
  pdu.more = (byte_at(bytes, kFlags) & kContinueBit) != 0;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  return pdu;
}

void encode(const TextResponsePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::text_response, false,
        all_of(bit(pdu.final, kFinalBit), bit(pdu.more, kContinueBit)), pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, kTargetTransferTag, pdu.target_transfer_tag);
  put_numbers(bytes, pdu.numbers);
}

TextResponsePdu decode_text_response(BhsBytes bytes) {
  TextResponsePdu pdu;
  pdu.final = (byte_at(bytes, kFlags) & kFinalBit) != 0;
  pdu.more = (byte_at(bytes, kFlags) & kContinueBit) != 0;
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.numbers = decode_target_numbers(bytes);
  return pdu;
}

void encode(const LogoutRequestPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::logout_request, true, all_of(kFinalBit, pdu.reason), 0);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, 20, pdu.cid);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
}

LogoutRequestPdu decode_logout_request(BhsBytes bytes) {
  LogoutRequestPdu pdu;
  pdu.reason = static_cast<std::uint8_t>(byte_at(bytes, kFlags) & 0x7f);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.cid = u16_at(bytes, 20);
  pdu.cmd_sn = u32_at(bytes, kCmdSn);
  pdu.exp_stat_sn = u32_at(bytes, kExpStatSn);
  return pdu;
}

void encode(const LogoutResponsePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::logout_response, false, kFinalBit, 0);
  put(bytes, 2, pdu.response);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, 40, pdu.time2wait);
  put(bytes, 42, pdu.time2retain);
}

LogoutResponsePdu decode_logout_response(BhsBytes bytes) {
  LogoutResponsePdu pdu;
  pdu.response = byte_at(bytes, 2);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.time2wait = u16_at(bytes, 40);
  pdu.time2retain = u16_at(bytes, 42);
  return pdu;
}

void encode(const AsyncMessagePdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::async_message, false, kFinalBit, pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, kReservedTag);
  put_numbers(bytes, pdu.numbers);
  put(bytes, 36, static_cast<std::uint8_t>(pdu.event));
  put(bytes, 38, pdu.parameter1);
  put(bytes, 40, pdu.parameter2);
  put(bytes, 42, pdu.parameter3);
}

AsyncMessagePdu decode_async_message(BhsBytes bytes) {
  AsyncMessagePdu pdu;
  pdu.event = static_cast<AsyncEvent>(byte_at(bytes, 36));
  pdu.data_bytes = data_length(bytes);
  pdu.lun = u64_at(bytes, kLun);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.parameter1 = u16_at(bytes, 38);
  pdu.parameter2 = u16_at(bytes, 40);
  pdu.parameter3 = u16_at(bytes, 42);
  return pdu;
}

void encode(const RejectPdu& pdu, BhsBuffer bytes) {
  begin(bytes, Opcode::reject, false, kFinalBit, pdu.data_bytes);
  put(bytes, 2, pdu.reason);
  put(bytes, kInitiatorTaskTag, kReservedTag);
  put_numbers(bytes, pdu.numbers);
}

RejectPdu decode_reject(BhsBytes bytes) {
  RejectPdu pdu;
  pdu.reason = byte_at(bytes, 2);
  pdu.data_bytes = data_length(bytes);
  pdu.numbers = decode_target_numbers(bytes);
  return pdu;
}

}  // namespace iscsi_blkback
