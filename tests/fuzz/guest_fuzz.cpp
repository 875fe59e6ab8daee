// Fuzz target: a guest that does anything to one of its two disks: to its rings, its requests and their
// memory, its keys in xenstore, between any two turns of the backend and between any two segments of
// a grant copy. The bytes are a list of actions of FakeFrontends against a whole guest's backend, with
// a simulated target. Whatever they are:
//  - nothing crashes or hangs, and a span of virtual time ends;
//  - the other disk's reads and writes are answered, and its data are its own;
//  - each request of an evil disk whose rings and states are in order is answered once, with its
//    operation, and no write and no discard lands where no request ever pointed;
//  - the evil disk works again when its frontend starts anew;
//  - when the guest has gone, so have all grants, ports and sessions.
// In half of the runs rings are written over, too. A guest can then name any page of its own,
// the other disk's included: what becomes of that is its own affair.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blkback/guest/guest_backend.h"
#include "blkback/guest/guest_data_plane.h"
#include "tests/fuzz/action_bytes.h"
#include "tests/support/fake_frontend.h"
#include "tests/support/fake_toolstack.h"
#include "tests/support/mem_xen.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_target.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

constexpr DomainId kGuest = 5;
constexpr std::size_t kMaxActions = 160;
// Of the evil disk. Its requests begin below kEvilSectors and have at most 256 sectors, but for
// those whose slots were written over.
constexpr std::uint64_t kSectors = 4096;
constexpr std::uint64_t kEvilSectors = 1024;
constexpr std::uint64_t kUntouched = 2048;

class NullLogSink final : public LogSink {
  void write(LogLevel /*level*/, std::string_view /*line*/) noexcept override {}
};

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// The disk lines have numbers, so that nobody is asked.
class NoNames final : public AsyncPortalResolver {
 public:
  void resolve(const Portal& /*portal*/, const std::string& /*target*/,
               std::function<void(Result<std::vector<SocketAddress>>)> done) override {
    done(fail(ErrorCode::not_found, "there are no names"));
  }
  void discover(const Portal& /*at*/, const SessionOptions& /*session*/,
                const std::string& /*target*/,
                std::function<void(Result<std::vector<Portal>>)> done) override {
    done(fail(ErrorCode::not_found, "there is no discovery"));
  }
};

constexpr std::array<std::string_view, 14> kKeys = {"ring-ref",
                                                    "ring-ref0",
                                                    "ring-ref1",
                                                    "event-channel",
                                                    "protocol",
                                                    "ring-page-order",
                                                    "queue-0/ring-ref",
                                                    "queue-0/ring-ref0",
                                                    "queue-0/event-channel",
                                                    "queue-1/ring-ref",
                                                    "queue-1/ring-ref0",
                                                    "queue-1/event-channel",
                                                    "multi-queue-num-queues",
                                                    "state"};

class Machine {
 public:
  explicit Machine(ActionBytes& bytes)
      : bytes_(bytes),
        reactor_(bytes.u8()),
        target_(reactor_, target_options()),
        grants_(xen_.grants().open(0)),
        channels_(xen_.events().open(0)) {
    const std::uint8_t shape = bytes_.u8();
    queues_wanted_ = 1U + (shape & 3U);
    options_.domain = kGuest;
    options_.abi = (shape & 4) != 0 ? BlkifAbi::x86_32 : BlkifAbi::x86_64;
    options_.ring_pages = (shape & 8) != 0 ? 2 : 1;
    options_.indirect_segments = (shape & 16) != 0 ? 32 : 0;
    rings_are_written_over_ = (shape & 32) != 0;
    SimLunOptions evil;
    evil.block_count = kSectors;
    evil.thin_provisioned = true;
    target_.add_lun(1, std::make_shared<SimLun>(evil));
    for (std::size_t at = kUntouched * kSectorBytes; at < kSectors * kSectorBytes; ++at) {
      target_.lun(1).medium()[at] = std::byte{0x3c};
    }
    SimLunOptions good;
    good.serial = "SERIAL2";
    good.naa_extension = 2;
    target_.add_lun(2, std::make_shared<SimLun>(good));
    configuration_.initiator_name = "iqn.2026-01.test:host";
    configuration_.max_queues = 4;
    xen_.set_domain(kGuest, DomainStatus{DomainLife::running, {}});
    start();
  }

  void run() {
    for (std::size_t i = 0; i < kMaxActions && !bytes_.empty(); ++i) {
      act();
    }
    finish();
  }

 private:
  static SimTargetOptions target_options() {
    SimTargetOptions options;
    options.name = "iqn.2026-01.test:target";
    options.portals = {SimPortal{SocketAddress::parse("192.0.2.1", 3260).value(), 1}};
    return options;
  }
  static FakeDisk disk(std::uint32_t number) {
    FakeDisk disk;
    disk.guest = kGuest;
    disk.device_id = 51712 + 16 * number;
    disk.virtual_device = number == 0 ? "xvda" : "xvdb";
    disk.params = "aio:iscsi://192.0.2.1/iqn.2026-01.test:target/" + std::to_string(number + 1);
    return disk;
  }

  void start() {
    toolstack_.add(evil_disk_);
    toolstack_.add(good_disk_);
    plane_ = std::make_unique<GuestDataPlane>(reactor_, reactor_, *grants_, *channels_, 0, kGuest);
    domains_ = xen_.open_domain_info();
    backend_ = std::make_unique<GuestBackend>(
        GuestBackend::Environment{reactor_,
                                  [this]() -> Result<std::unique_ptr<XenStore>> {
                                    return std::unique_ptr<XenStore>(xen_.store().connect(0));
                                  },
                                  domains_.get(), *plane_, discovery_},
        configuration_, 0, kGuest, [this] { finished_ = true; });
    require(backend_->start().has_value());
    guest_store_ = xen_.store().connect(kGuest);
    FakeFrontend::Options plain;
    plain.domain = kGuest;
    plain.device_id = good_disk_.device_id;
    good_ = std::make_unique<FakeFrontend>(xen_, plain);
    good_->start();
    boot_evil();
    require(run_until([&] { return evil_->connected() && good_->connected(); }));
  }

  void boot_evil() {
    options_.device_id = evil_disk_.device_id;
    evil_ = std::make_unique<FakeFrontend>(xen_, options_);
    evil_->on_completion([](const FakeFrontend::Completion&) {});
    queues_.clear();
    for (unsigned i = 1; i < queues_wanted_; ++i) {
      queues_.push_back(std::make_unique<FakeFrontend>(xen_, options_));
      queues_.back()->on_completion([](const FakeFrontend::Completion&) {});
      evil_->add_queue(*queues_.back());
    }
    evil_->start();
    evil_runs_ = true;
  }

  // The guest's kernels run, the evil one as far as its frontend is in order.
  void step_guest() {
    good_->step();
    good_->poll();
    if (evil_runs_) {
      evil_->step();
    }
    if (evil_ != nullptr) {
      evil_->poll();
    }
    for (const auto& queue : queues_) {
      queue->poll();
    }
    if (out_of_order_) {
      // Odd responses and pages that are still in use are its own doing.
      (void)xen_.faults().take_violations();
    }
  }
  void run_for(Duration span) {
    const TimePoint end = reactor_.now() + span;
    do {
      step_guest();
      reactor_.run_for(std::min<Duration>(span, 500us));
    } while (reactor_.now() < end);
    step_guest();
  }
  bool run_until(const std::function<bool()>& holds, Duration at_most = 60s) {
    const TimePoint end = reactor_.now() + at_most;
    while (!holds()) {
      if (reactor_.now() >= end) {
        return false;
      }
      step_guest();
      reactor_.run_for(1ms);
    }
    return true;
  }

  FakeFrontend* queue() {
    const std::size_t index = bytes_.u8() % (queues_.size() + 1);
    FakeFrontend& chosen = index == 0 ? *evil_ : *queues_[index - 1];
    return chosen.has_ring() ? &chosen : nullptr;
  }

  void act() {
    const std::uint8_t what = bytes_.u8() % 28;
    if (what < 12) {
      if (FakeFrontend* at = queue()) {
        request(what, *at);
      }
      return;
    }
    switch (what) {
      case 12:
      case 13:
        reactor_.run_for(std::chrono::microseconds(bytes_.u8() * 4));
        break;
      case 14:
        run_for(std::chrono::milliseconds(bytes_.u8() % 32));
        break;
      case 15:
        run_for(std::chrono::milliseconds(bytes_.u8() * 32));
        break;
      case 16:
        out_of_order_ = true;
        write_key("state", std::to_string(bytes_.u8() % 11));
        break;
      case 17:
        bad_key();
        break;
      case 18:
        evil_->restart();
        break;
      case 19:
        // What is unanswered then is the former kernel's.
        out_of_order_ = true;
        evil_->restart_abruptly();
        break;
      case 20:
        evil_->set_busy((bytes_.u8() & 1) != 0);
        break;
      case 21: {
        SimFault fault;
        fault.hold = true;
        fault.execute = (bytes_.u8() & 1) != 0;
        fault.count = 1 + bytes_.u8() % 4;
        fault.matches = [](const SimCommand& command) {
          return command.lun == 1 && (is_read(command) || is_write(command));
        };
        target_.inject(fault);
        break;
      }
      case 22:
        target_.release_held();
        break;
      case 23:
        check_good_disk();
        break;
      case 24:
        between_copies();
        break;
      case 25:
        xen_.grants().before_copied_segment(nullptr);
        break;
      case 26:
        reattach();
        break;
      default:
        run_for(1ms);
        break;
    }
  }

  std::uint64_t sector() { return bytes_.u16() % kEvilSectors; }

  void request(std::uint8_t what, FakeFrontend& at) {
    const auto most = at.max_segments() * kSectorsPerPage;
    switch (what) {
      case 0: {
        const std::uint64_t from = sector();
        at.read(from, 1 + bytes_.u8() % most);
        break;
      }
      case 1: {
        const std::uint64_t from = sector();
        const std::size_t sectors = 1 + bytes_.u8() % most;
        at.write(from, std::vector<std::byte>(sectors * kSectorBytes, std::byte{bytes_.u8()}));
        break;
      }
      case 2:
        at.flush();
        break;
      case 3: {
        const std::uint64_t from = sector();
        at.discard(from, bytes_.u8());
        break;
      }
      case 4: {
        const std::uint64_t from = sector();
        const std::vector<std::byte> data((bytes_.u8() % 9) * kSectorBytes, std::byte{0x77});
        if ((bytes_.u8() & 1) != 0 && !data.empty()) {
          at.flush_and_write(from, data);
        } else {
          at.barrier(from, data);
        }
        break;
      }
      case 5:
        raw(at);
        break;
      case 6:
        raw_indirect(at);
        break;
      case 7:
      case 8:
        at.push();
        break;
      case 9:
        if (rings_are_written_over_) {
          out_of_order_ = true;
          const std::size_t offset = bytes_.u16();
          at.scribble(offset, std::byte{bytes_.u8()});
        } else {
          at.push();
        }
        break;
      case 10:
        if (rings_are_written_over_) {
          out_of_order_ = true;
          const std::uint32_t by = (bytes_.u8() & 1) != 0 ? bytes_.u8() : bytes_.u32();
          at.set_request_producer(at.request_producer() + by);
        } else {
          at.ring_doorbell();
        }
        break;
      default:
        at.ring_doorbell();
        break;
    }
  }

  GrantReference any_reference(const FakeFrontend& at) {
    const std::uint8_t choice = bytes_.u8();
    if (choice < 160) {
      return at.spare_reference();
    }
    if (choice < 190) {
      return at.spare_read_only_reference();
    }
    // Its own ring, or none: no number of the other disk's.
    return choice < 200 && rings_are_written_over_ ? at.ring_references()[0]
                                                   : bytes_.u32() | (1U << 20);
  }

  void raw(FakeFrontend& at) {
    BlkifRequest request;
    const std::uint8_t operation = bytes_.u8();
    request.operation = (operation & 0x40) != 0 ? operation : operation % 7;
    request.indirect_operation = bytes_.u8() % 4;
    request.discard_flags = bytes_.u8() % 3;
    request.discard_sectors = bytes_.u8();
    request.segment_count = bytes_.u8() % 14;
    request.sector = sector();
    for (std::size_t i = 0; i < kMaxDirectSegments; ++i) {
      request.segments[i].reference =
          i < request.segment_count ? any_reference(at) : GrantReference{0};
      const std::uint8_t sectors = bytes_.u8();
      request.segments[i].first_sector = sectors % 9;
      request.segments[i].last_sector = static_cast<std::uint8_t>(sectors / 9 % 10);
    }
    note_own_ring(at, request);
    at.raw(request);
  }

  void raw_indirect(FakeFrontend& at) {
    BlkifRequest request;
    request.operation = kBlkifIndirect;
    request.indirect_operation = bytes_.u8() % 5;
    request.segment_count = (bytes_.u8() & 3) == 0 ? bytes_.u16() : 1 + bytes_.u8() % 33;
    request.sector = sector();
    request.indirect_references[0] = any_reference(at);
    for (std::size_t i = 0; i < 33; ++i) {
      const std::uint8_t which = bytes_.u8();
      const BlkifSegment segment{which < 220 ? at.spare_reference() : which + (1U << 20),
                                 static_cast<std::uint8_t>(which % 9),
                                 static_cast<std::uint8_t>(which / 9 % 10), 0};
      std::memcpy(at.spare_page().data() + i * sizeof(segment), &segment, sizeof(segment));
    }
    note_own_ring(at, request);
    at.raw(request);
  }
  void note_own_ring(const FakeFrontend& at, const BlkifRequest& request) {
    const auto own = [&](GrantReference reference) { return reference == at.ring_references()[0]; };
    bool names_it = own(request.indirect_references[0]);
    for (const BlkifSegment& segment : request.segments) {
      names_it = names_it || own(segment.reference);
    }
    out_of_order_ = out_of_order_ || names_it;
  }

  // Until it is replaced: in front of each segment of each grant copy.
  void between_copies() {
    const std::uint8_t kind = bytes_.u8() % 5;
    SimRandom random(bytes_.u8());
    const bool writes_rings = kind == 1 || kind == 2;
    out_of_order_ = out_of_order_ || (writes_rings && rings_are_written_over_);
    xen_.grants().before_copied_segment([this, kind, random]() mutable {
      FakeFrontend& at = *evil_;
      if (!at.has_ring()) {
        return;
      }
      switch (kind) {
        case 0: {
          // Descriptors and data; of a reference the byte that makes it nobody's.
          const std::span<std::byte> page = random.one_in(2)
                                                ? at.spare_page()
                                                : at.descriptor_page(random.below(at.slot_count()));
          const std::size_t offset = random.below(page.size());
          page[offset % 8 < 3 ? offset / 8 * 8 + 3 : offset] =
              static_cast<std::byte>(random.next());
          break;
        }
        case 1:
          if (rings_are_written_over_) {
            at.scribble(random.below(8192), static_cast<std::byte>(random.next()));
          }
          break;
        case 2:
          if (rings_are_written_over_) {
            at.set_request_producer(at.request_producer() +
                                    static_cast<std::uint32_t>(random.below(3)));
          }
          break;
        case 3:
          at.revoke_data(random.below(at.slot_count()));
          break;
        default:
          at.regrant_spare();
          break;
      }
    });
  }

  void write_key(std::string_view key, std::string_view value) {
    (void)guest_store_->write(evil_disk_.frontend_path() + "/" + std::string(key), value);
  }
  void bad_key() {
    out_of_order_ = true;
    const std::string_view key = kKeys[bytes_.u8() % kKeys.size()];
    switch (bytes_.u8() % 6) {
      case 0:
        (void)guest_store_->remove(evil_disk_.frontend_path() + "/" + std::string(key));
        break;
      case 1:
        write_key(key, std::to_string(bytes_.u32() | (1U << 20)));
        break;
      case 2:
        write_key(key, std::to_string(bytes_.u8() % 8));
        break;
      case 3:
        write_key(key, std::string(bytes_.u8() * 8U, '9'));
        break;
      case 4: {
        const std::array<char, 3> binary = {'1', static_cast<char>(bytes_.u8()), '\0'};
        write_key(key, std::string_view(binary.data(), binary.size()));
        break;
      }
      default:
        if (evil_->has_ring()) {
          write_key(key,
                    std::to_string(key.ends_with("event-channel") ? evil_->event_port()
                                                                  : evil_->ring_references()[0]));
        }
        break;
    }
  }

  void check_good_disk() {
    const std::uint8_t value = bytes_.u8();
    if (!rings_are_written_over_) {
      check_disk(*good_, value);
    }
  }
  void check_disk(FakeFrontend& disk, std::uint8_t value) {
    const std::vector<std::byte> data(8 * kSectorBytes, std::byte{value});
    const auto write = disk.write(64, data);
    require(write.has_value());
    disk.push();
    std::optional<FakeFrontend::Answer> answer;
    const auto answered = [&](FakeFrontend::RequestId id) {
      return run_until([&] { return (answer = disk.take_completion(id)).has_value(); }, 1s);
    };
    require(answered(*write) && answer->status == kBlkifOkay);
    const auto read = disk.read(64, 8);
    require(read.has_value());
    disk.push();
    require(answered(*read) && answer->status == kBlkifOkay && answer->data == data);
  }

  // Whatever state it is in; its keys are gone then.
  void close_evil() {
    xen_.grants().before_copied_segment(nullptr);
    target_.clear_faults();
    target_.release_held();
    evil_runs_ = false;
    write_key("state", "6");
    require(run_until([&] { return toolstack_.backend_state(evil_disk_) == 6; }));
    drop_evil();
    for (const std::string_view key : kKeys) {
      if (key != "state") {
        (void)guest_store_->remove(evil_disk_.frontend_path() + "/" + std::string(key));
      }
    }
  }
  void drop_evil() {
    evil_.reset();
    queues_.clear();
    if (out_of_order_) {
      (void)xen_.faults().take_violations();
    }
    out_of_order_ = false;
  }

  void reattach() {
    toolstack_.request_detach(evil_disk_);
    close_evil();
    toolstack_.remove(evil_disk_);
    toolstack_.add(evil_disk_);
    boot_evil();
  }

  void finish() {
    if (!out_of_order_ && evil_->connected()) {
      xen_.grants().before_copied_segment(nullptr);
      target_.clear_faults();
      target_.release_held();
      evil_->push();
      for (const auto& queue : queues_) {
        if (queue->has_ring()) {
          queue->push();
        }
      }
      run_for(5s);
      require(!evil_->connected() || evil_->outstanding() == 0);
      for (const auto& queue : queues_) {
        require(!evil_->connected() || !queue->has_ring() || queue->outstanding() == 0);
      }
    }
    close_evil();
    write_key("state", "1");
    require(run_until([&] { return toolstack_.backend_state(evil_disk_) == 2; }));
    boot_evil();
    require(run_until([&] { return evil_->connected(); }));
    evil_->on_completion(nullptr);
    check_disk(*evil_, 0x42);
    if (!rings_are_written_over_) {
      check_disk(*good_, 0x17);
      const std::vector<std::byte>& medium = target_.lun(1).medium();
      for (std::size_t at = kUntouched * kSectorBytes; at < medium.size(); ++at) {
        require(medium[at] == std::byte{0x3c});
      }
    }
    // The guest's kernel is no more; its pages stay as long as they are mapped.
    xen_.set_domain(kGuest, DomainStatus{DomainLife::gone, {}});
    require(reactor_.run_until([&] { return finished_; }, 60s));
    require(xen_.grants().mapped_pages() == 0);
    require(xen_.events().bound_ports() == 0);
    require(target_.sessions() == 0);
    require(target_.violations.empty());
    if (rings_are_written_over_) {
      good_.reset();
      (void)xen_.faults().take_violations();
    }
  }

  ActionBytes& bytes_;
  MemXen xen_;
  SimReactor reactor_;
  FakeToolstack toolstack_{xen_};
  SimTarget target_;
  PathDiscovery discovery_{reactor_, std::make_unique<NoNames>()};
  Configuration configuration_;
  std::unique_ptr<GrantTable> grants_;
  std::unique_ptr<EventChannels> channels_;
  std::unique_ptr<DomainInfo> domains_;
  std::unique_ptr<GuestDataPlane> plane_;
  std::unique_ptr<GuestBackend> backend_;
  std::unique_ptr<MemXenStore> guest_store_;
  const FakeDisk evil_disk_ = disk(0);
  const FakeDisk good_disk_ = disk(1);
  FakeFrontend::Options options_;  // of the evil disk's
  unsigned queues_wanted_ = 1;
  bool rings_are_written_over_ = false;
  // Since the evil frontend's last start: its responses and its pages are not what they should be.
  bool out_of_order_ = false;
  std::vector<std::unique_ptr<FakeFrontend>> queues_;  // of the evil disk, but the first
  std::unique_ptr<FakeFrontend> evil_;
  std::unique_ptr<FakeFrontend> good_;
  bool evil_runs_ = false;  // its frontend hears of its backend
  bool finished_ = false;
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
