// The bytes of a connection, cut into PDUs: whatever arrives, and in whatever pieces, PduReceiver
// stays within its bounds, and the same PDUs come out. The bytes are: the connection's digests and
// the sizes of the pieces, then PDUs that are right, damaged or no PDUs at all.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "initiator/pdu/pdu_receiver.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxReceivedData = 65536;

void demand(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

class ReceivedBytes {
 public:
  ReceivedBytes(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size) {}
  [[nodiscard]] bool empty() const { return size_ == 0; }
  std::uint8_t next() {
    if (size_ == 0) {
      return 0;
    }
    --size_;
    return *bytes_++;
  }

 private:
  const std::uint8_t* bytes_;
  std::size_t size_;
};

// A PDU with right digests, of which a byte may be changed afterwards.
void add_pdu(ReceivedBytes& input, const Digests& digests, std::vector<std::byte>& wire) {
  const std::uint8_t kind = input.next();
  const std::size_t start = wire.size();
  wire.resize(start + kBhsBytes);
  for (std::size_t at = 0; at < 8; ++at) {
    wire[start + at] = static_cast<std::byte>(input.next());
  }
  if ((kind & 1) != 0) {
    wire[start] = std::byte{0x25};  // Data-In
    wire[start + 4] = std::byte{0};
  }
  wire[start + 5] &= (kind & 2) != 0 ? std::byte{1} : std::byte{0};
  const PduHeader header = decode_header(BhsBytes{wire.data() + start, kBhsBytes});
  const std::size_t data_at = start + header.data_offset(digests);
  wire.resize(start + header.total_bytes(digests));
  for (std::size_t at = data_at; at < data_at + header.data_bytes; ++at) {
    wire[at] = static_cast<std::byte>(at * 13 + kind);
  }
  if (digests.header) {
    put_digest(crc32c(std::span(wire).subspan(start, data_at - kDigestBytes - start)),
               wire.data() + data_at - kDigestBytes);
  }
  if (digests.data && header.data_bytes != 0) {
    put_digest(crc32c(std::span(wire).subspan(data_at, padded(header.data_bytes))),
               wire.data() + wire.size() - kDigestBytes);
  }
  if ((kind & 0xc0) == 0xc0) {
    const std::size_t at = input.next() * std::size_t{256} + input.next();
    wire[start + at % (wire.size() - start)] ^= static_cast<std::byte>(input.next());
  }
}

// All PDUs that come out, one behind the other, and at the end what is wrong.
class Reception {
 public:
  Reception(const Digests& digests, bool takes_large) : takes_large_(takes_large) {
    receiver_.start(kMaxReceivedData);
    receiver_.enter_full_feature_phase(digests, kMaxReceivedData);
  }

  void run(std::span<const std::byte> wire, ReceivedBytes pieces) {
    while (!wire.empty() && !broken_) {
      const std::size_t limit = pieces.empty() ? wire.size() : std::size_t{1} + pieces.next();
      wire = wire.subspan(give(wire, limit));
      take();
    }
  }
  [[nodiscard]] const std::vector<std::byte>& result() const { return result_; }

 private:
  std::size_t give(std::span<const std::byte> wire, std::size_t limit) {
    std::array<iovec, 2> parts;
    std::size_t given = 0;
    for (const iovec& part : receiver_.room(limit, parts)) {
      const std::size_t count = std::min({part.iov_len, wire.size() - given, limit - given});
      if (count != 0) {
        std::memcpy(part.iov_base, wire.data() + given, count);
      }
      given += count;
    }
    demand(given != 0);
    receiver_.arrived(given);
    return given;
  }
  void take() {
    IncomingPdu pdu;
    for (;;) {
      switch (const PduReceiver::Next next = receiver_.next(pdu); next) {
        case PduReceiver::Next::needs_more:
          return;
        case PduReceiver::Next::pdu:
          add({pdu.begin, kBhsBytes});
          add({pdu.data, pdu.header.data_bytes});
          break;
        case PduReceiver::Next::large_data_in:
          if (!takes_large_) {
            receiver_.keep_staged();
            return;
          }
          add({pdu.begin, kBhsBytes});
          destination_.assign(pdu.header.data_bytes, std::byte{0});
          receiver_.receive_into(destination_.data());
          break;
        case PduReceiver::Next::large_data_in_complete:
          add(destination_);
          break;
        case PduReceiver::Next::too_long:
        case PduReceiver::Next::wrong_header_digest:
        case PduReceiver::Next::wrong_data_digest:
          broken_ = true;
          return;
      }
    }
  }
  void add(std::span<const std::byte> bytes) {
    result_.insert(result_.end(), bytes.begin(), bytes.end());
  }

  PduReceiver receiver_{kMaxReceivedData};
  const bool takes_large_;
  bool broken_ = false;
  std::vector<std::byte> destination_;
  std::vector<std::byte> result_;
};

void receive(ReceivedBytes input) {
  const std::uint8_t shape = input.next();
  const Digests digests{.header = (shape & 1) != 0, .data = (shape & 2) != 0};
  std::vector<std::byte> wire;
  for (int pdus = 0; pdus < 20 && !input.empty(); ++pdus) {
    if (input.next() % 8 == 0) {
      for (std::size_t count = input.next(); count != 0; --count) {
        wire.push_back(static_cast<std::byte>(input.next()));
      }
    } else {
      add_pdu(input, digests, wire);
    }
  }
  // In one piece, none is missing of anything, so that nothing is large.
  Reception whole(digests, false);
  whole.run(wire, ReceivedBytes(nullptr, 0));
  const std::array<std::uint8_t, 64> small = [shape] {
    std::array<std::uint8_t, 64> sizes{};
    for (std::size_t at = 0; at < sizes.size(); ++at) {
      sizes[at] = static_cast<std::uint8_t>(at * shape + at);
    }
    return sizes;
  }();
  for (const bool takes_large : {false, true}) {
    Reception pieces(digests, takes_large);
    pieces.run(wire, ReceivedBytes(small.data(), small.size()));
    // Of a large one that is cut off or damaged, the header has come out already.
    const auto& expected = whole.result();
    demand(pieces.result().size() >= expected.size() &&
           pieces.result().size() <= expected.size() + (takes_large ? kBhsBytes : 0) &&
           std::equal(expected.begin(), expected.end(), pieces.result().begin()));
  }
}

}  // namespace
}  // namespace iscsi_blkback

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  iscsi_blkback::receive(iscsi_blkback::ReceivedBytes(bytes, size));
  return 0;
}
