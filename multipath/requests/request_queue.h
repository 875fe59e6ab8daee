// RequestQueue: a request's way through a disk of several paths: it is brought to a path or waits
// for one, is tried again when a path has lost it or the target has refused it, is kept back while
// it could be overtaken or overtake (write_order.h has the rules), and is answered once.
// Owned by MultipathDevice. Reactor thread; allocates when it is made, and for hedges (hedger.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "multipath/fencing/lun_turn.h"
#include "multipath/fencing/write_fence.h"
#include "multipath/groups/group_controller.h"
#include "multipath/path/disk_log.h"
#include "multipath/path/disk_steps.h"
#include "multipath/path/error_policy.h"
#include "multipath/path/path_set.h"
#include "multipath/requests/discard_limits.h"
#include "multipath/requests/flush_rules.h"
#include "multipath/requests/hedger.h"
#include "multipath/requests/request.h"
#include "multipath/requests/request_pool.h"
#include "multipath/requests/write_order.h"

namespace iscsi_blkback {

class RequestQueue final : private Hedger::Owner {
 public:
  struct Options {
    std::uint32_t most_requests = 1;  // submitted and not completed at once
    bool holds_when_full = true;      // writes that a full LUN refuses; else they fail
  };

  // The others outlive it.
  RequestQueue(Reactor& reactor, const Options& options, PathSet& paths, GroupController& groups,
               WriteFence& fence, LunTurn& turn, DiskSteps& steps, DiskLog& log);

  void submit(BlockRequest& block);
  // What the LUN takes: with one command at most, and whether it is written at all.
  void set_limits(std::uint32_t piece_sectors, const DiscardLimits& discards, bool read_only) {
    piece_sectors_ = piece_sectors;
    discards_ = discards;
    read_only_ = read_only;
  }

  // There may be room on a path for what waits.
  void pump();
  // Something that held requests wait for has happened; each finds out for itself whether it was
  // that.
  void release_held();
  // Path::identity() has been decided anew.
  void on_path_identity(const Path& path);
  // Its number may be given to another path.
  void forget_path(std::uint32_t index);
  // Reads and writes that wait fail; a flush waits on, because its failure would tell the guest
  // that data which it was promised is lost.
  void fail_waiting();
  // All that waits ends with aborted.
  void abort_waiting();
  // Data that the target has acknowledged is lost.
  void note_loss() { flushes_.loss().lost(last_serial_); }
  [[nodiscard]] WriteCacheView& cache() { return flushes_.cache(); }
  [[nodiscard]] Hedger& hedger() { return hedger_; }

  // Nothing but flushes is sent to a path.
  void set_suspended(bool suspended);
  // Nothing is tried again: what waits ends with aborted, what is at a path when that has answered.
  void close();
  [[nodiscard]] bool idle() const { return pool_.idle(); }

  [[nodiscard]] bool waits_for_fence() const { return held_count_ != 0 || withheld_count_ != 0; }
  [[nodiscard]] std::uint32_t queued() const { return queued_count_; }
  [[nodiscard]] std::uint32_t held() const { return held_count_ + withheld_count_; }
  [[nodiscard]] std::uint32_t waiting_for_space() const { return waiting_for_space_; }
  [[nodiscard]] std::uint64_t hedged() const { return hedger_.hedged(); }

  // Switches rules 2 and 3 off, so that the simulation can prove that it notices.
  void disable_hold_of_overlapping_writes() { order_.disable_hold_of_overlapping_writes(); }

 private:
  // Hedger::Owner
  [[nodiscard]] bool has_spare() const override { return pool_.has_spare(); }
  [[nodiscard]] Request& take_spare() override { return pool_.take_spare(); }
  void start(Request& request, BlockRequest& block) override;
  void complete(Request& request, IoStatus status) override;
  void take_out(Request& request) override;
  void answer_early(Request& request) override;
  [[nodiscard]] bool take_buffer(Request& request) override {
    return request.path->session().detach_buffer(request.task);
  }
  void drop_if_silent(Path& path) override;

  void dispatch(Request& request);
  [[nodiscard]] bool keep_back(Request& request);
  [[nodiscard]] bool try_send(Request& request);
  void queue(Request& request);
  void send(Request& request, Path& chosen);
  void on_command_done(Request& request, ErrorClass error);
  void take_answer(Request& request, IoStatus status);
  void send_next_piece(Request& request);
  void as_if_not_sent(Request& request);
  void retry(Request& request, ErrorClass error, const ErrorRule& rule);
  [[nodiscard]] bool take_refused_flush(Request& request);
  void delay(Request& request, Duration time);
  void on_delay_over(Request& request);
  void wait_for_space(Request& request);
  void end_wait_for_space(Request& request, IoStatus status);
  void release_withheld();
  void finish(Request& request, IoStatus status);
  void complete_finished();
  [[nodiscard]] IoStatus status_of_success(const Request& request);
  void release(Request& request);
  void start_waiting();

  Reactor& reactor_;
  const bool holds_when_full_;
  PathSet& paths_;
  GroupController& groups_;
  WriteFence& fence_;
  LunTurn& turn_;
  DiskSteps& steps_;
  DiskLog& log_;
  WriteOrder order_;
  FlushRules flushes_;
  std::uint32_t piece_sectors_ = 0;
  DiscardLimits discards_;
  bool read_only_ = false;
  bool suspended_ = false;
  bool closing_ = false;

  RequestPool pool_;
  IntrusiveList<Request> queued_;
  IntrusiveList<Request> delayed_;
  IntrusiveList<Request> held_;
  IntrusiveList<Request> withheld_;
  IntrusiveList<Request> doubted_;
  IntrusiveList<Request> finished_;
  IntrusiveList<BlockRequest> waiting_for_slot_;
  std::uint64_t last_serial_ = 0;
  std::uint32_t queued_count_ = 0;
  std::uint32_t held_count_ = 0;
  std::uint32_t withheld_count_ = 0;
  std::uint32_t waiting_for_space_ = 0;
  Hedger hedger_;
  Deferred finish_;
};

}  // namespace iscsi_blkback
