// WriteFence: the writes that a disk has lost and that its target may still execute, and what is
// done so that it cannot: the rules of write_order.h. A login of the lost session, a fence
// session through a sibling portal (NexusFencer), a command of the logical unit (LunFence) or
// quiesce_time fences them. It also looks after the paths' registrations, by which a nexus can be
// fenced. Owned by MultipathDevice. Reactor thread; empty(), endangers() and has_owner() are on
// the way of each write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/reactor.h"
#include "initiator/lun/logical_unit.h"
#include "multipath/fencing/lun_command.h"
#include "multipath/fencing/lun_fence.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/shared_fencing.h"
#include "multipath/fencing/unfenced_writes.h"
#include "multipath/groups/group_controller.h"
#include "multipath/groups/path_activator.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/path_set.h"

namespace iscsi_blkback {

class WriteFence final : private NexusFencer::Client,
                         private RegistrationTable::Client,
                         private LunFence::Owner,
                         private LunCommand::Owner {
 public:
  class Owner {
   public:
    // What the disk's LUN is called.
    [[nodiscard]] virtual const LogicalUnitIdentity& lun() const = 0;
    // Whether a request, or the end of the disk, waits for a fence.
    [[nodiscard]] virtual bool waits_for_fence() const = 0;
    // The path, which is up, may be used again.
    virtual void on_path_released(Path& path) noexcept = 0;
    // After let_go() or withdraw(): nothing of what they gave up is left.
    virtual void on_withdrawn() noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // See MultipathOptions.
  struct Options {
    LunFence::Options lun_fence;
    bool exclusive = false;
    bool shared = false;
    bool redirected_login_fences = false;
    std::size_t most_writes = 1;
  };

  // The others outlive it.
  WriteFence(Reactor& reactor, const Options& options, SharedFencing& fencing, PathSet& paths,
             const GroupController& groups, const PathActivator& activator, LunTurn& turn,
             DiskSteps& steps, DiskLog& log, Owner& owner);
  ~WriteFence() { registrations_.remove(*this); }
  WriteFence(const WriteFence&) = delete;
  WriteFence& operator=(const WriteFence&) = delete;

  [[nodiscard]] PortalGroupFences portal_group_fences() const noexcept override;
  // Whether a trial of the path's portal has shown that none of another path fences for it.
  [[nodiscard]] bool fenced_alone(const Path& path) const;

  // A write has been lost with its connection.
  void lost(const Path& path, std::uint64_t first_sector, std::uint64_t end_sector,
            std::uint64_t owner);
  [[nodiscard]] bool empty() const { return unfenced_.empty(); }
  // See UnfencedWrites.
  [[nodiscard]] const UnfencedWrites& writes() const { return unfenced_; }
  // Rule 5: the answer has to wait, as others write there, too.
  [[nodiscard]] bool withholds(std::uint64_t first_sector, std::uint64_t end_sector,
                               std::uint64_t owner) const {
    return options_.shared && unfenced_.has_copy(first_sector, end_sector, owner);
  }
  // Nothing is sent to a path for a while.
  [[nodiscard]] bool pausing() const { return lun_fence_.pausing(); }
  // LOGICAL UNIT RESET, which ends everybody's commands, is allowed at the LUN now.
  [[nodiscard]] bool may_reset() const noexcept;

  // A session that may fence, and be fenced, is used by a path.
  void add(Session& session) { sessions_.add(session, *this); }
  // A login of the path's session has succeeded; or one of a fence session in its place.
  void on_session_up(Path& path);
  void on_fenced(Session& session, const LoginNexus& nexus,
                 std::uint64_t login_epoch) noexcept override;
  // The path can be used.
  void register_key(Path& path) { lun_command_.register_key(path); }
  // The path is about to leave: a reset that it carries is not waited for.
  void forget_carrier(const Path& path) {
    if (lun_command_.is_carried_by(path)) {
      lun_fence_.give_up_reset();
    }
  }
  // Nothing of the path is to be fenced, or fences, any more.
  [[nodiscard]] bool has_done_with(const Path& path) const {
    return !lun_command_needs(path) && !path.key().registering();
  }
  [[nodiscard]] bool has_lost(const Path& path) const { return unfenced_.has_path(path.index()); }
  // At the end of a path, when nothing of it is left to be fenced. False: DiskSteps hears when.
  [[nodiscard]] bool key_unregistered(Path& path);
  // Takes one add() back. True: nothing of it is left; false: on_withdrawn() follows.
  [[nodiscard]] bool let_go(Session& session) { return sessions_.remove(session, *this); }

  // The disk knows its LUN, or its policies have changed.
  void set_known() { known_ = true; }
  void look_for_trials_soon() { sessions_.look_for_trials_soon(); }
  void suspend();
  void resume();
  void close();
  // A command is outstanding that cannot be given up.
  [[nodiscard]] bool must_be_awaited() const { return lun_fence_.must_be_awaited(); }
  // Forgets all. True: nothing is left; false: on_withdrawn() follows.
  [[nodiscard]] bool withdraw();

 private:
  // NexusFencer::Client; see also on_fenced()
  void on_withdrawn() noexcept override { owner_.on_withdrawn(); }
  [[nodiscard]] bool redirected_login_fences() const noexcept override {
    return options_.redirected_login_fences;
  }
  [[nodiscard]] bool wants_trials() const noexcept override {
    return portal_group_fences() == PortalGroupFences::trial && known_ && !suspended_ && !closing_;
  }
  [[nodiscard]] bool refuses_reset(const std::string& wwid, const std::string& target_name,
                                   std::uint16_t lun) const noexcept override;
  // RegistrationTable::Client
  [[nodiscard]] bool needs_key(const Session& session, std::uint16_t lun) const noexcept override;
  void on_key_taken_back(const Session& session, std::uint16_t lun) noexcept override;
  // LunFence::Owner
  [[nodiscard]] bool fence_is_wanted() const override { return owner_.waits_for_fence(); }
  void on_lun_fenced() noexcept override { after_fencing(); }
  // LunCommand::Owner
  [[nodiscard]] bool is_one_target() const override {
    return portal_group_fences() == PortalGroupFences::yes;
  }
  void on_path_released(Path& path) noexcept override { owner_.on_path_released(path); }
  void on_answered(bool done, const char* how) noexcept override {
    lun_fence_.on_answered(done, how);
  }

  // The path carries it, or what it ends is the path's.
  [[nodiscard]] bool lun_command_needs(const Path& path) const {
    return (lun_fence_.under_way() && lun_command_.is_carried_by(path)) ||
           (lun_fence_.must_be_awaited() && lun_command_.ends_commands_of(path));
  }
  void on_timer();
  void start_timer();
  void tell_others();
  void after_fencing();

  Reactor& reactor_;
  const Options options_;
  NexusFencer& sessions_;
  RegistrationTable& registrations_;
  PathSet& paths_;
  const GroupController& groups_;
  LunTurn& turn_;
  DiskSteps& steps_;
  Owner& owner_;
  UnfencedWrites unfenced_;
  UnfencedWrites::Whereabouts told_;  // to others
  TimePoint unfenced_until_{};        // by then the last lost write is harmless, too
  Timer timer_;
  LunCommand lun_command_;
  LunFence lun_fence_;
  bool known_ = false;
  bool suspended_ = false;
  bool closing_ = false;
  bool withdrawn_ = false;
};

}  // namespace iscsi_blkback
