// NbdServer: serves a BlockDevice to the clients of a unix socket, for the firmware of an HVM guest, whose
// device model (QEMU) is the client: a few connections, each of which harms only itself. While nobody
// connects it is a watched descriptor and nothing else. Owned by OpenDisk. Reactor thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/log.h"
#include "base/reactor.h"
#include "base/unique_fd.h"
#include "blkback/nbd/nbd_connection.h"

namespace iscsi_blkback {

class NbdServer final : private NbdConnection::Owner {
 public:
  // Also those that wait for the device to let go of their requests. QEMU has one.
  static constexpr std::size_t kMaxConnections = 4;
  static constexpr std::chrono::seconds kAcceptRetry{1};

  // listening: from listen_nbd(); not valid: accept() is called instead. name: for the log; discards:
  // see NbdExport::of(). The references outlive it.
  NbdServer(Reactor& reactor, BlockDevice& device, UniqueFd listening, std::string name,
            bool discards);
  ~NbdServer();  // closed, or without a connection
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;

  // False: there are too many connections.
  bool accept(const NbdConnection::MakeStream& make_stream);

  // Whatever the device is: changes are refused from now on, or not any more (NbdExport::read_only).
  void set_read_only(bool read_only) { read_only_ = read_only; }

  enum class End : std::uint8_t {
    // The connections are dropped: what was not answered is sent again to who serves the disk next.
    goes_on,
    // The guest has ended. Its device model, which flushes the disk before it ends, has an error for all that it
    // asks, at once, and kFarewell to leave: a lost connection it would wait for, as long as it may (QEMU's
    // reconnect-delay), with the guest's memory mapped.
    for_good,
  };
  static constexpr std::chrono::seconds kFarewell{5};

  // Accepts nothing any more; on_closed comes once, from the reactor, never from inside close(), when its
  // connections have gone and the device has let go of all their requests.
  void close(End end, void (*on_closed)(void* owner) noexcept, void* owner);

  [[nodiscard]] std::size_t connections() const { return connections_.size(); }

 private:
  [[nodiscard]] NbdExport export_now() const noexcept override;
  void on_connection_over(NbdConnection& connection, const std::string& why) noexcept override;
  void watch();
  void accept_one() noexcept;
  void drop_all();
  void tell_closed() noexcept;

  Reactor& reactor_;
  BlockDevice& device_;
  UniqueFd listening_;
  const std::string name_;
  const bool discards_;
  bool read_only_ = false;
  bool closing_ = false;
  bool ended_ = false;
  void (*on_closed_)(void* owner) noexcept = nullptr;
  void* on_closed_owner_ = nullptr;
  std::unique_ptr<FdWatch> watch_;
  std::vector<std::unique_ptr<NbdConnection>> connections_;
  LogLimiter log_;
  Deferred closed_task_;
  Timer accept_retry_;
  Timer farewell_timer_;
};

}  // namespace iscsi_blkback
