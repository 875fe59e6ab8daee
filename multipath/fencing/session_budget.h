// SessionBudget: how many sessions a reactor may have at a time, whatever they are for, because a
// SAN bounds them. SessionPool takes from it for the sessions of paths, NexusFencer and
// PredecessorFence for those that fence, PortalGroupTrial for its two. Part of SharedFencing.
// Reactor thread.
//
// No fence is starved by sessions of paths, of which there may be as many as the budget allows, nor
// by other fences, of which there may be one for each of those when a switch fails:
//  - kFenceReserve of the budget is for sessions that fence, and for nothing else;
//  - fences may have all that is free beside that; when nothing is, they stand in a line, and while
//    they do, nothing else is given;
//  - a session that fences lives for some seconds (its timeouts), and its end serves the line.
// So a fence waits at most for the tries that stand before it, kFenceReserve at a time.
#pragma once

#include <cstddef>
#include <vector>

namespace iscsi_blkback {

class FenceTurn;

class SessionBudget {
 public:
  static constexpr std::size_t kMaxSessions = 288;
  static constexpr std::size_t kFenceReserve = 32;

  SessionBudget() = default;
  ~SessionBudget();  // nothing is taken
  SessionBudget(const SessionBudget&) = delete;
  SessionBudget& operator=(const SessionBudget&) = delete;

  // For sessions that do not fence: all of them, or none and false.
  [[nodiscard]] bool take(std::size_t sessions);
  void give_back(std::size_t sessions);

  [[nodiscard]] std::size_t taken() const { return others_ + fences_; }

 private:
  friend class FenceTurn;
  void serve_line();

  std::size_t others_ = 0;  // that do not fence
  std::size_t fences_ = 0;
  std::vector<FenceTurn*> line_;
  bool serving_ = false;
};

// The right to have one session that fences. A member of who has the session.
class FenceTurn {
 public:
  // on_turn is called from the give_back() of somebody else, with the turn taken.
  FenceTurn(SessionBudget& budget, void (*on_turn)(void* owner) noexcept, void* owner)
      : budget_(budget), on_turn_(on_turn), owner_(owner) {}
  ~FenceTurn() { give_back(); }
  FenceTurn(const FenceTurn&) = delete;
  FenceTurn& operator=(const FenceTurn&) = delete;

  // True: it is taken, perhaps already. False: it stands in the line, and on_turn follows.
  [[nodiscard]] bool take();
  // Or leaves the line.
  void give_back();

 private:
  friend class SessionBudget;

  SessionBudget& budget_;
  void (*on_turn_)(void* owner) noexcept;
  void* owner_;
  bool taken_ = false;
  bool waits_ = false;  // in the line
};

}  // namespace iscsi_blkback
