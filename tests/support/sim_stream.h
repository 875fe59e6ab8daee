// SimNetwork: TCP between the two ends of a test, on a SimReactor. Both ends are ByteStreams, so a
// scripted target is written like a real server. Deterministic for a seed.
//
// What is modelled, and what may go wrong, per listening address ("link"):
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
//  that
//    left before a reset: how an old write reaches a target late;
//  - TCP_USER_TIMEOUT ends a client's connection with ETIMEDOUT when bytes stay unacknowledged or
//  the
//    connection request stays unanswered for so long.
// Not modelled: half-closed connections, urgent data, loss within a connection that both ends
// survive other than as delay.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class SimConnection;
class SimListener;
class SimNetwork;
struct SimLink;

enum class SimDirection : std::uint8_t { to_server, to_client };

// One end. A client's end obeys ByteStream's rule that only on_closed allows deleting it
// (asserted); a server's end may be deleted at any time, which resets the connection as the death
// of its process would.
class SimStream : public ByteStream {
 public:
  ~SimStream() override;

  void send(std::span<const iovec> parts) noexcept override;
  void receive(std::span<const iovec> parts) noexcept override;
  void set_low_water(std::size_t bytes) noexcept override;
  void reset() noexcept override;

  // Ends the stream in order: what was sent arrives, then the peer sees the end of the stream. No
  // send may be outstanding. Ends in on_closed.
  void finish() noexcept;

  // A server's end: before its first call.
  void set_owner(Owner& owner) { owner_ = &owner; }
  [[nodiscard]] bool closed() const { return state_ == State::closed; }

 private:
  friend class SimConnection;
  friend class SimNetwork;
  enum class State : std::uint8_t {
    connecting,
    open,
    closing,  // on_closed is on its way
    closed,
  };

  SimStream(std::shared_ptr<SimConnection> connection, SimDirection sends, State state)
      : connection_(std::move(connection)), sends_(sends), state_(state) {}

  // What one outstanding operation still has to send, or room to fill.
  struct Operation {
    bool outstanding = false;
    std::vector<iovec> parts;
    std::size_t part = 0;    // the first with something left
    std::size_t offset = 0;  // done of it

    void start(std::span<const iovec> of);
    [[nodiscard]] std::size_t left() const;
    // Calls use(bytes, count) for consecutive pieces of the next count bytes.
    template <class Use>
    void advance(std::size_t count, Use&& use);
  };

  void connected() noexcept;
  void failed(const Error& error) noexcept;  // what a RST or a timeout does to the socket
  void begin_close(const Error& error) noexcept;
  void touch_buffers() noexcept;
  void deliver_closed() noexcept;
  void continue_send() noexcept;
  void continue_receive() noexcept;

  std::shared_ptr<SimConnection> connection_;
  SimDirection sends_;
  State state_;
  Owner* owner_ = nullptr;
  Operation send_;
  Operation receive_;
  std::size_t low_water_bytes_ = 1;
  std::optional<Error> socket_error_;  // seen by the next operation that cannot go on
  Error close_error_{};
};

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
  SimListener(SimLink& link, Owner& owner);
  SimLink& link_;
};

// How much of what is on its way at a reset still arrives before the RST.
enum class SimResetPolicy : std::uint8_t { random, nothing, everything };

class SimNetwork {
 public:
  explicit SimNetwork(SimReactor& reactor);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // One listener an address at a time.
  [[nodiscard]] std::unique_ptr<SimListener> listen(const SocketAddress& address,
                                                    SimListener::Owner& owner);
  [[nodiscard]] std::unique_ptr<ByteStream> connect(const ConnectOptions& options,
                                                    ByteStream::Owner& owner);

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
  SimLink& link(const SocketAddress& address);
  void resume(SimLink& link, Duration at_most);

  SimReactor& reactor_;
  std::map<std::string, std::unique_ptr<SimLink>> links_;  // by address
};

}  // namespace iscsi_blkback
