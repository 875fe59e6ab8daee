#include "initiator/login/negotiation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "base/ascii_case.h"
#include "base/printable_text.h"
#include "base/split.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint32_t kMinLength = 512;
constexpr std::uint32_t kMaxLength = 16777215;

constexpr std::string_view kHeaderDigest = "HeaderDigest";
constexpr std::string_view kDataDigest = "DataDigest";
constexpr std::string_view kCrc32c = "CRC32C";
constexpr std::string_view kTargetAlias = "TargetAlias";

// The login's business, or only ours to declare: what a target says of them changes nothing.
constexpr std::array<std::string_view, 5> kNotNegotiated = {
    "TargetAddress", "InitiatorName", "InitiatorAlias", "TargetName", "SessionType"};
// 13.25: answered with Reject, unlike what is unknown.
constexpr std::array<std::string_view, 4> kObsolete = {"IFMarker", "OFMarker", "IFMarkInt",
                                                       "OFMarkInt"};

// Of the keys with a value of both sides, those that a discovery session has (section 13).
constexpr std::array<std::string_view, 3> kOfDiscovery = {"DefaultTime2Wait", "DefaultTime2Retain",
                                                          "ErrorRecoveryLevel"};

// Answers that have no answer, or two sides could keep each other busy for ever.
bool is_last_word(std::string_view value) {
  return value == "NotUnderstood" || value == "Irrelevant" || value == "Reject";
}

// One that is too large to be counted with is outside of every range, but a number.
std::optional<std::uint32_t> number_of(std::string_view text) {
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (const auto number = parse_text_number(text, 0, kMost)) {
    return number;
  }
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = text.substr(hexadecimal ? 2 : 0);
  const bool is_number =
      !digits.empty() && digits.find_first_not_of(hexadecimal ? "0123456789abcdefABCDEF"
                                                              : "0123456789") == digits.npos;
  return is_number ? std::optional(kMost) : std::nullopt;
}

}  // namespace

Negotiation::Negotiation(const SessionOptions& options, SessionType type)
    : keys_{{
          {"MaxConnections", Rule::minimum, 1, 65535, 1, 1},
          {"InitialR2T", Rule::logical_or, 0, 1, options.initial_r2t, 1},
          {"ImmediateData", Rule::logical_and, 0, 1, options.immediate_data, 1},
          {"MaxBurstLength", Rule::minimum, kMinLength, kMaxLength, options.max_burst_length,
           262144},
          {"FirstBurstLength", Rule::minimum, kMinLength, kMaxLength,
           std::min(options.first_burst_length, options.max_burst_length), 65536},
          {"DefaultTime2Wait", Rule::maximum, 0, 3600, options.default_time2wait, 2},
          {"DefaultTime2Retain", Rule::minimum, 0, 3600, options.default_time2retain, 20},
          {"MaxOutstandingR2T", Rule::minimum, 1, 65535, options.max_outstanding_r2t, 1},
          {"DataPDUInOrder", Rule::logical_or, 0, 1, 1, 1},
          {"DataSequenceInOrder", Rule::logical_or, 0, 1, 1, 1},
          {"ErrorRecoveryLevel", Rule::minimum, 0, 2, 0, 0},
      }},
      header_digest_{kHeaderDigest, options.header_digest, false, false},
      data_digest_{kDataDigest, options.data_digest, false, false},
      type_(type),
      max_recv_data_segment_length_(options.max_recv_data_segment_length) {}

bool Negotiation::is_irrelevant(const Key& key) const {
  return type_ == SessionType::discovery &&
         std::find(kOfDiscovery.begin(), kOfDiscovery.end(), key.name) == kOfDiscovery.end();
}

void Negotiation::offer(LoginText& text) {
  offered_ = true;
  text.add(kHeaderDigest, std::string_view{word_for<kDigestOffers>(header_digest_.offered)});
  text.add(kDataDigest, std::string_view{word_for<kDigestOffers>(data_digest_.offered)});
  text.add("MaxRecvDataSegmentLength", max_recv_data_segment_length_);
  for (const Key& key : keys_) {
    if (is_irrelevant(key)) {
      continue;
    }
    if (key.rule == Rule::logical_or || key.rule == Rule::logical_and) {
      text.add(key.name, key.offered != 0);
    } else {
      text.add(key.name, key.offered);
    }
  }
}

Result<void> Negotiation::take(const TextPair& told, LoginText& answers) {
  const TextPair pair{told.key, trimmed(told.value, " ")};
  if (pair.value.size() != told.value.size() && pair.key != kTargetAlias) {
    tolerate("it writes blanks around values");
  }
  if (Key* key = find(pair.key)) {
    if (!is_irrelevant(*key)) {
      return take_answer(*key, pair.value);
    }
    if (!is_last_word(pair.value)) {
      answers.add(pair.key, std::string_view{"Irrelevant"});
    }
    return {};
  }
  for (Digest* digest : {&header_digest_, &data_digest_}) {
    if (pair.key == digest->name) {
      return take_digest(*digest, pair.value);
    }
  }
  if (pair.key == "MaxRecvDataSegmentLength" || pair.key == "TargetPortalGroupTag" ||
      pair.key == kTargetAlias) {
    return take_declaration(pair);
  }
  if (std::find(kNotNegotiated.begin(), kNotNegotiated.end(), pair.key) != kNotNegotiated.end()) {
    return {};
  }
  if (std::find(kObsolete.begin(), kObsolete.end(), pair.key) != kObsolete.end()) {
    answers.add(pair.key, std::string_view{"Reject"});
    return {};
  }
  if (!is_last_word(pair.value)) {
    answers.add(pair.key, std::string_view{"NotUnderstood"});
  }
  return {};
}

void Negotiation::tolerate(std::string_view what) {
  constexpr std::size_t kEnough = 300;
  if (tolerated_.size() < kEnough && tolerated_.find(what) == std::string::npos) {
    tolerated_ += tolerated_.empty() ? "" : ", ";
    tolerated_ += what;
  }
}

Result<void> Negotiation::take_answer(Key& key, std::string_view value) {
  if (!offered_) {
    return fail(ErrorCode::protocol,
                fmt::format("the target answered {}, which was not asked", key.name));
  }
  if (value == "Irrelevant" || value == "NotUnderstood" || value == "Reject") {
    // Whoever answers so does not use the key; the default is what such a target does.
    if (value == "Reject") {
      tolerate(fmt::format("it rejects {}", key.name));
      key.result = key.rule == Rule::logical_and ? 0 : key.result;
    }
    key.answered = true;
    return {};
  }
  const Result<std::uint32_t> answer = value_of(key, value);
  if (!answer) {
    return tl::unexpected(answer.error());
  }
  if (key.answered) {
    tolerate(fmt::format("it answers {} twice", key.name));
  }
  // The answer of a target is the outcome (6.2.2); it must be one that our offer allows. Combining
  // it with the offer again, and with an answer that came before, keeps us on the safe side of a
  // target that only states its own value, and leaves but one outcome where we can work with no
  // other: data in order, no error recovery.
  const std::uint32_t before = key.answered ? key.result : key.offered;
  key.answered = true;
  switch (key.rule) {
    case Rule::minimum:
    case Rule::logical_and:
      key.result = std::min(*answer, std::min(before, key.offered));
      break;
    case Rule::maximum:
    case Rule::logical_or:
      key.result = std::max(*answer, std::max(before, key.offered));
      break;
  }
  return {};
}

// What the target's word comes to. One that is none, or out of range, is taken for the value with
// which nothing can go wrong: whatever the target may mean, we ask less of it.
Result<std::uint32_t> Negotiation::value_of(const Key& key, std::string_view text) {
  if (key.rule == Rule::logical_or || key.rule == Rule::logical_and) {
    if (text != "Yes" && text != "No") {
      tolerate(fmt::format("it answers {} with neither Yes nor No", key.name));
    }
    return parse_text_boolean(text).value_or(key.rule == Rule::logical_or) ? 1U : 0U;
  }
  const std::optional<std::uint32_t> number = number_of(text);
  if (!number) {
    return fail(ErrorCode::protocol,
                fmt::format("the target answered {} with no number", key.name));
  }
  if (*number < key.low || *number > key.high) {
    tolerate(fmt::format("it answers {} with a value outside {}..{}", key.name, key.low, key.high));
  }
  // Less than the RFC allows of what we may send unasked is none of it.
  const bool too_few = *number < key.low && key.rule == Rule::minimum && key.low == kMinLength;
  return too_few ? 0 : std::clamp(*number, key.low, key.high);
}

Result<void> Negotiation::take_digest(Digest& digest, std::string_view value) {
  if (!offered_) {
    return fail(ErrorCode::protocol,
                fmt::format("the target answered {}, which was not asked", digest.name));
  }
  const bool crc32c = equal_text(value, kCrc32c);
  if (digest.answered && crc32c != digest.result) {
    return fail(ErrorCode::protocol,
                fmt::format("the target answers {} twice, and not the same", digest.name));
  }
  digest.answered = true;
  if (crc32c && digest.offered != DigestOffer::none) {
    digest.result = true;
    return {};
  }
  if (!crc32c && digest.offered == DigestOffer::crc32c) {
    return fail(ErrorCode::unsupported,
                fmt::format("the target does not do {}=CRC32C, which is demanded here; allow it on "
                            "the target, or None here",
                            digest.name));
  }
  if (equal_text(value, "None") || value == "NotUnderstood" || value == "Irrelevant" ||
      value == "Reject") {
    return {};
  }
  return fail(ErrorCode::unsupported,
              fmt::format("the target insists on a {} that was not offered; allow {}={} on the "
                          "target",
                          digest.name, digest.name, word_for<kDigestOffers>(digest.offered)));
}

Result<void> Negotiation::take_declaration(const TextPair& pair) {
  if (pair.key == kTargetAlias) {
    declared_.target_alias = printable_text(pair.value, 4 * kMaxTextValueBytes);
    return {};
  }
  if (pair.key == "TargetPortalGroupTag") {
    const std::optional<std::uint32_t> tag = parse_text_number(pair.value, 0, 65535);
    if (!tag) {
      tolerate("it declares a TargetPortalGroupTag outside 0..65535");
      return {};  // then its portal group is not known, and fences nothing
    }
    if (portal_group_declared_ && declared_.target_portal_group_tag != *tag) {
      tolerate("it declares TargetPortalGroupTag twice, and not the same");
      portal_group_contradicted_ = true;
    }
    portal_group_declared_ = true;
    declared_.target_portal_group_tag = static_cast<std::uint16_t>(*tag);
    declared_.target_portal_group_tag_known = !portal_group_contradicted_;
    return {};
  }
  const std::optional<std::uint32_t> length = number_of(pair.value);
  if (!length || *length < kMinLength) {
    return fail(ErrorCode::protocol,
                "the target declared a MaxRecvDataSegmentLength that is no number, or below 512");
  }
  if (*length > kMaxLength) {
    tolerate("it declares a MaxRecvDataSegmentLength above 16777215");
  }
  const std::uint32_t usable = std::min(*length, kMaxLength);
  std::uint32_t& limit = declared_.max_send_data_segment_length;
  if (segment_length_declared_ && usable != limit) {
    tolerate("it declares MaxRecvDataSegmentLength twice, and not the same");
  }
  limit = segment_length_declared_ ? std::min(limit, usable) : usable;
  segment_length_declared_ = true;
  return {};
}

Result<void> Negotiation::check_complete() const {
  for (const Digest* digest : {&header_digest_, &data_digest_}) {
    if (digest->offered == DigestOffer::crc32c && !digest->answered) {
      return fail(ErrorCode::unsupported,
                  fmt::format("the target says nothing to {}=CRC32C, which is demanded here; allow "
                              "it on the target, or None here",
                              digest->name));
    }
  }
  return {};
}

NegotiatedParameters Negotiation::outcome() const {
  NegotiatedParameters outcome = declared_;
  outcome.digests = {.header = header_digest_.result, .data = data_digest_.result};
  outcome.max_recv_data_segment_length = max_recv_data_segment_length_;
  outcome.initial_r2t = result_of("InitialR2T") != 0;
  outcome.immediate_data = result_of("ImmediateData") != 0;
  outcome.max_burst_length = result_of("MaxBurstLength");
  outcome.first_burst_length = std::min(result_of("FirstBurstLength"), outcome.max_burst_length);
  outcome.max_outstanding_r2t = static_cast<std::uint16_t>(result_of("MaxOutstandingR2T"));
  outcome.default_time2wait = static_cast<std::uint16_t>(result_of("DefaultTime2Wait"));
  outcome.default_time2retain = static_cast<std::uint16_t>(result_of("DefaultTime2Retain"));
  return outcome;
}

Negotiation::Key* Negotiation::find(std::string_view name) {
  const auto found =
      std::find_if(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name == name; });
  return found == keys_.end() ? nullptr : &*found;
}

std::uint32_t Negotiation::result_of(std::string_view name) const {
  const auto found =
      std::find_if(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name == name; });
  ISCSI_BLKBACK_ASSERT(found != keys_.end());
  if (found->rule == Rule::logical_and || found->rule == Rule::minimum) {
    return std::min(found->result, found->offered);
  }
  return std::max(found->result, found->offered);
}

}  // namespace iscsi_blkback
