#include "initiator/discovery/send_targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/byte_stream.h"
#include "base/printable_text.h"
#include "initiator/login/login_text.h"
#include "initiator/login/portal_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxPairBytes = kMaxTextKeyBytes + 1 + kMaxTextValueBytes;
constexpr std::size_t kMaxShownBytes = 80;

bool is_wildcard(const std::string& host) {
  const auto address = SocketAddress::parse(host, 0);
  return address && (*address == SocketAddress::parse("0.0.0.0", 0).value() ||
                     *address == SocketAddress::parse("::", 0).value());
}

}  // namespace

Result<void> SendTargetsAnswer::take(std::string_view piece) {
  const std::size_t room = kMaxTextBytes - text_bytes_;
  if (piece.size() > room) {
    leave_out(Omission::text_beyond_the_bound, "");
    piece = piece.substr(0, room);
  }
  text_bytes_ += piece.size();
  while (!piece.empty()) {
    const std::size_t end = piece.find('\0');
    const std::string_view part = piece.substr(0, end);
    // Of a pair that is too long one byte too many is kept, so that it stays too long.
    partial_.append(part.substr(0, kMaxPairBytes + 1 - partial_.size()));
    if (end == std::string_view::npos) {
      return {};
    }
    piece.remove_prefix(end + 1);
    const std::string pair = std::exchange(partial_, {});
    if (auto taken = take_pair(pair); !taken) {
      return taken;
    }
  }
  return {};
}

Result<void> SendTargetsAnswer::take_pair(std::string_view pair) {
  if (pair.empty()) {
    return {};  // padding that the length counts
  }
  const std::size_t equals = pair.find('=');
  if (equals == std::string_view::npos || equals == 0 || pair.size() > kMaxPairBytes) {
    leave_out(Omission::text_without_a_value, pair);
    return {};
  }
  const std::string_view key = pair.substr(0, equals);
  const std::string_view value = pair.substr(equals + 1);
  if (key == "TargetName") {
    begin_target(value);
  } else if (key == "TargetAddress") {
    take_address(value);
  } else if (key == "SendTargets") {
    return fail(ErrorCode::unsupported, fmt::format("the target answers SendTargets=All with {}",
                                                    printable_text(value, kMaxShownBytes)));
  } else if (key != "TargetAlias") {
    leave_out(Omission::unknown_key, key);
  }
  return {};
}

void SendTargetsAnswer::begin_target(std::string_view name) {
  in_record_ = true;
  current_.reset();
  if (!is_usable_name(name)) {
    leave_out(Omission::name, name);
    return;
  }
  if (const auto known = numbers_.find(std::string(name)); known != numbers_.end()) {
    current_ = known->second;  // its record goes on
    return;
  }
  if (targets_.size() == kMaxTargets) {
    leave_out(Omission::target_beyond_the_bound, name);
    return;
  }
  current_ = targets_.size();
  numbers_.emplace(name, targets_.size());
  targets_.push_back({std::string(name), {}});
  names_addresses_.push_back(false);
}

void SendTargetsAnswer::take_address(std::string_view text) {
  if (!current_) {
    if (!in_record_) {
      leave_out(Omission::address_of_no_target, text);
    }
    return;  // what belongs to a name that was left out goes with it
  }
  names_addresses_[*current_] = true;
  auto portal = parse_target_address(std::string(text));
  if (!portal) {
    leave_out(Omission::address, text);
    return;
  }
  if (is_wildcard(portal->host)) {
    leave_out(Omission::wildcard_address, text);
    return;
  }
  portal->host = with_zone_of(asked_.host, std::move(portal->host));
  std::vector<DiscoveredPortal>& portals = targets_[*current_].portals;
  if (std::find(portals.begin(), portals.end(), *portal) != portals.end()) {
    return;
  }
  if (portals.size() == kMaxPortalsOfTarget || portals_ == kMaxPortals) {
    leave_out(Omission::portal_beyond_the_bound, text);
    return;
  }
  ++portals_;
  portals.push_back(std::move(*portal));
}

void SendTargetsAnswer::cut_off() {
  leave_out(ends() ? Omission::text_beyond_the_bound : Omission::the_rest, "");
  partial_.clear();
}

Result<Discovery> SendTargetsAnswer::finish() {
  if (!ends()) {
    // The NUL of the last pair is missing.
    if (auto taken = take_pair(std::exchange(partial_, {})); !taken) {
      return tl::unexpected(taken.error());
    }
  }
  for (std::size_t at = 0; at < targets_.size(); ++at) {
    if (!names_addresses_[at]) {
      targets_[at].portals.push_back(asked_);
    }
  }
  return Discovery{std::move(targets_), describe_omissions()};
}

void SendTargetsAnswer::leave_out(Omission what, std::string_view text) {
  Omitted& omitted = omitted_[static_cast<std::size_t>(what)];
  if (omitted.count++ == 0) {
    omitted.first = printable_text(text, kMaxShownBytes);
  }
}

std::string SendTargetsAnswer::describe_omissions() const {
  constexpr std::array<std::string_view, kOmissions> kWords = {
      "what is no KEY=VALUE",
      "keys that are not known",
      "addresses before the first target",
      "names that are none",
      "addresses that are none",
      "addresses that mean any address",
      "targets beyond 4096",
      "portals beyond 256 of a target, or 65536 in all",
      "all text beyond 16 MiB",
      "the rest, which the target does not send",
  };
  std::string sentence;
  for (std::size_t at = 0; at < kOmissions; ++at) {
    const Omitted& omitted = omitted_[at];
    if (omitted.count == 0) {
      continue;
    }
    sentence += sentence.empty() ? "" : ", ";
    sentence += kWords[at];
    if (at < static_cast<std::size_t>(Omission::text_beyond_the_bound)) {
      sentence += fmt::format(" ({}, the first is {})", omitted.count,
                              omitted.first.empty() ? "empty" : omitted.first);
    }
  }
  return sentence;
}

}  // namespace iscsi_blkback
