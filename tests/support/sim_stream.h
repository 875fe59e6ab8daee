// SimStream: one end of a simulated TCP connection, made by SimNetwork (sim_network.h). Everything
// happens on its SimReactor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/byte_stream.h"

namespace iscsi_blkback {

class SimConnection;
class SimReactor;

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
  [[nodiscard]] Duration peer_silence() noexcept override;
  void reset() noexcept override;

  // Ends the stream in order: what was sent arrives, then the peer sees the end of the stream. No
  // send may be outstanding. Ends in on_closed.
  void finish() noexcept;

  // A server's end: before its first call.
  void set_owner(Owner& owner) { owner_ = &owner; }
  [[nodiscard]] bool closed() const { return state_ == State::closed; }
  [[nodiscard]] const SimConnection& connection() const { return *connection_; }

 private:
  friend class SimConnection;
  friend class SimNetwork;
  enum class State : std::uint8_t {
    connecting,
    open,
    closing,  // on_closed is on its way
    closed,
  };

  // reactor: which makes the callbacks.
  SimStream(std::shared_ptr<SimConnection> connection, SimDirection sends, State state,
            SimReactor& reactor)
      : connection_(std::move(connection)), reactor_(reactor), sends_(sends), state_(state) {}

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
    void advance(std::size_t count, Use&& use) {
      while (count > 0) {
        const iovec& at = parts[part];
        const std::size_t size = std::min(count, at.iov_len - offset);
        if (size > 0) {
          use(static_cast<std::byte*>(at.iov_base) + offset, size);
        }
        count -= size;
        offset += size;
        if (offset == at.iov_len) {
          ++part;
          offset = 0;
        }
      }
    }
  };

  void connected() noexcept;
  void failed(const Error& error) noexcept;  // what a RST or a timeout does to the socket
  void begin_close(const Error& error) noexcept;
  void note_gone() noexcept;
  void note_heard() noexcept;
  void touch_buffers() noexcept;
  void deliver_closed() noexcept;
  void continue_send() noexcept;
  void continue_receive() noexcept;

  std::shared_ptr<SimConnection> connection_;
  SimReactor& reactor_;
  SimDirection sends_;
  State state_;
  Owner* owner_ = nullptr;
  Operation send_;
  Operation receive_;
  std::size_t low_water_bytes_ = 1;
  std::optional<Error> socket_error_;  // seen by the next operation that cannot go on
  Error close_error_{};
  TimePoint heard_at_{};                  // of the peer's kernel
  std::optional<TimePoint> asked_since_;  // whether it is there, once a second
};

}  // namespace iscsi_blkback
