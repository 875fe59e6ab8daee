// The codec of iSCSI PDUs (RFC 7143 section 11): pure functions between the 48 bytes of a basic
// header segment and one struct for each kind of PDU that error recovery level 0 uses. Both
// directions are here, so that the simulated targets of the tests share it.
//
// Decoding copies fields and checks nothing: whoever uses a field checks it against what it knows
// (task table, declared limits). Encoding writes all 48 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "initiator/pdu/bhs_fields.h"
#include "initiator/pdu/digest.h"
#include "initiator/pdu/isid.h"

namespace iscsi_blkback {

inline constexpr std::uint32_t kReservedTag = 0xffffffff;        // an ITT or TTT that names nothing
inline constexpr std::uint32_t kMaxDataSegmentBytes = 0xffffff;  // a 24-bit field

enum class Opcode : std::uint8_t {
  nop_out = 0x00,
  scsi_command = 0x01,
  task_management_request = 0x02,
  login_request = 0x03,
  text_request = 0x04,
  data_out = 0x05,
  logout_request = 0x06,
  snack_request = 0x10,
  nop_in = 0x20,
  scsi_response = 0x21,
  task_management_response = 0x22,
  login_response = 0x23,
  text_response = 0x24,
  data_in = 0x25,
  logout_response = 0x26,
  r2t = 0x31,
  async_message = 0x32,
  reject = 0x3f,
};

[[nodiscard]] const char* to_string(Opcode opcode);

// Data segments and whole PDUs are padded to a multiple of four bytes (11.2.1.6).
[[nodiscard]] constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + 3) & ~std::size_t{3};
}

// What every basic header segment has in the same place.
struct PduHeader {
  Opcode opcode{};
  bool immediate = false;
  std::uint16_t ahs_bytes = 0;   // additional header segments, at most 1020
  std::uint32_t data_bytes = 0;  // data segment without padding
  std::uint32_t initiator_task_tag = 0;

  // The header with what belongs to it: the data segment begins behind it.
  [[nodiscard]] std::size_t data_offset(Digests digests = {}) const {
    return kBhsBytes + ahs_bytes + digests.header_bytes();
  }
  // What follows the data: padding and digest.
  [[nodiscard]] std::size_t trailer_bytes(Digests digests = {}) const {
    return padded(data_bytes) - data_bytes + (data_bytes != 0 ? digests.data_bytes() : 0);
  }
  // The whole PDU on the wire.
  [[nodiscard]] std::size_t total_bytes(Digests digests = {}) const {
    return data_offset(digests) + data_bytes + trailer_bytes(digests);
  }
};
[[nodiscard]] PduHeader decode_header(BhsBytes bytes);

// Sequence numbers that every PDU of a target carries (stat_sn where it applies).
struct TargetNumbers {
  std::uint32_t stat_sn = 0;
  std::uint32_t exp_cmd_sn = 0;
  std::uint32_t max_cmd_sn = 0;
};
[[nodiscard]] TargetNumbers decode_target_numbers(BhsBytes bytes);

// Serial number arithmetic of RFC 1982: a comes before b.
[[nodiscard]] constexpr bool serial_before(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a - b) < 0;
}

struct ScsiCommandPdu {
  bool final = true;
  bool read = false;
  bool write = false;
  std::uint32_t data_bytes = 0;  // immediate data
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t expected_data_bytes = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
  std::array<std::uint8_t, 16> cdb{};
};

struct ScsiResponsePdu {
  bool overflow = false;
  bool underflow = false;
  bool bidirectional_overflow = false;  // of the data read by a command that also writes
  bool bidirectional_underflow = false;
  std::uint8_t response = 0;
  std::uint8_t status = 0;
  std::uint32_t data_bytes = 0;
  std::uint32_t initiator_task_tag = 0;
  TargetNumbers numbers;
  std::uint32_t exp_data_sn = 0;
  std::uint32_t residual_bytes = 0;
};

// Functions of 11.5.1 that error recovery level 0 has.
enum class TaskFunction : std::uint8_t {
  abort_task = 1,
  abort_task_set = 2,
  logical_unit_reset = 5,
  target_warm_reset = 6,
  target_cold_reset = 7,
};

struct TaskManagementRequestPdu {
  TaskFunction function{};
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t referenced_task_tag = kReservedTag;  // of the task to abort
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t ref_cmd_sn = 0;  // CmdSN of the task to abort
};

struct TaskManagementResponsePdu {
  std::uint8_t response = 0;  // 11.6.1
  std::uint32_t initiator_task_tag = 0;
  TargetNumbers numbers;
};

struct DataOutPdu {
  bool final = false;
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t data_sn = 0;
  std::uint32_t buffer_offset = 0;
};

struct DataInPdu {
  bool final = false;
  bool acknowledge = false;
  bool overflow = false;
  bool underflow = false;
  bool has_status = false;  // the S bit: status and stat_sn are valid
  std::uint8_t status = 0;
  std::uint32_t data_bytes = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  TargetNumbers numbers;
  std::uint32_t data_sn = 0;
  std::uint32_t buffer_offset = 0;
  std::uint32_t residual_bytes = 0;
};

struct R2tPdu {
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = 0;
  TargetNumbers numbers;
  std::uint32_t r2t_sn = 0;
  std::uint32_t buffer_offset = 0;
  std::uint32_t desired_bytes = 0;
};

struct NopOutPdu {
  bool immediate = true;
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = kReservedTag;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct NopInPdu {
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = kReservedTag;
  std::uint32_t target_transfer_tag = kReservedTag;
  TargetNumbers numbers;
};

// Login stages (11.12.3).
enum class LoginStage : std::uint8_t {
  security_negotiation = 0,
  operational_negotiation = 1,
  reserved = 2,
  full_feature_phase = 3,
};

struct LoginRequestPdu {
  bool transit = false;
  bool more = false;  // the C bit
  LoginStage current_stage{};
  LoginStage next_stage{};
  std::uint8_t version_max = 0;
  std::uint8_t version_min = 0;
  std::uint32_t data_bytes = 0;
  Isid isid{};
  std::uint16_t tsih = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint16_t cid = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct LoginResponsePdu {
  bool transit = false;
  bool more = false;
  LoginStage current_stage{};
  LoginStage next_stage{};
  std::uint8_t version_max = 0;
  std::uint8_t version_active = 0;
  std::uint32_t data_bytes = 0;
  Isid isid{};
  std::uint16_t tsih = 0;
  std::uint32_t initiator_task_tag = 0;
  TargetNumbers numbers;
  std::uint8_t status_class = 0;
  std::uint8_t status_detail = 0;
};

struct TextRequestPdu {
  bool immediate = true;
  bool final = true;
  bool more = false;  // the C bit
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct TextResponsePdu {
  bool final = true;
  bool more = false;
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;  // of the request that asks for the rest
  TargetNumbers numbers;
};

struct LogoutRequestPdu {
  std::uint8_t reason = 0;  // 0: close the session
  std::uint32_t initiator_task_tag = 0;
  std::uint16_t cid = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct LogoutResponsePdu {
  std::uint8_t response = 0;  // 0: closed
  std::uint32_t initiator_task_tag = 0;
  TargetNumbers numbers;
  std::uint16_t time2wait = 0;    // seconds
  std::uint16_t time2retain = 0;  // seconds
};

// Asynchronous events (11.9.1).
enum class AsyncEvent : std::uint8_t {
  scsi_event = 0,
  logout_request = 1,
  connection_drop = 2,
  session_drop = 3,
  negotiation_request = 4,
};

struct AsyncMessagePdu {
  AsyncEvent event{};
  std::uint32_t data_bytes = 0;
  std::uint64_t lun = 0;
  TargetNumbers numbers;
  std::uint16_t parameter1 = 0;
  std::uint16_t parameter2 = 0;
  std::uint16_t parameter3 = 0;
};

struct RejectPdu {
  std::uint8_t reason = 0;
  std::uint32_t data_bytes = 0;  // the header of what was rejected
  TargetNumbers numbers;
};

void encode(const ScsiCommandPdu& pdu, BhsBuffer bytes);
void encode(const ScsiResponsePdu& pdu, BhsBuffer bytes);
void encode(const TaskManagementRequestPdu& pdu, BhsBuffer bytes);
void encode(const TaskManagementResponsePdu& pdu, BhsBuffer bytes);
void encode(const DataOutPdu& pdu, BhsBuffer bytes);
void encode(const DataInPdu& pdu, BhsBuffer bytes);
void encode(const R2tPdu& pdu, BhsBuffer bytes);
void encode(const NopOutPdu& pdu, BhsBuffer bytes);
void encode(const NopInPdu& pdu, BhsBuffer bytes);
void encode(const LoginRequestPdu& pdu, BhsBuffer bytes);
void encode(const LoginResponsePdu& pdu, BhsBuffer bytes);
void encode(const TextRequestPdu& pdu, BhsBuffer bytes);
void encode(const TextResponsePdu& pdu, BhsBuffer bytes);
void encode(const LogoutRequestPdu& pdu, BhsBuffer bytes);
void encode(const LogoutResponsePdu& pdu, BhsBuffer bytes);
void encode(const AsyncMessagePdu& pdu, BhsBuffer bytes);
void encode(const RejectPdu& pdu, BhsBuffer bytes);

[[nodiscard]] ScsiCommandPdu decode_scsi_command(BhsBytes bytes);
[[nodiscard]] ScsiResponsePdu decode_scsi_response(BhsBytes bytes);
[[nodiscard]] TaskManagementRequestPdu decode_task_management_request(BhsBytes bytes);
[[nodiscard]] TaskManagementResponsePdu decode_task_management_response(BhsBytes bytes);
[[nodiscard]] DataOutPdu decode_data_out(BhsBytes bytes);
[[nodiscard]] DataInPdu decode_data_in(BhsBytes bytes);
[[nodiscard]] R2tPdu decode_r2t(BhsBytes bytes);
[[nodiscard]] NopOutPdu decode_nop_out(BhsBytes bytes);
[[nodiscard]] NopInPdu decode_nop_in(BhsBytes bytes);
[[nodiscard]] LoginRequestPdu decode_login_request(BhsBytes bytes);
[[nodiscard]] LoginResponsePdu decode_login_response(BhsBytes bytes);
[[nodiscard]] TextRequestPdu decode_text_request(BhsBytes bytes);
[[nodiscard]] TextResponsePdu decode_text_response(BhsBytes bytes);
[[nodiscard]] LogoutRequestPdu decode_logout_request(BhsBytes bytes);
[[nodiscard]] LogoutResponsePdu decode_logout_response(BhsBytes bytes);
[[nodiscard]] AsyncMessagePdu decode_async_message(BhsBytes bytes);
[[nodiscard]] RejectPdu decode_reject(BhsBytes bytes);

// What each command and each Data-In goes through is here, where its callers can have it inlined.

inline PduHeader decode_header(BhsBytes bytes) {
  using namespace bhs_fields;
  PduHeader header;
  header.opcode = static_cast<Opcode>(byte_at(bytes, 0) & kOpcodeMask);
  header.immediate = (byte_at(bytes, 0) & kImmediateBit) != 0;
  header.ahs_bytes = static_cast<std::uint16_t>(byte_at(bytes, kAhsLength) * 4);
  header.data_bytes = data_length(bytes);
  header.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  return header;
}

inline TargetNumbers decode_target_numbers(BhsBytes bytes) {
  using namespace bhs_fields;
  return {.stat_sn = u32_at(bytes, kStatSn),
          .exp_cmd_sn = u32_at(bytes, kExpCmdSn),
          .max_cmd_sn = u32_at(bytes, kMaxCmdSn)};
}

inline void encode(const ScsiCommandPdu& pdu, BhsBuffer bytes) {
  using namespace bhs_fields;
  // Attribute "simple" (1): the target may reorder; whoever needs order waits for completion.
  begin(bytes, Opcode::scsi_command, false,
        all_of(bit(pdu.final, kFinalBit), bit(pdu.read, 0x40), bit(pdu.write, 0x20), 1),
        pdu.data_bytes);
  put(bytes, kLun, pdu.lun);
  put(bytes, kInitiatorTaskTag, pdu.initiator_task_tag);
  put(bytes, 20, pdu.expected_data_bytes);
  put(bytes, kCmdSn, pdu.cmd_sn);
  put(bytes, kExpStatSn, pdu.exp_stat_sn);
  std::memcpy(bytes.data() + kCdb, pdu.cdb.data(), pdu.cdb.size());
}

inline DataInPdu decode_data_in(BhsBytes bytes) {
  using namespace bhs_fields;
  DataInPdu pdu;
  const std::uint8_t flags = byte_at(bytes, kFlags);
  pdu.final = (flags & kFinalBit) != 0;
  pdu.acknowledge = (flags & 0x40) != 0;
  pdu.overflow = (flags & kOverflowBit) != 0;
  pdu.underflow = (flags & kUnderflowBit) != 0;
  pdu.has_status = (flags & 0x01) != 0;
  pdu.status = byte_at(bytes, 3);
  pdu.data_bytes = data_length(bytes);
  pdu.initiator_task_tag = u32_at(bytes, kInitiatorTaskTag);
  pdu.target_transfer_tag = u32_at(bytes, kTargetTransferTag);
  pdu.numbers = decode_target_numbers(bytes);
  pdu.data_sn = u32_at(bytes, kDataSn);
  pdu.buffer_offset = u32_at(bytes, kBufferOffset);
  pdu.residual_bytes = u32_at(bytes, kResidual);
  return pdu;
}

}  // namespace iscsi_blkback
