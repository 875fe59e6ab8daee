// GroupController: which of a disk's paths are used. It decides the policies (settings, array
// table, what the LUN says), keeps the paths' priorities and groups up to date, goes back to a
// better group when failback says so, and chooses the path of each request. Owned by
// MultipathDevice. Reactor thread; choose() and ended() are on the way of each request.
//
// A group whose paths are all down is left at once; a group of last resort (marginal
// paths) is left as soon as another one has a path.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "multipath/groups/path_group.h"
#include "multipath/groups/path_policies.h"
#include "multipath/groups/priority_poll.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class GroupController final : private PriorityPoll::Owner {
 public:
  class Owner {
   public:
    // Ghost paths that the array could be told to serve the LUN through.
    [[nodiscard]] virtual PathMask activatable() const = 0;
    // The best group has such paths only, and is to be used.
    virtual void on_activation_wanted() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  struct Options {
    PathPolicySettings settings;
    std::shared_ptr<const ArrayTable> arrays;
    std::vector<PathRule> path_weights;
    std::chrono::milliseconds polling_interval{};
    std::chrono::milliseconds max_polling_interval{};
  };

  // paths and log outlive it.
  GroupController(Reactor& reactor, Options options, const PathSet& paths, DiskSteps& steps,
                  DiskLog& log, Owner& owner);

  [[nodiscard]] const PathPolicies& policies() const { return policies_; }
  // Whose the serial number is for this LUN. known: the policies are those of the disk's LUN; else
  // they would become what this one says.
  [[nodiscard]] SerialNumberIs serial_number_is(const LogicalUnitIdentity& identity,
                                                bool known) const;
  // What is set takes the place of what was set before; decide() is due.
  void overrule(const PathPolicySettings& changes);
  void set_no_path_retry(std::optional<NoPathRetry> wait) { settings_.no_path_retry = wait; }
  // Decides anew; identity: of the LUN, nullptr before it is known. Returns the policies before;
  // update_priorities() and follow() are due.
  PathPolicies decide(const LogicalUnitIdentity* identity);
  void follow(const PathPolicies& before);

  // A path comes, leaves its group, and is gone. update_priorities() is due after the first,
  // reconsider() after the second.
  void add_path(std::uint32_t index) { groups_.add_path(index); }
  void retire_path(const Path& path);
  void remove_path(std::uint32_t index) { groups_.remove_path(index); }

  // The path has told how it serves the LUN.
  void on_access(const Path& path);
  // The set knows the path's new state, which is this.
  void on_state(std::uint32_t index, PathState state);
  // The path was up and has failed; a command has failed there, for all that is known because of
  // it.
  void note_failure(Path& path);
  void note_error(Path& path);
  void on_latency_measured(Path& path, const LatencyEstimate& measured);
  void update_priorities() override;
  // Something has changed, and more may: what is asked for by time is asked for soon.
  void follow_closely() { priority_poll_.follow_closely(); }
  // Whether another group is to be used now.
  void reconsider() { consider_failback(PathGroups::kNoPath); }
  void note_group_in_use();
  // The guest does not run: nothing is measured.
  void set_suspended(bool suspended) { priority_poll_.set_suspended(suspended); }
  void close();

  // The best group with a path that is up or could be made so; the current one when there is none.
  [[nodiscard]] std::uint32_t wanted_group() const;
  [[nodiscard]] const PathGroups& groups() const { return groups_; }
  [[nodiscard]] bool is_up(std::uint32_t group) const {
    return (groups_.groups()[group].members & paths_.up()) != 0;
  }
  // How often another group was used than before.
  [[nodiscard]] std::uint64_t switches() const { return switches_; }

  using Wanted = PathGroups::Wanted;
  struct Choice {
    Path* path = nullptr;  // nullptr: the request has to wait
    TimePoint at{};        // for ended()
  };
  [[nodiscard]] Choice choose(const Wanted& wanted);
  // The request has come back from a path, and was given to it when one was chosen.
  void ended(Path& path, TimePoint chosen_at, bool success) {
    if (times_requests()) [[unlikely]] {
      note_time(path, chosen_at, success);
    }
  }

 private:
  // Asking the clock is not free.
  [[nodiscard]] bool times_requests() const { return groups_.timed() || measures_latency_; }
  void note_time(Path& path, TimePoint chosen_at, bool success);
  void share_port_groups(const Path& path);
  bool update_priority(const Path& path);
  void consider_failback(std::uint32_t came_up);
  void fail_back();
  void update_marginal();

  Reactor& reactor_;
  const PathSet& paths_;
  DiskSteps& steps_;
  DiskLog& log_;
  Owner& owner_;
  const std::shared_ptr<const ArrayTable> arrays_;
  const std::vector<PathRule> path_weights_;
  PathPolicySettings settings_;
  PathPolicies policies_;
  PathGroups groups_;
  bool measures_latency_ = false;
  bool closed_ = false;
  PathMask group_in_use_ = 0;
  std::uint64_t switches_ = 0;
  PriorityPoll priority_poll_;
  Timer failback_timer_;
  Timer marginal_timer_;
};

}  // namespace iscsi_blkback
