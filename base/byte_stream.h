// ByteStream: one connection's bytes, in order, both ways; the seam between the iSCSI engine and
// TCP. Real: a socket on the io_uring reactor. In tests: a pair on the simulated reactor that can
// be cut, stalled and split at any byte. All calls and callbacks on the reactor's thread.
//
// Life: Reactor::connect() creates it; on_connected or on_closed follows. (Reactor::adopt() makes one of
// a client that has been accepted: it is connected.) At most one send and one receive are outstanding.
// After on_closed nothing of the stream's is held by the kernel any more (outstanding operations have been
// reaped), so buffers may be reused and the stream be deleted; that is the only callback after which deleting it is allowed. No callback comes from inside a
// call. A process that dies takes along what its kernel has not sent yet: the peer gets RST.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/interface_binding.h"
#include "base/result.h"

namespace iscsi_blkback {

// A numeric address with port; names are resolved before (off the reactor).
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length_bytes = 0;

  // host: a numeric IPv4 or IPv6 address without brackets. Error: invalid_argument, for anything else.
  [[nodiscard]] static Result<SocketAddress> parse(const std::string& host, std::uint16_t port);
  // The host as parse() takes it, with the number of its zone.
  [[nodiscard]] std::string host() const;
  [[nodiscard]] std::uint16_t port() const;
  // "192.0.2.1:3260" or "[2001:db8::1]:3260".
  [[nodiscard]] std::string to_string() const;
  bool operator==(const SocketAddress& other) const;
};

struct ConnectOptions {
  SocketAddress address;
  InterfaceBinding interface_binding;
  std::chrono::milliseconds tcp_user_timeout{10000};
};

class ByteStream {
 public:
  class Owner {
   public:
    virtual void on_connected() noexcept = 0;
    // The whole of what send() was given is in the kernel; its buffers are free again. It may come
    // only when the reactor's next wait ends: who has more to send keeps it from waiting
    // (Deferred).
    virtual void on_sent() noexcept = 0;
    // count bytes (at least 1) have arrived in the buffers that receive() was given.
    virtual void on_received(std::size_t count) noexcept = 0;
    // The last callback. error: why (connection refused, reset by peer, end of stream, reset()
    // ...).
    virtual void on_closed(const Error& error) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  virtual ~ByteStream() = default;

  // Sends all the bytes of all parts, in order. The parts array is copied (at most kMaxParts), the
  // bytes are not: they stay valid and unchanged until on_sent or on_closed.
  virtual void send(std::span<const iovec> parts) noexcept = 0;
  // Receives what is there, at least one byte, into the parts in order.
  virtual void receive(std::span<const iovec> parts) noexcept = 0;
  // From now on a receive, one that is outstanding too, waits until so many bytes are there or the
  // stream ends. It may still complete with fewer. 1 at first.
  virtual void set_low_water(std::size_t bytes) noexcept = 0;
  // For how long the peer's kernel has confirmed nothing: its host is dead or cannot be reached, or
  // there was nothing to confirm. From the first call on the kernel asks it once a second, so that
  // a second later what is said is fresh. A program that does not answer though its kernel does is
  // busy or hangs. A system call; 0 while not connected.
  [[nodiscard]] virtual Duration peer_silence() noexcept = 0;
  // Throws away what the kernel still has to send (linger 0: the peer gets RST) and closes: a
  // command whose bytes are not fully on the wire can never complete afterwards. Ends in on_closed.
  // Allowed at any time, also while connecting, and more than once.
  virtual void reset() noexcept = 0;

  static constexpr std::size_t kMaxParts = 256;
};

}  // namespace iscsi_blkback
