#include "multipath/attach/discovery_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxDescribedTrouble = 600;

void add_trouble(std::string& trouble, const std::string& sentence) {
  if (trouble.find(sentence) != std::string::npos || trouble.size() > kMaxDescribedTrouble) {
    return;
  }
  trouble += trouble.empty() ? sentence : "; " + sentence;
}

// Where it is, whichever target is meant there.
Portal without_target(Portal portal) {
  portal.target_name.clear();
  return portal;
}

// The paths that one portal makes: through each interface, as many as there are to be sessions.
void add_paths(const PortalOptions& options, const Portal& portal,
               const std::vector<SocketAddress>& addresses, ResolvedDisk& disk) {
  std::vector<InterfaceBinding> interfaces = options.interfaces;
  if (interfaces.empty() || !portal.interface_binding.empty()) {
    interfaces = {portal.interface_binding};
  }
  std::vector<ResolvedPortal>& paths = disk.specification.portals;
  for (const InterfaceBinding& interface : interfaces) {
    for (std::uint16_t number = 0; number < options.sessions_per_portal; ++number) {
      ResolvedPortal path{
          portal, addresses.front(), number,
          portal.target_name.empty() ? disk.specification.session.target_name : portal.target_name};
      path.other_addresses.assign(addresses.begin() + 1, addresses.end());
      path.portal.interface_binding = interface;
      if (std::any_of(paths.begin(), paths.end(),
                      [&](const ResolvedPortal& other) { return same_path(path, other); })) {
        continue;
      }
      if (paths.size() == kMaxPathsPerDisk) {
        add_trouble(disk.trouble,
                    fmt::format("the disk has {} paths, no more are made", kMaxPathsPerDisk));
        return;
      }
      paths.push_back(std::move(path));
    }
  }
}

}  // namespace

DiscoveryState::DiscoveryState(DiskConfig config) : config_(std::move(config)) {
  if (!config_.portals.empty()) {
    sources_.push_back({{}, config_.portals});
    look_up_names(config_.portals);
    return;
  }
  for (Portal at : config_.discovery_portals) {
    at.target_name.clear();
    sources_.push_back({at, std::nullopt});
    due_.push_back({true, at});
    for (const std::string& name : config_.other_target_names) {
      at.target_name = name;
      sources_.push_back({at, std::nullopt});
      due_.push_back({true, at});
    }
  }
}

std::vector<DiscoveryState::Question> DiscoveryState::take_questions() {
  return std::exchange(due_, {});
}

// A numeric address is nobody's answer to wait for.
void DiscoveryState::look_up_names(const std::vector<Portal>& portals) {
  for (const Portal& at : portals) {
    const Portal portal = without_target(at);
    if (find_name(portal) != nullptr) {
      continue;
    }
    if (names_.size() == kMaxPortalsPerDisk) {
      too_many_ = true;
      continue;
    }
    Name& name = names_.emplace_back(Name{portal, std::nullopt});
    if (auto address = SocketAddress::parse(portal.host, portal.port)) {
      name.addresses = std::vector{*address};
    } else {
      due_.push_back({false, portal});
    }
  }
}

void DiscoveryState::take_portals(const Portal& at, Result<std::vector<Portal>> portals) {
  if (portals) {
    for (Portal& portal : *portals) {
      if (portal.target_name.empty()) {
        portal.target_name = at.target_name;
      }
    }
    look_up_names(*portals);
  }
  const auto source = std::find_if(sources_.begin(), sources_.end(), [&](const Source& candidate) {
    return candidate.at == at && !candidate.portals;
  });
  ISCSI_BLKBACK_ASSERT(source != sources_.end());
  source->portals = std::move(portals);
}

void DiscoveryState::take_addresses(const Portal& portal,
                                    Result<std::vector<SocketAddress>> addresses) {
  const auto name = std::find_if(names_.begin(), names_.end(),
                                 [&](const Name& candidate) { return candidate.portal == portal; });
  ISCSI_BLKBACK_ASSERT(name != names_.end() && !name->addresses);
  name->addresses = std::move(addresses);
}

const DiscoveryState::Name* DiscoveryState::find_name(const Portal& portal) const {
  const Portal place = without_target(portal);
  const auto found = std::find_if(names_.begin(), names_.end(),
                                  [&](const Name& name) { return name.portal == place; });
  return found == names_.end() ? nullptr : &*found;
}

std::string DiscoveryState::target_asked_for(const Question& question) const {
  return question.portal.target_name.empty() ? config_.target_name : question.portal.target_name;
}

bool DiscoveryState::complete() const {
  return std::all_of(sources_.begin(), sources_.end(),
                     [](const Source& source) { return source.portals.has_value(); }) &&
         std::all_of(names_.begin(), names_.end(),
                     [](const Name& name) { return name.addresses.has_value(); });
}

Result<ResolvedDisk> DiscoveryState::result() const {
  ResolvedDisk disk;
  disk.complete = complete();
  disk.specification.lun = config_.lun;
  disk.specification.session = config_.session;
  disk.specification.session_variant = config_.session_variant;
  disk.specification.multipath = config_.multipath;
  for (const Source& source : sources_) {
    if (source.portals && !*source.portals) {
      add_trouble(disk.trouble, source.portals->error().message);
    }
  }
  if (config_.portals.empty()) {
    for (const Source& source : sources_) {
      if (std::all_of(sources_.begin(), sources_.end(), [&](const Source& other) {
            return other.at.target_name != source.at.target_name ||
                   (other.portals && *other.portals && (*other.portals)->empty());
          })) {
        add_trouble(disk.trouble, fmt::format("no discovery portal tells of {}",
                                              target_asked_for({true, source.at})));
      }
    }
  }
  for (const Source& source : sources_) {
    if (!source.portals || !*source.portals) {
      continue;
    }
    for (const Portal& portal : **source.portals) {
      const Name* name = find_name(portal);
      if (name == nullptr || !name->addresses) {
        continue;
      }
      if (!*name->addresses) {
        add_trouble(disk.trouble, name->addresses->error().message);
        continue;
      }
      add_paths(config_.paths, portal, **name->addresses, disk);
    }
  }
  if (too_many_) {
    add_trouble(disk.trouble,
                fmt::format("discovery tells of more than {} portals, and no more of them are used",
                            kMaxPortalsPerDisk));
  }
  if (disk.specification.portals.empty()) {
    return tl::unexpected(Error{ErrorCode::unavailable, disk.trouble});
  }
  return disk;
}

Result<ResolvedDisk> resolve_disk(const DiskConfig& config, PortalResolver& directory) {
  DiscoveryState lookup(config);
  for (auto questions = lookup.take_questions(); !questions.empty();
       questions = lookup.take_questions()) {
    std::vector<std::future<Result<std::vector<Portal>>>> portals(questions.size());
    std::vector<std::future<Result<std::vector<SocketAddress>>>> addresses(questions.size());
    // Where no thread can be started, the answer is looked for below.
    constexpr auto kPolicy = std::launch::async | std::launch::deferred;
    for (std::size_t at = 0; at < questions.size(); ++at) {
      const DiscoveryState::Question& question = questions[at];
      if (question.discovery) {
        portals[at] = std::async(kPolicy, [&] {
          return directory.discover(question.portal, config.session,
                                    lookup.target_asked_for(question));
        });
      } else {
        addresses[at] = std::async(kPolicy, [&] { return directory.resolve(question.portal); });
      }
    }
    for (std::size_t at = 0; at < questions.size(); ++at) {
      if (questions[at].discovery) {
        lookup.take_portals(questions[at].portal, portals[at].get());
      } else {
        lookup.take_addresses(questions[at].portal, addresses[at].get());
      }
    }
  }
  return lookup.result();
}

}  // namespace iscsi_blkback
