#include "blkback/nbd/nbd_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr const char* kNbdLog = "nbd";
// Of a disk; clients can come and go as often as they like.
constexpr LogLimit kNbdLogLimit{.burst = 5, .interval = std::chrono::minutes(1)};

}  // namespace

NbdServer::NbdServer(Reactor& reactor, BlockDevice& device, UniqueFd listening, std::string name,
                     bool discards)
    : reactor_(reactor),
      device_(device),
      listening_(std::move(listening)),
      name_(std::move(name)),
      discards_(discards),
      log_(kNbdLogLimit),
      closed_task_(
          reactor, [](void* self) noexcept { static_cast<NbdServer*>(self)->tell_closed(); }, this),
      accept_retry_(
          reactor, [](void* self) noexcept { static_cast<NbdServer*>(self)->watch(); }, this),
      farewell_timer_(
          reactor, [](void* self) noexcept { static_cast<NbdServer*>(self)->drop_all(); }, this) {
  connections_.reserve(kMaxConnections);
  if (listening_.valid()) {
    watch();
  }
}

NbdServer::~NbdServer() {
  ISCSI_BLKBACK_ASSERT(connections_.empty());
}

void NbdServer::watch() {
  watch_ = reactor_.watch_readable(
      listening_.get(), [](void* self) noexcept { static_cast<NbdServer*>(self)->accept_one(); },
      this);
}

void NbdServer::accept_one() noexcept {
  UniqueFd client(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client.valid()) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The client still waits, and the socket would be readable in every turn.
      watch_.reset();
      accept_retry_.start_after(kAcceptRetry);
    }
    return;
  }
  const bool taken =
      accept([&](ByteStream::Owner& owner) { return reactor_.adopt(std::move(client), owner); });
  if (!taken && !closing_) {
    log_limited(log_, reactor_.now(), LogLevel::warning, kNbdLog,
                "{}: {} clients of its NBD socket at once, one more is sent away", name_,
                kMaxConnections);
  }
}

bool NbdServer::accept(const NbdConnection::MakeStream& make_stream) {
  if (closing_ || connections_.size() == kMaxConnections) {
    return false;
  }
  NbdConnection::Owner& owner = *this;
  connections_.push_back(std::make_unique<NbdConnection>(reactor_, device_, make_stream, owner));
  return true;
}

NbdExport NbdServer::export_now() const noexcept {
  NbdExport disk = NbdExport::of(device_.geometry(), discards_);
  disk.read_only = disk.read_only || read_only_;
  disk.ended = ended_;
  return disk;
}

void NbdServer::on_connection_over(NbdConnection& connection, const std::string& why) noexcept {
  if (!why.empty() && !closing_) {
    log_limited(log_, reactor_.now(), LogLevel::info, kNbdLog,
                "{}: a client of its NBD socket has gone: {}", name_, why);
  }
  std::erase_if(connections_, [&](const auto& one) { return one.get() == &connection; });
  if (closing_ && connections_.empty()) {
    closed_task_.schedule();
  }
}

void NbdServer::close(End end, void (*on_closed)(void* owner) noexcept, void* owner) {
  ISCSI_BLKBACK_ASSERT(!closing_);
  closing_ = true;
  on_closed_ = on_closed;
  on_closed_owner_ = owner;
  watch_.reset();
  accept_retry_.stop();
  if (connections_.empty()) {
    closed_task_.schedule();
  } else if (end == End::for_good) {
    ended_ = true;
    farewell_timer_.start_after(kFarewell);
  } else {
    drop_all();
  }
}

void NbdServer::drop_all() {
  for (const auto& connection : connections_) {
    connection->drop("the disk is being closed");
  }
}

void NbdServer::tell_closed() noexcept {
  on_closed_(on_closed_owner_);  // may delete this
}

}  // namespace iscsi_blkback
