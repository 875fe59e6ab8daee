// Login status class and detail (RFC 7143 11.13.5) as sentences that say what to fix. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace iscsi_blkback {

// Class and detail as one number: 0x0201 is class 2, detail 1.
inline constexpr std::uint16_t kMovedTemporarily = 0x0101;
inline constexpr std::uint16_t kMovedPermanently = 0x0102;
inline constexpr std::uint16_t kAuthenticationFailed = 0x0201;

struct LoginStatus {
  std::uint16_t status;
  ErrorCode code;
  std::string_view sentence;  // INITIATOR stands for the initiator's name
};

// Every status that the RFC defines but success.
[[nodiscard]] std::span<const LoginStatus> all_login_statuses();

// For a status that the RFC does not define, what its class says.
[[nodiscard]] Error describe_login_status(std::uint16_t status,
                                          std::string_view initiator_name = "this initiator");

}  // namespace iscsi_blkback
