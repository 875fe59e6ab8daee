// The options of the configuration file as one table (config_options.cpp): names, where each may
// stand, what its value is, how that is read and where it goes. What the reader takes and refuses,
// the listing of --help-config and the test of the man page come from it. Any thread.
//
// A new option is a member with its default (of SessionOptions, MultipathOptions, ...), one row of
// the table that points to it, and its paragraph in iscsi-blkback.toml(5), which a test asks for.
// What two options must not say together is in config_checks.cpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multipath/attach/configuration.h"
#include "multipath/attach/disk_url.h"
#include "tools/config/config_values.h"

namespace iscsi_blkback {

// Where an option may stand: an or of these.
enum ConfigSections : std::uint8_t {
  kAtTop = 1,
  kOfDisks = 2,  // [defaults], [targets."NAME"] and [luns.ALIAS]
  kOfDevices = 4,
  kOfLuns = 8,      // [luns.ALIAS] alone
  kInPortals = 16,  // a table among the portals
  kInInterfaces = 32,
};

// What a section comes to, with what it has from the sections above it. All are read as a LUN's:
// [defaults] and a target are what DiskOptions has of it; a device is its row, an element of portals
// its portal, and one of interfaces its interface.
struct ConfigDraft : ConfiguredLun {
  struct Place {
    std::uint32_t line = 0;
    std::string section;
  };

  ConfigDraft(const ConfigEntry& its_entry, unsigned its_sections, const char* its_of)
      : entry(its_entry), sections(its_sections), of(its_of) {}

  ConfigEntry entry;             // the section
  unsigned sections;             // ConfigSections: the options that it may have
  const char* of;                // "of [defaults]", for the sentence about what is no option there
  std::string section;           // "[defaults]"
  Configuration* top = nullptr;  // where options of the top go, if any can stand here
  InterfaceBinding interface;    // of the options iface.*, or of a portal
  std::optional<WrittenNoPathRetry> no_path_retry;
  std::optional<PrioritizerKind> prio;
  std::vector<std::string> prio_args;
  // authmethod = "None": the credentials stay for a section that says CHAP again.
  bool chap_off = false;
  bool discovery_chap_off = false;
  ArrayRow row;
  Portal portal;
  // Where each option was written last, in this section or one above it.
  std::map<std::string_view, Place> written;

  SessionOptions& part(auto SessionOptions::*) { return session; }
  MultipathOptions& part(auto MultipathOptions::*) { return multipath; }
  PathPolicySettings& part(auto PathPolicySettings::*) { return multipath; }
  PortalOptions& part(auto PortalOptions::*) { return paths; }
  DiskOptions& part(auto DiskOptions::*) { return *this; }
  ArrayRow& part(auto ArrayRow::*) { return row; }
  Portal& part(auto Portal::*) { return portal; }
  Configuration& part(auto Configuration::*) { return *top; }
  ConfiguredLun& part(auto ConfiguredLun::*) { return *this; }
  ConfigDraft& part(auto ConfigDraft::*) { return *this; }

  // A section that has what the draft has, and its own options over them.
  void begin(const ConfigEntry& its_entry, unsigned its_sections, const char* its_of,
             std::string its_name) {
    entry = its_entry;
    sections = its_sections;
    of = its_of;
    section = std::move(its_name);
  }
  // The line of an option in this section itself; nullptr: it is not there.
  [[nodiscard]] const std::uint32_t* line_of(std::string_view option) const;
  // Notes that an entry says what an option says. The line of this section that had already said
  // it, if any.
  [[nodiscard]] std::optional<std::uint32_t> note(std::string_view option, const ConfigEntry& by);
};

struct ConfigOption {
  enum class Kind : std::uint8_t { text, seconds, whole, yes_no };
  using Store = void(const ConfigOption& option, const ConfigEntry& entry, ConfigDraft& draft);

  std::string_view name;  // as multipath.conf or RFC 7143 have it
  Kind kind;
  Store* store;  // reads the value and puts it where it belongs
  // What a text is or must be: "must be A or B", or "A or B" where the value says it by itself. Of a
  // number that is not any from least to most: which ones.
  std::string_view words = {};
  std::int64_t least = 0;  // of a number; of seconds: in milliseconds
  std::int64_t most = 0;   // likewise; 0: of a text
  // Of a number (0 and 1: no and yes; of seconds: milliseconds) what the draft has; nullptr: of a
  // text, or of what is fixed; nothing: it is not set, and the LUN decides.
  std::optional<std::int64_t> (*number_in)(ConfigDraft& draft) = nullptr;
  // Whether two drafts have the same; nullptr: two aliases of one LUN need not, as it says where
  // their paths lead, or it is one of several ways to say another option.
  bool (*same)(ConfigDraft& one, ConfigDraft& other) = nullptr;
  unsigned sections = kOfDisks;  // ConfigSections
  // Together: the key in iscsid.conf, accepted as well. Empty: there is none.
  std::string_view iscsid_prefix = {};
  std::string_view iscsid_key = {};

  bool required = false;  // where it may stand it must

  // The row with these.
  [[nodiscard]] constexpr ConfigOption in(unsigned where) const {
    ConfigOption option = *this;
    option.sections = where;
    return option;
  }
  [[nodiscard]] constexpr ConfigOption iscsid(std::string_view prefix,
                                              std::string_view key = {}) const {
    ConfigOption option = *this;
    option.iscsid_prefix = prefix;
    option.iscsid_key = key.empty() ? name : key;
    return option;
  }
  [[nodiscard]] constexpr ConfigOption said(std::string_view what) const {
    ConfigOption option = *this;
    option.words = what;
    return option;
  }
  [[nodiscard]] constexpr ConfigOption wanted() const {
    ConfigOption option = *this;
    option.required = true;
    return option;
  }
  [[nodiscard]] bool is_called(std::string_view text) const;  // by either name
  // A number as it may be written: "yes", "1.5", "512".
  [[nodiscard]] std::string shown(std::int64_t number) const;
  // Of a number where nothing is written; nothing: that depends.
  [[nodiscard]] std::optional<std::int64_t> default_value() const;
};

[[nodiscard]] std::span<const ConfigOption> config_options();
// By either name, among those that may stand in one of the sections; nullptr: there is none.
[[nodiscard]] const ConfigOption* find_option(std::string_view name, unsigned sections);

// An option of the draft's section, or all of them, into the draft.
void read_option(const ConfigEntry& entry, ConfigDraft& draft);
void read_options(ConfigDraft& draft);
// config_old_names.cpp: why an option of iscsid.conf or multipath.conf has no counterpart here;
// empty for all other names.
[[nodiscard]] std::string_view why_meaningless(std::string_view name);
// "; did you mean X?" when one of the known names is at most two letters away, else empty.
[[nodiscard]] std::string suggestion(std::string_view name,
                                     std::span<const std::string_view> known);

}  // namespace iscsi_blkback
