// TcpProxy: stands between an initiator and a target on loopback and does what a bad network does:
// stalls, delays, cuts after a number of bytes, resets, and lets go of stalled bytes later, when
// the initiator has long made a new connection. A thread of its own; every call from any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace iscsi_blkback {

class TcpProxy {
 public:
  enum class Way : std::uint8_t { to_target, to_initiator };
  enum class Ending : std::uint8_t { fin, reset };

  // Listens on a free port of 127.0.0.1 and passes connections on to target_port there.
  [[nodiscard]] static Result<std::unique_ptr<TcpProxy>> start(std::uint16_t target_port);
  ~TcpProxy();  // resets every connection
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  [[nodiscard]] std::uint16_t port() const;

  // The connections of now keep what comes this way, and do not tell that an end has closed, until
  // release(). The sender sees its bytes acknowledged. Later connections are not affected.
  void stall(Way way);
  // What was stalled goes on, as far as its receiver is still there.
  void release();
  // Of every byte both ways, from now on.
  void set_delay(std::chrono::milliseconds delay);
  // The connections of now end when so many more bytes have gone this way.
  void cut_after(Way way, std::uint64_t bytes, Ending ending);
  // RST to both ends of the connections of now.
  void reset();
  // Connections that come are reset at once.
  void set_refusing(bool refusing);

  // Connections that come are passed on to this port.
  void set_target_port(std::uint16_t port);

  [[nodiscard]] std::uint64_t accepted() const;          // connections so far
  [[nodiscard]] std::uint64_t open() const;              // connections of now
  [[nodiscard]] std::uint64_t forwarded(Way way) const;  // bytes so far
  [[nodiscard]] std::uint64_t stalled(Way way) const;    // bytes held back by stall()

 private:
  class Impl;
  explicit TcpProxy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace iscsi_blkback
