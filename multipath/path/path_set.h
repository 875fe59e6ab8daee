// PathSet: the paths of a disk by their numbers, and which of them may be used for what, as masks.
// The only place where such a mask changes; what follows from a change, MultipathDevice sees to.
// Owned by MultipathDevice. Reactor thread.
//
// A path that is being removed is in no use any more, but keeps its number until nothing needs it.
// A path that takes no more requests, for whatever reason, sends none of those that wait for the
// target's window either: it may lead to another LUN by now. They go elsewhere at once, writes too,
// as nothing of them can be executed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "multipath/path/path.h"
#include "multipath/path/path_load.h"
#include "multipath/path/path_mask.h"

namespace iscsi_blkback {

class PathSet {
 public:
  // The number for one path more, the smallest that none has. The error is a sentence: the disk has
  // the path already, or still, or kMaxPaths of them.
  [[nodiscard]] Result<std::uint32_t> number_for(const Session& session, std::uint16_t lun,
                                                 const std::string& portal_name,
                                                 const std::string& disk_name) const;
  // Only the last of these errors.
  [[nodiscard]] Result<void> has_room(const std::string& disk_name) const;
  // The path that is to be removed. The error is a sentence: the disk has no such path, or no other
  // one.
  [[nodiscard]] Result<Path*> removable(const Session& session, std::uint16_t lun,
                                        const std::string& disk_name) const;
  Path& add(std::unique_ptr<Path> path);  // by Path::index()
  // Takes the path out of use; note_room() is due.
  void retire(Path& path);
  // Its number may be given to another path. Retired, and nothing of it is outstanding.
  void remove(std::uint32_t index);

  // Those in use, in the order in which they were added.
  [[nodiscard]] auto begin() const { return in_use_.begin(); }
  [[nodiscard]] auto end() const { return in_use_.end(); }
  [[nodiscard]] std::size_t size() const { return in_use_.size(); }
  // Those that are being removed, too, by number.
  [[nodiscard]] std::span<Path* const> all() const { return all_; }
  [[nodiscard]] bool contains(std::uint32_t index) const {
    return index < slots_.size() && slots_[index] != nullptr;
  }
  [[nodiscard]] Path& operator[](std::uint32_t index) const { return *slots_[index]; }
  // Of all; nullptr: there is none.
  [[nodiscard]] Path* find(const Session& session, std::uint16_t lun) const;
  [[nodiscard]] bool is_leaving(const Path& path) const { return has(leaving_, path); }

  [[nodiscard]] PathMask up() const { return up_; }        // work, and are not held back
  [[nodiscard]] PathMask ghost() const { return ghost_; }  // may work after an activation
  [[nodiscard]] PathMask leaving() const { return leaving_; }
  // Silent with requests outstanding.
  [[nodiscard]] PathMask suspect() const { return suspect_; }
  [[nodiscard]] PathMask answering() const { return up_ & ~suspect_; }
  // May take a request now: up, not silent while another one is not, with room.
  [[nodiscard]] PathMask able() const { return eligible_; }
  // What is under way on each path, by number; 0 of a number that no path has.
  [[nodiscard]] PathLoads loads() const { return loads_; }
  // For the path that gets this number, to count in.
  [[nodiscard]] PathLoad& load_of(std::uint32_t index) { return loads_[index]; }

  [[nodiscard]] static bool has(PathMask mask, const Path& path) {
    return (mask & path_bit(path.index())) != 0;
  }

  // See Path::withdraw_unsent(); at all.
  void withdraw_unsent();

  // What a path says of itself.
  struct PathFacts {
    PathState state = PathState::pending;
    bool blameless = false;  // it was asked to leave, or not to be used
  };
  // The path's state has changed.
  void note_state(const Path& path);
  void note_state(std::uint32_t index, const PathFacts& facts);
  // What has changed since the last call.
  struct Changes {
    PathMask states = 0;    // of these paths
    PathMask failed = 0;    // were up, and are not because of an error
    bool had_path = false;  // a path was up before
  };
  [[nodiscard]] Changes take_changes() { return std::exchange(changes_, {}); }
  void note_suspect(const Path& path, bool suspect);
  // The room of one path has changed, or that of all.
  void note_room(Path& path);
  void note_room();
  // True: the path has just come out of use.
  bool note_room(std::uint32_t index, bool has_room);
  // Although it may be up, the path is not used, from the next note_state() on; one at a time.
  void hold_back(const Path& path) { held_back_ = path_bit(path.index()); }
  // The path that was held back; nullptr: none was.
  Path* release_held_back();

 private:
  std::array<PathLoad, kMaxPaths> loads_{};
  std::vector<std::unique_ptr<Path>> slots_;  // by number; null: free, for the next one
  std::vector<Path*> in_use_;
  std::vector<Path*> all_;
  Changes changes_;
  PathMask up_ = 0;
  PathMask ghost_ = 0;
  PathMask leaving_ = 0;
  PathMask suspect_ = 0;
  PathMask held_back_ = 0;
  PathMask used_ = 0;      // those of up_ that are not suspect while another one is not
  PathMask eligible_ = 0;  // those of used_ that have room for a request
};

}  // namespace iscsi_blkback
