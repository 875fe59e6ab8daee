// Hedger: what waits at a silent path is asked for once more. While a path is suspect
// (stall_detector.h), other paths take what is new and what waits for room on the connection; and
// the reads and flushes that were sent there are asked for once more elsewhere: which of the two
// is answered first, counts. A write that was sent waits until its path answers or is gone: only
// then is it known what can still become of it.
//
// The rule of the buffers. The guest's buffer belongs to the first command until its connection has
// answered it or is gone. So the second one, the hedge, reads into a buffer of its own. When that
// has arrived first, the session is told to throw away what may still come for the first command;
// from then on nothing reaches the guest's buffer, it takes a copy of the data, and the guest gets
// its answer. If just then the connection is receiving into the guest's buffer, in the middle of a
// PDU, that cannot be taken away from it: unless it goes on in a moment, it is dropped.
//
// A hedge's buffer is needed only until then. So a bounded number of bytes goes through a full
// queue in a few round trips of the other path: what finds no room waits for the next that is
// released.
// Owned by RequestQueue. Reactor thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/request.h"

namespace iscsi_blkback {

class Hedger;

// A read or flush that waits at a silent path, asked for once more: a request of our own, which
// goes the way of any other.
struct Hedge : ListHook<Hedge> {
  explicit Hedge(Hedger& owner) : hedger(owner) {}

  Hedger& hedger;
  BlockRequest block;
  std::unique_ptr<std::byte[]> buffer;
  std::uint64_t first_byte = 0;  // where the buffer begins in the first one's
  Request* original = nullptr;   // null: answered without this hedge
  Request* second = nullptr;     // that asks again; null: not under way any more
  bool succeeded = false;        // and the first one's buffer cannot be had yet
};

class Hedger {
 public:
  class Owner {
   public:
    // A slot for a second request; has_spare(): there is one.
    [[nodiscard]] virtual bool has_spare() const = 0;
    [[nodiscard]] virtual Request& take_spare() = 0;
    virtual void start(Request& second, BlockRequest& block) = 0;
    virtual void complete(Request& request, IoStatus status) = 0;
    // The request waits for a path or for its retry, which it need not any more.
    virtual void take_out(Request& request) = 0;
    // The request has succeeded while its path still has the command: leave() it, and answer.
    virtual void answer_early(Request& request) = 0;
    // Takes the guest's buffer away from the command at its path. False: the path's connection is
    // just receiving into it.
    [[nodiscard]] virtual bool take_buffer(Request& request) = 0;
    // A request has succeeded, but for that buffer: where the path's silence goes on, it has stopped
    // in the middle of the answer, and is dropped.
    virtual void drop_if_silent(Path& path) = 0;

   protected:
    ~Owner() = default;
  };

  // hedges: at once, at most.
  Hedger(std::size_t hedges, const PathSet& paths, DiskSteps& steps, Owner& owner);
  ~Hedger();

  // All that waits at a suspect path is asked for once more, as long as there is a better one.
  void look();
  // A slot of those that has_spare() tells of is free again.
  void on_spare_free() {
    if (wanted_) {
      steps_.due(DiskStep::hedge);
    }
  }
  // Nothing new is asked for twice.
  void pause() { paused_ = true; }
  void resume() { paused_ = false; }

  // The second request has succeeded, but the first one's buffer cannot be had yet.
  [[nodiscard]] static bool has_succeeded(const Request& request) {
    return request.hedge != nullptr && request.hedge->succeeded;
  }
  // The request's command has ended without an answer for the guest: its hedge's counts.
  void leave_to_hedge(Request& request);
  // The request does without its hedge.
  void leave(Request& request);
  // The path's silence goes on: it is dropped if a request that has_succeeded() is there.
  void drop_if_stuck(Path& path);

  [[nodiscard]] std::uint64_t hedged() const { return hedged_; }  // so far

  // Switches the rule of the buffers off, so that the simulation can prove that it notices.
  void disable_rule_of_buffers() { discards_answered_reads_ = false; }

 private:
  // False: there is no room for another one now.
  [[nodiscard]] bool hedge(Request& request);
  void on_complete(Hedge& hedge, IoStatus status);
  [[nodiscard]] bool let_go_of_buffer(Request& request);
  void answer_from(Hedge& hedge);
  void release(Hedge& hedge);

  const PathSet& paths_;
  DiskSteps& steps_;
  Owner& owner_;
  std::deque<Hedge> hedges_;  // never grows
  IntrusiveList<Hedge> free_;
  std::size_t bytes_ = 0;  // in their buffers
  bool wanted_ = false;    // there was no room for one
  bool paused_ = false;
  bool discards_answered_reads_ = true;
  std::uint64_t hedged_ = 0;
};

}  // namespace iscsi_blkback
