// TargetNegotiation: a target's half of the login text (RFC 7143 section 13): what it answers, and
// what the two have agreed on. Held by each TargetConnection; on its thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "initiator/pdu/digest.h"
#include "tests/support/target_options.h"

namespace iscsi_blkback {

class TargetNegotiation {
 public:
  // The answer to one request's text; ErrorCode::not_found when it asks for a target of another
  // name, permission_denied when it does not prove what it must (TargetOptions::chap_secrets),
  // protocol when it is no such text.
  [[nodiscard]] Result<std::string> answer(std::string_view request, const TargetOptions& options,
                                           std::uint16_t group_tag);

  // A Data-In PDU's data, at most.
  [[nodiscard]] std::uint32_t data_in_bytes(const TargetOptions& options) const {
    return options.max_data_in_bytes != 0 ? std::min(options.max_data_in_bytes, initiator_max_data)
                                          : initiator_max_data;
  }

  // As agreed on so far; until then the standard's defaults.
  std::string initiator_name;
  std::string chap_name;  // whose secret the initiator knows; empty: nobody has asked
  Digests digests;        // in force after the login
  std::uint32_t initiator_max_data = 8192;
  bool initial_r2t = true;
  bool immediate_data = true;
  std::uint32_t max_burst = 262144;
  std::uint32_t first_burst = 65536;

 private:
  enum class Chap : std::uint8_t { none, agreed, asked, passed };

  [[nodiscard]] Result<void> check_response(const TargetOptions& options,
                                            std::string_view response);

  Chap chap_ = Chap::none;
  std::string claimed_name_;  // CHAP_N
};

}  // namespace iscsi_blkback
