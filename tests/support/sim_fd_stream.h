// SimFdStream: a stream over a real connected socket on a SimReactor (SimReactor::adopt). What the other
// end sends is seen when the reactor looks at its descriptors. Reactor thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/byte_stream.h"
#include "base/unique_fd.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class SimFdStream final : public ByteStream {
 public:
  SimFdStream(SimReactor& reactor, UniqueFd socket, Owner& owner);
  ~SimFdStream() override;  // after on_closed only

  void send(std::span<const iovec> parts) noexcept override;
  void receive(std::span<const iovec> parts) noexcept override;
  void set_low_water(std::size_t) noexcept override {}
  [[nodiscard]] Duration peer_silence() noexcept override { return Duration::zero(); }
  void reset() noexcept override;

 private:
  enum class State : std::uint8_t { open, closing, closed };

  void schedule(Duration delay, void (SimFdStream::*event)());
  void continue_send();
  void continue_receive();
  void begin_close(Error error);
  void finish_close();

  SimReactor& reactor_;
  UniqueFd socket_;
  Owner& owner_;
  State state_ = State::open;
  std::vector<iovec> sends_;  // what is left of the outstanding send
  std::vector<iovec> receives_;
  std::unique_ptr<FdWatch> watch_;  // while a receive is outstanding
  std::optional<Error> close_error_;
  const std::shared_ptr<void> alive_ = std::make_shared<bool>();  // events may come after this
};

}  // namespace iscsi_blkback
