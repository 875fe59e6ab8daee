// Fuzz target: a guest that does anything to its ring. The bytes are a list of actions of a
// FakeFrontend, good and evil ones mixed, with changes of the ring between push and poll; the disk
// below fails and hangs as they say, and the VbdQueue is closed and opened again. Nothing the guest does
// may crash the backend, leave a grant mapped or a port bound, or answer a request twice
// (FakeFrontend checks every response; MemXen aborts on what it finds).
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "blkback/ring/vbd_queue.h"
#include "tests/fuzz/action_bytes.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/mem_xen.h"
#include "tests/support/memory_disk.h"
#include "tests/support/ring_parameters.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {
namespace {

constexpr std::uint64_t kSectors = 512;
constexpr std::size_t kMaxActions = 400;

class NullLogSink final : public LogSink {
  void write(LogLevel /*level*/, std::string_view /*line*/) noexcept override {}
};

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

class Machine final : public VbdQueue::Owner {
 public:
  explicit Machine(ActionBytes& bytes)
      : bytes_(bytes),
        reactor_(bytes.u8()),
        grants_(xen_.grants().open(0)),
        channels_(xen_.events().open(0)),
        events_(std::in_place, reactor_, *channels_),
        turn_(std::in_place, reactor_, *grants_),
        memory_(reactor_, geometry()),
        disk_(reactor_, memory_),
        frontend_(std::in_place, xen_, frontend_options(bytes)) {
    frontend_->set_up_ring();
    frontend_->on_completion([](const FakeFrontend::Completion&) {});
    disk_.set_plan([this](const BlockRequest&, std::uint64_t) { return plan_; });
    open();
  }

  void run() {
    for (std::size_t i = 0; i < kMaxActions && !bytes_.empty(); ++i) {
      act();
    }
    finish();
  }

  void on_queue_broken(VbdQueue& /*queue*/, const Error& /*error*/) noexcept override {
    broken_ = true;
  }

 private:
  static Geometry geometry() {
    Geometry geometry;
    geometry.sector_count = kSectors;
    geometry.discard_granularity_bytes = kSectorBytes;
    return geometry;
  }

  static FakeFrontend::Options frontend_options(ActionBytes& bytes) {
    FakeFrontend::Options options;
    const std::uint8_t shape = bytes.u8();
    options.abi = (shape & 1) != 0 ? BlkifAbi::x86_32 : BlkifAbi::x86_64;
    options.ring_pages = (shape & 2) != 0 ? 2 : 1;
    options.start_index = (shape & 4) != 0 ? 0U - bytes.u8() : 0;
    options.indirect_segments = (shape & 8) != 0 ? 24 : 0;
    return options;
  }

  void open() {
    VbdOptions options;
    options.name = "fuzzed";
    options.max_requests_per_turn = 16;
    options.max_indirect_segments = frontend_->options().indirect_segments;
    options.discards = options.max_indirect_segments != 0;
    auto opened = VbdQueue::open(reactor_, *turn_, *events_, disk_, ring_parameters(*frontend_),
                                 options, *this);
    require(opened.has_value());
    vbd_ = std::move(*opened);
  }

  void close(bool abandon) {
    vbd_->close([](void* owner) noexcept { static_cast<Machine*>(owner)->vbd_.reset(); }, this);
    if (abandon) {
      vbd_->abandon();
    }
    disk_.release();
    reactor_.run_until_idle();
    require(vbd_ == nullptr);
    require(xen_.grants().mapped_pages() == 0);
    require(xen_.events().bound_ports() == 0);
  }

  void run_some() {
    reactor_.run_for(std::chrono::microseconds(bytes_.u8()));
    frontend_->poll();
  }

  std::uint32_t max_sectors() const { return frontend_->max_segments() * kSectorsPerPage; }

  void act() {
    switch (bytes_.u8() % 16) {
      // One byte a statement where several are used: the order of arguments is the compiler's
      // choice.
      case 0: {
        const std::uint64_t sector = bytes_.u16();
        frontend_->read(sector, 1 + bytes_.u8() % max_sectors());
        break;
      }
      case 1: {
        const std::size_t sectors = 1 + bytes_.u8() % max_sectors();
        const std::vector<std::byte> data(sectors * kSectorBytes, std::byte{bytes_.u8()});
        frontend_->write(bytes_.u16() % (2 * kSectors), data);
        break;
      }
      case 2:
        frontend_->flush();
        break;
      case 3:
        raw();
        break;
      case 4:
      case 5:
        frontend_->push();
        break;
      case 6:
      case 7:
        run_some();
        break;
      case 8: {
        const std::size_t offset = bytes_.u16();
        frontend_->scribble(offset, std::byte{bytes_.u8()});
        hostile_ = true;
        break;
      }
      case 9:
        frontend_->set_request_producer(frontend_->request_producer() + bytes_.u8());
        hostile_ = true;
        break;
      case 10:
        frontend_->ring_doorbell();
        break;
      case 11:
        plan_.kind = static_cast<FaultyDisk::Action::Kind>(bytes_.u8() % 3);
        plan_.status = static_cast<IoStatus>(1 + bytes_.u8() % 9);
        flush_cannot_succeed_ =
            flush_cannot_succeed_ ||
            (plan_.kind == FaultyDisk::Action::Kind::fail &&
             (plan_.status == IoStatus::medium_error || plan_.status == IoStatus::not_supported ||
              plan_.status == IoStatus::write_protected));
        break;
      case 12:
        disk_.release(bytes_.u8());
        break;
      case 13:
        reconnect((bytes_.u8() & 1) != 0);
        break;
      case 14:
        raw_indirect();
        break;
      case 15: {
        // Descriptors, of whichever request.
        const std::size_t offset = bytes_.u16();
        const std::span<std::byte> page = frontend_->descriptor_page(bytes_.u8() % 32U);
        page[offset % page.size()] = std::byte{bytes_.u8()};
        break;
      }
      default:
        break;
    }
  }

  void raw() {
    BlkifRequest request{};
    request.operation = bytes_.u8();
    if ((request.operation & 0x80) == 0) {
      request.operation &= (request.operation & 0x40) == 0 ? 1 : 7;  // mostly reads and writes
    }
    request.discard_sectors = request.operation == kBlkifDiscard ? bytes_.u64() >> 48 : 0;
    request.segment_count = bytes_.u8() % 14;
    request.sector = (bytes_.u8() & 1) != 0 ? bytes_.u64() : bytes_.u16() % kSectors;
    for (std::size_t i = 0; i < kMaxDirectSegments; ++i) {
      const std::uint8_t choice = i < request.segment_count ? bytes_.u8() : std::uint8_t{0};
      request.segments[i].reference = choice < 200   ? frontend_->spare_reference()
                                      : choice < 220 ? frontend_->spare_read_only_reference()
                                                     : choice;
      request.segments[i].first_sector = choice % 9;
      request.segments[i].last_sector = static_cast<std::uint8_t>(choice / 9 % 10);
    }
    frontend_->raw(request);
  }

  void raw_indirect() {
    BlkifRequest request;
    request.operation = kBlkifIndirect;
    request.indirect_operation = bytes_.u8() % 4;
    request.segment_count = (bytes_.u8() & 1) != 0 ? bytes_.u16() : bytes_.u8() % 26;
    request.sector = (bytes_.u8() & 1) != 0 ? bytes_.u64() : bytes_.u16() % kSectors;
    const std::uint8_t choice = bytes_.u8();
    request.indirect_references[0] = choice < 200   ? frontend_->spare_reference()
                                     : choice < 220 ? frontend_->spare_read_only_reference()
                                                    : choice;
    // The spare page describes itself, now and again.
    for (std::size_t i = 0; i < 26; ++i) {
      const std::uint8_t which = bytes_.u8();
      const BlkifSegment segment{which < 200 ? frontend_->spare_reference() : GrantReference{which},
                                 static_cast<std::uint8_t>(which % 9),
                                 static_cast<std::uint8_t>(which / 9 % 10), 0};
      std::memcpy(frontend_->spare_page().data() + i * sizeof(segment), &segment, sizeof(segment));
    }
    frontend_->raw(request);
  }

  void reconnect(bool abandon) {
    close(abandon);
    frontend_->poll();
    frontend_->tear_down_ring();
    frontend_->set_up_ring();
    broken_ = hostile_ = false;
    open();
  }

  void finish() {
    plan_ = FaultyDisk::Action{};
    disk_.release();
    frontend_->push();
    reactor_.run_until_idle();
    reactor_.run_for(std::chrono::seconds(3));  // a flush that has failed is tried again
    frontend_->poll();
    require(memory_.in_flight() == 0);
    // A flush that cannot succeed stops the disk, and is not answered.
    const bool stopped = broken_ && flush_cannot_succeed_;
    require(stopped || vbd_->in_flight() == 0);
    require(hostile_ || stopped || frontend_->outstanding() == 0);
    require(hostile_ || stopped || !broken_);
    close(false);
    frontend_.reset();
  }

  ActionBytes& bytes_;
  MemXen xen_;
  SimReactor reactor_;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<MemEventChannels> channels_;
  std::optional<EventDispatcher> events_;
  std::optional<RingTurn> turn_;
  MemoryDisk memory_;
  bool flush_cannot_succeed_ = false;  // some time
  FaultyDisk disk_;
  std::optional<FakeFrontend> frontend_;
  std::unique_ptr<VbdQueue> vbd_;
  FaultyDisk::Action plan_;
  bool broken_ = false;
  bool hostile_ = false;  // since the last connect: some requests may be lost
};

}  // namespace
}  // namespace iscsi_blkback

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace iscsi_blkback;
  static const bool quiet = (set_log_sink(std::make_unique<NullLogSink>()), true);
  (void)quiet;
  ActionBytes bytes(data, size);
  Machine(bytes).run();
  return 0;
}
