// DiscoveryState: what is known so far of where a disk's paths lead, and what is still to be asked for
// it. All questions of a round may be asked at once, and their answers come in any order; what the
// disk comes to depends on what is known only, not on the order. Pure; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "multipath/attach/disk_config.h"
#include "multipath/attach/portal_resolver.h"

namespace iscsi_blkback {

class DiscoveryState {
 public:
  struct Question {
    bool discovery = false;  // which portals lead to the target; else: the portal's addresses
    Portal portal;  // to be asked, or looked up; its target's name only where it is not the disk's
  };

  explicit DiscoveryState(DiskConfig config);

  [[nodiscard]] const DiskConfig& config() const { return config_; }
  // By a question of discovery.
  [[nodiscard]] std::string target_asked_for(const Question& question) const;
  // Those that have become due since the last call, each once.
  [[nodiscard]] std::vector<Question> take_questions();
  // For each question one. Further questions may be due then.
  void take_portals(const Portal& at, Result<std::vector<Portal>> portals);
  void take_addresses(const Portal& portal, Result<std::vector<SocketAddress>> addresses);

  // Everything has been answered.
  [[nodiscard]] bool complete() const;
  // What is known so far; an error when not one portal can be used.
  [[nodiscard]] Result<ResolvedDisk> result() const;

 private:
  // Where portals are known from: a discovery portal, or the configuration.
  struct Source {
    Portal at;  // with the target name that it is asked for, where that is not the disk's
    std::optional<Result<std::vector<Portal>>> portals;
  };
  struct Name {
    Portal portal;
    std::optional<Result<std::vector<SocketAddress>>> addresses;
  };

  void look_up_names(const std::vector<Portal>& portals);
  [[nodiscard]] const Name* find_name(const Portal& portal) const;

  const DiskConfig config_;
  std::vector<Source> sources_;  // in the order of the list
  std::vector<Name> names_;      // each once, at most kMaxPortalsPerDisk
  bool too_many_ = false;        // there were more
  std::vector<Question> due_;
};

// Asks everything at once, on threads of its own, and waits for all answers. Fails when not one
// portal can be used. Blocks.
[[nodiscard]] Result<ResolvedDisk> resolve_disk(const DiskConfig& config,
                                                PortalResolver& directory);

}  // namespace iscsi_blkback
