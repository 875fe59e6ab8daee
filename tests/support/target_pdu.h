// PDUs with their digests as whole pieces of bytes: what the simulated targets send and check.
// Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "initiator/pdu/pdu.h"

namespace iscsi_blkback {

// Whether all digests of the PDU at the front of bytes are right.
[[nodiscard]] bool digests_match(std::span<const std::byte> bytes, const PduHeader& header,
                                 Digests digests);
// Puts them in; pdu has room for them.
void put_digests(std::span<std::byte> pdu, const PduHeader& header, Digests digests);

// The data segment of a SCSI Response: SenseLength and the sense data (11.4.7.2).
[[nodiscard]] std::vector<std::byte> sense_segment(std::span<const std::byte> sense);

// The bytes of a text, for the data segment of a login PDU; pairs are "key=value".
[[nodiscard]] std::vector<std::byte> text_bytes(const std::vector<std::string>& pairs);

// A PDU as it goes onto the wire.
template <class Pdu>
[[nodiscard]] std::vector<std::byte> pdu_bytes(const Pdu& pdu, std::span<const std::byte> data = {},
                                               Digests digests = {}) {
  std::vector<std::byte> bytes(kBhsBytes);
  encode(pdu, BhsBuffer{bytes.data(), kBhsBytes});
  PduHeader header = decode_header(BhsBytes{bytes.data(), kBhsBytes});
  header.data_bytes = static_cast<std::uint32_t>(data.size());
  bytes.resize(header.total_bytes(digests), std::byte{0});
  std::copy(data.begin(), data.end(),
            bytes.begin() + static_cast<std::ptrdiff_t>(header.data_offset(digests)));
  put_digests(bytes, header, digests);
  return bytes;
}

}  // namespace iscsi_blkback
