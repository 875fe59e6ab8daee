// A login against arbitrary answers of a target: text, stages and status as the bytes say. The
// first byte chooses what the login is to negotiate: CHAP, one-way and mutual, and digests. However
// it ends, what was negotiated is within the RFC's bounds, and a target that had to prove itself
// has not been believed: no input knows the secret.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/printable_text.h"
#include "initiator/login/login.h"
#include "initiator/login/login_text.h"

namespace {

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  if (size == 0) {
    return 0;
  }
  const std::uint8_t shape = bytes[0];
  ++bytes;
  --size;
  SessionOptions options;
  options.initiator_name = "iqn.2026-01.test:i";
  options.target_name = "iqn.2026-01.test:t";
  if ((shape & 1) != 0) {
    options.chap.username = "initiator";
    options.chap.password = "a long secret 1";
  }
  const bool mutual = (shape & 3) == 3;
  if (mutual) {
    options.chap.username_in = "target";
    options.chap.password_in = "a long secret 2";
  }
  const auto offer = static_cast<DigestOffer>(shape >> 2 & 3);
  options.header_digest = options.data_digest = offer;
  Login login(options, 0xfff0, 1);
  require(login.check_options().has_value());
  const bool knows_secret =
      std::string_view(reinterpret_cast<const char*>(bytes), size).find("a long secret") !=
      std::string_view::npos;
  std::vector<std::byte> request;
  const auto* input = reinterpret_cast<const std::byte*>(bytes);
  // Each answer: flags, status class, status detail, length (times 16 with flag 0x20), then so many
  // bytes of text.
  for (std::uint32_t stat_sn = 1; size >= 4; ++stat_sn) {
    login.next_request(request);
    require(request.size() >= kBhsBytes && request.size() <= kBhsBytes + kMaxLoginDataBytes);
    LoginResponsePdu response;
    response.transit = (bytes[0] & 0x80) != 0;
    response.more = (bytes[0] & 0x40) != 0;
    response.current_stage = static_cast<LoginStage>(bytes[0] >> 2 & 3);
    response.next_stage = static_cast<LoginStage>(bytes[0] & 3);
    response.status_class = bytes[1];
    response.status_detail = bytes[2];
    response.initiator_task_tag = 0xfff0;
    response.numbers.stat_sn = stat_sn;
    const std::size_t said = bytes[3] * ((bytes[0] & 0x20) != 0 ? 16U : 1U);
    const std::size_t length = said < size - 4 ? said : size - 4;
    response.data_bytes = static_cast<std::uint32_t>(length);
    std::array<std::byte, kBhsBytes> header;
    encode(response, BhsBuffer{header});
    // A copy of exactly this length, so that a step past the end is seen.
    const std::vector<std::byte> text(input + 4, input + 4 + length);
    const auto progress = login.receive(BhsBytes{header}, text);
    if (!progress) {
      require(!progress.error().message.empty());
      // The sentence may quote the target, which knows what the fuzzer knows.
      require(knows_secret || progress.error().message.find("a long secret") == std::string::npos);
      break;
    }
    if (*progress == Login::Progress::complete) {
      require(!mutual);
      const NegotiatedParameters outcome = login.negotiated();
      require(outcome.max_burst_length >= 512 && outcome.max_burst_length <= kMaxDataSegmentBytes);
      require(outcome.first_burst_length <= outcome.max_burst_length);
      require(outcome.max_send_data_segment_length >= 512 &&
              outcome.max_send_data_segment_length <= kMaxDataSegmentBytes);
      require(outcome.max_outstanding_r2t >= 1 && outcome.max_outstanding_r2t <= 8);
      require(printable_text(outcome.target_alias, 4 * kMaxTextValueBytes) == outcome.target_alias);
      for (const bool digest : {outcome.digests.header, outcome.digests.data}) {
        require(!digest || offer != DigestOffer::none);
        require(digest || offer != DigestOffer::crc32c);
      }
      break;
    }
    if (*progress == Login::Progress::redirected) {
      break;
    }
    bytes += 4 + length;
    input += 4 + length;
    size -= 4 + length;
  }
  return 0;
}
