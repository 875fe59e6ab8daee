// PduReceiver: the bytes that arrive on one connection, cut into PDUs. Who owns it receives into
// room(), says how much has arrived, and takes PDUs with next() until it needs more. A large Data-In
// that has not arrived whole goes from the socket straight to its destination. It knows lengths,
// digests and nothing else of what a PDU means; whatever arrives, it reads and writes only where it
// may. Reactor thread.
//
// What arrives is staged in one buffer. What is left of it when next() needs more is less than one
// PDU and moves to the front, so that no PDU ever wraps.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "initiator/pdu/digest.h"
#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

// Valid until the next call of the receiver.
struct IncomingPdu {
  PduHeader header;
  const std::byte* begin = nullptr;
  const std::byte* data = nullptr;  // header.data_bytes of it; not of a large Data-In

  [[nodiscard]] BhsBytes bytes() const { return BhsBytes{begin, kBhsBytes}; }
};

class PduReceiver {
 public:
  // Data of a Data-In that has not arrived whole goes straight to its destination from this size
  // on; below, one copy out of the (hot) staging buffer is cheaper than a receive of its own.
  static constexpr std::size_t kLargeBytes = 16 * 1024;

  // max_data_bytes: the largest data segment that any connection will have.
  explicit PduReceiver(std::size_t max_data_bytes);

  // A new connection, without digests and without large Data-In, and with data segments of at most
  // max_data_bytes.
  void start(std::size_t max_data_bytes);
  // From the next PDU on it has these, and large Data-In.
  void enter_full_feature_phase(const Digests& digests, std::size_t max_data_bytes);

  // Where what arrives next belongs: at most limit_bytes of it, behind what is missing of a large
  // Data-In. At least one byte, once next() has said that it needs more.
  [[nodiscard]] std::span<const iovec> room(std::size_t limit_bytes, std::array<iovec, 2>& parts);
  // So many bytes of that have arrived.
  void arrived(std::size_t count);

  enum class Next : std::uint8_t {
    needs_more,
    pdu,
    // A large Data-In, of which data is missing: receive_into() or keep_staged() decides about it.
    large_data_in,
    large_data_in_complete,  // large_data_in() is at its destination
    // From here on the connection cannot be understood; pdu.header says of what it is.
    too_long,
    wrong_header_digest,
    wrong_data_digest,
  };
  [[nodiscard]] Next next(IncomingPdu& pdu);

  // destination: for all of its data.
  void receive_into(std::byte* destination);
  // It is not wanted there: when all of it is here, it comes as a PDU.
  void keep_staged();
  // Data is going straight to its destination.
  [[nodiscard]] bool in_large_data_in() const { return large_.under_way; }
  [[nodiscard]] const DataInPdu& large_data_in() const { return large_.pdu; }

 private:
  // A Data-In whose data goes from the socket straight to its destination.
  struct Large {
    std::byte* destination = nullptr;  // of the next byte
    std::size_t remaining_bytes = 0;   // of the data
    std::size_t trailer_bytes = 0;     // padding and digest, not parsed yet
    bool under_way = false;
    std::uint32_t checksum = 0;  // of what has arrived, when the connection has data digests
    DataInPdu pdu;
  };

  [[nodiscard]] Next finish_large(IncomingPdu& pdu);
  [[nodiscard]] bool is_large(const PduHeader& header, std::size_t available) const;
  void take_large(std::size_t count);
  void move_to_front();

  Digests digests_;
  std::size_t max_data_bytes_ = 0;
  bool full_feature_phase_ = false;
  std::vector<std::byte> staging_;  // [begin_, end_) is not parsed yet
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  Large large_;
  bool large_before_ = false;  // the last Data-In was large
};

}  // namespace iscsi_blkback
