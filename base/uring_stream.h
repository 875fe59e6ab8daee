// UringStream: a connection on a UringReactor, of TCP or a unix socket's. At most three operations are in
// the kernel at a time: connect or send, receive, cancel. Everything that they point at is a member, so nothing is
// allocated after the stream is made, and the stream stays until all of them have come back. Reactor thread.
//
// Closing, whatever the reason: cancel, wait until every operation has come back, close()
// (this sends RST and drops what was not sent yet), then on_closed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/byte_stream.h"
#include "base/intrusive_list.h"
#include "base/reactor.h"
#include "base/unique_fd.h"
#include "base/uring_reactor.h"

namespace iscsi_blkback {

class UringStream : public ByteStream, public ListHook<UringStream> {
 public:
  UringStream(UringReactor& reactor, const ConnectOptions& options, Owner& owner);
  UringStream(UringReactor& reactor, UniqueFd connected, Owner& owner);
  ~UringStream() override;  // after on_closed only

  void send(std::span<const iovec> parts) noexcept override;
  void receive(std::span<const iovec> parts) noexcept override;
  void set_low_water(std::size_t bytes) noexcept override;
  [[nodiscard]] Duration peer_silence() noexcept override;
  void reset() noexcept override;

  // The interface with this index has lost its link; see LinkWatch::Callback.
  void link_lost(int interface_index) noexcept;

 private:
  enum class State : std::uint8_t {
    connecting,
    open,
    closing,  // on_closed comes when nothing is in the kernel
    closed,
  };

  // The parts that one outstanding send or receive has left.
  struct Transfer {
    UringOperation operation;
    bool in_kernel = false;
    std::array<iovec, kMaxParts> parts;
    std::size_t first = 0;
    std::size_t end = 0;
    std::size_t left_bytes = 0;
    msghdr message{};

    void set(std::span<const iovec> of);
    // Count bytes are done; false: nothing is left.
    bool advance(std::size_t count);
  };

  UringStream(UringReactor& reactor, Owner& owner, const SocketAddress& address);
  Result<void> open_socket(const ConnectOptions& options);
  Result<void> bind_socket(const InterfaceBinding& binding);
  void start_connect();
  void start_send();
  void start_send_at_once();
  void on_connect_done(std::int32_t result) noexcept;
  void on_send_done(std::int32_t result) noexcept;
  void on_receive_done(std::int32_t result) noexcept;
  void begin_close(Error error) noexcept;
  // Every operation that came back while closing ends here.
  void close_if_idle() noexcept;
  void finish_close() noexcept;
  [[nodiscard]] std::string peer() const;
  [[nodiscard]] Error describe(int errno_value) const;

  UringReactor& reactor_;
  Owner& owner_;
  State state_ = State::connecting;
  UniqueFd fd_;
  bool asks_peer_ = false;   // keep-alive is on
  int interface_index_ = 0;  // of the local address, once connected
  SocketAddress address_;  // stable: the kernel reads it when it connects; empty: of an adopted one
  bool connect_in_kernel_ = false;
  bool cancel_in_kernel_ = false;
  UringOperation connect_;
  UringOperation cancel_;
  Transfer send_;
  Transfer receive_;
  TimePoint received_in_turn_{};
  std::size_t low_water_bytes_ = 1;
  std::optional<Error> close_error_;
  Deferred close_task_;
};

}  // namespace iscsi_blkback
