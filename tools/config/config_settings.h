// The options that [defaults] and [luns.ALIAS] of the configuration file may have, as a table:
// name, the key that iscsid.conf has for it, what sort of value, and where it goes. Constant data.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "initiator/login/session_options.h"
#include "multipath/attach/configuration.h"
#include "multipath/multipath_options.h"

namespace iscsi_blkback {

// A number of seconds, decimals allowed.
struct SecondsSetting {
  std::variant<std::chrono::milliseconds SessionOptions::*,
               std::chrono::milliseconds MultipathOptions::*>
      member;
  std::chrono::milliseconds least;
  std::chrono::milliseconds most;
};

struct WholeSetting {
  std::variant<std::uint16_t SessionOptions::*, std::uint32_t SessionOptions::*,
               std::optional<std::uint32_t> PathPolicySettings::*, std::uint16_t PortalOptions::*>
      member;
  std::uint32_t least;
  std::uint32_t most;
};

struct YesNoSetting {
  std::variant<bool SessionOptions::*, bool MultipathOptions::*> member;
};

struct PortalGroupFencesSetting {};

// The only value that error recovery level 0 over one connection allows; accepted so that whoever
// writes it down is not refused.
struct FixedSetting {
  std::uint32_t value;
  bool yes_no;
  std::string_view because;
};

struct AliasSetting {};  // InitiatorAlias

struct DigestSetting {
  DigestOffer SessionOptions::*member;
};

// CHAP of sessions or of discovery.
using ChapMember = ChapOptions SessionOptions::*;
struct AuthMethodSetting {
  ChapMember chap;
};
struct ChapAlgorithmsSetting {
  ChapMember chap;
};
struct CredentialSetting {
  ChapMember chap;
  std::variant<std::string ChapOptions::*, Secret ChapOptions::*> member;
};

// Part of the one interface for all portals.
struct InterfaceSetting {
  std::string InterfaceBinding::*member;
};
struct InterfacesSetting {};

// Seconds of MultipathOptions::marginal, up to an hour.
struct MarginalSetting {
  std::chrono::milliseconds MarginalPathOptions::*member;
  std::chrono::milliseconds least;
};

// One of a few words. read: the error is a sentence about the value.
struct WordSetting {
  Result<void> (*read)(std::string_view word, MultipathOptions& options);
};

struct PrioritizerSetting {};
struct PrioArgumentsSetting {};
struct FailbackSetting {};
struct RrWeightSetting {};
struct PathWeightsSetting {};
struct PgInitDelaySetting {};
struct NoPathRetrySetting {};
// multipath.conf's older way to say some of the others: "3 queue_if_no_path pg_init_retries 5".
struct FeaturesSetting {};

struct Setting {
  std::string_view name;
  std::string_view iscsid_name;  // the key in iscsid.conf, accepted as well; or empty
  std::variant<SecondsSetting, WholeSetting, YesNoSetting, FixedSetting, AliasSetting,
               DigestSetting, AuthMethodSetting, ChapAlgorithmsSetting, CredentialSetting,
               InterfaceSetting, InterfacesSetting, PrioritizerSetting, PrioArgumentsSetting,
               FailbackSetting, RrWeightSetting, PathWeightsSetting, PgInitDelaySetting,
               NoPathRetrySetting, FeaturesSetting, WordSetting, MarginalSetting,
               PortalGroupFencesSetting>
      kind;
  // Says how the paths of a kind of array are used: a [[device]] section may have it.
  bool of_device = false;
};

[[nodiscard]] std::span<const Setting> all_settings();
// By either name; nullptr when there is none.
[[nodiscard]] const Setting* find_setting(std::string_view name);

// Why an option of iscsid.conf or multipath.conf has no counterpart here; empty for all other
// names.
[[nodiscard]] std::string_view why_meaningless(std::string_view name);

// "; did you mean X?" when one of the known names is at most two letters away, else empty.
[[nodiscard]] std::string suggestion(std::string_view name,
                                     std::span<const std::string_view> known);

}  // namespace iscsi_blkback
