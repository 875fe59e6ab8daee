// The strongest asynchronous loop on stock libiscsi: one thread, epoll, data read into and written
// from the caller's buffers through iovecs, and what callbacks have queued is written at once
// instead of after the next wait.
#include <fmt/format.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "base/unique_fd.h"
#include "bench/client_load.h"

namespace iscsi_blkback {
namespace {

class LibiscsiLoad {
 public:
  explicit LibiscsiLoad(const Workload& workload)
      : workload_(workload),
        meter_(workload),
        place_(workload.lun_bytes, workload.io_bytes),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~LibiscsiLoad() {
    for (const auto& session : sessions_) {
      iscsi_logout_sync(session->context);
      iscsi_destroy_context(session->context);
    }
  }
  LibiscsiLoad(const LibiscsiLoad&) = delete;
  LibiscsiLoad& operator=(const LibiscsiLoad&) = delete;

  Result<ClientResult> run() {
    for (std::uint32_t index = 0; index < workload_.sessions; ++index) {
      if (auto connected = connect(index); !connected) {
        return tl::unexpected(connected.error());
      }
    }
    buffers_.resize(std::size_t{workload_.depth} * workload_.io_bytes, 0x5a);
    ios_ = std::make_unique<Io[]>(workload_.depth);
    meter_.start();
    for (std::uint32_t index = 0; index < workload_.depth; ++index) {
      Io& io = ios_[index];
      io.load = this;
      io.session = sessions_[index % sessions_.size()].get();
      io.vector = {.iov_base = buffers_.data() + std::size_t{index} * workload_.io_bytes,
                   .iov_len = workload_.io_bytes};
      issue(io);
    }
    for (const auto& session : sessions_) {
      service(*session, POLLOUT);
    }
    while (outstanding_ != 0) {
      std::array<epoll_event, 16> events{};
      const int count = epoll_wait(epoll_.get(), events.data(), events.size(), 10000);
      if (count <= 0) {
        return fail(ErrorCode::timed_out, "libiscsi: no answer");
      }
      meter_.wake(0);
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        service(*static_cast<Session*>(event.data.ptr), static_cast<int>(event.events));
      }
    }
    return meter_.result();
  }

 private:
  struct Session {
    iscsi_context* context = nullptr;
    std::uint32_t watched = 0;
  };
  struct Io {
    LibiscsiLoad* load = nullptr;
    Session* session = nullptr;
    scsi_iovec vector{};
    TimePoint started{};
  };

  Result<void> connect(std::uint32_t index) {
    auto session = std::make_unique<Session>();
    session->context = iscsi_create_context("iqn.2026-01.local.iscsi-blkback:bench-libiscsi");
    iscsi_context* context = session->context;
    sessions_.push_back(std::move(session));
    iscsi_set_targetname(context, workload_.target_name.c_str());
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(
        context, workload_.digests ? ISCSI_HEADER_DIGEST_CRC32C : ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_isid_random(context, 0x1000 + index, 0);
    const std::string portal =
        fmt::format("127.0.0.1:{}", workload_.ports[index % workload_.ports.size()]);
    if (iscsi_full_connect_sync(context, portal.c_str(), workload_.lun) != 0) {
      return fail(ErrorCode::unavailable, fmt::format("libiscsi: {}", iscsi_get_error(context)));
    }
    epoll_event event{};
    event.events = sessions_.back()->watched = EPOLLIN;
    event.data.ptr = sessions_.back().get();
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, iscsi_get_fd(context), &event) != 0) {
      return tl::unexpected(system_error("epoll", errno));
    }
    return {};
  }

  void service(Session& session, int events) {
    // poll's and epoll's bits are the same.
    if (iscsi_service(session.context, events) != 0) {
      std::fprintf(stderr, "libiscsi: %s\n", iscsi_get_error(session.context));
      std::exit(1);
    }
    int wanted = iscsi_which_events(session.context);
    if ((wanted & POLLOUT) != 0) {
      iscsi_service(session.context, POLLOUT);
      wanted = iscsi_which_events(session.context);
    }
    if (static_cast<std::uint32_t>(wanted) != session.watched) {
      epoll_event event{};
      event.events = session.watched = static_cast<std::uint32_t>(wanted);
      event.data.ptr = &session;
      epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, iscsi_get_fd(session.context), &event);
    }
  }

  void issue(Io& io) {
    io.started = meter_.now();
    const std::uint64_t block = place_.next() / 512;
    scsi_task* task =
        workload_.write
            ? iscsi_write16_iov_task(io.session->context, workload_.lun, block, nullptr,
                                     workload_.io_bytes, 512, 0, 0, 0, 0, 0, &completed, &io,
                                     &io.vector, 1)
            : iscsi_read16_iov_task(io.session->context, workload_.lun, block, workload_.io_bytes,
                                    512, 0, 0, 0, 0, 0, &completed, &io, &io.vector, 1);
    if (task == nullptr) {
      std::fprintf(stderr, "libiscsi: %s\n", iscsi_get_error(io.session->context));
      std::exit(1);
    }
    ++outstanding_;
  }

  static void completed(iscsi_context*, int status, void* command_data, void* private_data) {
    Io& io = *static_cast<Io*>(private_data);
    LibiscsiLoad& load = *io.load;
    scsi_free_scsi_task(static_cast<scsi_task*>(command_data));
    --load.outstanding_;
    load.meter_.completed(io.started, status == SCSI_STATUS_GOOD);
    if (load.meter_.running()) {
      load.issue(io);
    }
  }

  const Workload& workload_;
  LoadMeter meter_;
  RandomPlace place_;
  UniqueFd epoll_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<unsigned char> buffers_;
  std::unique_ptr<Io[]> ios_;
  std::uint32_t outstanding_ = 0;
};

}  // namespace

Result<ClientResult> run_libiscsi(const Workload& workload) {
  LibiscsiLoad load(workload);
  return load.run();
}

}  // namespace iscsi_blkback
