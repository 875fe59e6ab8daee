#include "tests/support/sim_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/support/sim_connection.h"

namespace iscsi_blkback {

void SimStream::Operation::start(std::span<const iovec> of) {
  ISCSI_BLKBACK_ASSERT(!outstanding);
  ISCSI_BLKBACK_ASSERT(!of.empty() && of.size() <= kMaxParts);
  parts.assign(of.begin(), of.end());
  part = offset = 0;
  outstanding = true;
  ISCSI_BLKBACK_ASSERT(left() > 0);
}

std::size_t SimStream::Operation::left() const {
  std::size_t total = 0;
  for (std::size_t i = part; i < parts.size(); ++i) {
    total += parts[i].iov_len;
  }
  return total - offset;
}

SimStream::~SimStream() {
  if (state_ == State::closed) {
    return;
  }
  ISCSI_BLKBACK_ASSERT(sends_ == SimDirection::to_client);
  if (state_ == State::open) {
    connection_->send_reset(sends_);
  }
  connection_->sender(sends_) = nullptr;
}

void SimStream::send(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ == State::open) {
    send_.start(parts);
    if (SimNetwork::Tap* tap = connection_->reactor().network().tap();
        tap != nullptr && sends_ == SimDirection::to_server) {
      tap->on_client_sends(*connection_, reactor_, parts);
    }
    connection_->schedule_send(sends_);
  }
}

void SimStream::receive(std::span<const iovec> parts) noexcept {
  ISCSI_BLKBACK_ASSERT(state_ == State::open || state_ == State::closing);
  if (state_ == State::open) {
    receive_.start(parts);
    connection_->schedule_receive(opposite(sends_));
  }
}

void SimStream::set_low_water(std::size_t bytes) noexcept {
  if (state_ == State::open) {
    low_water_bytes_ = bytes;
    if (receive_.outstanding) {
      connection_->schedule_receive(opposite(sends_));
    }
  }
}

// Like Linux's kernel: the peer's confirms what it gets while the link passes, and answers the
// question that is put to it every second after the first call, and not before.
Duration SimStream::peer_silence() noexcept {
  if (state_ != State::open) {
    return Duration::zero();
  }
  const TimePoint now = connection_->reactor().now();
  const SimLink& link = connection_->link();
  const TimePoint reached = link.passes() ? now : link.blocked_since;
  if (!asked_since_) {
    asked_since_ = now;
  } else if (reached > *asked_since_) {
    heard_at_ = std::max(heard_at_, reached - (reached - *asked_since_) % std::chrono::seconds(1));
  }
  return now - heard_at_;
}

void SimStream::note_heard() noexcept {
  if (connection_->link().passes()) {
    heard_at_ = connection_->reactor().now();
  }
}

void SimStream::reset() noexcept {
  if (state_ == State::connecting || state_ == State::open) {
    if (state_ == State::open && !socket_error_) {
      connection_->send_reset(sends_);
    }
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + " was reset by this side"});
  }
}

void SimStream::finish() noexcept {
  if (state_ == State::open) {
    ISCSI_BLKBACK_ASSERT(!send_.outstanding);
    if (!socket_error_) {
      connection_->send_finish(sends_);
    }
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + " was closed by this side"});
  }
}

void SimStream::connected() noexcept {
  if (state_ == State::connecting) {
    state_ = State::open;
    note_heard();
    owner_->on_connected();
  }
}

void SimStream::failed(const Error& error) noexcept {
  if (state_ == State::connecting || (state_ == State::open && send_.outstanding)) {
    begin_close(error);
  } else if (state_ == State::open && !socket_error_) {
    socket_error_ = error;
    note_gone();
    if (receive_.outstanding) {
      connection_->schedule_receive(opposite(sends_));  // which reads what had arrived before
    }
  }
}

void SimStream::note_gone() noexcept {
  if (sends_ == SimDirection::to_server) {
    connection_->note_client_gone();
  }
}

void SimStream::begin_close(const Error& error) noexcept {
  state_ = State::closing;
  note_gone();
  close_error_ = error;
  connection_->forget_received(opposite(sends_));
  connection_->schedule_closed(sends_);
}

// Until on_closed the kernel may still read what is being sent and write what arrives; whoever has
// freed or reused these buffers by now finds out here.
void SimStream::touch_buffers() noexcept {
  if (send_.outstanding) {
    std::byte all{};
    send_.advance(send_.left(), [&all](const std::byte* from, std::size_t size) {
      for (std::size_t i = 0; i < size; ++i) {
        all ^= from[i];
      }
    });
    [[maybe_unused]] static volatile std::byte sink;
    sink = all;
  }
  if (receive_.outstanding) {
    SimRandom& random = connection_->reactor().schedule_random();
    receive_.advance(random.below(receive_.left() + 1),
                     [](std::byte* to, std::size_t size) { std::memset(to, 0xdb, size); });
  }
}

void SimStream::deliver_closed() noexcept {
  touch_buffers();
  state_ = State::closed;
  connection_->sender(sends_) = nullptr;
  const Error error = std::move(close_error_);
  if (owner_ != nullptr) {
    owner_->on_closed(error);  // may delete this
  }
}

void SimStream::continue_send() noexcept {
  if (state_ != State::open || !send_.outstanding) {
    return;
  }
  if (socket_error_) {
    begin_close(*socket_error_);
    return;
  }
  connection_->take(sends_, send_);
  note_heard();
  if (send_.left() == 0) {
    send_.outstanding = false;
    owner_->on_sent();
  }
}

void SimStream::continue_receive() noexcept {
  if (state_ != State::open || !receive_.outstanding ||
      (!socket_error_ && connection_->below(opposite(sends_), low_water_bytes_))) {
    return;
  }
  if (const std::size_t count = connection_->hand_out(opposite(sends_), receive_); count != 0) {
    receive_.outstanding = false;
    note_heard();
    owner_->on_received(count);
  } else if (socket_error_) {
    begin_close(*socket_error_);
  } else if (connection_->end_of_stream(opposite(sends_))) {
    connection_->send_reset(sends_);
    begin_close(Error{ErrorCode::unavailable,
                      "connection to " + connection_->link().name + ": end of stream"});
  }
}

}  // namespace iscsi_blkback
