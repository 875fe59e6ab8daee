// The operator's file: /etc/iscsi-blkback/iscsi-blkback.toml, read into a Configuration. Only
// options that do something are accepted; whatever else the file says is refused with file, line
// and what would be right, so that a misspelt timer does not silently stay at its default. Options
// have their names from multipath.conf, iscsid.conf and RFC 7143; iscsi-blkback.toml(5) describes
// them. Any thread; reading files blocks.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

inline constexpr const char* kConfigurationPath = "/etc/iscsi-blkback/iscsi-blkback.toml";
inline constexpr const char* kInitiatorNamePath = "/etc/iscsi/initiatorname.iscsi";
inline constexpr std::size_t kMaxConfigurationBytes = 256 * 1024;
inline constexpr std::size_t kMaxConfigurationLineBytes = 2048;  // any wwid fits
inline constexpr std::size_t kMaxRunDirectoryBytes = 80;         // a socket's path has 107 at most

// text: what the file contains; name: the file, for messages ("NAME:LINE: sentence"). The initiator
// name stays empty when text has none.
[[nodiscard]] Result<Configuration> parse_configuration(std::string_view text,
                                                        const std::string& name);

// open-iscsi's file: the value of its line InitiatorName=.
[[nodiscard]] Result<std::string> parse_initiator_name(std::string_view text,
                                                       const std::string& name);

// The same of a file that perhaps does not exist; not_found: there is no such file or no name in
// it.
[[nodiscard]] Result<std::string> read_initiator_name(const std::string& path);
// Of every session, whichever section it has its settings from.
void set_initiator_name(Configuration& configuration, const std::string& name);

struct ConfigurationFiles {
  std::string configuration = kConfigurationPath;
  bool must_exist = false;  // else a missing file means: all defaults
  std::string initiator_name = kInitiatorNamePath;
};

// What the file says, the initiator name perhaps still missing.
[[nodiscard]] Result<Configuration> read_configuration(const ConfigurationFiles& files);
// The same with an initiator name, from the second file if the first has none.
[[nodiscard]] Result<Configuration> load_configuration(const ConfigurationFiles& files);

// "error", "warning", "info", "debug".
[[nodiscard]] std::optional<LogLevel> parse_log_level(std::string_view text);

// An absolute path, short enough for the sockets in it.
[[nodiscard]] bool is_run_directory(std::string_view text);

// All options, where they may stand and what they may be: lines of --help-config.
[[nodiscard]] std::vector<std::string> configuration_help();

// Every option that the file may have in [defaults] and [luns.ALIAS]; for tests of the
// documentation.
[[nodiscard]] std::vector<std::string_view> configuration_settings();

}  // namespace iscsi_blkback
