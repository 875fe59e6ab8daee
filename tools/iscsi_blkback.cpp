// iscsi-blkback: the service, or with --guest the process of one guest, which the service starts.

#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "base/core_dumps.h"
#include "base/log.h"
#include "blkback/process/guest_process.h"
#include "blkback/process/service.h"
#include "tools/config/config.h"
#include "tools/program/command_words.h"
#include "tools/program/program_version.h"
#include "tools/program/terminal.h"

namespace iscsi_blkback {
namespace {

constexpr int kOk = 0;
constexpr int kError = 1;
constexpr int kUsage = 2;

// Xen's numbers for special domains begin here (DOMID_FIRST_RESERVED in xen.h).
constexpr unsigned kFirstReservedDomain = 0x7ff0;

struct Arguments {
  ConfigurationFiles files;
  std::optional<unsigned> guest;
  std::string log_level;
  std::string run_directory;
  bool check = false;
  bool help_config = false;
};

int serve(const Arguments& arguments, const Configuration& configuration) {
  Result<void> ended;
  if (arguments.guest) {
    ended = run_guest_process(configuration, static_cast<DomainId>(*arguments.guest));
  } else {
    ServiceOptions options;
    if (arguments.files.must_exist) {
      options.configuration_path = arguments.files.configuration;
    }
    ended = run_service(configuration, options);
  }
  if (!ended) {
    log_error("main", "{}", ended.error().message);
    return kError;
  }
  return kOk;
}

// This thread's own stack, on which the configuration was read, is not dumped.
int serve_with_core_dumps(const Arguments& arguments, const Configuration& configuration) {
  if (auto allowed = allow_core_dumps(); !allowed) {
    log_error("main", "{}", allowed.error().message);
    return kError;
  }
  // What the other thread waits for (ProcessSignals), and what would end the process here.
  sigset_t waited_for;
  sigemptyset(&waited_for);
  sigaddset(&waited_for, SIGTERM);
  sigaddset(&waited_for, SIGINT);
  (void)pthread_sigmask(SIG_BLOCK, &waited_for, nullptr);
  int status = kError;
  {
    auto thread = OwnStackThread::start([&] { status = serve(arguments, configuration); });
    if (!thread) {
      log_error("main", "{}", thread.error().message);
    }
  }
  return status;
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Serves iSCSI LUNs to Xen guests as disks. Without --guest: the service, which starts one "
      "process for each guest.",
      "iscsi-blkback");
  app.set_version_flag("--version", program_version("iscsi-blkback"));
  const CLI::Option* config =
      app.add_option("-c,--config", arguments.files.configuration, "configuration file")
          ->capture_default_str();
  app.add_option("--guest", arguments.guest, "serve this guest's disks only (the service does it)")
      ->type_name("DOMID")
      ->check(CLI::Range(0U, kFirstReservedDomain - 1));
  app.add_option("--log-level", arguments.log_level,
                 "error, warning, info or debug, instead of what the configuration file says")
      ->check([](const std::string& text) {
        return parse_log_level(text) ? std::string{} : "must be error, warning, info or debug";
      });
  app.add_option("-D,--run-directory", arguments.run_directory,
                 "folder of the control sockets, instead of what the configuration file says")
      ->check([](const std::string& text) {
        return is_run_directory(text) ? std::string{} : "must be an absolute path, and not long";
      });
  app.add_flag("--check-config", arguments.check,
               "read the configuration, say whether it is right, and end");
  app.add_flag("--help-config", arguments.help_config,
               "list the options of the configuration file, and end");
  try {
    parse_words(app, argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);
    }
    print_complaint("iscsi-blkback", error.what());
    return kUsage;
  }
  if (arguments.help_config) {
    PrintableLines lines;
    for (const std::string& line : configuration_help()) {
      lines.add(line);
    }
    return print_lines("iscsi-blkback", lines) ? kOk : kError;
  }
  arguments.files.must_exist = config->count() != 0;

  auto configuration = load_configuration(arguments.files);
  if (!configuration) {
    if (arguments.check) {
      print_complaint({}, configuration.error().message);
    } else {
      log_error("config", "{}", configuration.error().message);
    }
    return kError;
  }
  if (arguments.check) {
    PrintableLines lines;
    lines.add(fmt::format("{} is right; initiator name {}, {} LUNs by alias",
                          arguments.files.configuration, configuration->initiator_name,
                          configuration->luns.size()));
    return print_lines("iscsi-blkback", lines) ? kOk : kError;
  }
  if (!arguments.log_level.empty()) {
    configuration->log_level = arguments.log_level;
  }
  if (!arguments.run_directory.empty()) {
    configuration->run_directory = arguments.run_directory;
  }
  set_log_level(parse_log_level(configuration->log_level).value_or(LogLevel::info));
  return configuration->core_dumps ? serve_with_core_dumps(arguments, *configuration)
                                   : serve(arguments, *configuration);
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  iscsi_blkback::keep_standard_streams();
  iscsi_blkback::forbid_core_dumps();
  return iscsi_blkback::run(argc, argv);
}
