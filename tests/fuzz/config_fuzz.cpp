// The configuration file and open-iscsi's file of the initiator name: any bytes end in a
// configuration or in a sentence.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tools/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto configuration = iscsi_blkback::parse_configuration(text, "fuzz");
  if (!configuration && configuration.error().message.empty()) {
    __builtin_trap();
  }
  const auto name = iscsi_blkback::parse_initiator_name(text, "fuzz");
  if (name && name->size() < 5) {
    __builtin_trap();
  }
  return 0;
}
