// A login against arbitrary answers of a target: text, stages and status as the bytes say.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "initiator/login.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  SessionOptions options;
  options.initiator_name = "iqn.2026-01.test:i";
  options.target_name = "iqn.2026-01.test:t";
  Login login(options, 0xfff0, 1);
  std::vector<std::byte> request;
  const auto* input = reinterpret_cast<const std::byte*>(bytes);
  // Each answer: flags, status class, status detail, length, then so many bytes of text.
  for (std::uint32_t stat_sn = 1; size >= 4; ++stat_sn) {
    login.next_request(request);
    LoginResponsePdu response;
    response.transit = (bytes[0] & 0x80) != 0;
    response.more = (bytes[0] & 0x40) != 0;
    response.current_stage = static_cast<LoginStage>(bytes[0] >> 2 & 3);
    response.next_stage = static_cast<LoginStage>(bytes[0] & 3);
    response.status_class = bytes[1];
    response.status_detail = bytes[2];
    response.initiator_task_tag = 0xfff0;
    response.numbers.stat_sn = stat_sn;
    const std::size_t length = bytes[3] < size - 4 ? bytes[3] : size - 4;
    response.data_bytes = static_cast<std::uint32_t>(length);
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    // A copy of exactly this length, so that a step past the end is seen.
    const std::vector<std::byte> text(input + 4, input + 4 + length);
    const auto progress = login.receive(BhsBytes{header}, text);
    if (!progress || *progress != Login::Progress::request) {
      break;
    }
    bytes += 4 + length;
    input += 4 + length;
    size -= 4 + length;
  }
  return 0;
}
