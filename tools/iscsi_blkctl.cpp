// iscsi-blkctl: shows what the service's processes serve, and changes what can be changed while it
// is in use. It only asks and prints; a process that hangs costs one second, never more.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/config.h"
#include "tools/program_version.h"
#include "tools/status_client.h"
#include "tools/status_text.h"

namespace iscsi_blkback {
namespace {

constexpr std::chrono::milliseconds kPatience{1000};

constexpr int kOk = 0;
constexpr int kError = 1;
constexpr int kUsage = 2;

struct Arguments {
  ConfigurationFiles files;
  std::string run_directory;
  std::string name;
  bool json = false;
  // Of a command that changes something. Words after it, as multipathd has them: "maps", or "map"
  // and a name; of "set" then the setting and its value.
  std::vector<std::string> words;
};

void complain(const std::string& sentence) {
  fmt::print(stderr, "iscsi-blkctl: {}\n", sentence);
}

// The service may have been started before the file was broken, so a broken file is no obstacle.
std::string run_directory_of(const Arguments& arguments) {
  if (!arguments.run_directory.empty()) {
    return arguments.run_directory;
  }
  const auto configuration = read_configuration(arguments.files);
  if (!configuration) {
    complain(configuration.error().message);
    return Configuration{}.run_directory;
  }
  return configuration->run_directory;
}

// Complains and is nothing when nobody answers.
std::optional<StatusOverview> ask(const std::string& run_directory) {
  const auto replies = ask_status(run_directory, kPatience);
  if (!replies) {
    complain(replies.error().message);
    return std::nullopt;
  }
  StatusOverview overview = read_status(*replies);
  if (!overview.any_process) {
    complain(
        fmt::format("no iscsi-blkback service is running (nobody answers in {})", run_directory));
    return std::nullopt;
  }
  return overview;
}

int list(const Arguments& arguments) {
  auto asked = ask(run_directory_of(arguments));
  if (!asked) {
    return kError;
  }
  StatusOverview& overview = *asked;
  if (!arguments.name.empty()) {
    keep_only(overview, arguments.name);
    if (overview.disks.empty()) {
      overview.remarks.push_back(fmt::format("there is no disk {}", arguments.name));
    }
  }
  const std::string output = arguments.json ? topology_json(overview) : topology_text(overview);
  std::fwrite(output.data(), 1, output.size(), stdout);
  const bool written = std::fflush(stdout) == 0;
  for (const std::string& remark : overview.remarks) {
    complain(remark);
  }
  return overview.remarks.empty() && written ? kOk : kError;
}

// The disks that a changing command is for; complains and is empty when that is not clear.
std::vector<GuestDisk> chosen(StatusOverview overview, const std::string& name) {
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

int change(const Arguments& arguments, const std::string& command) {
  const std::vector<std::string>& words = arguments.words;
  const bool sets = command == "set";
  const bool all = !words.empty() && words[0] == "maps";
  const std::size_t first_value = all ? 1 : 2;
  if (words.empty() || (!all && words[0] != "map") ||
      words.size() != first_value + (sets ? 2 : 0)) {
    complain(fmt::format("{0} is followed by \"map NAME{1}\" or \"maps{1}\"", command,
                         sets ? " SETTING VALUE" : ""));
    return kUsage;
  }
  const std::string run_directory = run_directory_of(arguments);
  const auto overview = ask(run_directory);
  if (!overview) {
    return kError;
  }
  const std::vector<GuestDisk> disks = chosen(*overview, all ? std::string() : words[1]);
  bool done = !disks.empty();
  for (const GuestDisk& disk : disks) {
    nlohmann::json request{{"command", command}, {"devid", disk.device_id()}};
    if (sets) {
      request["setting"] = words[first_value];
      request["value"] = words[first_value + 1];
    }
    const std::string line = request.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (const auto answer = read_answer(ask_guest(run_directory, disk.domain, line, kPatience));
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
  app.add_option("-c,--config", arguments.files.configuration,
                 "configuration file, for its run_directory")
      ->capture_default_str();
  app.add_option("-D,--run-directory", arguments.run_directory,
                 "where the control sockets are, instead of what the configuration file says");
  CLI::App* ll = app.add_subcommand("ll", "list the disks with their paths, like multipath -ll");
  ll->add_flag("-j,--json", arguments.json, "print JSON, like multipathd show maps json");
  ll->add_option("NAME", arguments.name,
                 "only the disk with this alias, WWID, virtual device or DOMAIN/DEVICE, "
                 "like dom5/xvda");
  const std::pair<const char*, const char*> changes[] = {
      {"disablequeueing", "fail a disk's requests while it has no path, until restorequeueing"},
      {"restorequeueing", "no_path_retry as the configuration and the disk line have it"},
      {"set", "change a setting of a disk until its guest ends: no_path_retry"},
  };
  for (const auto& [name, help] : changes) {
    app.add_subcommand(name, help)
        ->add_option("WORDS", arguments.words, "map NAME or maps; after set: SETTING VALUE")
        ->expected(0, 4);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
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
  return iscsi_blkback::run(argc, argv);
}
