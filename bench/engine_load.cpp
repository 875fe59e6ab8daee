// The client on our own engine: sessions and logical units on the io_uring reactor, as the guest's
// process has them.
#include <algorithm>
#include <memory>

#include "base/uring_reactor.h"
#include "bench/client_load.h"
#include "initiator/lun/logical_unit.h"
#include "initiator/session/session.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::seconds kPatience{10};

class EngineLoad {
 public:
  EngineLoad(UringReactor& reactor, const Workload& workload)
      : reactor_(reactor),
        workload_(workload),
        meter_(workload),
        place_(workload.lun_bytes, workload.io_bytes),
        woken_(
            reactor, [](void* self) noexcept { static_cast<EngineLoad*>(self)->asleep_ = true; },
            this) {}

  Result<ClientResult> run() {
    for (std::uint32_t index = 0; index < workload_.sessions; ++index) {
      SessionOptions options;
      options.initiator_name = "iqn.2026-01.local.iscsi-blkback:bench-engine";
      options.target_name = workload_.target_name;
      options.portal =
          SocketAddress::parse("127.0.0.1", workload_.ports[index % workload_.ports.size()])
              .value();
      if (workload_.digests) {
        options.header_digest = options.data_digest = DigestOffer::crc32c;
      }
      options.isid = {0x80, 0, 0, 0, 1, static_cast<std::uint8_t>(index)};
      auto path = std::make_unique<Path>(*this, std::move(options));
      path->session.add_observer(*path);
      path->session.start();
      paths_.push_back(std::move(path));
    }
    const TimePoint patience = reactor_.now() + kPatience;
    const bool up = run_until(patience, [this] {
      return std::all_of(paths_.begin(), paths_.end(),
                         [](const auto& path) { return path->identified; });
    });
    if (up) {
      measure();
    }
    const Error why = paths_.front()->why;
    stop();
    if (!up) {
      return fail(ErrorCode::unavailable, "no session: " + why.message);
    }
    return meter_.result();
  }

 private:
  struct Path final : SessionObserver {
    Path(EngineLoad& owner, SessionOptions options)
        : session(owner.reactor_, std::move(options)),
          unit(owner.reactor_, session, encode_lun(owner.workload_.lun)) {}
    void on_session_up(Session&) noexcept override {
      unit.identify(
          [](void* self, Result<LogicalUnitIdentity> identity) noexcept {
            auto& path = *static_cast<Path*>(self);
            path.identified = identity.has_value();
            if (!identity) {
              path.why = identity.error();
            }
          },
          this);
    }
    void on_session_down(Session&, const Error& error) noexcept override { why = error; }

    Session session;
    LogicalUnit unit;
    bool identified = false;
    bool stopped = false;
    Error why{ErrorCode::timed_out, "no answer"};
  };
  struct Io {
    EngineLoad* load = nullptr;
    Path* path = nullptr;
    ScsiTask task;
    BlockRequest request;
    TimePoint started{};
  };

  template <class Predicate>
  bool run_until(TimePoint patience, Predicate predicate) {
    while (!predicate()) {
      if (reactor_.now() > patience) {
        return false;
      }
      reactor_.run_once(std::chrono::milliseconds(100));
    }
    return true;
  }

  void measure() {
    const std::size_t page = 4096;
    buffers_.resize(std::size_t{workload_.depth} * workload_.io_bytes + page, std::byte{0x5a});
    auto* first = buffers_.data() + page - reinterpret_cast<std::uintptr_t>(buffers_.data()) % page;
    ios_ = std::make_unique<Io[]>(workload_.depth);
    meter_.start();
    for (std::uint32_t index = 0; index < workload_.depth; ++index) {
      Io& io = ios_[index];
      io.load = this;
      io.path = paths_[index % paths_.size()].get();
      io.request.operation = workload_.write ? BlockOperation::write : BlockOperation::read;
      io.request.sector_count = workload_.io_bytes / kSectorBytes;
      io.request.data = first + std::size_t{index} * workload_.io_bytes;
      io.task.owner = &io;
      io.task.on_complete = [](ScsiTask& task) noexcept {
        Io& done = *static_cast<Io*>(task.owner);
        done.load->on_complete(done);
      };
      issue(io);
    }
    reactor_.run();
  }

  void issue(Io& io) {
    io.started = meter_.now();
    io.request.sector = place_.next() / kSectorBytes;
    io.path->unit.prepare_io(io.task, io.request);
    ++outstanding_;
    io.path->session.submit(io.task);
  }

  void on_complete(Io& io) {
    if (asleep_) {
      asleep_ = false;
      meter_.wake(reactor_.kernel_entries());
      woken_.schedule();
    }
    --outstanding_;
    meter_.completed(io.started, io.task.succeeded());
    if (meter_.running()) {
      issue(io);
    } else if (outstanding_ == 0) {
      reactor_.stop();
    }
  }

  void stop() {
    for (const auto& path : paths_) {
      path->unit.cancel_identify();
      path->session.stop([](void* flag) noexcept { *static_cast<bool*>(flag) = true; },
                         &path->stopped);
    }
    while (!std::all_of(paths_.begin(), paths_.end(),
                        [](const auto& path) { return path->stopped; })) {
      reactor_.run_once(std::chrono::milliseconds(100));
    }
    for (const auto& path : paths_) {
      path->session.remove_observer(*path);
    }
    paths_.clear();
  }

  UringReactor& reactor_;
  const Workload& workload_;
  LoadMeter meter_;
  RandomPlace place_;
  Deferred woken_;  // scheduled: the time of this turn is known
  bool asleep_ = true;
  std::vector<std::unique_ptr<Path>> paths_;
  std::vector<std::byte> buffers_;
  std::unique_ptr<Io[]> ios_;
  std::uint32_t outstanding_ = 0;
};

}  // namespace

Result<ClientResult> run_engine(const Workload& workload) {
  auto reactor = UringReactor::create();
  if (!reactor) {
    return tl::unexpected(reactor.error());
  }
  EngineLoad load(**reactor, workload);
  return load.run();
}

}  // namespace iscsi_blkback
