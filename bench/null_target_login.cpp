#include <algorithm>

#include "bench/null_target_connection.h"
#include "initiator/login_text.h"

namespace iscsi_blkback {

void NullTargetConnection::handle_login(const LoginRequestPdu& request,
                                        std::span<const std::byte> data, ReplyBatch& replies) {
  if (logged_in_) {
    violate("a Login Request in the full feature phase");
    return;
  }
  login_text_.append(reinterpret_cast<const char*>(data.data()), data.size());
  LoginResponsePdu response;
  response.transit = request.transit;
  response.current_stage = request.current_stage;
  response.next_stage = request.next_stage;
  response.isid = request.isid;
  response.initiator_task_tag = request.initiator_task_tag;
  exp_cmd_sn_ = request.cmd_sn;
  max_cmd_sn_ = request.cmd_sn - 1;
  isid_ = request.isid;
  std::string text;
  if (!request.more) {
    text = negotiate(login_text_);
    login_text_.clear();
    if (finished_) {
      return;
    }
  }
  if (text == "?") {
    text.clear();
    response.status_class = 0x02;
    response.status_detail = 0x03;
    response.transit = false;
    finished_ = true;
  } else if (request.transit && request.next_stage == LoginStage::full_feature_phase) {
    response.tsih = tsih_;
    logged_in_ = true;
    if (settings_.protocol.power_on_unit_attention) {
      unit_attentions_.push_back(0x2900);
    }
  }
  response.data_bytes = static_cast<std::uint32_t>(text.size());
  response.numbers = numbers(true);
  send(response, std::as_bytes(std::span{text}), false, replies);
  if (logged_in_) {
    digests_ = negotiated_digests_;
  }
}

// The target's half of the negotiation; "?" when there is no target of that name.
std::string NullTargetConnection::negotiate(const std::string& text) {
  const auto pairs = parse_login_text(text);
  if (!pairs) {
    violate(pairs.error().message);
    return {};
  }
  const SimTargetOptions& options = settings_.protocol;
  LoginText answer;
  const auto minimum = [&](const TextPair& pair, std::uint32_t ours) {
    const std::uint32_t result =
        std::min(ours, parse_text_number(pair.value, 0, 0xffffffff).value_or(0));
    answer.add(pair.key, result);
    return result;
  };
  for (const TextPair& pair : *pairs) {
    const bool yes = pair.value == "Yes";
    if (pair.key == "InitiatorName") {
      initiator_name_ = std::string(pair.value);
    } else if (pair.key == "TargetName") {
      if (pair.value != options.name) {
        return "?";
      }
      answer.add("TargetPortalGroupTag", std::uint32_t{group_tag_});
    } else if (pair.key == "AuthMethod") {
      answer.add(pair.key, std::string_view{"None"});
    } else if (pair.key == "HeaderDigest" || pair.key == "DataDigest") {
      const bool header = pair.key == "HeaderDigest";
      const bool crc = (header ? options.header_digest : options.data_digest) &&
                       pair.value.find("CRC32C") != std::string_view::npos;
      (header ? negotiated_digests_.header : negotiated_digests_.data) = crc;
      const bool none = pair.value.find("None") != std::string_view::npos;
      answer.add(pair.key, std::string_view{crc ? "CRC32C" : none ? "None" : "Reject"});
    } else if (pair.key == "MaxRecvDataSegmentLength") {
      initiator_max_data_ = parse_text_number(pair.value, 512, kMaxDataSegmentBytes).value_or(512);
      answer.add(pair.key, options.max_recv_data_segment_length);
    } else if (pair.key == "InitialR2T") {
      initial_r2t_ = yes || options.initial_r2t;
      answer.add(pair.key, initial_r2t_);
    } else if (pair.key == "ImmediateData") {
      immediate_data_ = yes && options.immediate_data;
      answer.add(pair.key, immediate_data_);
    } else if (pair.key == "MaxBurstLength") {
      max_burst_ = minimum(pair, options.max_burst_length);
    } else if (pair.key == "FirstBurstLength") {
      first_burst_ = minimum(pair, std::min(options.first_burst_length, max_burst_));
    } else if (pair.key == "DefaultTime2Wait") {
      answer.add(pair.key, std::uint32_t{2});
    } else if (pair.key == "MaxConnections" || pair.key == "MaxOutstandingR2T") {
      minimum(pair, 1);
    } else if (pair.key == "ErrorRecoveryLevel" || pair.key == "DefaultTime2Retain") {
      minimum(pair, 0);
    } else if (pair.key == "DataPDUInOrder" || pair.key == "DataSequenceInOrder") {
      answer.add(pair.key, true);
    } else if (pair.key != "SessionType" && pair.key != "InitiatorAlias" &&
               pair.value != "NotUnderstood") {
      answer.add(pair.key, std::string_view{"NotUnderstood"});
    }
  }
  return answer.text();
}

}  // namespace iscsi_blkback
