// The target string of a disk line: any bytes end in a target within its bounds or in a sentence,
// and no sentence repeats what was given.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "multipath/attach/disk_config.h"

namespace {

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace iscsi_blkback;
  const std::string params = "iscsi:" + std::string(reinterpret_cast<const char*>(data), size);
  require(is_iscsi_params(params));
  const auto target = parse_disk_url(params);
  if (!target) {
    const std::string& sentence = target.error().message;
    require(!sentence.empty() && sentence.size() < 400);
    // Credentials (USER%SECRET@) are what must not be repeated; no sentence has an @ of its own.
    const bool may_be_secret = params.find('@') != std::string::npos;
    require(!may_be_secret || sentence.find(params.substr(6)) == std::string::npos);
    return 0;
  }
  require(params.find('@') == std::string::npos);
  require(params.size() <= kMaxParamsBytes);
  require(target->portals.size() <= kMaxPortalsPerDisk);
  require(target->lun <= kMaxLun);
  require(target->target_name.size() <= kMaxIscsiNameBytes);
  require(target->alias.empty() != target->target_name.empty());
  require(target->portals.empty() || !target->target_name.empty());
  for (const Portal& portal : target->portals) {
    require(!portal.host.empty() && portal.port != 0);
  }
  for (const char c : target->target_name) {
    require(static_cast<unsigned char>(c) > ' ' && c != 0x7f);
  }
  // What was parsed can be planned, whatever the operator has configured.
  const auto config = configure_disk(*target, Configuration{}, "xvda", false);
  require(config || !config.error().message.empty());
  return 0;
}
