// iscsi-blkctl: shows what the service's processes serve, and changes what can be changed while it
// is in use. It only asks and prints; a process that hangs costs one second, or five where it has
// to look up a name.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/core_dumps.h"
#include "base/json_text.h"
#include "multipath/attach/disk_url.h"
#include "tools/config/config.h"
#include "tools/ctl/status_client.h"
#include "tools/ctl/status_text.h"
#include "tools/program/command_words.h"
#include "tools/program/program_version.h"
#include "tools/program/terminal.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::milliseconds kPatience{1000};
// A portal's name has to be looked up first; as long as the process keeps the connection.
constexpr std::chrono::milliseconds kLookUpPatience{5000};

constexpr int kOk = 0;
constexpr int kError = 1;
constexpr int kUsage = 2;

struct Arguments {
  ConfigurationFiles files;
  std::string run_directory;
  std::string name;
  bool json = false;
  // Of a command that changes something. Words after it, as multipathd has them: "maps", or "map"
  // and a name; of "set" then the setting and its value. Of "add" and "del": "path", a portal, ...
  std::vector<std::string> words;
};

void complain(const std::string& sentence) {
  print_complaint("iscsi-blkctl", sentence);
}

// The service may have been started before the file was broken, so a broken file is no obstacle; one
// that was named and is not there is a slip of the pen.
Result<std::string> run_directory_of(const Arguments& arguments) {
  if (!arguments.run_directory.empty()) {
    return arguments.run_directory;
  }
  const auto configuration = read_configuration(arguments.files);
  if (configuration) {
    return configuration->run_directory;
  }
  if (configuration.error().code == ErrorCode::not_found) {
    return fail(ErrorCode::invalid_argument, configuration.error().message);
  }
  complain(configuration.error().message);
  return Configuration{}.run_directory;
}

// An error when nobody answers.
Result<StatusOverview> ask(const std::string& run_directory) {
  const auto replies = ask_status(run_directory, kPatience);
  if (!replies) {
    return tl::unexpected(replies.error());
  }
  StatusOverview overview = read_status(*replies);
  if (!overview.any_process) {
    return fail(
        ErrorCode::unavailable,
        fmt::format("no iscsi-blkback service is running (nobody answers in {})", run_directory));
  }
  return overview;
}

int status_of(const Error& error) {
  return error.code == ErrorCode::invalid_argument ? kUsage : kError;
}

// With --json a document says it, too.
int give_up(const Error& error, bool json = false) {
  complain(error.message);
  if (json) {
    nlohmann::json document;
    document["error"] = error.message;
    static_cast<void>(print_json("iscsi-blkctl", document));
  }
  return status_of(error);
}

int list(const Arguments& arguments) {
  auto asked = run_directory_of(arguments).and_then(ask);
  if (!asked) {
    return give_up(asked.error(), arguments.json);
  }
  StatusOverview& overview = *asked;
  if (!arguments.name.empty()) {
    keep_only(overview, arguments.name);
    if (overview.disks.empty()) {
      overview.remarks.push_back(fmt::format("there is no disk {}", arguments.name));
    }
  }
  nlohmann::json document = topology_json(overview);
  if (!overview.remarks.empty()) {
    document["error"] = fmt::format("{}", fmt::join(overview.remarks, "; "));
  }
  const bool written = arguments.json ? print_json("iscsi-blkctl", document)
                                      : print_lines("iscsi-blkctl", topology_text(overview));
  for (const std::string& remark : overview.remarks) {
    complain(remark);
  }
  return overview.remarks.empty() && written ? kOk : kError;
}

// The disks that a changing command is for; complains and is empty when that is not clear.
std::vector<DiskStatusRow> chosen(StatusOverview overview, const std::string& name) {
  if (name.empty()) {
    if (overview.disks.empty()) {
      complain("there is no disk");
    }
    return overview.disks;
  }
  keep_only(overview, name);
  if (overview.disks.empty()) {
    complain(fmt::format("there is no disk {}", name));
  } else if (overview.disks.size() > 1) {
    complain(fmt::format("{} is the name of {} disks, {} and {} among them: say which", name,
                         overview.disks.size(), overview.disks[0].device_name(),
                         overview.disks[1].device_name()));
    overview.disks.clear();
  }
  return overview.disks;
}

// A command that changes something, as it goes to the guests' processes.
struct Order {
  nlohmann::json request;  // but for the disk
  std::string map;         // empty: of all disks
  std::chrono::milliseconds patience = kPatience;
};

// As the guests' processes check it (control_request.h): what is wrong is said whoever runs.
Result<void> check_setting(const std::string& setting, const std::string& value) {
  const auto checked = [](const auto& parsed) -> Result<void> {
    return parsed ? Result<void>() : tl::unexpected(parsed.error());
  };
  if (setting == "no_path_retry") {
    return checked(parse_no_path_retry(value));
  }
  if (setting == "path_selector") {
    return checked(parse_path_selector(value));
  }
  if (setting == "path_grouping_policy") {
    return checked(parse_path_grouping_policy(value));
  }
  return fail(ErrorCode::invalid_argument,
              fmt::format("{} cannot be changed while a disk is in use; no_path_retry, "
                          "path_selector and path_grouping_policy can",
                          setting));
}

// disablequeueing, restorequeueing and set: "map NAME" or "maps", and then what to set. Complains
// and is nothing when the words are others.
std::optional<Order> setting_order(const std::string& command,
                                   const std::vector<std::string>& words) {
  const bool sets = command == "set";
  const bool all = !words.empty() && words[0] == "maps";
  const std::size_t first_value = all ? 1 : 2;
  if (words.empty() || (!all && words[0] != "map") ||
      words.size() != first_value + (sets ? 2 : 0)) {
    complain(fmt::format("{0} is followed by \"map NAME{1}\" or \"maps{1}\"", command,
                         sets ? " SETTING VALUE" : ""));
    return std::nullopt;
  }
  Order order;
  order.request["command"] = command;
  order.map = all ? std::string() : words[1];
  if (sets) {
    if (auto right = check_setting(words[first_value], words[first_value + 1]); !right) {
      complain(right.error().message);
      return std::nullopt;
    }
    order.request["setting"] = words[first_value];
    order.request["value"] = words[first_value + 1];
  }
  return order;
}

// add, del and remove: "path PORTAL map NAME".
std::optional<Order> path_order(const std::string& command, const std::vector<std::string>& words) {
  const bool has_target = words.size() == 6 && words[2] == "target";
  const std::size_t map_at = has_target ? 4 : 2;
  if (words.size() != map_at + 2 || words[0] != "path" || words[map_at] != "map" ||
      words[map_at + 1].empty()) {
    complain(
        fmt::format("{} is followed by \"path PORTAL map NAME\" or \"path PORTAL target IQN "
                    "map NAME\"",
                    command));
    return std::nullopt;
  }
  auto right = parse_portal(words[1]).map([](const Portal&) {});
  if (right && has_target) {
    right = check_iscsi_name("the target name", words[3]);
  }
  if (!right) {
    complain(right.error().message);
    return std::nullopt;
  }
  Order order;
  order.request["command"] = command == "add" ? "add_path" : "del_path";
  order.request["portal"] = words[1];
  if (has_target) {
    order.request["target"] = words[3];
  }
  order.map = words[map_at + 1];
  order.patience = kLookUpPatience;
  return order;
}

int change(const Arguments& arguments, const std::string& command) {
  const bool of_paths = command == "add" || command == "del" || command == "remove";
  std::optional<Order> order =
      of_paths ? path_order(command, arguments.words) : setting_order(command, arguments.words);
  if (!order) {
    return kUsage;
  }
  const auto run_directory = run_directory_of(arguments);
  const auto overview = run_directory.and_then(ask);
  if (!overview) {
    return give_up(overview.error());
  }
  const std::vector<DiskStatusRow> disks = chosen(*overview, order->map);
  bool done = !disks.empty();
  for (const DiskStatusRow& disk : disks) {
    order->request["devid"] = disk.device_id();
    if (const auto answer = read_answer(
            ask_guest(*run_directory, disk.domain, json_text(order->request), order->patience));
        !answer) {
      complain(fmt::format("{}: {}", disk.device_name(), answer.error().message));
      done = false;
    }
  }
  return done ? kOk : kError;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Shows the disks that iscsi-blkback serves to Xen guests, and their paths.",
               "iscsi-blkctl");
  app.set_version_flag("--version", program_version("iscsi-blkctl"));
  app.require_subcommand(1);
  const CLI::Option* config = app.add_option("-c,--config", arguments.files.configuration,
                                             "configuration file, for its run_directory")
                                  ->capture_default_str();
  app.add_option("-D,--run-directory", arguments.run_directory,
                 "where the control sockets are, instead of what the configuration file says")
      ->check([](const std::string& text) {
        return is_run_directory(text) ? std::string{} : "must be an absolute path, and not long";
      });
  CLI::App* ll = app.add_subcommand("ll", "list the disks with their paths, like multipath -ll");
  ll->add_flag("-j,--json", arguments.json, "print JSON, like multipathd show maps json");
  ll->add_option("NAME", arguments.name,
                 "only the disk with this alias, WWID, virtual device or DOMAIN/DEVICE, "
                 "like dom5/xvda");
  const std::pair<const char*, const char*> changes[] = {
      {"disablequeueing", "fail a disk's requests while it has no path, until restorequeueing"},
      {"restorequeueing", "no_path_retry as the configuration and the disk line have it"},
      {"set",
       "change a setting of a disk until its guest ends: no_path_retry, path_selector, "
       "path_grouping_policy"},
      {"add", "add a path to a disk in use, by another portal"},
      {"del", "remove the paths by a portal from a disk in use"},
      {"remove", "the same as del"},
  };
  for (const auto& [name, help] : changes) {
    app.add_subcommand(name, help)
        ->add_option("WORDS", arguments.words,
                     "map NAME or maps; after set: SETTING VALUE; of add, del and remove: path "
                     "PORTAL [target IQN] map NAME")
        ->expected(0, 6);
  }
  try {
    parse_words(app, argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);
    }
    complain(error.what());
    return kUsage;
  }
  arguments.files.must_exist = config->count() != 0;
  for (const auto& [name, help] : changes) {
    if (app.got_subcommand(name)) {
      return change(arguments, name);
    }
  }
  return list(arguments);
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  iscsi_blkback::keep_standard_streams();
  iscsi_blkback::forbid_core_dumps();  // it may have read the configuration, with its passwords
  return iscsi_blkback::run(argc, argv);
}
