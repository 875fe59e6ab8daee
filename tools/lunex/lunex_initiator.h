// Under which name lunex logs in. Reads files, before any thread but the first runs.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "tools/config/config.h"

namespace iscsi_blkback {

// As open-iscsi's iscsi-iname makes them; random, so that it is nobody else's.
[[nodiscard]] std::string make_initiator_name();

struct LunexConfiguration {
  Configuration configuration;
  std::string remark;  // about the name; or empty
};

// The configuration as the service reads it, with an initiator name in every section: that of the
// command line if given, else the configured one, else open-iscsi's, else one that is
// made up. The error is the operator's input.
[[nodiscard]] Result<LunexConfiguration> configure_lunex(const ConfigurationFiles& files,
                                                         const std::optional<std::string>& given);

}  // namespace iscsi_blkback
