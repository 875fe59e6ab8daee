#include "tools/config_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::uint32_t kMaxSegment = 0xffffff;  // RFC 7143 13.12 to 13.14: 512 to 2**24-1
constexpr Milliseconds kHour{3600 * 1000};

constexpr std::array kSettings = {
    // multipath.conf
    Setting{"path_grouping_policy", "", GroupingPolicySetting{}},
    Setting{"path_selector", "", SelectorSetting{}},
    Setting{"rr_min_io", "", WholeSetting{&MultipathOptions::rr_min_io, 1, 100000}},
    Setting{"no_path_retry", "", NoPathRetrySetting{}},
    Setting{"polling_interval", "",
            SecondsSetting{&MultipathOptions::polling_interval, Milliseconds(100), kHour}},
    Setting{"checker_timeout", "",
            SecondsSetting{&MultipathOptions::checker_timeout, Milliseconds(100), kHour}},
    // iscsid.conf
    Setting{"login_timeout", "node.conn[0].timeo.login_timeout",
            SecondsSetting{&SessionOptions::login_timeout, Milliseconds(100), kHour}},
    Setting{"logout_timeout", "node.conn[0].timeo.logout_timeout",
            SecondsSetting{&SessionOptions::logout_timeout, Milliseconds(100), kHour}},
    Setting{"noop_out_interval", "node.conn[0].timeo.noop_out_interval",
            SecondsSetting{&SessionOptions::noop_out_interval, Milliseconds(0), kHour}},
    Setting{"noop_out_timeout", "node.conn[0].timeo.noop_out_timeout",
            SecondsSetting{&SessionOptions::noop_out_timeout, Milliseconds(100), kHour}},
    Setting{"cmds_max", "node.session.cmds_max",
            WholeSetting{&SessionOptions::max_commands, 1, 4096}},
    // RFC 7143, section 13
    Setting{"InitialR2T", "node.session.iscsi.InitialR2T",
            YesNoSetting{&SessionOptions::initial_r2t}},
    Setting{"ImmediateData", "node.session.iscsi.ImmediateData",
            YesNoSetting{&SessionOptions::immediate_data}},
    Setting{"FirstBurstLength", "node.session.iscsi.FirstBurstLength",
            WholeSetting{&SessionOptions::first_burst_length, 512, kMaxSegment}},
    Setting{"MaxBurstLength", "node.session.iscsi.MaxBurstLength",
            WholeSetting{&SessionOptions::max_burst_length, 512, kMaxSegment}},
    Setting{"MaxRecvDataSegmentLength", "node.conn[0].iscsi.MaxRecvDataSegmentLength",
            WholeSetting{&SessionOptions::max_recv_data_segment_length, 512, kMaxSegment}},
    Setting{"MaxOutstandingR2T", "node.session.iscsi.MaxOutstandingR2T",
            WholeSetting{&SessionOptions::max_outstanding_r2t, 1, 8}},
    Setting{"DefaultTime2Wait", "node.session.iscsi.DefaultTime2Wait",
            WholeSetting{&SessionOptions::default_time2wait, 0, 3600}},
    Setting{"DefaultTime2Retain", "node.session.iscsi.DefaultTime2Retain",
            WholeSetting{&SessionOptions::default_time2retain, 0, 3600}},
    // our own
    Setting{"connect_timeout", "",
            SecondsSetting{&SessionOptions::connect_timeout, Milliseconds(10), kHour}},
    Setting{"stall_probe", "",
            SecondsSetting{&SessionOptions::stall_probe, Milliseconds(10), kHour}},
    Setting{"path_timeout", "",
            SecondsSetting{&SessionOptions::path_timeout, Milliseconds(20), kHour}},
    Setting{"tcp_user_timeout", "",
            SecondsSetting{&SessionOptions::tcp_user_timeout, Milliseconds(100), kHour}},
    Setting{"relogin_backoff_min", "",
            SecondsSetting{&SessionOptions::relogin_backoff_min, Milliseconds(10), kHour}},
    Setting{"relogin_backoff_max", "",
            SecondsSetting{&SessionOptions::relogin_backoff_max, Milliseconds(10), kHour}},
    Setting{"quiesce_time", "",
            SecondsSetting{&MultipathOptions::quiesce_time, Milliseconds(0), kHour}},
};

char folded(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Levenshtein's distance, case and the sort of dash aside.
std::size_t distance(std::string_view left, std::string_view right) {
  const auto plain = [](char c) { return c == '-' ? '_' : folded(c); };
  std::vector<std::size_t> row(right.size() + 1);
  for (std::size_t at = 0; at < row.size(); ++at) {
    row[at] = at;
  }
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t changed = diagonal + (plain(left[i - 1]) == plain(right[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const Setting> all_settings() {
  return kSettings;
}

const Setting* find_setting(std::string_view name) {
  const auto found = std::find_if(kSettings.begin(), kSettings.end(), [&](const Setting& setting) {
    return name == setting.name || (!name.empty() && name == setting.iscsid_name);
  });
  return found == kSettings.end() ? nullptr : found;
}

std::string suggestion(std::string_view name, std::span<const std::string_view> known) {
  constexpr std::size_t kLongest = 64;  // bounds the work that a key out of nowhere can cause
  if (name.size() > kLongest) {
    return {};
  }
  std::string_view best;
  std::size_t least = 3;  // further away than two letters is another word
  for (const std::string_view candidate : known) {
    if (const std::size_t far = distance(name, candidate); far < least) {
      best = candidate;
      least = far;
    }
  }
  return best.empty() ? std::string{} : fmt::format("; did you mean {}?", best);
}

}  // namespace iscsi_blkback
