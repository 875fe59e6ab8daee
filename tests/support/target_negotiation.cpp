#include "tests/support/target_negotiation.h"

#include <fmt/format.h>

#include <algorithm>

#include "initiator/login/chap.h"
#include "initiator/login/login_text.h"
#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

namespace {

// The same for every login: nobody here listens in.
constexpr std::string_view kChallengeText = "0x00112233445566778899aabbccddeeff";
constexpr std::uint8_t kChapIdentifier = 1;

}  // namespace

Result<void> TargetNegotiation::check_response(const TargetOptions& options,
                                               std::string_view response) {
  const auto secret = options.chap_secrets.find(claimed_name_);
  const auto given = parse_large_binary(response, kMaxChapResponseBytes);
  const auto challenge = parse_large_binary(kChallengeText, kMaxChapChallengeBytes);
  if (secret == options.chap_secrets.end() || !given || !challenge ||
      *given != chap_response(ChapAlgorithm::md5, kChapIdentifier, secret->second, *challenge)) {
    return fail(ErrorCode::permission_denied, claimed_name_ + " does not know the secret");
  }
  chap_ = Chap::passed;
  chap_name = claimed_name_;
  return {};
}

Result<std::string> TargetNegotiation::answer(std::string_view request,
                                              const TargetOptions& options,
                                              std::uint16_t group_tag) {
  // What the initiator tolerates of targets it must not do itself.
  if (!request.empty() && request.back() != '\0') {
    return fail(ErrorCode::protocol, "the login text does not end in a NUL byte");
  }
  const auto pairs = parse_login_text(request);
  if (!pairs) {
    return tl::unexpected(pairs.error());
  }
  for (auto pair = pairs->begin(); pair != pairs->end(); ++pair) {
    if (std::any_of(pairs->begin(), pair,
                    [&](const TextPair& before) { return before.key == pair->key; })) {
      return fail(ErrorCode::protocol, fmt::format("the login text gives {} twice", pair->key));
    }
  }
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
        return fail(ErrorCode::not_found, "there is no target " + std::string(pair.value));
      }
      if (options.tells_portal_group) {
        answer.add("TargetPortalGroupTag", std::uint32_t{group_tag});
      }
    } else if (pair.key == "AuthMethod") {
      const bool needed = !options.chap_secrets.empty();
      if (needed && pair.value.find("CHAP") == std::string_view::npos) {
        return fail(ErrorCode::permission_denied, "the initiator offers no CHAP");
      }
      chap_ = needed ? Chap::agreed : Chap::none;
      answer.add(pair.key, std::string_view{needed ? "CHAP" : "None"});
    } else if (pair.key == "CHAP_A" && chap_ == Chap::agreed) {
      chap_ = Chap::asked;
      answer.add("CHAP_A", std::uint32_t{static_cast<std::uint8_t>(ChapAlgorithm::md5)});
      answer.add("CHAP_I", std::uint32_t{kChapIdentifier});
      answer.add("CHAP_C", kChallengeText);
    } else if (pair.key == "CHAP_N" && chap_ == Chap::asked) {
      claimed_name_ = std::string(pair.value);
    } else if (pair.key == "CHAP_R" && chap_ == Chap::asked) {
      if (auto checked = check_response(options, pair.value); !checked) {
        return tl::unexpected(checked.error());
      }
    } else if (pair.key == "HeaderDigest" || pair.key == "DataDigest") {
      const bool header = pair.key == "HeaderDigest";
      const bool crc = (header ? options.header_digest : options.data_digest) &&
                       pair.value.find("CRC32C") != std::string_view::npos;
      (header ? digests.header : digests.data) = crc;
      const bool none = pair.value.find("None") != std::string_view::npos;
      answer.add(pair.key, std::string_view{crc ? "CRC32C" : none ? "None" : "Reject"});
    } else if (pair.key == "MaxRecvDataSegmentLength") {
      initiator_max_data = parse_text_number(pair.value, 512, kMaxDataSegmentBytes).value_or(512);
      answer.add(pair.key, options.max_recv_data_segment_length);
    } else if (pair.key == "InitialR2T") {
      initial_r2t = yes || options.initial_r2t;
      answer.add(pair.key, initial_r2t);
    } else if (pair.key == "ImmediateData") {
      immediate_data = yes && options.immediate_data;
      answer.add(pair.key, immediate_data);
    } else if (pair.key == "MaxBurstLength") {
      max_burst = minimum(pair, options.max_burst_length);
    } else if (pair.key == "FirstBurstLength") {
      first_burst = minimum(pair, std::min(options.first_burst_length, max_burst));
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
