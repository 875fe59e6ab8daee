// LinkWatch: hears from the kernel (rtnetlink) when a network interface loses its link, so that the
// connections through it end at once instead of waiting for an answer that cannot come. One for
// each reactor, its streams' owner; reactor thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/reactor.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

// The indexes of the interfaces of which these messages of the kernel say that they are down, have
// no carrier or are gone. Only messages about the interface itself (AF_UNSPEC) count: a bridge
// tells of its ports by messages of the same types (AF_BRIDGE), whose RTM_DELLINK means that an
// interface, in good health, has left the bridge. Anything malformed ends the reading.
[[nodiscard]] std::vector<int> links_down(std::span<const std::byte> messages);

// Whether the interface exists, is up and has a carrier now. Asks the kernel, which does not block.
[[nodiscard]] bool has_link(int interface_index);

// The index of the interface that has the local address of a connected socket; 0: none.
[[nodiscard]] int interface_of_socket(int fd);

class LinkWatch {
 public:
  // The interface has lost its link. kAnyInterface: messages of the kernel were lost, and every
  // interface that matters has to be asked for (has_link()).
  using Callback = void (*)(void* owner, int interface_index) noexcept;
  static constexpr int kAnyInterface = 0;

  // Errors: whatever keeps the process from opening such a socket.
  [[nodiscard]] static Result<std::unique_ptr<LinkWatch>> create(Reactor& reactor,
                                                                 Callback callback, void* owner);

 private:
  LinkWatch(UniqueFd socket, Callback callback, void* owner)
      : socket_(std::move(socket)), callback_(callback), owner_(owner) {}
  void on_readable();

  UniqueFd socket_;
  Callback callback_;
  void* owner_;
  std::unique_ptr<FdWatch> watch_;
};

}  // namespace iscsi_blkback
