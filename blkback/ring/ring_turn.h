// RingTurn: what all queues of a guest do in a turn of the reactor. Each takes what has come in out of its ring and
// gathers what has ended; one grant copy moves the data of all of them; then each submits and answers.
// Owned by GuestDataPlane, one per GrantTable. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/intrusive_list.h"
#include "base/log.h"
#include "base/reactor.h"
#include "blkback/xen/grant_table.h"

namespace iscsi_blkback {

class RingTurn {
 public:
  // A queue's share of the turns; owned by the queue, outlived by the RingTurn.
  class Part : private ListHook<Part> {
   public:
    // What a turn does for it, in this order. It may schedule itself anew in there, for the next turn, and may not go.
    class Work {
     public:
      // What is due; adds the copies that it needs.
      virtual void begin_turn() noexcept = 0;
      // These were made: see copied(). What is added here, as for large requests whose pages are known only now, is
      // made before the turn ends, and end_turn() comes once more.
      virtual void end_turn() noexcept = 0;

     protected:
      ~Work() = default;
    };

    Part(RingTurn& turn, Work& work) : turn_(turn), work_(work) {}
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

    // How many copies it adds in a turn at most, so that a turn allocates nothing. Once.
    void make_room(std::size_t copies);
    // Does nothing when it is scheduled.
    void schedule();

   private:
    friend class RingTurn;
    friend class IntrusiveList<Part>;
    RingTurn& turn_;
    Work& work_;
    std::size_t room_ = 0;
    bool in_turn_ = false;
    bool again_ = false;  // scheduled while it was in a turn
  };

  // Both outlive it.
  RingTurn(Reactor& reactor, GrantTable& grants);
  RingTurn(const RingTurn&) = delete;
  RingTurn& operator=(const RingTurn&) = delete;

  // How many were added so far: the number of the next one, for copied() in the end_turn() that follows.
  [[nodiscard]] std::uint32_t copies() const { return static_cast<std::uint32_t>(wanted_.size()); }
  void add_copy(const GrantCopySegment& segment);
  // Whether so many were all made. Each has its own result (XSA-316).
  [[nodiscard]] bool copied(std::size_t first, std::size_t count) const;

  // For what a queue maps.
  [[nodiscard]] GrantTable& grants() { return grants_; }

 private:
  void run() noexcept;
  void copy() noexcept;

  Reactor& reactor_;
  GrantTable& grants_;
  IntrusiveList<Part> due_;
  std::size_t room_ = 0;                  // of all parts
  std::vector<GrantCopySegment> wanted_;  // room for room_, both of them
  std::vector<GrantCopySegment> copied_;
  Deferred run_;
  LogLimiter log_limiter_;
};

}  // namespace iscsi_blkback
