// --help-config: the table of options, for people.
#include <fmt/format.h>

#include <array>
#include <string>

#include "tools/config/config.h"
#include "tools/config/config_options.h"

namespace iscsi_blkback {
namespace {

// "is neither A nor B", as a refusal says it: "A or B".
std::string wanted(std::string_view words) {
  std::string text(words);
  for (const std::string_view beginning : {"must be ", "must have ", "is neither ", "is no "}) {
    if (text.starts_with(beginning)) {
      text.erase(0, beginning.size());
    }
  }
  if (text.starts_with("is none of ")) {
    text.erase(0, std::string_view("is none of ").size());
    text.replace(text.rfind(" and "), 5, " or ");
  }
  if (const std::size_t nor = text.find(" nor "); nor != std::string::npos) {
    text.replace(nor, 5, " or ");
  }
  return text.substr(0, text.find(": the rest"));
}

std::string described(const ConfigOption& option) {
  std::string text = option.kind == ConfigOption::Kind::text     ? wanted(option.words)
                     : option.least == option.most               ? option.shown(option.least)
                     : option.kind == ConfigOption::Kind::yes_no ? "yes or no"
                     : !option.words.empty()
                         ? std::string(option.words)
                         : option.shown(option.least) + " to " + option.shown(option.most);
  if (option.kind == ConfigOption::Kind::seconds) {
    text += " seconds";
  }
  if (option.required) {
    text += ", must be given";
  }
  const auto by_default = option.default_value();
  return by_default ? text + ", default " + option.shown(*by_default) : text;
}

}  // namespace

std::vector<std::string> configuration_help() {
  struct Group {
    unsigned sections;
    const char* title;
  };
  constexpr std::array kGroups = {
      Group{kAtTop, "At the top of the file:"},
      Group{kOfDisks, "In [defaults], [targets.\"NAME\"] and [luns.ALIAS]; *: in [[device]], too:"},
      Group{kOfDevices, "In [[device]] alone:"}, Group{kOfLuns, "In [luns.ALIAS] alone:"},
      Group{kInPortals, "In a table among portals, and iface. and its parts:"}};
  std::vector<std::string> lines;
  unsigned listed = 0;  // sections
  for (const Group& group : kGroups) {
    lines.emplace_back(group.title);
    for (const ConfigOption& option : config_options()) {
      if ((option.sections & group.sections) == 0 || (option.sections & listed) != 0) {
        continue;
      }
      const bool of_paths = group.sections == kOfDisks && (option.sections & kOfDevices) != 0;
      lines.push_back(
          fmt::format(" {} {:<21} {}", of_paths ? '*' : ' ', option.name, described(option)));
      if (!option.iscsid_prefix.empty()) {
        lines.push_back(fmt::format("{:>26} {}{}", "=", option.iscsid_prefix, option.iscsid_key));
      }
    }
    listed |= group.sections;
  }
  lines.emplace_back(
      "yes and no are written true and false, or in quotes: \"Yes\", \"No\", \"yes\", \"no\".");
  lines.emplace_back(
      "= is the option's name in iscsid.conf, in quotes. See iscsi-blkback.toml(5).");
  return lines;
}

}  // namespace iscsi_blkback
