// ContractWorld: a reactor and, for streams, a peer, so that one suite of tests holds for the real
// reactor and for the simulated one. The real one's peer is a plain socket on loopback that the
// test's thread works between turns.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/reactor.h"

namespace iscsi_blkback {

using Bytes = std::vector<std::byte>;

// The other side of one connection, at a fixed listening address. Reads only when told to.
class ContractPeer {
 public:
  enum class End : std::uint8_t { none, end_of_stream, reset };

  virtual ~ContractPeer() = default;
  [[nodiscard]] virtual SocketAddress address() const = 0;
  [[nodiscard]] virtual bool accepted() const = 0;
  virtual void set_reading(bool reading) = 0;
  [[nodiscard]] virtual const Bytes& received() const = 0;
  [[nodiscard]] virtual End end() const = 0;  // as far as it has read
  virtual void send(const Bytes& bytes) = 0;  // a few KiB at most
  virtual void finish() = 0;
  virtual void reset() = 0;
};

class ContractWorld {
 public:
  virtual ~ContractWorld() = default;
  [[nodiscard]] virtual Reactor& reactor() = 0;
  // False: it did not hold within a generous bound.
  [[nodiscard]] virtual bool run_until(const std::function<bool()>& predicate) = 0;
  // Runs until whatever was about to happen has happened.
  virtual void settle() = 0;

  [[nodiscard]] virtual std::unique_ptr<ContractPeer> make_peer() = 0;
  [[nodiscard]] virtual SocketAddress refusing_address() = 0;
  // Never answers a connection request.
  [[nodiscard]] virtual SocketAddress silent_address() = 0;
  // More than all buffers between the two ends hold.
  [[nodiscard]] virtual std::size_t more_than_buffered_bytes() const = 0;
};

struct ContractWorldKind {
  std::string name;
  std::function<std::unique_ptr<ContractWorld>()> make;
};

inline void PrintTo(const ContractWorldKind& kind, std::ostream* out) {
  *out << kind.name;
}

// Uring, UringPlain (without deferred task run), Sim with some seeds.
[[nodiscard]] std::vector<ContractWorldKind> contract_worlds();

}  // namespace iscsi_blkback
