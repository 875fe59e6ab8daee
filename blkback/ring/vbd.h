// Vbd: the data path of one guest disk: the queues that its frontend offers, one at least, each with a
// ring and an event channel of its own (VbdQueue). They are opened together, break together and are
// closed together. Reactor thread, all of it.
//
// Nothing orders the requests of different queues but their answers: a flush covers what has been
// answered before it was sent, on whichever queue, as SYNCHRONIZE CACHE reaches the whole LUN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "blkback/ring/vbd3_statistics.h"
#include "blkback/ring/vbd_queue.h"

namespace iscsi_blkback {

class Vbd final : private VbdQueue::Owner {
 public:
  class Owner {
   public:
    // Once, for whichever queue comes first: see VbdQueue::Owner. The others are served until
    // close(), which is due.
    virtual void on_vbd_broken(Vbd& vbd, const Error& error) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  // Opens all of them, or none: the error says what was wrong with the guest's values. queues: 1 or
  // more; options: of each, max_requests_per_turn and max_buffers_mb of them together. All references outlive the Vbd.
  [[nodiscard]] static Result<std::unique_ptr<Vbd>> open(Reactor& reactor, RingTurn& turn,
                                                         EventDispatcher& events,
                                                         BlockDevice& device,
                                                         const std::vector<RingParameters>& queues,
                                                         const VbdOptions& options, Owner& owner);

  // See VbdQueue; on_closed comes once, when the last queue is closed, and may delete the Vbd.
  void close(void (*on_closed)(void* owner) noexcept, void* owner);
  void abandon();

  // Of what is taken from the rings from now on; in addition to the device's own.
  void set_read_only(bool read_only);

  // Of all queues together.
  [[nodiscard]] std::uint32_t in_flight() const;
  [[nodiscard]] std::uint32_t held_flushes() const;
  // Of their buffers, in use or not.
  [[nodiscard]] std::size_t resident_bytes() const { return room_.resident_bytes(); }
  [[nodiscard]] VbdStatistics statistics() const;
  [[nodiscard]] Vbd3Statistics vbd3_statistics() const;

 private:
  Vbd(Owner& owner, std::uint32_t max_buffers_mb) : owner_(owner), room_(max_buffers_mb) {}

  void on_queue_broken(VbdQueue& queue, const Error& error) noexcept override;
  void on_queue_closed() noexcept;

  Owner& owner_;
  RequestRoom room_;
  std::vector<std::unique_ptr<VbdQueue>> queues_;
  std::size_t open_ = 0;  // queues that are not closed
  bool broken_ = false;
  void (*on_closed_)(void* owner) noexcept = nullptr;
  void* on_closed_owner_ = nullptr;
};

}  // namespace iscsi_blkback
