#include "tools/config/config_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

#include "multipath/attach/disk_target.h"
#include "tools/config/config_settings.h"

namespace iscsi_blkback {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::array<std::string_view, 6> kPortalNames = {
    "portal", "interface", "iface.net_ifacename", "iface.ipaddress", "iface.hwaddress", "target"};
constexpr std::size_t kMaxInterfaces = 16;

void collect(const toml::table& table, const std::string& file, const std::string& prefix,
             bool join, std::vector<ConfigurationEntry>& entries) {
  for (auto&& [key, value] : table) {
    const std::string name = prefix + std::string(key.str());
    if (const toml::table* inner = value.as_table(); join && inner != nullptr && !inner->empty()) {
      collect(*inner, file, name + ".", join, entries);
    } else {
      entries.push_back({&file, name, key.source().begin.line, &value});
    }
  }
}

const char* described(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a decimal number";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

Result<void> read_interface(const ConfigurationEntry& entry, InterfaceBinding& binding) {
  return read_interface_part(entry,
                             entry.name == "iface.ipaddress"   ? &InterfaceBinding::address
                             : entry.name == "iface.hwaddress" ? &InterfaceBinding::hardware_address
                                                               : &InterfaceBinding::name,
                             binding);
}

Result<Portal> portal_of(const ConfigurationEntry& entry) {
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    if (!entry.value->is_string()) {
      return refuse_type(entry,
                         "a string \"HOST[:PORT]\" or a table with portal, interface and target");
    }
    auto parsed = parse_portal(entry.value->as_string()->get());
    if (!parsed) {
      return refuse(entry, fmt::format("{}: {}", entry.name, parsed.error().message));
    }
    return *parsed;
  }
  std::optional<Portal> result;
  InterfaceBinding binding;
  std::string target_name;
  for (const ConfigurationEntry& inner : entries_of(*table, entry.file, true)) {
    if (std::find(kPortalNames.begin(), kPortalNames.end(), inner.name) == kPortalNames.end()) {
      return refuse_unknown(inner, "of a portal", kPortalNames);
    }
    if (inner.name == "target") {
      auto name = target_name_of(inner);
      if (!name) {
        return tl::unexpected(name.error());
      }
      target_name = std::move(*name);
      continue;
    }
    if (inner.name != "portal") {
      if (auto done = read_interface(inner, binding); !done) {
        return tl::unexpected(done.error());
      }
      continue;
    }
    auto value = text_of(inner);
    if (!value) {
      return tl::unexpected(value.error());
    }
    auto parsed = parse_portal(*value);
    if (!parsed) {
      return refuse(inner, fmt::format("portal: {}", parsed.error().message));
    }
    result = std::move(*parsed);
  }
  if (!result) {
    return refuse(entry, "a portal's table needs portal = \"HOST[:PORT]\"");
  }
  result->interface_binding = std::move(binding);
  result->target_name = std::move(target_name);
  return *result;
}

Result<InterfaceBinding> interface_of(const ConfigurationEntry& entry) {
  InterfaceBinding binding;
  const toml::table* table = entry.value->as_table();
  if (table == nullptr) {
    if (!entry.value->is_string()) {
      return refuse_type(entry,
                         "the name of a network interface, or a table like "
                         "{ iface.hwaddress = \"52:54:00:12:34:56\" }");
    }
    if (auto done = read_interface_part(entry, &InterfaceBinding::name, binding); !done) {
      return tl::unexpected(done.error());
    }
    return binding;
  }
  constexpr auto kNames = std::span{kPortalNames}.subspan(1);
  for (const ConfigurationEntry& inner : entries_of(*table, entry.file, true)) {
    if (std::find(kNames.begin(), kNames.end(), inner.name) == kNames.end()) {
      return refuse_unknown(inner, "of an interface", kNames);
    }
    if (auto done = read_interface(inner, binding); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (binding.empty()) {
    return refuse(entry,
                  "an interface's table needs iface.net_ifacename, iface.ipaddress or "
                  "iface.hwaddress");
  }
  return binding;
}

}  // namespace

std::vector<ConfigurationEntry> entries_of(const toml::table& table, const std::string* file,
                                           bool join_dotted_keys) {
  std::vector<ConfigurationEntry> entries;
  collect(table, *file, {}, join_dotted_keys, entries);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& left, const auto& right) { return left.line < right.line; });
  return entries;
}

tl::unexpected<Error> refuse(const ConfigurationEntry& entry, std::string_view sentence) {
  return fail(ErrorCode::invalid_argument,
              fmt::format("{}:{}: {}", *entry.file, entry.line, sentence));
}

tl::unexpected<Error> refuse_type(const ConfigurationEntry& entry, std::string_view wanted) {
  return refuse(entry,
                fmt::format("{} must be {}, not {}", entry.name, wanted, described(*entry.value)));
}

tl::unexpected<Error> refuse_unknown(const ConfigurationEntry& entry, std::string_view where,
                                     std::span<const std::string_view> known) {
  if (const std::string_view why = why_meaningless(entry.name); !why.empty()) {
    return refuse(entry, fmt::format("{} has no meaning here: {}", entry.name, why));
  }
  return refuse(entry, fmt::format("{} is not an option {}{}", entry.name, where,
                                   suggestion(entry.name, known)));
}

Result<std::string> text_of(const ConfigurationEntry& entry) {
  const auto* value = entry.value->as_string();
  if (value == nullptr) {
    return refuse_type(entry, "a string");
  }
  return value->get();
}

Result<std::vector<std::string>> texts_of(const ConfigurationEntry& entry) {
  std::vector<std::string> texts;
  if (const auto* value = entry.value->as_string()) {
    texts.push_back(value->get());
    return texts;
  }
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    return refuse_type(entry, "a string or an array of strings");
  }
  for (const toml::node& node : *array) {
    auto text = text_of({entry.file, entry.name, node.source().begin.line, &node});
    if (!text) {
      return tl::unexpected(text.error());
    }
    texts.push_back(std::move(*text));
  }
  return texts;
}

Result<std::int64_t> whole_of(const ConfigurationEntry& entry, std::int64_t least,
                              std::int64_t most) {
  const auto* value = entry.value->as_integer();
  const std::string wanted = fmt::format("a whole number from {} to {}", least, most);
  if (value == nullptr) {
    return refuse_type(entry, wanted);
  }
  if (value->get() < least || value->get() > most) {
    return refuse(entry, fmt::format("{} must be {}, not {}", entry.name, wanted, value->get()));
  }
  return value->get();
}

Result<Milliseconds> seconds_of(const ConfigurationEntry& entry, Milliseconds least,
                                Milliseconds most) {
  double value = 0;
  if (const auto* number = entry.value->as_integer()) {
    value = static_cast<double>(number->get());
  } else if (const auto* decimal = entry.value->as_floating_point()) {
    value = decimal->get();
  } else {
    return refuse_type(entry, "a number of seconds");
  }
  // Written so that not-a-number is refused too.
  if (!(value * 1000 >= static_cast<double>(least.count()) &&
        value * 1000 <= static_cast<double>(most.count()))) {
    return refuse(entry, fmt::format("{} must be a number of seconds from {} to {}, not {}",
                                     entry.name, in_seconds(least), in_seconds(most), value));
  }
  return Milliseconds(std::llround(value * 1000));
}

Result<bool> yes_no_of(const ConfigurationEntry& entry) {
  if (const auto* value = entry.value->as_boolean()) {
    return value->get();
  }
  // iscsid.conf writes them so.
  if (const auto* value = entry.value->as_string()) {
    if (value->get() == "Yes" || value->get() == "No") {
      return value->get() == "Yes";
    }
    return refuse(entry, fmt::format("{} must be true, false, \"Yes\" or \"No\"", entry.name));
  }
  return refuse_type(entry, "true, false, \"Yes\" or \"No\"");
}

Result<std::string> target_name_of(const ConfigurationEntry& entry) {
  auto name = text_of(entry);
  if (!name) {
    return name;
  }
  if (auto checked = check_iscsi_name("target", *name); !checked) {
    return refuse(entry, checked.error().message);
  }
  return name;
}

Result<std::vector<Portal>> portals_of(const ConfigurationEntry& entry) {
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    return refuse_type(entry, "an array like [\"192.0.2.1:3260\", \"192.0.2.2\"]");
  }
  std::vector<Portal> result;
  for (const toml::node& node : *array) {
    const ConfigurationEntry element{entry.file, entry.name, node.source().begin.line, &node};
    auto one = portal_of(element);
    if (!one) {
      return tl::unexpected(one.error());
    }
    if (std::find(result.begin(), result.end(), *one) != result.end()) {
      return refuse(element, fmt::format("{} names {} twice", entry.name, one->to_string()));
    }
    if (result.size() == kMaxPortalsPerDisk) {
      return refuse(element,
                    fmt::format("{} names more than {} portals", entry.name, kMaxPortalsPerDisk));
    }
    result.push_back(std::move(*one));
  }
  if (result.empty()) {
    return refuse(entry, fmt::format("{} names no portal", entry.name));
  }
  return result;
}

Result<void> read_interface_part(const ConfigurationEntry& entry,
                                 std::string InterfaceBinding::*member, InterfaceBinding& binding) {
  auto value = text_of(entry);
  if (!value) {
    return tl::unexpected(value.error());
  }
  if (!(binding.*member).empty()) {
    return refuse(entry, fmt::format("{} names a second interface", entry.name));
  }
  if (member == &InterfaceBinding::address) {
    // The interface of its zone may come later.
    if (const auto address = SocketAddress::parse(*value, 0);
        !address && address.error().code != ErrorCode::not_found) {
      return refuse(entry, fmt::format("{} must be a numeric IPv4 or IPv6 address of this host, "
                                       "without a port",
                                       entry.name));
    }
  } else if (member == &InterfaceBinding::hardware_address) {
    auto address = parse_hardware_address(*value);
    if (!address) {
      return refuse(entry, fmt::format("{} must be a hardware address like \"52:54:00:12:34:56\"",
                                       entry.name));
    }
    value = std::move(*address);
  } else if (!is_interface_name(*value)) {
    return refuse(entry, fmt::format("{} must be the name of a network interface, like \"eth1\"",
                                     entry.name));
  }
  binding.*member = std::move(*value);
  return {};
}

Result<std::vector<InterfaceBinding>> interfaces_of(const ConfigurationEntry& entry) {
  const toml::array* array = entry.value->as_array();
  if (array == nullptr) {
    return refuse_type(entry, "an array like [\"eth1\", \"eth2\"]");
  }
  std::vector<InterfaceBinding> result;
  for (const toml::node& node : *array) {
    const ConfigurationEntry element{entry.file, entry.name, node.source().begin.line, &node};
    auto one = interface_of(element);
    if (!one) {
      return tl::unexpected(one.error());
    }
    if (std::find(result.begin(), result.end(), *one) != result.end()) {
      return refuse(element, fmt::format("{} names {} twice", entry.name, one->to_string()));
    }
    if (result.size() == kMaxInterfaces) {
      return refuse(element,
                    fmt::format("{} names more than {} interfaces", entry.name, kMaxInterfaces));
    }
    result.push_back(std::move(*one));
  }
  if (result.empty()) {
    return refuse(entry, fmt::format("{} names no interface", entry.name));
  }
  return result;
}

std::string in_seconds(Milliseconds time) {
  return time.count() % 1000 == 0 ? fmt::format("{}", time.count() / 1000)
                                  : fmt::format("{}", static_cast<double>(time.count()) / 1000.0);
}

}  // namespace iscsi_blkback
