// What the options of a section must not contradict, among themselves or with those of the sections
// above it. A refusal points to the option that the section itself has. Any thread.
#pragma once

#include <vector>

#include "tools/config/config_options.h"

namespace iscsi_blkback {

// How paths are used: of a section for disks or for a device.
void check_policies(ConfigDraft& draft);
// A number of checks in no_path_retry counts the polling_interval of the section.
void decide_no_path_retry(ConfigDraft& draft);
// All of a section for disks, once its options have been read.
void check_section(ConfigDraft& draft);
// What [defaults] and a [[device]] section come to where nothing else is said of a disk.
void check_device(ConfigDraft device, const ConfigDraft& defaults);

// Of all LUNs, in the order of the file: two aliases of one LUN may have other paths, but must not
// contradict each other in anything else, as a disk line that names the target would have either.
void check_aliases(std::vector<ConfigDraft>& luns);

}  // namespace iscsi_blkback
