// SimNetwork: TCP between the two ends of a test, on a SimReactor. Both ends are ByteStreams, so a
// scripted target is written like a real server. Deterministic for a seed.
//
// What is modelled, and what may go wrong, per listening address and computer that connects to it
// ("link"; a test that does not say so has one computer):
//  - connecting takes a round trip; bytes arrive in order after the latency plus a seeded jitter;
//  - a send completes when the send buffer has taken its last byte, and the buffer is freed when
//  the
//    peer's kernel has the bytes and the acknowledgement comes back: the peer may stop reading;
//  - receives see the stream cut anywhere (seeded), or at the places a test asks for;
//  - refuse: SYNs are answered with RST. reset_connections: RST to both ends, now;
//  - drop: packets of a direction, acknowledgements and RST too, vanish. Bytes are sent again when
//    the drop ends; what the sender gave up in the meantime (reset, TCP_USER_TIMEOUT) is lost, and
//    the peer may not know for ever;
//  - hold: packets of a direction wait in the network and arrive when it is released, even those
//    that left before a reset: how an old write reaches a target late;
//  - TCP_USER_TIMEOUT ends a client's connection with ETIMEDOUT when bytes stay unacknowledged or
//    the connection request stays unanswered for so long;
//  - a process that dies (client_died) leaves its sockets to the kernel: what has
//    not left is thrown away, and the peer gets RST (SO_LINGER 0, as of all that ByteStream connects).
// Not modelled: half-closed connections, urgent data, loss within a connection that both ends
// survive other than as delay.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_stream.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/sim_stream.h"

namespace iscsi_blkback {

struct SimLink;
class SimConnection;

// Accepts at an address while it lives. Without one connections are refused.
class SimListener {
 public:
  class Owner {
   public:
    // Set the stream's owner before returning. From the reactor.
    virtual void on_accept(std::unique_ptr<SimStream> stream) noexcept = 0;

   protected:
    ~Owner() = default;
  };

  ~SimListener();
  SimListener(const SimListener&) = delete;
  SimListener& operator=(const SimListener&) = delete;

 private:
  friend class SimNetwork;
  SimListener(Owner*& place, Owner& owner);
  Owner*& place_;
};

// How much of what is on its way at a reset still arrives before the RST.
enum class SimResetPolicy : std::uint8_t { random, nothing, everything };

class SimNetwork {
 public:
  // Sees what clients send, in order, when they hand it to the kernel.
  class Tap {
   public:
    virtual void on_client_sends(SimConnection& connection, SimReactor& sender,
                                 std::span<const iovec> parts) = 0;

   protected:
    ~Tap() = default;
  };

  explicit SimNetwork(SimReactor& reactor);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // One listener an address at a time.
  [[nodiscard]] std::unique_ptr<SimListener> listen(const SocketAddress& address,
                                                    SimListener::Owner& owner);
  // from: whose callbacks the stream makes, from the computer that it belongs to.
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner, SimReactor& from);
  // The process whose thread that was has died. Its streams make no callback any more and need not
  // be destroyed.
  void client_died(const SimReactor& thread);
  void set_tap(Tap* tap) { tap_ = tap; }
  [[nodiscard]] Tap* tap() const { return tap_; }

  // What follows is set for the connections of this computer, until another one is chosen.
  void choose_computer(unsigned computer) { computer_ = computer; }
  // Settings and faults of a link; they take effect at once, on existing connections too.
  void set_latency(const SocketAddress& address, Duration one_way, Duration jitter = {});
  void set_buffers(const SocketAddress& address, std::size_t send_bytes, std::size_t receive_bytes);
  // One receive gets at most a random 1..max_bytes. 0: whatever is there (the default).
  void set_split(const SocketAddress& address, SimDirection direction, std::size_t max_bytes);
  // No receive crosses one of these offsets in the connection's stream (for new connections too).
  void set_boundaries(const SocketAddress& address, SimDirection direction,
                      std::vector<std::uint64_t> offsets);
  void set_reset_policy(const SocketAddress& address, SimResetPolicy policy);
  void set_refusing(const SocketAddress& address, bool refusing);
  void set_dropping(const SocketAddress& address, bool dropping);  // both directions
  void set_dropping(const SocketAddress& address, SimDirection direction, bool dropping);
  void set_held(const SocketAddress& address, SimDirection direction, bool held);
  void reset_connections(const SocketAddress& address);

  // Connections whose client's end is connected and not closed or failed.
  [[nodiscard]] std::size_t open_connections(const SocketAddress& address) const;

 private:
  friend class SimConnection;
  using LinkName = std::pair<std::string, unsigned>;  // address and computer
  SimLink& link(const SocketAddress& address) { return link(address, computer_); }
  SimLink& link(const SocketAddress& address, unsigned computer);
  void resume(SimLink& link, Duration at_most);

  SimReactor& reactor_;
  Tap* tap_ = nullptr;
  unsigned computer_ = 0;
  std::uint64_t connections_ = 0;                         // so far
  std::map<std::string, SimListener::Owner*> listeners_;  // by address; null: none now
  std::map<LinkName, std::unique_ptr<SimLink>> links_;
};

}  // namespace iscsi_blkback
