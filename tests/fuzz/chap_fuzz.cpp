// CHAP keys of a target, in any order and with any value: lines "KEY=VALUE", an empty line ends a
// response. Nobody who does not know the secret comes through a mutual exchange, and no sentence
// has a secret in it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "initiator/login/chap.h"

namespace {

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

bool has_secret(std::string_view text) {
  return text.find("a long secret") != std::string_view::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace iscsi_blkback;
  if (size == 0) {
    return 0;
  }
  ChapOptions options;
  options.username = "initiator";
  options.password = "a long secret 1";
  if ((bytes[0] & 1) != 0) {
    options.username_in = "target";
    options.password_in = "a long secret 2";
  }
  ChapExchange exchange(options);
  LoginText text;
  require(exchange.offer(text).has_value());
  std::string_view rest(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const bool knows_secret = has_secret(rest);
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    // A copy of exactly this length, so that a step past the end is seen.
    const std::string line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    Result<void> result;
    if (line.empty()) {
      result = exchange.advance(text);
    } else if (const std::size_t equals = line.find('='); equals != std::string::npos) {
      const std::string_view value = std::string_view(line).substr(equals + 1);
      const auto binary = parse_large_binary(value, kMaxChapChallengeBytes);
      require(!binary || (!binary->empty() && binary->size() <= kMaxChapChallengeBytes));
      result = exchange.take({std::string_view(line).substr(0, equals), value});
    }
    if (!result) {
      require(!result.error().message.empty());
      // It may quote the target, which knows what the fuzzer knows.
      require(knows_secret || !has_secret(result.error().message));
      break;
    }
  }
  require(!options.mutual() || !exchange.complete());
  require(knows_secret || !has_secret(text.text()));
  return 0;
}
