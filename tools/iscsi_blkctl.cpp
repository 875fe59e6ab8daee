// iscsi-blkctl: shows what the service's processes serve. It only asks and prints; a process that
// hangs costs one second, never more.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

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

int list(const Arguments& arguments) {
  const std::string run_directory = run_directory_of(arguments);
  const auto replies = ask_status(run_directory, kPatience);
  if (!replies) {
    complain(replies.error().message);
    return kError;
  }
  StatusOverview overview = read_status(*replies);
  if (!overview.any_process) {
    complain(
        fmt::format("no iscsi-blkback service is running (nobody answers in {})", run_directory));
    return kError;
  }
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  return list(arguments);
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  return iscsi_blkback::run(argc, argv);
}
