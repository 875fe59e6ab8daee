// TargetAnswer: how a target ends a command (RFC 7143 11.4, 11.7): a read's data in Data-In PDUs,
// the status in the last of them or in a SCSI Response, with residuals and sense. The null target
// is measured: hence a template, that allocates for sense data only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "initiator/pdu/pdu.h"
#include "initiator/scsi/scsi_task.h"
#include "tests/support/target_pdu.h"

namespace iscsi_blkback {

struct TargetAnswer {
  std::uint32_t initiator_task_tag = kReservedTag;
  std::uint32_t expected_bytes = 0;  // that the command gave
  bool read = false;
  std::uint8_t response = 0;
  ScsiStatus status = ScsiStatus::good;
  std::span<const std::byte> data = {};   // of a read: all that there is
  std::span<const std::byte> sense = {};  // make_sense(...)
  std::size_t overflow_bytes = 0;         // says that so much more was to be transferred
  bool status_with_data = true;           // where there are data
  std::size_t data_in_bytes = 0;          // of one Data-In PDU, at most
};

// Calls send(pdu, data) for each PDU in turn, with numbers(advances_stat_sn) in it.
template <class Numbers, class Send>
void send_answer(const TargetAnswer& answer, Numbers numbers, Send send) {
  const bool good = answer.status == ScsiStatus::good;
  const std::size_t expected = answer.expected_bytes;
  const std::size_t available =
      (answer.read ? answer.data.size() : expected) + answer.overflow_bytes;
  const bool underflow = answer.read && good && available < expected;
  const bool overflow = available > expected;
  const auto residual = static_cast<std::uint32_t>(underflow  ? expected - available
                                                   : overflow ? available - expected
                                                              : 0);
  const bool transfers = answer.read && good && answer.response == 0;
  std::span<const std::byte> rest;
  if (transfers) {
    rest = answer.data.first(std::min(answer.data.size(), expected));
  }
  const bool with_data = answer.status_with_data && !rest.empty();
  std::uint32_t data_sn = 0;
  std::uint32_t offset = 0;
  while (!rest.empty()) {
    const std::span<const std::byte> piece =
        rest.first(std::min(answer.data_in_bytes, rest.size()));
    rest = rest.subspan(piece.size());
    const bool last = rest.empty();
    send(DataInPdu{.final = last,
                   .acknowledge = false,
                   .overflow = last && with_data && overflow,
                   .underflow = last && with_data && underflow,
                   .has_status = last && with_data,
                   .status = 0,
                   .data_bytes = static_cast<std::uint32_t>(piece.size()),
                   .initiator_task_tag = answer.initiator_task_tag,
                   .target_transfer_tag = kReservedTag,
                   .numbers = numbers(last && with_data),
                   .data_sn = data_sn++,
                   .buffer_offset = offset,
                   .residual_bytes = last && with_data ? residual : 0},
         piece);
    offset += static_cast<std::uint32_t>(piece.size());
  }
  if (with_data) {
    return;
  }
  std::vector<std::byte> sense;
  if (!answer.sense.empty()) {
    sense = sense_segment(answer.sense);
  }
  send(ScsiResponsePdu{.overflow = overflow,
                       .underflow = underflow,
                       .response = answer.response,
                       .status = static_cast<std::uint8_t>(answer.status),
                       .data_bytes = static_cast<std::uint32_t>(sense.size()),
                       .initiator_task_tag = answer.initiator_task_tag,
                       .numbers = numbers(true),
                       .exp_data_sn = data_sn,
                       .residual_bytes = residual},
       std::span<const std::byte>{sense});
}

}  // namespace iscsi_blkback
