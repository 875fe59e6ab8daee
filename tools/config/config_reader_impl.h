// The inside of the configuration's reader; included by config_reader.cpp, config_options.cpp and
// config_checks.cpp only. It walks a parsed document once, from top to bottom; plain functions on
// plain data.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "multipath/attach/disk_target.h"
#include "tools/config/array_table.h"
#include "tools/config/config.h"
#include "tools/config/config_reader.h"
#include "tools/config/config_settings.h"

namespace iscsi_blkback {

using Milliseconds = std::chrono::milliseconds;

[[nodiscard]] Result<std::string> alias_of(const ConfigurationEntry& entry);

class ConfigurationReader {
 public:
  explicit ConfigurationReader(const std::string& file) : file_(&file) {}

  Result<Configuration> read(const toml::table& root) const;
  struct DeviceSection;
  Result<std::vector<DeviceSection>> devices(const ConfigurationEntry& entry) const;

 private:
  struct Place {
    std::uint32_t line = 0;
    std::string section;  // "[defaults]"
  };
  // Settings as they stand after a table, with where each was written.
  struct Settings {
    SessionOptions session;
    MultipathOptions multipath;
    PortalOptions paths;
    InterfaceBinding interface;  // of the options iface.*
    std::string no_path_retry;   // as written; empty: not set
    std::optional<PrioritizerKind> prio;
    std::vector<std::string> prio_args;
    // authmethod = "None": the credentials stay for a section that says CHAP again.
    bool chap_off = false;
    bool discovery_chap_off = false;
    std::map<std::string_view, std::uint32_t> lines;  // of this section
    // Of all sections up to here, the last one that has the option.
    std::string section;
    std::map<std::string_view, Place> places;

    SessionOptions& owner_of(auto SessionOptions::*) { return session; }
    MultipathOptions& owner_of(auto MultipathOptions::*) { return multipath; }
    PathPolicySettings& owner_of(auto PathPolicySettings::*) { return multipath; }
    PortalOptions& owner_of(auto PortalOptions::*) { return paths; }
    bool& off(ChapMember chap) {
      return chap == &SessionOptions::chap ? chap_off : discovery_chap_off;
    }
    [[nodiscard]] SettingPlaces places_in(const std::string& file) const {
      SettingPlaces result;
      for (const auto& [name, place] : places) {
        result.emplace(name, fmt::format("{}:{}", file, place.line));
      }
      return result;
    }
    // What the sections up to here come to.
    [[nodiscard]] SessionOptions result() const {
      SessionOptions options = session;
      if (chap_off) {
        options.chap = {};
      }
      if (discovery_chap_off) {
        options.discovery_chap = {};
      }
      return options;
    }
  };

  Result<void> refuse_record(const ConfigurationEntry& entry) const;
  Result<void> top(const ConfigurationEntry& entry, Configuration& configuration) const;
  // config_options.cpp: one option into the settings.
  Result<void> apply(const Setting& setting, const ConfigurationEntry& entry,
                     Settings& settings) const;
  Result<void> set(const SecondsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const WholeSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PortalGroupFencesSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const YesNoSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const FixedSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const AliasSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const DigestSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const AuthMethodSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const ChapAlgorithmsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const CredentialSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const InterfaceSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const InterfacesSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const MarginalSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const WordSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PrioritizerSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PrioArgumentsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const FailbackSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const RrWeightSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PathWeightsSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const PgInitDelaySetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const NoPathRetrySetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  Result<void> set(const FeaturesSetting& kind, const ConfigurationEntry& entry,
                   Settings& settings) const;
  // config_checks.cpp: what a section must not contradict, in itself or with those above it.
  Result<void> check_chap(std::string_view prefix, ChapMember chap, Settings& settings,
                          const ConfigurationEntry& section) const;
  Result<void> check_policies(const ConfigurationEntry& section, Settings& settings) const;
  static void decide_no_path_retry(Settings& settings);
  // Points to the last of the named options that the section itself has, or to the section, and
  // says where those come from that stand in other sections.
  [[nodiscard]] tl::unexpected<Error> refuse_settings(const ConfigurationEntry& section,
                                                      const Settings& settings,
                                                      std::initializer_list<std::string_view> names,
                                                      std::string_view sentence) const;
  Result<void> check_device(const DeviceSection& device, const Settings& defaults) const;
  Result<void> finish(const ConfigurationEntry& section, Settings& settings) const;
  // config_reader.cpp: sections.
  Result<void> defaults(const ConfigurationEntry& section, Settings& settings) const;
  Result<Settings> target(const ConfigurationEntry& entry, const Settings& defaults) const;
  Result<ConfiguredLun> lun(const ConfigurationEntry& entry, const Settings& defaults,
                            const std::map<std::string, Settings>& targets) const;
  Result<DeviceSection> device(const ConfigurationEntry& entry) const;

  const std::string* file_;
};

struct ConfigurationReader::DeviceSection {
  ArrayRow row;
  ConfigurationEntry entry;
  Settings settings;
};

}  // namespace iscsi_blkback
