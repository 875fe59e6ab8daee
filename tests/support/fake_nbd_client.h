// FakeNbdClient: a client of an NBD server in virtual time, which says what a test wants it to, right or
// wrong. Reactor thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_order.h"
#include "base/byte_stream.h"
#include "blkback/nbd/nbd_protocol.h"
#include "tests/support/sim_network.h"
#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

using NbdBytes = std::vector<std::byte>;

class NbdWriter {
 public:
  NbdWriter& u16(std::uint16_t value) { return put<2>(value); }
  NbdWriter& u32(std::uint32_t value) { return put<4>(value); }
  NbdWriter& u64(std::uint64_t value) { return put<8>(value); }
  NbdWriter& text(const std::string& value) {
    for (const char c : value) {
      bytes.push_back(static_cast<std::byte>(c));
    }
    return *this;
  }
  NbdWriter& append(const NbdBytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return *this;
  }
  NbdBytes bytes;

 private:
  template <int kBytes>
  NbdWriter& put(std::uint64_t value) {
    for (int i = kBytes - 1; i >= 0; --i) {
      bytes.push_back(static_cast<std::byte>(value >> (8 * i) & 0xff));
    }
    return *this;
  }
};

inline constexpr std::uint64_t kNbdOptionMagic = 0x49484156454f5054;

inline NbdBytes nbd_option(std::uint32_t number, const NbdBytes& data = {}) {
  return NbdWriter()
      .u64(kNbdOptionMagic)
      .u32(number)
      .u32(static_cast<std::uint32_t>(data.size()))
      .append(data)
      .bytes;
}

// Of INFO (6) and GO (7).
inline NbdBytes nbd_go_data(const std::string& name = {}, std::vector<std::uint16_t> wanted = {3}) {
  NbdWriter out;
  out.u32(static_cast<std::uint32_t>(name.size())).text(name);
  out.u16(static_cast<std::uint16_t>(wanted.size()));
  for (const std::uint16_t one : wanted) {
    out.u16(one);
  }
  return out.bytes;
}

inline NbdBytes nbd_request(std::uint16_t command, std::uint64_t handle, std::uint64_t offset,
                            std::uint32_t length, std::uint16_t flags = 0,
                            const NbdBytes& payload = {}) {
  return NbdWriter()
      .u32(0x25609513)
      .u16(flags)
      .u16(command)
      .u64(handle)
      .u64(offset)
      .u32(length)
      .append(payload)
      .bytes;
}

class FakeNbdClient final : private ByteStream::Owner {
 public:
  FakeNbdClient(SimReactor& reactor, const SocketAddress& address) : reactor_(reactor) {
    ConnectOptions options;
    options.address = address;
    stream_ = reactor.connect(options, *this);
  }
  ~FakeNbdClient() {
    leave();
    (void)reactor_.run_until([this] { return closed; });
  }

  // Sent in order, as soon as it can be.
  void send(const NbdBytes& bytes) {
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    send_more();
  }
  // False: so many bytes do not come.
  [[nodiscard]] bool has(std::size_t count) {
    return reactor_.run_until([&] { return received.size() >= count || closed; },
                              std::chrono::seconds(30)) &&
           received.size() >= count;
  }
  // Empty: they do not come.
  NbdBytes take(std::size_t count) {
    if (!has(count)) {
      return {};
    }
    const auto end = received.begin() + static_cast<std::ptrdiff_t>(count);
    NbdBytes taken(received.begin(), end);
    received.erase(received.begin(), end);
    return taken;
  }
  // Through the handshake; false: it was not let in.
  [[nodiscard]] bool go() {
    if (take(18).empty()) {
      return false;
    }
    send(NbdWriter().u32(3).append(nbd_option(7, nbd_go_data())).bytes);
    // EXPORT and BLOCK_SIZE with their data, ACK.
    return !take(20 + 12 + 20 + 14 + 20).empty();
  }
  struct Reply {
    std::uint32_t error = 0;
    std::uint64_t handle = 0;
    NbdBytes data;
  };
  // read_bytes: that follow unless it is an error.
  std::optional<Reply> take_reply(std::size_t read_bytes = 0) {
    const NbdBytes head = take(16);
    if (head.empty() || load_be32(head.data()) != 0x67446698) {
      return std::nullopt;
    }
    Reply reply{load_be32(head.data() + 4), load_be64(head.data() + 8), {}};
    if (reply.error == 0 && read_bytes > 0) {
      reply.data = take(read_bytes);
    }
    return reply;
  }
  [[nodiscard]] bool is_dropped() {
    return reactor_.run_until([this] { return closed; }, std::chrono::seconds(5));
  }
  void leave() { stream_->reset(); }
  void stop_reading() { reads_ = false; }

  NbdBytes received;
  bool closed = false;

 private:
  void on_connected() noexcept override {
    connected_ = true;
    receive();
    send_more();
  }
  void on_sent() noexcept override {
    sending_.clear();
    send_more();
  }
  void on_received(std::size_t count) noexcept override {
    received.insert(received.end(), buffer_.begin(),
                    buffer_.begin() + static_cast<std::ptrdiff_t>(count));
    receive();
  }
  void on_closed(const Error&) noexcept override { closed = true; }

  void receive() {
    if (reads_) {
      const iovec part{buffer_.data(), buffer_.size()};
      stream_->receive({&part, 1});
    }
  }
  void send_more() {
    if (connected_ && !closed && sending_.empty() && !waiting_.empty()) {
      sending_.swap(waiting_);
      const iovec part{sending_.data(), sending_.size()};
      stream_->send({&part, 1});
    }
  }

  SimReactor& reactor_;
  std::unique_ptr<ByteStream> stream_;
  bool connected_ = false;
  bool reads_ = true;
  NbdBytes buffer_ = NbdBytes(65536);
  NbdBytes waiting_;
  NbdBytes sending_;
};

}  // namespace iscsi_blkback
