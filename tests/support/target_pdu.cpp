#include "tests/support/target_pdu.h"

#include "base/byte_order.h"

namespace iscsi_blkback {

bool digests_match(std::span<const std::byte> bytes, const PduHeader& header, Digests digests) {
  const std::size_t data_at = header.data_offset(digests);
  return (!digests.header || digest_follows(bytes.first(data_at - kDigestBytes))) &&
         (!digests.data || header.data_bytes == 0 ||
          digest_follows(bytes.subspan(data_at, padded(header.data_bytes))));
}

void put_digests(std::span<std::byte> pdu, const PduHeader& header, Digests digests) {
  const std::size_t data_at = header.data_offset(digests);
  if (digests.header) {
    put_digest(crc32c(pdu.first(data_at - kDigestBytes)), pdu.data() + data_at - kDigestBytes);
  }
  if (digests.data && header.data_bytes != 0) {
    const auto data = pdu.subspan(data_at, padded(header.data_bytes));
    put_digest(crc32c(data), data.data() + data.size());
  }
}

std::vector<std::byte> sense_segment(std::span<const std::byte> sense) {
  std::vector<std::byte> segment(2 + sense.size());
  store_be16(segment.data(), static_cast<std::uint16_t>(sense.size()));
  std::copy(sense.begin(), sense.end(), segment.begin() + 2);
  return segment;
}

std::vector<std::byte> text_bytes(const std::vector<std::string>& pairs) {
  std::vector<std::byte> bytes;
  for (const std::string& pair : pairs) {
    for (const char letter : pair) {
      bytes.push_back(static_cast<std::byte>(letter));
    }
    bytes.push_back(std::byte{0});
  }
  return bytes;
}

}  // namespace iscsi_blkback
