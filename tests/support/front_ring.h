// FrontRing: the frontend's end of one shared ring, good or evil: it says what is odd about the
// backend's answers, and what it puts into the ring is its owner's affair. The memory is the
// guest's, granted to the backend; all of it is written and read by atomic words. One thread.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "blkback/ring/blkif_abi.h"
#include "blkback/ring/copy_once.h"

namespace iscsi_blkback {

class FrontRing {
 public:
  struct Response {
    std::uint64_t id = 0;
    std::uint8_t operation = 0;
    std::int16_t status = 0;
    bool padding_is_clean = true;
  };

  // pages outlive it. start_index: both ends begin there.
  FrontRing(std::span<std::byte> pages, BlkifAbi abi, std::uint32_t start_index = 0)
      : pages_(pages),
        abi_(abi),
        slot_count_(abi == BlkifAbi::x86_32 ? ring_slots<BlkifX86_32>(pages.size())
                                            : ring_slots<BlkifX86_64>(pages.size())),
        produced_(start_index),
        pushed_(start_index),
        consumed_(start_index) {
    store(header().request_producer, start_index);
    store(header().response_producer, start_index);
    store(header().request_event, start_index + 1);
    store(header().response_event, start_index + 1);
  }

  [[nodiscard]] std::span<std::byte> pages() const { return pages_; }
  [[nodiscard]] std::uint32_t slot_count() const { return slot_count_; }
  [[nodiscard]] std::uint32_t produced() const { return produced_; }
  [[nodiscard]] std::uint32_t pushed() const { return pushed_; }
  [[nodiscard]] bool full() const { return produced_ - consumed_ >= slot_count_; }

  // Into the next slot, whatever it holds; not shown before push().
  void put(const BlkifRequest& request) {
    std::byte* slots = pages_.data() + sizeof(SharedRingHeader);
    const std::size_t at = produced_++ & (slot_count_ - 1);
    if (abi_ == BlkifAbi::x86_32) {
      store_request<BlkifX86_32>(slots + at * kSlotBytes<BlkifX86_32>, request);
    } else {
      store_request<BlkifX86_64>(slots + at * kSlotBytes<BlkifX86_64>, request);
    }
  }

  // Shows the new requests. True: the backend wants its doorbell rung.
  [[nodiscard]] bool push() {
    const std::uint32_t previous = pushed_;
    pushed_ = produced_;
    store(header().request_producer, produced_);
    return produced_ - load(header().request_event) < produced_ - previous;
  }

  // Responses that wait; nullopt: more than there are requests.
  [[nodiscard]] std::optional<std::uint32_t> waiting() {
    response_producer_ = load(header().response_producer);
    const std::uint32_t count = response_producer_ - consumed_;
    return count > pushed_ - consumed_ ? std::nullopt : std::optional(count);
  }
  [[nodiscard]] std::uint32_t response_producer() const { return response_producer_; }

  // Only as often as waiting() said.
  [[nodiscard]] Response take() {
    std::byte* slots = pages_.data() + sizeof(SharedRingHeader);
    const std::size_t at = consumed_++ & (slot_count_ - 1);
    if (abi_ == BlkifAbi::x86_32) {
      const auto copy = copy_once<BlkifX86_32::Response>(slots + at * kSlotBytes<BlkifX86_32>);
      return {copy.id, copy.operation, copy.status, copy.padding0 == 0};
    }
    const auto copy = copy_once<BlkifX86_64::Response>(slots + at * kSlotBytes<BlkifX86_64>);
    return {copy.id, copy.operation, copy.status, copy.padding0 == 0 && copy.padding1 == 0};
  }

  // Before going idle: asks for a doorbell at the next response. True: one has come meanwhile.
  [[nodiscard]] bool final_check() {
    store(header().response_event, consumed_ + 1);
    return load(header().response_producer) != consumed_;
  }

  // Evil: the producer's index, whatever is in the slots.
  void set_request_producer(std::uint32_t index) {
    produced_ = pushed_ = index;
    store(header().request_producer, index);
  }

 private:
  [[nodiscard]] SharedRingHeader& header() const {
    return *reinterpret_cast<SharedRingHeader*>(pages_.data());
  }
  static std::uint32_t load(std::uint32_t& shared) {
    return std::atomic_ref(shared).load(std::memory_order_seq_cst);
  }
  static void store(std::uint32_t& shared, std::uint32_t value) {
    std::atomic_ref(shared).store(value, std::memory_order_seq_cst);
  }

  template <class Abi>
  static void store_request(std::byte* slot, const BlkifRequest& request) {
    if (request.operation == kBlkifDiscard) {
      typename Abi::DiscardRequest stored{};
      stored.operation = request.operation;
      stored.flags = request.discard_flags;
      stored.handle = request.handle;
      stored.id = request.id;
      stored.sector = request.sector;
      stored.sector_count = request.discard_sectors;
      store_once(slot, stored);
      return;
    }
    if (request.operation == kBlkifIndirect) {
      typename Abi::IndirectRequest stored{};
      stored.operation = request.operation;
      stored.indirect_operation = request.indirect_operation;
      stored.segment_count = request.segment_count;
      stored.handle = request.handle;
      stored.id = request.id;
      stored.sector = request.sector;
      stored.references = request.indirect_references;
      store_once(slot, stored);
      return;
    }
    typename Abi::Request stored{};
    stored.operation = request.operation;
    stored.segment_count = static_cast<std::uint8_t>(request.segment_count);
    stored.handle = request.handle;
    stored.id = request.id;
    stored.sector = request.sector;
    stored.segments = request.segments;
    store_once(slot, stored);
  }

  std::span<std::byte> pages_;
  BlkifAbi abi_;
  std::uint32_t slot_count_;
  std::uint32_t produced_;  // requests put into the ring
  std::uint32_t pushed_;    // requests shown
  std::uint32_t consumed_;  // responses taken
  std::uint32_t response_producer_ = 0;
};

}  // namespace iscsi_blkback
