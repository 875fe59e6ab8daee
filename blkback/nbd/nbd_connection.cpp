#include "blkback/nbd/nbd_connection.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kArenaBytes = NbdConnection::kRequests * kMaxNbdRequestBytes;

}  // namespace

NbdConnection::NbdConnection(Reactor& reactor, BlockDevice& device, const MakeStream& make_stream,
                             Owner& owner)
    : device_(device),
      owner_(owner),
      stream_(make_stream(*this)),
      send_task_(
          reactor, [](void* self) noexcept { static_cast<NbdConnection*>(self)->send_replies(); },
          this),
      over_task_(
          reactor,
          [](void* self) noexcept {
            auto& connection = *static_cast<NbdConnection*>(self);
            connection.owner_.on_connection_over(connection, connection.why_);  // may delete it
          },
          this),
      handshake_timer_(
          reactor,
          [](void* self) noexcept {
            static_cast<NbdConnection*>(self)->drop("it has not finished its handshake in time");
          },
          this) {
  handshake_timer_.start_after(kHandshakeTimeout);
  send_handshake(greeting_.data(), greeting_.size());
  expect(State::client_flags, header_.data(), NbdClientFlags::kBytes);
}

NbdConnection::~NbdConnection() {
  ISCSI_BLKBACK_ASSERT(stream_closed_ && submitted_ == 0);
  while (free_.pop_front() != nullptr) {
  }
  if (arena_ != nullptr) {
    munmap(arena_, kArenaBytes);
  }
}

void NbdConnection::drop(std::string why) noexcept {
  if (state_ != State::dropped) {
    state_ = State::dropped;
    why_ = std::move(why);
    handshake_timer_.stop();
    stream_->reset();
  }
}

// ---- receiving ----

void NbdConnection::expect(State state, std::byte* into, std::size_t bytes) noexcept {
  state_ = state;
  into_ = into;
  left_bytes_ = bytes;
  receive();
}

void NbdConnection::receive() noexcept {
  const iovec part{into_, left_bytes_};
  stream_->receive({&part, 1});
}

void NbdConnection::on_received(std::size_t count) noexcept {
  if (state_ == State::dropped) {
    return;
  }
  into_ += count;
  left_bytes_ -= count;
  if (left_bytes_ > 0) {
    receive();
  } else {
    take();
  }
}

void NbdConnection::take() noexcept {
  switch (state_) {
    case State::client_flags: {
      const auto flags = NbdClientFlags::parse(std::span(header_).first<NbdClientFlags::kBytes>());
      if (!flags) {
        drop("it has flags that it was not offered");
        return;
      }
      client_ = *flags;
      expect(State::option, header_.data(), NbdOption::kBytes);
      return;
    }
    case State::option:
      take_option_header();
      return;
    case State::option_data:
      take_option();
      return;
    case State::request:
      take_request();
      return;
    case State::payload:
      submit(*std::exchange(arriving_, nullptr));
      expect_request();
      return;
    case State::refused_payload:
      take_refused_payload();
      return;
    case State::answering:
    case State::full:
    case State::leaving:
    case State::dropped:
      return;  // nothing is expected then
  }
}

// ---- the handshake ----

void NbdConnection::take_option_header() noexcept {
  const auto option = NbdOption::parse(std::span(header_).first<NbdOption::kBytes>());
  if (!option) {
    drop("what it sends is no NBD option");
    return;
  }
  option_ = *option;
  option_data_.resize(option_.data_bytes);
  if (option_data_.empty()) {
    take_option();
  } else {
    expect(State::option_data, option_data_.data(), option_data_.size());
  }
}

void NbdConnection::take_option() noexcept {
  answer_ = answer_nbd_option(option_, option_data_, client_, owner_.export_now());
  if (answer_.next == NbdAnswer::Next::drop) {
    drop("it asks for a disk that is not here");
    return;
  }
  state_ = State::answering;
  answer_due_ = true;
  if (!send_outstanding_) {  // the greeting may still be on its way
    continue_answer();
  }
}

void NbdConnection::continue_answer() noexcept {
  if (std::exchange(answer_due_, false)) {
    send_handshake(answer_.bytes.data(), answer_.bytes.size());
    return;
  }
  switch (answer_.next) {
    case NbdAnswer::Next::option:
      expect(State::option, header_.data(), NbdOption::kBytes);
      return;
    case NbdAnswer::Next::transmission:
      begin_transmission();
      return;
    case NbdAnswer::Next::end:
    case NbdAnswer::Next::drop:
      drop({});
      return;
  }
}

void NbdConnection::send_handshake(const std::byte* bytes, std::size_t count) noexcept {
  send_outstanding_ = true;
  const iovec part{const_cast<std::byte*>(bytes), count};  // which send() does not change
  stream_->send({&part, 1});
}

void NbdConnection::begin_transmission() noexcept {
  void* arena = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) {
    drop("there is no memory for its requests");
    return;
  }
  (void)madvise(arena, kArenaBytes, MADV_DONTDUMP);  // it holds the guest's data
  (void)madvise(arena, kArenaBytes, MADV_NOHUGEPAGE);
  arena_ = static_cast<std::byte*>(arena);
  handshake_timer_.stop();
  option_data_ = {};
  answer_ = {};
  slots_ = std::vector<Slot>(kRequests);
  for (std::size_t i = 0; i < kRequests; ++i) {
    slots_[i].buffer = arena_ + i * kMaxNbdRequestBytes;
    slots_[i].owner = this;
    slots_[i].on_complete = &NbdConnection::on_request_complete;
    free_.push_back(slots_[i]);
  }
  expect_request();
}

// ---- requests ----

void NbdConnection::expect_request() noexcept {
  arriving_ = free_.pop_front();
  if (arriving_ == nullptr) {
    state_ = State::full;
    return;
  }
  expect(State::request, header_.data(), NbdRequest::kBytes);
}

void NbdConnection::take_request() noexcept {
  Slot& slot = *arriving_;
  slot.asked = NbdRequest::parse(header_, owner_.export_now());
  if (slot.asked.drops_connection()) {
    drop("what it sends is no NBD request");
    return;
  }
  if (slot.asked.refusal != NbdRefusal::none) {
    refused_left_bytes_ = slot.asked.payload_bytes;
    take_refused_payload();
    return;
  }
  switch (slot.asked.command) {
    case NbdCommand::write:
      expect(State::payload, slot.buffer, slot.asked.payload_bytes);
      return;
    case NbdCommand::disconnect:
      state_ = State::leaving;
      free_.push_front(*std::exchange(arriving_, nullptr));
      leave_if_done();
      return;
    case NbdCommand::read:
    case NbdCommand::flush:
    case NbdCommand::discard:
      arriving_ = nullptr;
      submit(slot);
      expect_request();
      return;
  }
}

void NbdConnection::take_refused_payload() noexcept {
  Slot& slot = *arriving_;
  if (refused_left_bytes_ > 0) {
    const std::size_t bytes = std::min<std::size_t>(refused_left_bytes_, kMaxNbdRequestBytes);
    refused_left_bytes_ -= bytes;
    expect(State::refused_payload, slot.buffer, bytes);
    return;
  }
  arriving_ = nullptr;
  reply(slot, nbd_error(slot.asked.refusal));
  expect_request();
}

void NbdConnection::submit(Slot& slot) noexcept {
  const NbdRequest& asked = slot.asked;
  slot.sector = asked.sector;
  slot.sector_count = asked.sector_count;
  slot.data = nullptr;
  switch (asked.command) {
    case NbdCommand::read:
      slot.operation = BlockOperation::read;
      slot.data = slot.buffer;
      break;
    case NbdCommand::write:
      slot.operation = BlockOperation::write;
      slot.data = slot.buffer;
      break;
    case NbdCommand::discard:
      slot.operation = BlockOperation::discard;
      break;
    case NbdCommand::flush:
    case NbdCommand::disconnect:
      slot.operation = BlockOperation::flush;
      break;
  }
  ++submitted_;
  device_.submit(slot);
}

void NbdConnection::on_request_complete(BlockRequest& request, IoStatus status) noexcept {
  auto& connection = *static_cast<NbdConnection*>(request.owner);
  --connection.submitted_;
  connection.complete(static_cast<Slot&>(request), status);
}

void NbdConnection::complete(Slot& slot, IoStatus status) noexcept {
  const bool changes =
      slot.operation == BlockOperation::write || slot.operation == BlockOperation::discard;
  if (state_ == State::dropped) {
    free_.push_front(slot);
    end_if_over();
  } else if (status == IoStatus::ok && changes && slot.asked.force_unit_access) {
    slot.operation = BlockOperation::flush;
    slot.sector = 0;
    slot.sector_count = 0;
    slot.data = nullptr;
    ++submitted_;
    device_.submit(slot);
  } else {
    reply(slot, nbd_error(status));
  }
}

// ---- replies ----

void NbdConnection::reply(Slot& slot, NbdError error) noexcept {
  slot.reply = nbd_simple_reply(error, slot.asked.handle);
  const bool has_data = slot.asked.command == NbdCommand::read && error == NbdError::none;
  slot.data_bytes = has_data ? std::size_t{slot.asked.sector_count} * kSectorBytes : 0;
  ready_.push_back(slot);
  send_task_.schedule();
}

void NbdConnection::send_replies() noexcept {
  if (send_outstanding_ || ready_.empty() || state_ == State::dropped) {
    return;
  }
  std::array<iovec, 2 * kRequests> parts;
  std::size_t count = 0;
  sending_.take_all(ready_);
  sending_.for_each([&](Slot& slot) {
    parts[count++] = {slot.reply.data(), slot.reply.size()};
    if (slot.data_bytes > 0) {
      parts[count++] = {slot.buffer, slot.data_bytes};
    }
  });
  send_outstanding_ = true;
  stream_->send(std::span(parts).first(count));
}

void NbdConnection::on_sent() noexcept {
  send_outstanding_ = false;
  if (state_ == State::dropped) {
    return;
  }
  if (state_ == State::answering) {
    continue_answer();
    return;
  }
  release(sending_);
  if (state_ == State::full) {
    expect_request();
  }
  send_replies();
  leave_if_done();
}

void NbdConnection::release(SlotList& slots) noexcept {
  while (Slot* slot = slots.pop_front()) {
    free_.push_front(*slot);
  }
}

void NbdConnection::leave_if_done() noexcept {
  if (state_ == State::leaving && submitted_ == 0 && ready_.empty() && sending_.empty()) {
    drop({});  // the client's end of a unix socket has all that was sent
  }
}

void NbdConnection::on_closed(const Error& error) noexcept {
  drop(error.message);
  stream_closed_ = true;
  // Nothing of them is in the kernel any more.
  release(ready_);
  release(sending_);
  if (arriving_ != nullptr) {
    free_.push_front(*std::exchange(arriving_, nullptr));
  }
  end_if_over();
}

void NbdConnection::end_if_over() noexcept {
  if (stream_closed_ && submitted_ == 0) {
    over_task_.schedule();
  }
}

}  // namespace iscsi_blkback
