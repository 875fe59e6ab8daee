// VbdQueue: the data path of one queue of a guest's disk: its ring, its event channel, its requests in
// flight. Owned by Vbd, which has all of a disk's queues.
// Reactor thread, all of it.
//
// The way of a request: doorbell, or the reactor finds it in the ring before it sleeps -> once per turn: copied out of the ring, parsed, the data of a write
// copied in, submitted to the BlockDevice -> completed -> once per turn: the data of a read copied out,
// responses written, published, one doorbell. All copies of a turn are one (ring_turn.h), for all
// queues of the guest; the descriptors of an indirect request are among them, its data, if it writes,
// come with one more.
//
// What a guest can have under way at a disk is bounded (request_room.h): at that, its rings wait until
// something is answered.
//
// The guest is hostile: nothing of its is looked at twice, no number of its is used unchecked, and
// whatever it does costs only its own disk. A request is answered exactly once, with its own id and
// operation, and its grants are not used after its answer.
//
// A flush with data is a flush and then the write; a barrier waits for all before it and holds all
// behind it, of its queue, and is flushed before it is answered.
//
// A flush is never answered with an error: see flush_retries.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/block_device.h"
#include "base/domain_id.h"
#include "base/latency_histogram.h"
#include "base/log.h"
#include "base/reactor.h"
#include "blkback/ring/back_ring.h"
#include "blkback/ring/doorbell.h"
#include "blkback/ring/event_dispatcher.h"
#include "blkback/ring/flush_retries.h"
#include "blkback/ring/request_buffers.h"
#include "blkback/ring/request_parser.h"
#include "blkback/ring/request_room.h"
#include "blkback/ring/ring_turn.h"
#include "blkback/ring/vbd_request.h"
#include "blkback/xen/grant_table.h"

namespace iscsi_blkback {

// What a frontend asks to be connected to: its own values, unchecked.
struct RingParameters {
  DomainId domain = 0;
  BlkifAbi abi = BlkifAbi::native;
  std::vector<GrantReference> ring_references;  // 1, 2, 4, 8 or 16 pages, in order
  std::uint32_t event_port = 0;                 // the guest's port
  std::uint32_t start_index = 0;                // all before it has been consumed and answered
};

// What limits the messages of a disk's rings. A guest may make a ring after a ring, so that it is
// the disk's, which outlives them.
struct VbdLog {
  LogLimiter refusals;
  LogLimiter errors;
  LogLimiter breaks;
};

struct VbdOptions {
  std::string name;                         // for the log: "xvda of guest 5"
  bool read_only = false;                   // at first; in addition to the device's own
  std::uint32_t max_indirect_segments = 0;  // as offered to the guest; 0: none were
  bool discards = false;                    // offered, where the device has them
  std::uint32_t max_buffers_mb = RequestRoom::kDefaultMebibytes;  // of a Vbd, see RequestRoom
  // Its share of a reactor turn.
  std::uint32_t max_requests_per_turn = 128;
  VbdLog* log = nullptr;        // null: its own
  RequestRoom* room = nullptr;  // of all queues of the disk; null: its own
};

struct VbdStatistics {
  std::uint64_t reads = 0;  // requests of each kind that were submitted
  std::uint64_t writes = 0;
  std::uint64_t flushes = 0;
  std::uint64_t discards = 0;
  std::uint64_t read_sectors = 0;
  std::uint64_t written_sectors = 0;
  std::uint64_t discarded_sectors = 0;
  std::uint64_t refused = 0;  // malformed, or not for this disk
  std::uint64_t errors = 0;   // answered with anything but OKAY, refused included
  // From a request's copy out of the ring to its answer, of those that were submitted; a discard
  // takes as long as it takes.
  LatencyHistogram read_latency;
  LatencyHistogram write_latency;
  LatencyHistogram flush_latency;
  std::uint64_t flush_retries = 0;   // of flushes that the device has failed
  std::uint64_t waits_for_room = 0;  // turns that had to end for want of it (request_room.h)

  void merge(const VbdStatistics& other);
};

class VbdQueue final : private EventDispatcher::Handler,
                       private RingTurn::Part::Work,
                       private MemoryWatch {
 public:
  class Owner {
   public:
    // The guest broke the ring's protocol, or its doorbell cannot be heard any more, or the LUN
    // refuses to write its cache or has lost what was in it. Nothing is consumed from now on;
    // requests in flight are still answered. close() is due.
    virtual void on_queue_broken(VbdQueue& queue, const Error& error) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // Maps the ring and binds the event channel; the error says what was wrong with the guest's
  // values, and nothing stays mapped or bound then. All references outlive the VbdQueue.
  [[nodiscard]] static Result<std::unique_ptr<VbdQueue>> open(Reactor& reactor, RingTurn& turn,
                                                              EventDispatcher& events,
                                                              BlockDevice& device,
                                                              const RingParameters& ring,
                                                              VbdOptions options, Owner& owner);
  ~VbdQueue();  // closed, or never used

  // Consumes nothing any more, answers what is in flight when the device has completed it, then
  // unmaps the ring and unbinds the event channel. on_closed comes once, from the reactor, never
  // from inside close(); the VbdQueue may be deleted there. How long the device takes is its owner's
  // business.
  void close(void (*on_closed)(void* owner) noexcept, void* owner);
  // From now on the guest's memory is not touched and no answer is given: the ring is unmapped and
  // the event channel unbound at once. Requests in flight still end, unseen by the guest; the VbdQueue
  // lives until on_closed. After close().
  void abandon();
  // See Vbd.
  void set_read_only(bool read_only) { options_.read_only = read_only; }

  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
  // Of these, flushes that have failed and are tried again.
  [[nodiscard]] std::uint32_t held_flushes() const { return flush_retries_.held(); }
  [[nodiscard]] const VbdStatistics& statistics() const { return statistics_; }

 private:
  using Slot = VbdRequest;
  using SlotList = VbdRequestList;
  using Step = VbdRequest::Step;
  using Ring = std::variant<std::monostate, BackRing<BlkifX86_64>, BackRing<BlkifX86_32>>;
  enum class State : std::uint8_t { serving, broken, closing, closed };

  VbdQueue(Reactor& reactor, RingTurn& turn, EventDispatcher& events, BlockDevice& device,
           VbdOptions options, Owner& owner);

  [[nodiscard]] Result<void> connect(const RingParameters& ring);
  [[nodiscard]] Result<void> allocate(std::uint32_t slot_count);
  void on_event() noexcept override;
  void on_events_lost(const Error& error) noexcept override;
  void begin_turn() noexcept override;
  void end_turn() noexcept override;
  [[nodiscard]] bool has_work() noexcept override;
  [[nodiscard]] bool ask_to_ring() noexcept override;

  void schedule_consume();
  void consume() noexcept;
  template <class Abi>
  void consume_from(BackRing<Abi>& ring) noexcept;
  [[nodiscard]] bool may_take() { return barrier_ == nullptr && room_.has_room(waiter_); }
  void accept(const BlkifRequest& request, const RequestLimits& limits, TimePoint now) noexcept;
  void parse(Slot& slot, std::span<const BlkifSegment> descriptors, const RequestLimits& limits,
             TimePoint now) noexcept;
  void refuse(Slot& slot, Refusal refusal, TimePoint now) noexcept;
  [[nodiscard]] RequestLimits limits() const;
  void submit_arrived() noexcept;
  void submit_accepted() noexcept;
  void submit(Slot& slot) noexcept;
  void submit_flush(Slot& slot, Step step) noexcept;
  void submit_barrier() noexcept;
  // The request goes on with its next step; false: it was the last.
  [[nodiscard]] bool take_next_step(Slot& slot) noexcept;
  void release(Slot& slot) noexcept;
  void break_ring(Error error) noexcept;

  static void on_request_complete(BlockRequest& request, IoStatus status) noexcept;
  void finish(Slot& slot) noexcept;
  void on_flush_failed(Slot& slot, IoStatus status) noexcept;
  void drop_held_flushes() noexcept;
  // Their data: copied out when end_turn() comes.
  void gather_finished() noexcept;
  void answer_leaving() noexcept;
  template <class Abi>
  void publish(BackRing<Abi>& ring) noexcept;

  void count_answer(const Slot& slot, TimePoint now);
  [[nodiscard]] GrantCopySegment copy_of(GrantCopyDirection direction,
                                         const RequestSegment& segment, std::byte* local) const;
  void add_descriptor_copy(Slot& slot);
  void add_copies(Slot& slot, GrantCopyDirection direction);
  // Fails every slot of the list one of whose segments failed.
  void check_copies(SlotList& slots, BlockOperation operation) noexcept;
  void disconnect();
  void finish_close_when_idle();

  Reactor& reactor_;
  RingTurn& turn_;
  BlockDevice& device_;
  VbdOptions options_;
  Owner& owner_;

  State state_ = State::serving;
  DomainId domain_ = 0;
  std::unique_ptr<MappedGrants> mapped_;
  Ring ring_;
  Doorbell bell_;
  Error broken_because_{ErrorCode::protocol, {}};

  RequestRoom own_room_;
  RequestRoom& room_;
  RequestRoom::Waiter waiter_;
  RequestBuffers buffers_;
  std::vector<Slot> slots_;
  std::vector<Slot*> free_slots_;  // last in, first out: warm buffers first
  SlotList indirect_;              // copied in this turn, their descriptors not yet
  SlotList accepted_;              // copied and parsed in this turn
  SlotList finished_;              // to be answered in the next turn
  SlotList leaving_;               // answered in this turn
  std::uint32_t in_flight_ = 0;    // slots in use
  Slot* barrier_ = nullptr;        // nothing is consumed before it is answered
  bool barrier_waits_ = false;     // for the answers to all before it

  RingTurn::Part part_;
  bool consume_due_ = false;
  Deferred report_broken_;
  Deferred closed_;
  void (*on_closed_)(void* owner) noexcept = nullptr;
  void* on_closed_owner_ = nullptr;

  VbdStatistics statistics_;
  VbdLog own_log_;
  VbdLog& log_;
  FlushRetries flush_retries_;
};

}  // namespace iscsi_blkback
