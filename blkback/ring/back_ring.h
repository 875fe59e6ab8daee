// BackRing: the backend's end of one shared ring. It owns the private indices; the memory belongs
// to the guest, which may write anything there at any time. One thread.
//
// The guest's producer index is checked at one door, poll(): it can never be further ahead of the
// responses than the ring is long. A guest that says otherwise gets a broken ring, for ever;
// clamping would process slots that hold no request (XSA-39).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/result.h"
#include "blkback/ring/blkif_abi.h"
#include "blkback/ring/copy_once.h"

namespace iscsi_blkback {

template <class Abi>
class BackRing {
  using Request = typename Abi::Request;
  using Response = typename Abi::Response;

 public:
  // shared: the mapped ring pages, valid as long as this object. start_index: the index up to which
  // everything has been consumed and answered: 0 for a fresh ring.
  explicit BackRing(std::span<std::byte> shared, std::uint32_t start_index = 0)
      : header_(*reinterpret_cast<SharedRingHeader*>(shared.data())),
        slots_(shared.data() + sizeof(SharedRingHeader)),
        slot_count_(ring_slots<Abi>(shared.size())),
        consumed_(start_index),
        produced_(start_index),
        published_(start_index) {}

  [[nodiscard]] std::uint32_t slot_count() const { return slot_count_; }
  [[nodiscard]] bool broken() const { return broken_; }

  // How many requests wait to be consumed, at most slot_count(). 0 once the ring is broken.
  [[nodiscard]] std::uint32_t poll() {
    if (broken_) {
      return 0;
    }
    // Acquire: the slots' contents were written before the index that announces them.
    known_producer_ = load(header_.request_producer, std::memory_order_acquire);
    if (known_producer_ - produced_ > slot_count_ ||
        known_producer_ - consumed_ > known_producer_ - produced_) {
      broken_ = true;
      return 0;
    }
    return known_producer_ - consumed_;
  }

  // Whether poll() would find something; a look, no more.
  [[nodiscard]] bool has_news() const {
    return !broken_ && load(header_.request_producer, std::memory_order_relaxed) != consumed_;
  }

  // The index that broke the ring, for the log.
  [[nodiscard]] std::uint32_t known_producer() const { return known_producer_; }
  [[nodiscard]] std::uint32_t produced() const { return produced_; }

  // The next request, copied. Only as often as the last poll() said.
  [[nodiscard]] BlkifRequest consume() {
    ISCSI_BLKBACK_ASSERT(!broken_ && consumed_ != known_producer_);
    return request_of<Abi>(copy_once<Request>(slot(consumed_++)));
  }

  // Before going idle: asks for a doorbell at the next request, then looks once more.
  // True: something has come in meanwhile and perhaps without a doorbell; consume again.
  [[nodiscard]] bool final_check() {
    if (broken_) {
      return false;
    }
    // Sequentially consistent, both: the guest stores its producer and then reads request_event; if
    // our load could pass our store, both sides could miss each other's.
    store(header_.request_event, consumed_ + 1, std::memory_order_seq_cst);
    return load(header_.request_producer, std::memory_order_seq_cst) != consumed_;
  }

  // Writes a response into the next slot; the guest does not see it before publish(). The struct
  // starts as zeros: padding must not carry our stack to the guest (XSA-216).
  void put_response(std::uint64_t id, std::uint8_t operation, std::int16_t status) {
    ISCSI_BLKBACK_ASSERT(produced_ != consumed_);  // one response for each consumed request
    Response response{};
    response.id = id;
    response.operation = operation;
    response.status = status;
    store_once(slot(produced_++), response);
  }

  // Shows the guest all responses so far. True: the guest wants its doorbell rung.
  [[nodiscard]] bool publish() {
    const std::uint32_t previous = published_;
    published_ = produced_;
    // Sequentially consistent for the same reason as in final_check(), with the roles exchanged;
    // it is also the release that orders the responses before the index.
    store(header_.response_producer, produced_, std::memory_order_seq_cst);
    const std::uint32_t event = load(header_.response_event, std::memory_order_seq_cst);
    return produced_ - event < produced_ - previous;
  }

 private:
  static std::uint32_t load(std::uint32_t& shared, std::memory_order order) {
    return std::atomic_ref<std::uint32_t>(shared).load(order);
  }
  static void store(std::uint32_t& shared, std::uint32_t value, std::memory_order order) {
    std::atomic_ref<std::uint32_t>(shared).store(value, order);
  }

  [[nodiscard]] std::byte* slot(std::uint32_t index) const {
    return slots_ + (index & (slot_count_ - 1)) * kSlotBytes<Abi>;
  }

  SharedRingHeader& header_;
  std::byte* slots_;
  std::uint32_t slot_count_;
  std::uint32_t consumed_;            // requests copied out of the ring
  std::uint32_t produced_;            // responses written
  std::uint32_t published_;           // responses shown
  std::uint32_t known_producer_ = 0;  // request_producer as of the last poll()
  bool broken_ = false;
};

}  // namespace iscsi_blkback
