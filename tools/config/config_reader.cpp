#include "tools/config/config_reader_impl.h"

namespace iscsi_blkback {
namespace {

constexpr std::array<std::string_view, 8> kTopNames = {
    "initiator_name",  "initiator_alias",     "portals",   "log_level", "run_directory",
    "state_directory", "max_ring_page_order", "core_dumps"};
constexpr std::array<std::string_view, 3> kDeviceNames = {"vendor", "product", "revision"};
constexpr std::array<std::string_view, 4> kLunNames = {"target", "lun", "portals", "wwid"};

tl::unexpected<Error> refuse_misplaced(const ConfigurationEntry& entry) {
  return refuse(entry, fmt::format("{} belongs into [defaults] or [luns.ALIAS]", entry.name));
}

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

// iscsid.conf has no sections: node.session.cmds_max = 128 is a table here, of the name node.
Result<void> ConfigurationReader::refuse_record(const ConfigurationEntry& entry) const {
  for (const ConfigurationEntry& inner : entries_of(*entry.value->as_table(), file_, true)) {
    const ConfigurationEntry whole{inner.file, fmt::format("{}.{}", entry.name, inner.name),
                                   inner.line, inner.value};
    if (find_setting(whole.name) != nullptr) {
      return refuse_misplaced(whole);
    }
    if (!why_meaningless(whole.name).empty()) {
      return refuse_unknown(whole, "of this file", {});
    }
  }
  return {};
}

Result<void> ConfigurationReader::top(const ConfigurationEntry& entry,
                                      Configuration& configuration) const {
  if (entry.name == "portals") {
    auto list = portals_of(entry);
    if (!list) {
      return tl::unexpected(list.error());
    }
    if (std::any_of(list->begin(), list->end(),
                    [](const Portal& portal) { return !portal.target_name.empty(); })) {
      return refuse(entry,
                    "portals outside of a LUN's section are asked for their targets, and "
                    "have none of their own");
    }
    configuration.discovery_portals = std::move(*list);
    return {};
  }
  if (entry.name == "max_ring_page_order") {
    const auto order = whole_of(entry, 0, 4);
    if (!order) {
      return tl::unexpected(order.error());
    }
    configuration.max_ring_page_order = static_cast<std::uint32_t>(*order);
    return {};
  }
  if (entry.name == "core_dumps") {
    const auto allowed = yes_no_of(entry);
    if (!allowed) {
      return tl::unexpected(allowed.error());
    }
    configuration.core_dumps = *allowed;
    return {};
  }
  auto value = text_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  if (entry.name == "initiator_name") {
    if (auto checked = check_iscsi_name("initiator_name", *value); !checked) {
      return refuse(entry, checked.error().message);
    }
    configuration.initiator_name = std::move(*value);
  } else if (entry.name == "initiator_alias") {
    auto alias = alias_of(entry);
    if (!alias) {
      return tl::unexpected(alias.error());
    }
    configuration.session.initiator_alias = std::move(*alias);
  } else if (entry.name == "log_level") {
    if (!parse_log_level(*value)) {
      return refuse(entry, "log_level must be error, warning, info or debug");
    }
    configuration.log_level = std::move(*value);
  } else {
    if (!is_run_directory(*value)) {
      return refuse(entry, fmt::format("{} must be an absolute path of at most {} bytes",
                                       entry.name, kMaxRunDirectoryBytes));
    }
    (entry.name == "run_directory" ? configuration.run_directory : configuration.state_directory) =
        std::move(*value);
  }
  return {};
}

Result<void> ConfigurationReader::defaults(const ConfigurationEntry& section,
                                           Settings& settings) const {
  settings.section = "[defaults]";
  for (const ConfigurationEntry& entry : entries_of(*section.value->as_table(), file_, true)) {
    const Setting* setting = find_setting(entry.name);
    if (setting == nullptr) {
      if (contains(kTopNames, entry.name)) {
        return refuse(
            entry, fmt::format("{} does not belong into a section: put it at the top of the file",
                               entry.name));
      }
      return refuse_unknown(entry, "of [defaults]", configuration_settings());
    }
    if (auto done = apply(*setting, entry, settings); !done) {
      return done;
    }
  }
  return finish(section, settings);
}

Result<ConfigurationReader::Settings> ConfigurationReader::target(const ConfigurationEntry& entry,
                                                                  const Settings& defaults) const {
  if (auto checked = check_iscsi_name("the target name", entry.name); !checked) {
    return refuse(entry, checked.error().message);
  }
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [targets.\"NAME\"]");
  }
  Settings settings = defaults;
  settings.lines.clear();
  settings.section = fmt::format("[targets.\"{}\"]", entry.name);
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    const Setting* setting = find_setting(inner.name);
    if (setting == nullptr) {
      return refuse_unknown(inner, "of a target", configuration_settings());
    }
    if (auto done = apply(*setting, inner, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (auto done = finish(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  return settings;
}

namespace {

// One name, or an array of those by which the array serves the LUN.
Result<void> targets_of(const ConfigurationEntry& entry, ConfiguredLun& lun) {
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    auto name = target_name_of(entry);
    if (!name) {
      return tl::unexpected(name.error());
    }
    lun.target_name = std::move(*name);
    return {};
  }
  if (array->empty() || array->size() > kMaxTargetNamesPerDisk) {
    return refuse(entry,
                  fmt::format("target names none, or more than {} names", kMaxTargetNamesPerDisk));
  }
  for (const toml::node& node : *array) {
    const ConfigurationEntry element{entry.file, entry.name, node.source().begin.line, &node};
    auto name = target_name_of(element);
    if (!name) {
      return tl::unexpected(name.error());
    }
    if (!add_target_name(*name, lun.target_name, lun.other_target_names)) {
      return refuse(element, fmt::format("target names {} twice", *name));
    }
  }
  return {};
}

}  // namespace

Result<ConfiguredLun> ConfigurationReader::lun(
    const ConfigurationEntry& entry, const Settings& defaults,
    const std::map<std::string, Settings>& targets) const {
  if (!is_alias(entry.name)) {
    return refuse(entry,
                  "a LUN's alias must have 1 to 64 letters, digits, dots, dashes and underscores, "
                  "and not begin like an iSCSI name");
  }
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [luns.ALIAS]");
  }
  ConfiguredLun result;
  result.alias = entry.name;
  // The options of its target come first, wherever its name stands in the section.
  Settings settings = defaults;
  const toml::array* names = table->get_as<toml::array>("target");
  const auto* first = names == nullptr ? table->get_as<std::string>("target")
                      : names->empty() ? nullptr
                                       : names->get_as<std::string>(0);
  if (first != nullptr) {
    if (const Settings* whole = find_iscsi_name(targets, first->get())) {
      settings = *whole;
    }
  }
  settings.lines.clear();
  settings.section = fmt::format("[luns.{}]", entry.name);
  bool has_lun = false;
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    if (inner.name == "target") {
      if (auto done = targets_of(inner, result); !done) {
        return tl::unexpected(done.error());
      }
    } else if (inner.name == "lun") {
      const auto number = whole_of(inner, 0, kMaxLun);
      if (!number) {
        return tl::unexpected(number.error());
      }
      result.lun = static_cast<std::uint16_t>(*number);
      has_lun = true;
    } else if (inner.name == "portals") {
      auto list = portals_of(inner);
      if (!list) {
        return tl::unexpected(list.error());
      }
      result.portals = std::move(*list);
    } else if (inner.name == "wwid") {
      const auto text = text_of(inner);
      if (!text) {
        return tl::unexpected(text.error());
      }
      auto wwid = parse_wwid(*text);
      if (!wwid) {
        return refuse(inner, wwid.error().message);
      }
      settings.multipath.wwid = std::move(*wwid);
    } else if (const Setting* setting = find_setting(inner.name)) {
      if (auto done = apply(*setting, inner, settings); !done) {
        return tl::unexpected(done.error());
      }
    } else {
      auto known = configuration_settings();
      known.insert(known.end(), kLunNames.begin(), kLunNames.end());
      return refuse_unknown(inner, "of a LUN", known);
    }
  }
  if (result.target_name.empty()) {
    return refuse(entry, fmt::format("luns.{} has no target = \"iqn...\"", entry.name));
  }
  if (!has_lun) {
    return refuse(entry, fmt::format("luns.{} has no lun = NUMBER", entry.name));
  }
  for (const std::string& name : result.other_target_names) {
    if (!result.portals.empty() &&
        std::none_of(result.portals.begin(), result.portals.end(), [&](const Portal& portal) {
          return same_iscsi_name(portal.target_name, name);
        })) {
      return refuse(entry, fmt::format("luns.{} has portals, but none for the target {}: write "
                                       "{{ portal = \"HOST\", target = \"{}\" }}",
                                       entry.name, name, name));
    }
  }
  if (auto done = finish(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  result.session = settings.result();
  result.multipath = settings.multipath;
  result.paths = settings.paths;
  result.places = settings.places_in(*file_);
  result.multipath.alias = result.alias;
  return result;
}

Result<ConfigurationReader::DeviceSection> ConfigurationReader::device(
    const ConfigurationEntry& entry) const {
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    return refuse_type(entry, "a section [[device]]");
  }
  ArrayRow row;
  Settings settings;
  for (const ConfigurationEntry& inner : entries_of(*table, file_, true)) {
    std::string* const pattern = inner.name == "vendor"     ? &row.vendor
                                 : inner.name == "product"  ? &row.product
                                 : inner.name == "revision" ? &row.revision
                                                            : nullptr;
    if (pattern != nullptr) {
      auto value = text_of(inner);
      if (!value) {
        return tl::unexpected(value.error());
      }
      if (auto checked = check_pattern(*value, false); !checked) {
        return refuse(inner, fmt::format("{} {}", inner.name, checked.error().message));
      }
      *pattern = std::move(*value);
      continue;
    }
    const Setting* setting = find_setting(inner.name);
    if (setting != nullptr && !setting->of_device) {
      return refuse(inner, fmt::format("{} is not an option of a device: it belongs into "
                                       "[defaults] or [luns.ALIAS]",
                                       inner.name));
    }
    if (setting == nullptr) {
      std::vector<std::string_view> known(kDeviceNames.begin(), kDeviceNames.end());
      for (const Setting& candidate : all_settings()) {
        if (candidate.of_device) {
          known.push_back(candidate.name);
        }
      }
      return refuse_unknown(inner, "of a device", known);
    }
    if (auto done = apply(*setting, inner, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (row.vendor.empty() && row.product.empty()) {
    return refuse(entry, "a device needs a vendor or a product");
  }
  if (auto done = check_policies(entry, settings); !done) {
    return tl::unexpected(done.error());
  }
  decide_no_path_retry(settings);
  row.policies = settings.multipath;
  return DeviceSection{std::move(row), entry, std::move(settings)};
}

Result<std::vector<ConfigurationReader::DeviceSection>> ConfigurationReader::devices(
    const ConfigurationEntry& entry) const {
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    return refuse_type(entry, "sections [[device]]");
  }
  std::vector<DeviceSection> sections;
  for (const toml::node& node : *array) {
    auto section = device({entry.file, entry.name, node.source().begin.line, &node});
    if (!section) {
      return tl::unexpected(section.error());
    }
    sections.push_back(std::move(*section));
  }
  return sections;
}

Result<Configuration> ConfigurationReader::read(const toml::table& root) const {
  Configuration configuration;
  ConfigurationEntry default_section;
  ConfigurationEntry luns;
  ConfigurationEntry targets;
  std::vector<DeviceSection> own_arrays;
  for (const ConfigurationEntry& entry : entries_of(root, file_)) {
    if (entry.name == "device") {
      auto sections = devices(entry);
      if (!sections) {
        return tl::unexpected(sections.error());
      }
      own_arrays = std::move(*sections);
    } else if (entry.name == "defaults" || entry.name == "targets" || entry.name == "luns") {
      const bool is_luns = entry.name == "luns";
      const bool is_targets = entry.name == "targets";
      if (!entry.value->is_table()) {
        return refuse_type(entry, is_luns      ? "sections [luns.ALIAS]"
                                  : is_targets ? "sections [targets.\"NAME\"]"
                                               : "a section [defaults]");
      }
      (is_luns ? luns : is_targets ? targets : default_section) = entry;
    } else if (contains(kTopNames, entry.name)) {
      if (auto done = top(entry, configuration); !done) {
        return tl::unexpected(done.error());
      }
    } else if (find_setting(entry.name) != nullptr) {
      return refuse_misplaced(entry);
    } else {
      if (entry.value->is_table()) {
        if (auto done = refuse_record(entry); !done) {
          return tl::unexpected(done.error());
        }
      }
      std::vector<std::string_view> known(kTopNames.begin(), kTopNames.end());
      known.insert(known.end(), {"defaults", "targets", "luns", "device"});
      return refuse_unknown(entry, "of this file", known);
    }
  }
  Settings settings;
  settings.session = configuration.session;
  const auto arrays = std::make_shared<ArrayTable>(built_in_arrays());
  for (const DeviceSection& own : own_arrays) {
    arrays->push_back(own.row);
  }
  settings.multipath.arrays = arrays;
  if (default_section.value != nullptr) {
    if (auto done = defaults(default_section, settings); !done) {
      return tl::unexpected(done.error());
    }
  }
  for (const DeviceSection& own : own_arrays) {
    if (auto checked = check_device(own, settings); !checked) {
      return tl::unexpected(checked.error());
    }
  }
  configuration.session = settings.result();
  configuration.multipath = settings.multipath;
  configuration.paths = settings.paths;
  configuration.places = settings.places_in(*file_);
  std::map<std::string, Settings> of_targets;
  if (targets.value != nullptr) {
    for (const ConfigurationEntry& entry : entries_of(*targets.value->as_table(), file_)) {
      auto one = target(entry, settings);
      if (!one) {
        return tl::unexpected(one.error());
      }
      ConfiguredTarget& configured = configuration.targets[entry.name];
      configured = {one->result(), one->multipath, one->paths, one->places_in(*file_)};
      configured.session.initiator_name = configuration.initiator_name;
      of_targets.emplace(entry.name, std::move(*one));
    }
  }
  if (luns.value != nullptr) {
    for (const ConfigurationEntry& entry : entries_of(*luns.value->as_table(), file_)) {
      auto one = lun(entry, settings, of_targets);
      if (!one) {
        return tl::unexpected(one.error());
      }
      one->session.initiator_name = configuration.initiator_name;
      configuration.luns.emplace(entry.name, std::move(*one));
    }
  }
  configuration.session.initiator_name = configuration.initiator_name;
  return configuration;
}

Result<Configuration> read_document(const toml::table& root, const std::string& file) {
  return ConfigurationReader(file).read(root);
}

Result<ArrayTable> read_arrays(const toml::table& root, const std::string& file) {
  const ConfigurationReader reader(file);
  ArrayTable table;
  for (const ConfigurationEntry& entry : entries_of(root, &file)) {
    if (entry.name != "device") {
      return refuse_unknown(entry, "of an array table", {});
    }
    const auto sections = reader.devices(entry);
    if (!sections) {
      return tl::unexpected(sections.error());
    }
    for (const auto& section : *sections) {
      table.push_back(section.row);
    }
  }
  for (ArrayRow& row : table) {
    row.prio_without_alua = true;
  }
  return table;
}

}  // namespace iscsi_blkback
