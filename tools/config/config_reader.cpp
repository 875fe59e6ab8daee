#include "tools/config/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "multipath/attach/disk_url.h"
#include "tools/config/array_table.h"
#include "tools/config/config_checks.h"
#include "tools/config/config_options.h"

namespace iscsi_blkback {
namespace {

constexpr const char* kOfThisFile = "of this file";

// iscsid.conf has no sections: node.session.cmds_max = 128 is a table here, of the name node.
void refuse_record(const ConfigEntry& entry) {
  for (ConfigEntry inner : entries_of(entry, true)) {
    inner.name = entry.name + "." + inner.name;
    if (find_option(inner.name, kOfDisks) != nullptr || !why_meaningless(inner.name).empty()) {
      ConfigDraft none(entry, kAtTop, kOfThisFile);
      read_option(inner, none);
    }
  }
}

std::vector<ConfigDraft> read_devices(const ConfigEntry& entry) {
  if (!entry.value->is_array()) {
    entry.refuse_type("sections [[device]]");
  }
  std::vector<ConfigDraft> devices;
  for (const ConfigEntry& element : elements_of(entry)) {
    if (!element.value->is_table()) {
      element.refuse_type("a section [[device]]");
      break;
    }
    ConfigDraft draft(element, kOfDevices, "of a device");
    read_options(draft);
    if (draft.row.vendor.empty() && draft.row.product.empty()) {
      element.refuse("a device needs a vendor or a product");
    }
    check_policies(draft);
    decide_no_path_retry(draft);
    draft.row.policies = draft.multipath;
    devices.push_back(std::move(draft));
  }
  return devices;
}

ConfigDraft read_target(const ConfigEntry& entry, ConfigDraft draft) {
  draft.begin(entry, kOfDisks, "of a target", fmt::format("[targets.\"{}\"]", entry.name));
  if (auto checked = check_iscsi_name("the target name", entry.name); !checked) {
    entry.refuse(checked.error().message);
  } else if (!entry.value->is_table()) {
    entry.refuse_type("a section [targets.\"NAME\"]");
  } else {
    read_options(draft);
    check_section(draft);
  }
  return draft;
}

// The options of its target come first, wherever its name stands in the section.
ConfigDraft read_lun(const ConfigEntry& entry, const ConfigDraft& defaults,
                     const std::map<std::string, ConfigDraft>& targets) {
  if (!is_alias(entry.name)) {
    entry.refuse(
        "a LUN's alias must have 1 to 64 letters, digits, dots, dashes and underscores, and not "
        "begin like an iSCSI name");
  }
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    entry.refuse_type("a section [luns.ALIAS]");
    return defaults;
  }
  const toml::node* name = table->get("target");
  if (name != nullptr && name->is_array()) {
    name = name->as_array()->get(0);
  }
  const ConfigDraft* target = name == nullptr || !name->is_string()
                                  ? nullptr
                                  : find_iscsi_name(targets, name->as_string()->get());
  ConfigDraft draft = target == nullptr ? defaults : *target;
  draft.begin(entry, kOfDisks | kOfLuns, "of a LUN", fmt::format("[luns.{}]", entry.name));
  draft.alias = entry.name;
  draft.multipath.alias = entry.name;
  read_options(draft);
  if (draft.target_name.empty()) {
    entry.refuse("luns.{} has no target = \"iqn...\"", draft.alias);
  }
  if (draft.line_of("lun") == nullptr) {
    entry.refuse("luns.{} has no lun = NUMBER", draft.alias);
  }
  for (const std::string& other : draft.other_target_names) {
    const auto leads_there = [&](const Portal& portal) {
      return same_iscsi_name(portal.target_name, other);
    };
    if (!draft.portals.empty() &&
        std::none_of(draft.portals.begin(), draft.portals.end(), leads_there)) {
      entry.refuse(
          "luns.{} has portals, but none for the target {}: write {{ portal = \"HOST\", target = "
          "\"{}\" }}",
          draft.alias, other, other);
    }
  }
  check_section(draft);
  return draft;
}

// What a draft comes to, once nothing is read into it any more.
ConfiguredLun settled(ConfigDraft draft) {
  draft.session.initiator_name = draft.top->initiator_name;
  if (draft.chap_off) {
    draft.session.chap = {};
  }
  if (draft.discovery_chap_off) {
    draft.session.discovery_chap = {};
  }
  for (const auto& [name, place] : draft.written) {
    draft.places.emplace(name, fmt::format("{}:{}", draft.entry.file->name, place.line));
  }
  return draft;
}

}  // namespace

Result<Configuration> read_document(const toml::table& root, const std::string& name) {
  ConfigFile file{name};
  Configuration configuration;
  const ConfigEntry whole{&file, {}, 0, &root};
  ConfigDraft defaults(whole, kAtTop, kOfThisFile);
  defaults.top = &configuration;
  std::vector<ConfigDraft> devices;
  std::map<std::string, ConfigEntry> sections;
  for (const ConfigEntry& entry : entries_of(whole, false)) {
    const char* const wanted = entry.name == "defaults"  ? "a section [defaults]"
                               : entry.name == "targets" ? "sections [targets.\"NAME\"]"
                               : entry.name == "luns"    ? "sections [luns.ALIAS]"
                                                         : nullptr;
    if (wanted != nullptr && !entry.value->is_table()) {
      entry.refuse_type(wanted);
    } else if (wanted != nullptr) {
      sections.emplace(entry.name, entry);
    } else if (entry.name == "device") {
      devices = read_devices(entry);
    } else {
      if (entry.value->is_table() && find_option(entry.name, kAtTop | kOfDisks) == nullptr) {
        refuse_record(entry);
      }
      read_option(entry, defaults);
    }
  }
  const auto arrays = std::make_shared<ArrayTable>(built_in_arrays());
  for (const ConfigDraft& device : devices) {
    arrays->push_back(device.row);
  }
  defaults.multipath.arrays = arrays;
  if (const auto section = sections.find("defaults"); section != sections.end()) {
    defaults.begin(section->second, kOfDisks, "of [defaults]", "[defaults]");
    read_options(defaults);
    check_section(defaults);
  }
  for (const ConfigDraft& device : devices) {
    check_device(device, defaults);
  }
  static_cast<DiskOptions&>(configuration) = settled(defaults);
  const auto within = [&](const char* section) {
    const auto found = sections.find(section);
    return found == sections.end() ? std::vector<ConfigEntry>() : entries_of(found->second, false);
  };
  std::map<std::string, ConfigDraft> targets;
  for (const ConfigEntry& entry : within("targets")) {
    const auto target = targets.emplace(entry.name, read_target(entry, defaults)).first;
    configuration.targets[entry.name] = {settled(target->second)};
  }
  std::vector<ConfigDraft> luns;
  for (const ConfigEntry& entry : within("luns")) {
    luns.push_back(read_lun(entry, defaults, targets));
  }
  check_aliases(luns);
  for (const ConfigDraft& lun : luns) {
    configuration.luns.emplace(lun.entry.name, settled(lun));
  }
  if (file.mistake) {
    return tl::unexpected(*file.mistake);
  }
  return configuration;
}

Result<ArrayTable> read_arrays(const toml::table& root, const std::string& name) {
  ConfigFile file{name};
  ArrayTable table;
  for (const ConfigEntry& entry : entries_of({&file, {}, 0, &root}, false)) {
    if (entry.name != "device") {
      ConfigDraft none(entry, 0, "of an array table");
      read_option(entry, none);
      continue;
    }
    for (const ConfigDraft& device : read_devices(entry)) {
      table.push_back(device.row);
      table.back().prio_without_alua = true;
    }
  }
  if (file.mistake) {
    return tl::unexpected(*file.mistake);
  }
  return table;
}

}  // namespace iscsi_blkback
