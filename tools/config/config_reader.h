// From the parsed document to a Configuration: which options there are and where, and what they
// must not contradict. The first mistake in the file is the one reported. Pure.
#pragma once

#include <string>

#include "base/result.h"
#include "multipath/attach/configuration.h"
#include "tools/config/config_values.h"

namespace iscsi_blkback {

// file: its name, for messages. The error of both is invalid_argument, "FILE:LINE: " and one sentence about
// the first mistake.
[[nodiscard]] Result<Configuration> read_document(const toml::table& root, const std::string& file);

// The same for a table of arrays alone, whose prio gives way to the ALUA that a LUN reports.
[[nodiscard]] Result<ArrayTable> read_arrays(const toml::table& root, const std::string& file);

}  // namespace iscsi_blkback
