#include "multipath/attach/session_isid.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

namespace iscsi_blkback {
namespace {

// FNV-1a: spreads well enough for 24 bits, and never changes between versions or compilers.
constexpr std::uint32_t kFnvBasis = 2166136261u;

std::uint32_t fnv1a(std::uint32_t hash, std::string_view text) {
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  return (hash ^ 0xffu) * 16777619u;  // an end mark, so that "ab","c" differs from "a","bc"
}

std::string chap_text(const ChapOptions& chap) {
  std::string text = fmt::format("{}\n{}", chap.username, chap.username_in);
  for (const ChapAlgorithm algorithm : chap.algorithms) {
    text += fmt::format("\n{}", static_cast<unsigned>(algorithm));
  }
  return text;
}

using SettingText = std::pair<const char*, std::string>;

// In this order for ever: the variants of running sessions are made of it.
auto settings_of(const SessionOptions& options) {
  // Names every member, so that one that is added has to be thought about here. Not used: where the
  // session leads and what it is called, and discovery_chap, which is another session's.
  const auto& [initiator_name, initiator_alias, target_name, portal, other_addresses, portal_name,
               interface_binding, session_number, isid, chap, discovery_chap, header_digest,
               data_digest, initial_r2t, immediate_data, max_recv_data_segment_length,
               max_burst_length, first_burst_length, max_outstanding_r2t, default_time2wait,
               default_time2retain, max_commands, initial_cmd_sn, connect_timeout, login_timeout,
               logout_timeout, noop_out_interval, noop_out_timeout, stall_probe, path_timeout,
               tcp_user_timeout, command_timeout, abort_timeout, lu_reset_timeout,
               tgt_reset_timeout, relogin_backoff_min, relogin_backoff_max] = options;
  const auto number = [](auto value) { return fmt::format("{}", value); };
  const auto time = [](std::chrono::milliseconds value) {
    return fmt::format("{}", value.count());
  };
  return std::array{
      SettingText{"InitiatorAlias", initiator_alias},
      SettingText{"chap", chap_text(chap)},
      SettingText{"HeaderDigest", number(static_cast<unsigned>(header_digest))},
      SettingText{"DataDigest", number(static_cast<unsigned>(data_digest))},
      SettingText{"InitialR2T", number(initial_r2t)},
      SettingText{"ImmediateData", number(immediate_data)},
      SettingText{"MaxRecvDataSegmentLength", number(max_recv_data_segment_length)},
      SettingText{"MaxBurstLength", number(max_burst_length)},
      SettingText{"FirstBurstLength", number(first_burst_length)},
      SettingText{"MaxOutstandingR2T", number(max_outstanding_r2t)},
      SettingText{"DefaultTime2Wait", number(default_time2wait)},
      SettingText{"DefaultTime2Retain", number(default_time2retain)},
      SettingText{"cmds_max", number(max_commands)},
      SettingText{"initial_cmd_sn", number(initial_cmd_sn)},
      SettingText{"connect_timeout", time(connect_timeout)},
      SettingText{"login_timeout", time(login_timeout)},
      SettingText{"logout_timeout", time(logout_timeout)},
      SettingText{"noop_out_interval", time(noop_out_interval)},
      SettingText{"noop_out_timeout", time(noop_out_timeout)},
      SettingText{"stall_probe", time(stall_probe)},
      SettingText{"path_timeout", time(path_timeout)},
      SettingText{"tcp_user_timeout", time(tcp_user_timeout)},
      SettingText{"command_timeout", time(command_timeout)},
      SettingText{"abort_timeout", time(abort_timeout)},
      SettingText{"lu_reset_timeout", time(lu_reset_timeout)},
      SettingText{"tgt_reset_timeout", time(tgt_reset_timeout)},
      SettingText{"relogin_backoff_min", time(relogin_backoff_min)},
      SettingText{"relogin_backoff_max", time(relogin_backoff_max)},
  };
}

}  // namespace

std::uint32_t session_variant(const SessionOptions& session, const SessionOptions& of_target) {
  const auto settings = settings_of(session);
  const auto ordinary = settings_of(of_target);
  std::uint32_t hash = 0;
  for (std::size_t at = 0; at < settings.size(); ++at) {
    if (settings[at].second != ordinary[at].second) {
      hash = fnv1a(fnv1a(hash != 0 ? hash : kFnvBasis, settings[at].first), settings[at].second);
      hash = hash != 0 ? hash : 1;
    }
  }
  return hash;
}

Isid make_isid(DomainId own_domain, DomainId guest, const SessionOptions& session,
               std::uint32_t variant, std::uint32_t attempt, std::string_view host_id,
               ReactorPlace place) {
  std::uint32_t hash = kFnvBasis;
  if (!host_id.empty()) {
    hash = fnv1a(hash, host_id);
  }
  hash = fnv1a(hash, std::to_string(own_domain));
  hash = fnv1a(hash, session.target_name);
  hash = fnv1a(hash, session.portal.to_string());
  hash = fnv1a(hash, session.interface_binding.to_string());
  if (session.session_number != 0) {
    hash = fnv1a(hash, std::to_string(session.session_number));
  }
  if (variant != 0) {
    hash = fnv1a(hash, "variant");  // which is no session_number
    hash = fnv1a(hash, std::to_string(variant));
  }
  hash = hash >> 24 ^ hash;
  hash = place.of == 1 ? hash + attempt
                       : (hash / kMaxReactors + attempt) * kMaxReactors + place.number;
  const auto byte = [](std::uint32_t value) { return static_cast<std::uint8_t>(value & 0xff); };
  return Isid{
      0x80,       byte(hash >> 16), byte(hash >> 8), byte(hash), byte(std::uint32_t{guest} >> 8),
      byte(guest)};
}

}  // namespace iscsi_blkback
