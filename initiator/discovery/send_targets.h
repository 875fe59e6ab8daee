// The answer to SendTargets=All (RFC 7143 appendix C) as text that arrives in pieces: targets and
// their portals, and in one sentence what was left out of it and why. Everything that a target can
// put into it comes through here: bounded, without what no name or address has. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "initiator/login/target_address.h"

namespace iscsi_blkback {

using DiscoveredPortal = TargetAddress;

struct DiscoveredTarget {
  std::string name;
  std::vector<DiscoveredPortal> portals;  // those that the target tells; tgt: only the one asked

  bool operator==(const DiscoveredTarget&) const = default;
};

struct Discovery {
  std::vector<DiscoveredTarget> targets;  // each name once, in the order of the answer
  std::string left_out;                   // printable; empty: nothing
};

class SendTargetsAnswer {
 public:
  static constexpr std::size_t kMaxTextBytes = std::size_t{16} << 20;
  static constexpr std::size_t kMaxTargets = 4096;
  static constexpr std::size_t kMaxPortalsOfTarget = 256;
  static constexpr std::size_t kMaxPortals = 65536;  // of all targets

  // asked: where the question was put, with the portal group that the login told; for a target
  // that names no address.
  explicit SendTargetsAnswer(TargetAddress asked) : asked_(std::move(asked)) {}

  // One PDU's text; pairs may go on in the next. Error: the target does not do SendTargets. What
  // comes beyond kMaxTextBytes is left out: ends() then.
  [[nodiscard]] Result<void> take(std::string_view piece);
  // Nothing more is wanted.
  [[nodiscard]] bool ends() const { return text_bytes_ >= kMaxTextBytes; }

  // What has been taken is not all of the answer: no more is wanted, or the target does not go on.
  void cut_off();

  // After the last piece, once. Error: as take()'s.
  [[nodiscard]] Result<Discovery> finish();

 private:
  enum class Omission : std::uint8_t {
    text_without_a_value,
    unknown_key,
    address_of_no_target,
    name,
    address,
    wildcard_address,
    target_beyond_the_bound,
    portal_beyond_the_bound,
    text_beyond_the_bound,
    the_rest,
  };
  static constexpr std::size_t kOmissions = 10;
  struct Omitted {
    std::size_t count = 0;
    std::string first;
  };

  [[nodiscard]] Result<void> take_pair(std::string_view pair);
  void begin_target(std::string_view name);
  void take_address(std::string_view text);
  void leave_out(Omission what, std::string_view text);
  [[nodiscard]] std::string describe_omissions() const;

  TargetAddress asked_;
  std::string partial_;  // the beginning of a pair whose end has not come yet
  std::size_t text_bytes_ = 0;
  std::size_t portals_ = 0;
  std::vector<DiscoveredTarget> targets_;
  std::unordered_map<std::string, std::size_t> numbers_;  // of targets_, by name
  std::vector<bool> names_addresses_;                     // likewise: it had a TargetAddress
  bool in_record_ = false;                                // there was a TargetName
  std::optional<std::size_t> current_;                    // nothing: the record's name was left out
  std::array<Omitted, kOmissions> omitted_;
};

}  // namespace iscsi_blkback
