// FakeFrontend: the guest's side of one disk as a library: ring, grants, event channel, and the
// xenstore handshake, in the manner of Linux's xen-blkfront. Unit tests, fuzzers, simulations and
// benches drive the backend through it. One thread (which need not be the backend's).
//
// It is as unforgiving as blkfront: a response that answers nothing, twice, or with another
// operation, that comes while a grant is still mapped, or that runs ahead of the requests, is
// reported to MemFaults. And it can be evil: see the calls at the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "blkback/ring/blkif_abi.h"
#include "tests/support/front_ring.h"
#include "tests/support/mem_xen.h"

namespace iscsi_blkback {

class FakeFrontend {
 public:
  struct Options {
    DomainId domain = 1;
    DomainId backend = 0;
    BlkifAbi abi = BlkifAbi::x86_64;
    std::uint32_t ring_pages = 1;   // 1, 2, 4, 8 or 16; with xenstore: at most that
    std::uint32_t start_index = 0;  // both ends of the ring begin here
    // Requests of more than 11 segments are indirect, of at most so many; with xenstore: at most
    // what the backend offers, which is looked at when it is connected, as blkfront does.
    std::uint32_t indirect_segments = 0;
    // Only for the xenstore handshake.
    std::uint32_t device_id = 51712;  // xvda
    bool write_protocol = true;       // very old guests do not
    bool busy_at_closing = false;     // disk open: answers 5 with 5 and goes on
  };

  // Where a request's data lies in its pages, from 512-byte sector first_sector of each page on.
  struct Layout {
    std::uint8_t first_sector = 0;
    std::uint8_t sectors_per_segment = kSectorsPerPage;
  };

  using RequestId = std::uint64_t;
  struct Completion {
    RequestId id = 0;
    std::uint8_t operation = 0;
    std::int16_t status = 0;
    std::span<const std::byte> data;  // of a read; valid until the next request is made
    std::uint64_t tag = 0;            // what the caller gave with the request
  };

  FakeFrontend(MemXen& xen, Options options);
  ~FakeFrontend();  // the guest's pages must not be mapped any more
  FakeFrontend(const FakeFrontend&) = delete;
  FakeFrontend& operator=(const FakeFrontend&) = delete;

  [[nodiscard]] const Options& options() const { return options_; }

  // --- The ring, without xenstore --------------------------------------------------------------
  void set_up_ring();
  // Takes the ring back; a page that is still mapped is a violation. Unanswered requests are
  // dropped (their number is returned).
  std::size_t tear_down_ring();
  [[nodiscard]] const std::vector<GrantReference>& ring_references() const {
    return ring_references_;
  }
  [[nodiscard]] std::uint32_t event_port() const { return port_; }
  [[nodiscard]] bool has_ring() const { return ring_up_; }
  // How many rings there have been: requests of an earlier one are not answered any more.
  [[nodiscard]] std::uint32_t ring_life() const { return ring_life_; }
  [[nodiscard]] std::uint32_t slot_count() const { return ring_ ? ring_->slot_count() : 0; }
  // Of a request.
  [[nodiscard]] std::uint32_t max_segments() const {
    return std::max<std::uint32_t>(indirect_segments_, kMaxDirectSegments);
  }

  // Called by poll() for every response; without one, completions are kept for take_completion().
  void on_completion(std::function<void(const Completion&)> handler) {
    handler_ = std::move(handler);
  }

  // Put a request into the ring; nullopt: the ring is full. Unseen by the backend until push().
  std::optional<RequestId> read(std::uint64_t sector, std::uint32_t sector_count,
                                std::uint64_t tag = 0);
  std::optional<RequestId> read(std::uint64_t sector, std::uint32_t sector_count, Layout layout,
                                std::uint64_t tag = 0);
  std::optional<RequestId> write(std::uint64_t sector, std::span<const std::byte> data,
                                 std::uint64_t tag = 0);
  std::optional<RequestId> write(std::uint64_t sector, std::span<const std::byte> data,
                                 Layout layout, std::uint64_t tag = 0);
  std::optional<RequestId> flush(std::uint64_t tag = 0);
  // A flush with data, a barrier; empty: without.
  std::optional<RequestId> flush_and_write(std::uint64_t sector, std::span<const std::byte> data);
  std::optional<RequestId> barrier(std::uint64_t sector, std::span<const std::byte> data);
  std::optional<RequestId> discard(std::uint64_t sector, std::uint64_t sector_count,
                                   std::uint64_t tag = 0);
  // Shows the new requests to the backend; rings the doorbell only if the backend asked for it.
  void push();
  // Takes responses, if the doorbell has rung (a guest does not look otherwise). How many.
  std::size_t poll();
  // Readable while the doorbell has rung.
  [[nodiscard]] int event_fd() const { return events_->fd(); }

  [[nodiscard]] std::uint32_t outstanding() const { return outstanding_; }
  [[nodiscard]] std::uint32_t free_slots() const { return slot_count() - outstanding_; }
  struct Answer {
    std::int16_t status = 0;
    std::uint8_t operation = 0;
    std::vector<std::byte> data;
  };
  // The answer to a request, once; nullopt while there is none.
  [[nodiscard]] std::optional<Answer> take_completion(RequestId id);

  // --- xenstore: as the toolstack has prepared it (FakeToolstack) ------------------------------
  // Another queue of the disk, a frontend without a handshake of its own, offered with this one's
  // ring as far as the backend takes more than one. Outlives this; its ring comes and goes with it.
  void add_queue(FakeFrontend& queue) { more_queues_.push_back(&queue); }
  // Queues of the last handshake.
  [[nodiscard]] std::size_t queue_count() const { return queue_count_; }
  // One of them; 0: this one.
  [[nodiscard]] FakeFrontend& queue(std::size_t number) {
    return number == 0 ? *this : *more_queues_[number - 1];
  }
  // The driver starts: watches the backend's state. Nothing happens before step().
  void start();
  // Reacts to what has changed in xenstore since the last step; true if anything had.
  bool step();
  // As after a migration: goes to Initialised at once, without waiting for the backend's InitWait.
  void resume();
  // As a kexec'ed kernel or Windows at boot: Closing, Closed, Initialising, each when the backend
  // has followed; step() does it.
  void restart();
  // As a kernel that crashed into another without a word: Initialising out of any state. The old
  // ring stays until the backend offers InitWait.
  void restart_abruptly();
  void set_busy(bool busy) { options_.busy_at_closing = busy; }
  [[nodiscard]] int state() const { return state_; }  // XenbusState's numbers
  [[nodiscard]] bool connected() const { return state_ == 4; }
  [[nodiscard]] std::uint64_t sectors() const { return sectors_; }
  [[nodiscard]] std::uint32_t sector_size() const { return sector_size_; }
  [[nodiscard]] std::uint32_t physical_sector_size() const { return physical_sector_size_; }
  [[nodiscard]] std::uint32_t info() const { return info_; }
  [[nodiscard]] bool flush_supported() const { return flush_supported_; }
  [[nodiscard]] bool discard_supported() const { return discard_supported_; }
  [[nodiscard]] int fd() const { return store_->fd(); }  // readable: step() has work
  [[nodiscard]] std::string path() const;

  // --- Evil ------------------------------------------------------------------------------------
  // A request as given; id is chosen here (a good frontend's ids are unique) and returned.
  // The segments' references are as given, too.
  std::optional<RequestId> raw(BlkifRequest request);
  // A page that is granted all the time, for raw(); the second is the same page, read-only.
  [[nodiscard]] GrantReference spare_reference() const { return spare_reference_; }
  [[nodiscard]] GrantReference spare_read_only_reference() const { return spare_read_only_; }
  [[nodiscard]] std::span<std::byte> spare_page() const;
  // Where the descriptors of an indirect request are that has been put into the ring.
  [[nodiscard]] std::span<std::byte> descriptor_page(RequestId id) const;
  // Its header and its slots, which the backend may look at any time: written by atomic words only.
  [[nodiscard]] std::span<std::byte> ring_pages() const;
  // Changes one byte of the ring's slots; offset counts from the first slot on and wraps. It may
  // hit a request in flight or a response, so one odd response is tolerated for each call, and that
  // a request is never answered.
  void scribble(std::size_t offset, std::byte value);
  // Sets the producer index, whatever is in the slots, and rings. Odd responses are tolerated.
  void set_request_producer(std::uint32_t index);
  [[nodiscard]] std::uint32_t request_producer() const { return ring_->produced(); }
  void ring_doorbell();
  // Takes back the grants of a request in flight, as a guest that frees its memory too early; false:
  // it has none, or is answered.
  bool revoke_data(RequestId id);
  // The spare page has other references from now on.
  void regrant_spare();

 private:
  struct Slot {
    bool used = false;
    bool data_is_ours = false;  // references were granted here, for this request
    std::uint32_t generation = 0;
    std::uint8_t operation = 0;
    Layout layout;
    std::uint32_t sector_count = 0;
    std::uint64_t tag = 0;
    std::vector<GrantReference> references;  // of its data, and of its descriptors
  };

  // Of a slot: its data, whatever the backend offers, and one for descriptors.
  [[nodiscard]] std::size_t data_pages_per_slot() const {
    return std::max<std::size_t>(options_.indirect_segments, kMaxDirectSegments);
  }
  [[nodiscard]] std::size_t pages_per_slot() const { return data_pages_per_slot() + 1; }
  [[nodiscard]] std::span<std::byte> data_pages(std::uint32_t slot) const;
  [[nodiscard]] std::optional<std::uint32_t> take_slot();
  [[nodiscard]] RequestId id_of(std::uint32_t slot) const;
  RequestId put(std::uint32_t slot, const BlkifRequest& request);
  std::optional<RequestId> empty_request(std::uint8_t operation, std::uint64_t tag);
  std::optional<RequestId> data_request(std::uint8_t operation, std::uint64_t sector,
                                        std::uint32_t sector_count, Layout layout,
                                        std::span<const std::byte> data, std::uint64_t tag);
  void take_response(const FrontRing::Response& response);
  void end_grants(Slot& slot);
  void grant_spare();
  [[nodiscard]] std::span<const std::byte> gather(std::uint32_t slot);
  void violation(const std::string& text);
  void write_state(int state);
  void talk_to_backend();
  void write_queue(XenStoreAccess& at, const std::string& directory) const;
  void tear_down_queues();
  void read_capacity();
  void on_backend_state(int state);

  MemXen& xen_;
  Options options_;
  std::unique_ptr<MemEventChannels> events_;
  std::unique_ptr<GuestMemory> ring_memory_;
  std::unique_ptr<GuestMemory> data_memory_;
  std::vector<GrantReference> ring_references_;
  GrantReference spare_reference_ = 0;
  GrantReference spare_read_only_ = 0;
  LocalPort port_ = 0;
  bool ring_up_ = false;
  std::uint32_t ring_life_ = 0;
  std::optional<FrontRing> ring_;        // of the last life
  std::uint32_t indirect_segments_ = 0;  // that may be used
  std::uint32_t outstanding_ = 0;
  std::uint32_t tolerated_ = 0;  // odd responses after scribbling
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<std::byte> gathered_;
  std::function<void(const Completion&)> handler_;
  std::vector<std::pair<RequestId, Answer>> answers_;

  std::unique_ptr<MemXenStore> store_;
  std::string backend_path_;
  std::vector<FakeFrontend*> more_queues_;
  std::size_t queue_count_ = 1;
  int state_ = 1;
  bool restarting_ = false;
  std::uint64_t sectors_ = 0;
  std::uint32_t sector_size_ = 0;
  std::uint32_t physical_sector_size_ = 0;
  std::uint32_t info_ = 0;
  bool flush_supported_ = false;
  bool discard_supported_ = false;
};

}  // namespace iscsi_blkback
