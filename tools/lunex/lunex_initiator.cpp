#include "tools/lunex/lunex_initiator.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "multipath/attach/disk_url.h"

namespace iscsi_blkback {

std::string make_initiator_name() {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) {
    number = static_cast<std::uint64_t>(::getpid());
  }
  return fmt::format("iqn.2016-04.com.open-iscsi:{:012x}", number & 0xffffffffffff);
}

Result<LunexConfiguration> configure_lunex(const ConfigurationFiles& files,
                                           const std::optional<std::string>& given) {
  auto configuration = read_configuration(files);
  if (!configuration) {
    return fail(ErrorCode::invalid_argument, configuration.error().message);
  }
  LunexConfiguration result{std::move(*configuration), {}};
  if (given) {
    if (auto right = check_iscsi_name("--initiator-name", *given); !right) {
      return tl::unexpected(right.error());
    }
    set_initiator_name(result.configuration, *given);
  } else if (result.configuration.initiator_name.empty()) {
    auto name = read_initiator_name(files.initiator_name);
    if (!name && name.error().code != ErrorCode::not_found) {
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("there is no initiator name: {}; -i gives one", name.error().message));
    }
    if (!name) {
      name = make_initiator_name();
      result.remark = fmt::format(
          "this host has no initiator name ({} and {} set none): it is {} for now, or what -i says",
          files.configuration, files.initiator_name, *name);
    }
    set_initiator_name(result.configuration, *name);
  }
  return result;
}

}  // namespace iscsi_blkback
