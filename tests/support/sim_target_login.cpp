#include <algorithm>

#include "initiator/login_text.h"
#include "tests/support/sim_target_connection.h"

namespace iscsi_blkback {

void SimTargetConnection::handle_login(const LoginRequestPdu& request,
                                       std::span<const std::byte> data) {
  if (logged_in_) {
    violation("a Login Request in the full feature phase");
    return;
  }
  const SimTarget::Portal& at = *target_.portals_[portal];
  login_text_.append(reinterpret_cast<const char*>(data.data()), data.size());
  LoginResponsePdu response{.transit = request.transit,
                            .more = false,
                            .current_stage = request.current_stage,
                            .next_stage = request.next_stage,
                            .version_max = 0,
                            .version_active = 0,
                            .data_bytes = 0,
                            .isid = request.isid,
                            .tsih = 0,
                            .initiator_task_tag = request.initiator_task_tag,
                            .numbers = {},
                            .status_class = 0,
                            .status_detail = 0};
  exp_cmd_sn_ = request.cmd_sn;
  max_cmd_sn_ = request.cmd_sn - 1;
  isid = request.isid;
  std::string text;
  std::uint16_t status = at.login_status;
  if (status == 0 && !at.redirect.empty()) {
    status = at.redirect_status;
    text = "TargetAddress=" + at.redirect + '\0';
  }
  if (status == 0 && !request.more) {
    text = negotiate(login_text_);
    login_text_.clear();
    if (dead_) {
      return;
    }
    if (text == "?") {
      status = 0x0203;
      text.clear();
    }
  }
  response.status_class = static_cast<std::uint8_t>(status >> 8);
  response.status_detail = static_cast<std::uint8_t>(status & 0xff);
  const bool complete =
      status == 0 && request.transit && request.next_stage == LoginStage::full_feature_phase;
  if (status != 0) {
    response.transit = false;
    finish_after_send_ = true;
  } else if (complete) {
    response.tsih = target_.next_tsih_++;
    target_.reinstate(*this);
    ++target_.counters.logins;
    logged_in_ = true;
    if (target_.options_.power_on_unit_attention) {
      for (const auto& [number, lun] : target_.luns_) {
        unit_attentions[number].push_back(0x2900);
      }
    }
  }
  response.data_bytes = static_cast<std::uint32_t>(text.size());
  response.numbers = numbers(true);
  send(response, std::as_bytes(std::span{text}));
  if (complete) {
    digests_ = negotiated_digests_;
  }
}

// The target's half of the negotiation; "?" when there is no target of that name.
std::string SimTargetConnection::negotiate(const std::string& text) {
  const auto pairs = parse_login_text(text);
  if (!pairs) {
    violation(pairs.error().message);
    return {};
  }
  const SimTargetOptions& options = target_.options_;
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
      initiator_name = std::string(pair.value);
    } else if (pair.key == "TargetName") {
      if (pair.value != options.name) {
        return "?";
      }
      answer.add("TargetPortalGroupTag", std::uint32_t{options.portals[portal].group_tag});
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
