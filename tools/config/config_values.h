// Values of the configuration file, read as what they must be. A refusal is "FILE:LINE: sentence"
// and says what is allowed. Pure functions; entries point into the parsed document.
#pragma once

// toml++ reports errors as values then, and needs no exceptions. Some of its assertions, which a
// release build of Clang takes as promises, are about the file ("[" at the end of a line violates
// one), and the code behind them copes: they are left out in every build.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_EXCEPTIONS 0
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "multipath/attach/configuration.h"

namespace iscsi_blkback {

// One key of a table, or one element of an array under that key's name.
struct ConfigurationEntry {
  const std::string* file = nullptr;
  std::string name;  // dotted when the key is
  std::uint32_t line = 0;
  const toml::node* value = nullptr;
};

// In the order of the file. join_dotted_keys: keys like node.session.cmds_max, which TOML takes for
// tables in tables, are one entry.
[[nodiscard]] std::vector<ConfigurationEntry> entries_of(const toml::table& table,
                                                         const std::string* file,
                                                         bool join_dotted_keys = false);

[[nodiscard]] tl::unexpected<Error> refuse(const ConfigurationEntry& entry,
                                           std::string_view sentence);
// "NAME must be WANTED, not a string"
[[nodiscard]] tl::unexpected<Error> refuse_type(const ConfigurationEntry& entry,
                                                std::string_view wanted);
// "NAME is not an option WHERE; did you mean OTHER?"
[[nodiscard]] tl::unexpected<Error> refuse_unknown(const ConfigurationEntry& entry,
                                                   std::string_view where,
                                                   std::span<const std::string_view> known);

[[nodiscard]] Result<std::string> text_of(const ConfigurationEntry& entry);
// A string or an array of strings.
[[nodiscard]] Result<std::vector<std::string>> texts_of(const ConfigurationEntry& entry);
[[nodiscard]] Result<std::int64_t> whole_of(const ConfigurationEntry& entry, std::int64_t least,
                                            std::int64_t most);
// A number of seconds, decimals allowed, to the millisecond.
[[nodiscard]] Result<std::chrono::milliseconds> seconds_of(const ConfigurationEntry& entry,
                                                           std::chrono::milliseconds least,
                                                           std::chrono::milliseconds most);
// true and false, or "Yes" and "No" as in iscsid.conf.
[[nodiscard]] Result<bool> yes_no_of(const ConfigurationEntry& entry);
// A string that is an iSCSI name.
[[nodiscard]] Result<std::string> target_name_of(const ConfigurationEntry& entry);
// Strings "HOST[:PORT]" or tables { portal = "HOST[:PORT]", interface = "eth1", target = "iqn..."
// }, or with iface. and its parts; at least one.
[[nodiscard]] Result<std::vector<Portal>> portals_of(const ConfigurationEntry& entry);

// Strings "eth1" or tables { iface.hwaddress = "52:54:00:12:34:56" }; at least one.
[[nodiscard]] Result<std::vector<InterfaceBinding>> interfaces_of(const ConfigurationEntry& entry);
// One part, checked; a part that binding has already is refused.
[[nodiscard]] Result<void> read_interface_part(const ConfigurationEntry& entry,
                                               std::string InterfaceBinding::*member,
                                               InterfaceBinding& binding);

[[nodiscard]] std::string in_seconds(std::chrono::milliseconds time);  // "1.5"

}  // namespace iscsi_blkback
