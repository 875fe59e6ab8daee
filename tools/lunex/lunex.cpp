// lunex: the LUN exerciser. Reads, writes, verifies and describes iSCSI LUNs by the engine that
// serves the guests' disks, without Xen.

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/core_dumps.h"
#include "base/decimal.h"
#include "base/log.h"
#include "base/process_signals.h"
#include "base/uring_reactor.h"
#include "initiator/discovery/discovery.h"
#include "initiator/login/resolve.h"
#include "multipath/attach/portal_resolver.h"
#include "multipath/multipath_text.h"
#include "tools/config/config.h"
#include "tools/lunex/lunex_disk.h"
#include "tools/lunex/lunex_info.h"
#include "tools/lunex/lunex_initiator.h"
#include "tools/lunex/lunex_job.h"
#include "tools/lunex/lunex_options.h"
#include "tools/lunex/lunex_report.h"
#include "tools/program/command_words.h"
#include "tools/program/program_version.h"
#include "tools/program/terminal.h"

namespace iscsi_blkback {
namespace {

constexpr int kOk = 0;
constexpr int kError = 1;
constexpr int kUsage = 2;
constexpr int kInterrupted = 3;

// How long the last answers of a job may take.
constexpr std::chrono::seconds kDrainPatience{5};

// Times that `lunex info` begins anew when the connection was lost while it asked.
constexpr int kDescriptions = 3;

// timeout(1) sends its signal to the process and to the process group at once.
constexpr std::chrono::milliseconds kSameSignal{300};

struct Arguments {
  ConfigurationFiles files;
  std::optional<std::string> initiator_name;
  std::string log_level = "error";
  bool json = false;
  std::string url;
  std::vector<std::string> portals;
  std::string rw = "randread";
  std::optional<std::uint16_t> sessions;
  std::uint32_t passes = 2;
  bool verify = false;
  bool write_ok = false;
  LunexJobOptions job;
};

void remark(const std::string& sentence) {
  print_complaint("lunex", sentence);
}

// What has failed, which --json repeats.
std::string& failures() {
  static std::string sentences;
  return sentences;
}

void complain(const std::string& sentence) {
  remark(sentence);
  failures() += (failures().empty() ? "" : "; ") + sentence;
}

// What has been found out, with what has failed.
bool print_document(nlohmann::json document) {
  if (!failures().empty()) {
    document["error"] = failures();
  }
  return print_json("lunex", document);
}

// What was asked for could not be begun. The exit status.
int give_up(const Arguments& arguments, const Error& error) {
  complain(error.message);
  if (arguments.json) {
    static_cast<void>(print_document(nlohmann::json::object()));
  }
  return error.code == ErrorCode::invalid_argument ? kUsage : kError;
}

bool print_line(std::string_view line) {
  PrintableLines lines;
  lines.add(line);
  return print_lines("lunex", lines);
}

// Once what was asked for is known to be possible: before that, one sentence says why it is not.
void tell_of_name(const LunexConfiguration& configured) {
  if (!configured.remark.empty()) {
    remark(configured.remark);
  }
}

std::uint64_t random_number() {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) {
    number = static_cast<std::uint64_t>(::getpid());
  }
  return number;
}

// What ends a run: SIGINT and SIGTERM, and SIGHUP but under nohup(1).
std::vector<int> ending_signals() {
  std::vector<int> numbers = {SIGINT, SIGTERM};
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
    numbers.push_back(SIGHUP);
  }
  return numbers;
}

// Until a reactor takes them: names are looked up and portals are asked in calls that block, with
// nothing that would have to be ended in order.
void end_at_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) {
    // timeout(1) sends its signal twice, and there may be another thread to take the second one.
    static std::atomic_flag ending;
    while (ending.test_and_set()) {
      ::pause();
    }
    complain_in_signal_handler("lunex: interrupted\n");
    std::_Exit(kInterrupted);
  };
  for (const int number : ending_signals()) {
    ::sigaction(number, &action, nullptr);
  }
}

// The reactor, the signals, and the LUN; closes it in order whatever happened.
class Bench {
 public:
  Bench() = default;
  ~Bench() { close(); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  // Ends when it is known of every path whether it can be used, with at least one up.
  Result<void> open(const Arguments& arguments, bool read_only,
                    LunexDisk::Use use = LunexDisk::Use::io) {
    const auto configured = configure_lunex(arguments.files, arguments.initiator_name);
    if (!configured) {
      return tl::unexpected(configured.error());
    }
    const auto found =
        look_up_lun(configured->configuration, arguments.url, read_only, arguments.sessions);
    if (!found) {
      return tl::unexpected(found.error());
    }
    tell_of_name(*configured);
    if (!found->trouble.empty()) {
      remark(found->trouble);
    }
    const DiskSpecification& specification = found->specification;
    UringReactor::Options options;
    options.poll = {std::chrono::microseconds(configured->configuration.poll_max_us),
                    configured->configuration.poll_cpu_share};
    auto reactor = UringReactor::create(options);
    if (!reactor) {
      return tl::unexpected(reactor.error());
    }
    reactor_ = std::move(*reactor);
    auto signals = ProcessSignals::create(
        *reactor_, [](void* self) noexcept { static_cast<Bench*>(self)->on_signal(); }, this,
        ending_signals());
    if (!signals) {
      return tl::unexpected(signals.error());
    }
    signals_ = std::move(*signals);
    disk_ = std::make_unique<LunexDisk>(*reactor_, specification, arguments.job.depth, use);
    while (!interrupted_ && !disk_->settled() && !disk_->overdue()) {
      reactor_->run_once(std::chrono::milliseconds(100));
    }
    const bool settled = disk_->settled();
    if (interrupted_) {
      return fail(ErrorCode::unavailable, "interrupted before the LUN was reached");
    }
    const MultipathSnapshot now = disk_->snapshot();
    const std::string trouble = settled ? unavailable_reason(now) : describe_delay(now);
    if (!trouble.empty()) {
      return fail(ErrorCode::unavailable, trouble);
    }
    if (!disk_->device().ready()) {
      return fail(ErrorCode::timed_out,
                  settled ? "no path to the LUN can be used" : "the LUN did not answer in time");
    }
    if (const std::string larger =
            sector_size_trouble(found->options, now.geometry.logical_block_bytes);
        !larger.empty()) {
      return fail(ErrorCode::invalid_argument, larger);
    }
    if (const std::string two = conflict(); !two.empty() && use == LunexDisk::Use::io) {
      return fail(ErrorCode::invalid_argument, two);
    }
    for (const PathSnapshot& path : now.paths) {
      const bool differs = path.state == PathState::quarantined && !conflict().empty();
      if (path.state != PathState::up && !differs) {
        remark(fmt::format("without the path by {}: {}", path.portal,
                           path.last_error.empty() ? "it does not answer" : path.last_error));
      }
    }
    return {};
  }

  // That the portals lead to different LUNs, of which no disk is made; empty: they do not.
  [[nodiscard]] std::string conflict() const {
    const std::string why = disk_->conflict();
    return why.empty() ? why
                       : fmt::format(
                             "{}; give the portals of one LUN only, or say which one is "
                             "meant by wwid=",
                             why);
  }

  // Runs the job to its end or to a signal, and measures it.
  Result<LunexMeasure> measure(const LunexJobOptions& options, LunexGenerations* generations) {
    auto created = LunexJob::create(*reactor_, disk_->device(), options, generations);
    if (!created) {
      return tl::unexpected(created.error());
    }
    LunexJob& job = **created;
    LunexMeasure measure;
    const std::uint64_t calls = reactor_->kernel_entries();
    const std::uint64_t losses = disk_->connection_losses();
    const std::chrono::microseconds cpu = cpu_time();
    disk_->watch_paths();
    job.start();
    while (!job.done() && !job.ending() && !interrupted_) {
      reactor_->run_once(std::chrono::seconds(1));
    }
    measure.interrupted = !job.done() && !job.ending();
    job.stop();
    const bool answered = run_until([&] { return job.done(); }, kDrainPatience);
    measure.disk = disk_->snapshot();
    measure.fewest_paths_up = disk_->fewest_paths_up();
    measure.connection_losses = disk_->connection_losses() - losses;
    if (!answered) {
      disk_->close();  // completes what is left
      while (!job.done()) {
        reactor_->run_once(std::chrono::milliseconds(100));
      }
    }
    measure.client_cpu = cpu_time() - cpu;
    measure.system_calls = reactor_->kernel_entries() - calls;
    measure.result = job.result();
    measure.block_bytes = job.options().block_bytes;
    measure.depth = job.options().depth;
    return measure;
  }

  // What the LUN says of itself. A connection that is lost meanwhile comes back.
  Result<LunexInfo> ask() {
    Result<LunexInfo> info = fail(ErrorCode::unavailable, "the connection was lost");
    for (int tries = 0; tries < kDescriptions && !interrupted_; ++tries) {
      Session* session = nullptr;
      (void)run_until_or_signal([&] { return (session = disk_->live_session()) != nullptr; },
                                kDrainPatience);
      if (session == nullptr) {
        break;
      }
      const std::uint64_t login = session->login_epoch();
      info = ask_lun(*reactor_, *session, disk_->lun(),
                     [this](const std::function<bool()>& condition) {
                       return run_until_or_signal(condition, kDrainPatience);
                     });
      if (info ||
          (session->state() == SessionState::logged_in && session->login_epoch() == login)) {
        break;
      }
    }
    return info;
  }

  [[nodiscard]] bool interrupted() const { return interrupted_; }

  template <class Condition>
  bool run_until(Condition condition, Duration at_most) {
    const TimePoint end = reactor_->now() + at_most;
    while (!condition()) {
      if (reactor_->now() > end) {
        return false;
      }
      reactor_->run_once(std::chrono::milliseconds(100));
    }
    return true;
  }

 private:
  // Whoever waits for the end of what was given up gets on after a signal, too.
  bool run_until_or_signal(const std::function<bool()>& condition, Duration at_most) {
    if (interrupted_) {
      reactor_->run_once(std::chrono::milliseconds(10));
    } else {
      (void)run_until([&] { return condition() || interrupted_; }, at_most);
    }
    return condition();
  }

  static std::chrono::microseconds cpu_time() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto of = [](const timeval& time) {
      return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
    };
    return of(usage.ru_utime) + of(usage.ru_stime);
  }

  void on_signal() {
    const TimePoint now = reactor_->now();
    if (!std::exchange(interrupted_, true)) {
      interrupted_at_ = now;
    } else if (now - interrupted_at_ > kSameSignal) {
      std::_Exit(kInterrupted);  // asked twice: now
    }
  }

  void close() {
    if (disk_) {
      disk_->close();
      while (!disk_->closed()) {
        reactor_->run_once(std::chrono::milliseconds(100));
      }
      disk_.reset();
    }
  }

  std::unique_ptr<UringReactor> reactor_;
  std::unique_ptr<ProcessSignals> signals_;
  std::unique_ptr<LunexDisk> disk_;
  bool interrupted_ = false;
  TimePoint interrupted_at_{};
};

int refuse_writes(const Arguments& arguments) {
  return give_up(
      arguments,
      {ErrorCode::invalid_argument,
       "this writes to the LUN, whose contents are lost; say --write-ok if that is meant"});
}

// What a measure says beside its numbers; the exit status.
int judge(const LunexMeasure& measure) {
  const LunexJobResult& result = measure.result;
  if (!result.first_error.empty()) {
    complain(result.first_error);
  }
  if (result.unanswered != 0) {
    complain(fmt::format("{} requests were never answered", result.unanswered));
  }
  if (result.mismatch) {
    complain(result.mismatch->describe());
  }
  return result.errors() != 0 ? kError : measure.interrupted ? kInterrupted : kOk;
}

// The LUN could not be opened.
int give_up(const Arguments& arguments, const Bench& bench, const Error& error) {
  const int status = give_up(arguments, error);
  return bench.interrupted() ? kInterrupted : status;
}

int run_job(Arguments& arguments) {
  if (auto known = parse_lunex_rw(arguments.rw, arguments.job); !known) {
    return give_up(arguments, {ErrorCode::invalid_argument, "--rw " + known.error().message});
  }
  if (arguments.job.writes && !arguments.write_ok) {
    return refuse_writes(arguments);
  }
  Bench bench;
  if (auto opened = bench.open(arguments, !arguments.job.writes); !opened) {
    return give_up(arguments, bench, opened.error());
  }
  LunexGenerations generations(random_number());
  const auto measure = bench.measure(arguments.job, arguments.verify ? &generations : nullptr);
  if (!measure) {
    return give_up(arguments, measure.error());
  }
  const int status = judge(*measure);
  const LunexRunWords words{arguments.rw, measure->block_bytes, measure->depth, arguments.verify};
  const bool printed = arguments.json ? print_document(run_json(words, *measure))
                                      : print_lines("lunex", run_text(words, *measure));
  return printed ? status : kError;
}

int verify(Arguments& arguments) {
  if (!arguments.write_ok) {
    return refuse_writes(arguments);
  }
  Bench bench;
  if (auto opened = bench.open(arguments, false); !opened) {
    return give_up(arguments, bench, opened.error());
  }
  LunexGenerations generations(random_number());
  LunexVerdict verdict;
  verdict.passes = arguments.passes;
  int status = kOk;
  for (std::uint32_t pass = 1; pass <= arguments.passes && status == kOk; ++pass) {
    for (const bool write : {true, false}) {
      LunexJobOptions options = arguments.job;
      options.random = false;
      options.reads = !write;
      options.writes = write;
      options.flush_at_end = write;
      const auto measure = bench.measure(options, &generations);
      if (!measure) {
        return give_up(arguments, measure.error());
      }
      status = judge(*measure);
      const LunexJobResult& result = measure->result;
      verdict.last = result;
      verdict.interrupted = measure->interrupted;
      verdict.written_bytes += result.write.bytes;
      verdict.compared_bytes += result.compared_bytes;
      if (status != kOk) {
        break;
      }
      verdict.passes_done += write ? 0 : 1;
      if (!arguments.json) {
        static_cast<void>(
            print_line(fmt::format("pass {} of {}: {} {} bytes in {:.2f} s", pass, arguments.passes,
                                   write ? "wrote" : "read back and compared", result.bytes(),
                                   std::chrono::duration<double>(result.elapsed).count())));
      }
    }
  }
  const bool printed =
      arguments.json ? print_document(verdict_json(verdict)) : print_line(verdict_text(verdict));
  return !printed || (status == kOk && !verdict.verified()) ? kError : status;
}

int describe(const Arguments& arguments) {
  Bench bench;
  if (auto opened = bench.open(arguments, true, LunexDisk::Use::questions); !opened) {
    return give_up(arguments, bench, opened.error());
  }
  const auto info = bench.ask();
  if (bench.interrupted() || !info) {
    return give_up(arguments, bench,
                   bench.interrupted() ? Error{ErrorCode::unavailable,
                                               "interrupted before the LUN had told everything"}
                                       : info.error());
  }
  const std::string conflict = bench.conflict();
  if (!conflict.empty()) {
    complain(conflict);
  }
  const bool printed =
      arguments.json ? print_document(info_json(*info)) : print_lines("lunex", info_text(*info));
  return !printed ? kError : conflict.empty() ? kOk : kUsage;
}

// A portal that is just being started lets us in at the second or third try.
Result<Discovery> ask_for_targets(const SessionOptions& session,
                                  std::vector<SocketAddress> addresses, const Portal& portal) {
  DiscoveryOptions question = discovery_options(session, std::move(addresses), portal.to_string());
  question.rounds = kDiscoveryRounds;
  return discover(std::move(question));
}

int find_targets(const Arguments& arguments) {
  const auto configured = configure_lunex(arguments.files, arguments.initiator_name);
  if (!configured) {
    return give_up(arguments, configured.error());
  }
  const Configuration& configuration = configured->configuration;
  std::vector<Portal> portals;
  for (const std::string& text : arguments.portals) {
    auto portal = parse_portal(text);
    if (!portal) {
      return give_up(arguments, {portal.error().code,
                                 fmt::format("\"{}\": {}", text, portal.error().message)});
    }
    portals.push_back(std::move(*portal));
  }
  tell_of_name(*configured);
  nlohmann::json list = nlohmann::json::array();
  PrintableLines lines;
  int status = kOk;
  for (const Portal& portal : portals) {
    auto addresses = resolve(portal.host, portal.port);
    const Result<Discovery> discovery =
        addresses ? ask_for_targets(configuration.session, std::move(*addresses), portal)
                  : tl::unexpected(addresses.error());
    if (!discovery) {
      complain(discovery.error().message);
      status = kError;
      continue;
    }
    if (!discovery->left_out.empty()) {
      remark(fmt::format("of what {} tells of targets are left out: {}", portal.to_string(),
                         discovery->left_out));
    }
    if (discovery->targets.empty()) {
      complain(fmt::format("{} shows no target to {}", portal.to_string(),
                           configuration.initiator_name));
      status = kError;
    }
    for (const DiscoveredTarget& target : discovery->targets) {
      nlohmann::json found = nlohmann::json::array();
      for (const DiscoveredPortal& at : target.portals) {
        const Portal written{at.host, at.port, {}};
        // As iscsiadm has it where a target tells no group.
        lines.add(fmt::format("{},{} {}", written.to_string(),
                              at.group_tag ? fmt::to_string(*at.group_tag) : "-1", target.name));
        found.push_back(
            {{"host", at.host},
             {"port", at.port},
             {"group_tag", at.group_tag ? nlohmann::json(*at.group_tag) : nlohmann::json()}});
      }
      list.push_back({{"target", target.name}, {"portals", found}, {"asked", portal.to_string()}});
    }
  }
  nlohmann::json document;
  document["targets"] = std::move(list);
  const bool printed = arguments.json ? print_document(document) : print_lines("lunex", lines);
  return printed ? status : kError;
}

// Checks and converts an option's text with one of the parse_lunex_* functions.
template <class Parse, class Take>
CLI::Option* add_parsed(CLI::App& app, const char* names, Parse parse, Take take,
                        const char* description, const char* type) {
  return app
      .add_option_function<std::string>(
          names,
          [=](const std::string& text) {
            auto value = parse(text);
            if (!value) {
              throw CLI::ValidationError(names, value.error().message);
            }
            if (auto wrong = take(*value); !wrong.empty()) {
              throw CLI::ValidationError(names, wrong);
            }
          },
          description)
      ->type_name(type);
}

// A decimal number within a range, and nothing that CLI11 makes one of: it takes
// "-18446744073709551615" for 1 and "010" for 8.
template <class Number, class Target>
CLI::Option* add_number(CLI::App& app, const char* names, Number least, Number most, Target& target,
                        const char* description) {
  return add_parsed(
      app, names,
      [=](const std::string& text) -> Result<Number> {
        const auto number = parse_decimal<Number>(text);
        if (!number || *number < least || *number > most) {
          return fail(ErrorCode::invalid_argument,
                      fmt::format("must be a number from {} to {}", least, most));
        }
        return *number;
      },
      [&target](Number number) {
        target = number;
        return std::string();
      },
      description, "NUMBER");
}

void add_common(CLI::App& command, Arguments& arguments) {
  command.add_flag("-j,--json", arguments.json, "print JSON");
  command.add_option("-c,--config", arguments.files.configuration, "configuration file")
      ->capture_default_str();
  command.add_option_function<std::string>(
      "-i,--initiator-name",
      [&arguments](const std::string& name) { arguments.initiator_name = name; },
      "initiator name, instead of the configured one");
  command
      .add_option("--log-level", arguments.log_level,
                  "error, warning, info or debug: what of the engine's log is shown")
      ->check([](const std::string& text) {
        return parse_log_level(text) ? std::string{} : "must be error, warning, info or debug";
      })
      ->capture_default_str();
}

void add_url(CLI::App& command, Arguments& arguments) {
  command
      .add_option("URL", arguments.url,
                  "the LUN, as in a guest's disk line: iscsi://HOST[:PORT][,...]/TARGET/LUN[?...], "
                  "iscsi:TARGET/LUN or iscsi:ALIAS")
      ->required();
}

constexpr std::uint32_t kVerifyDepth = 16;

// depth: what it is when nobody says so.
void add_region(CLI::App& command, Arguments& arguments, std::uint32_t depth) {
  LunexJobOptions& job = arguments.job;
  add_parsed(
      command, "--bs", parse_lunex_size,
      [&job](std::uint64_t bytes) {
        job.block_bytes = static_cast<std::uint32_t>(bytes);
        return bytes > kMaxLunexBlockBytes ? std::string("must be at most 16 MiB") : std::string();
      },
      "bytes of a request", "SIZE");
  add_number(command, "--iodepth", 1U, kMaxLunexDepth, job.depth,
             "requests under way at once, over all sessions")
      ->default_str(fmt::to_string(depth));
  add_parsed(
      command, "--size", parse_lunex_size,
      [&job](std::uint64_t bytes) {
        job.size_bytes = bytes;
        return std::string();
      },
      "bytes of the LUN to use, from the offset on (default: up to its end)", "SIZE");
  add_parsed(
      command, "--offset", parse_lunex_offset,
      [&job](std::uint64_t bytes) {
        job.offset_bytes = bytes;
        return std::string();
      },
      "where to begin (default: the LUN's first byte)", "SIZE");
  add_number(command, "--sessions", std::uint16_t{1}, kMaxSessionsPerPortal, arguments.sessions,
             "sessions at each portal, instead of the configured number");
  command.add_flag("--write-ok", arguments.write_ok, "the LUN may be written to");
}

void add_run(CLI::App& command, Arguments& arguments) {
  LunexJobOptions& job = arguments.job;
  command.add_option("--rw", arguments.rw, "read, write, randread, randwrite, rw or randrw")
      ->capture_default_str();
  add_region(command, arguments, arguments.job.depth);
  add_number(command, "--rwmixread", 0U, 100U, job.read_percent,
             "percentage of reads in rw and randrw")
      ->default_str(fmt::to_string(job.read_percent));
  add_parsed(
      command, "--runtime", parse_lunex_time,
      [&job](Duration time) {
        job.runtime = time;
        return std::string();
      },
      "end after this time (default: when every block had its turn)", "TIME");
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  add_number(command, "--number_ios", std::uint64_t{1}, kMost, job.requests,
             "end after this many requests");
  add_number(command, "--randseed", std::uint64_t{0}, kMost, job.seed, "seed of offsets and mix")
      ->default_str(fmt::to_string(job.seed));
  command.add_flag("--verify", arguments.verify,
                   "stamp every block written, and compare those read that this run has written");
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Exercises iSCSI LUNs with the engine of iscsi-blkback, without Xen.", "lunex");
  app.set_version_flag("--version", program_version("lunex"));
  app.require_subcommand(1);

  CLI::App* run_command = app.add_subcommand("run", "measure reads and writes, in fio's words");
  add_url(*run_command, arguments);
  add_run(*run_command, arguments);
  add_common(*run_command, arguments);

  CLI::App* verify_command =
      app.add_subcommand("verify", "write a pattern to the LUN and compare it when read back");
  add_url(*verify_command, arguments);
  add_region(*verify_command, arguments, kVerifyDepth);
  add_number(*verify_command, "--passes", 1U, 1000000U, arguments.passes,
             "times to write and read back")
      ->default_str(fmt::to_string(arguments.passes));
  add_common(*verify_command, arguments);

  CLI::App* info_command = app.add_subcommand("info", "print what the LUN says of itself");
  add_url(*info_command, arguments);
  add_common(*info_command, arguments);

  CLI::App* discover_command =
      app.add_subcommand("discover", "ask portals for their targets (SendTargets)");
  discover_command->add_option("PORTAL", arguments.portals, "HOST[:PORT][,TAG]")->required();
  add_common(*discover_command, arguments);

  try {
    parse_words(app, argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      return app.exit(error);
    }
    complain(error.what());
    return kUsage;
  }
  for (const CLI::App* command : app.get_subcommands()) {
    arguments.files.must_exist = command->count("--config") != 0;
  }
  set_log_level(parse_log_level(arguments.log_level).value_or(LogLevel::error));
  end_at_signals();
  std::signal(SIGPIPE, SIG_IGN);  // of a pipe that is read no longer, print_lines() tells

  if (run_command->parsed()) {
    arguments.job.lessen_block_bytes = run_command->count("--bs") == 0;
    return run_job(arguments);
  }
  if (verify_command->parsed()) {
    if (verify_command->count("--bs") == 0) {
      arguments.job.block_bytes = 64 * 1024;
      arguments.job.lessen_block_bytes = true;
    }
    if (verify_command->count("--iodepth") == 0) {
      arguments.job.depth = kVerifyDepth;
      arguments.job.lessen_depth = true;
    }
    return verify(arguments);
  }
  if (info_command->parsed()) {
    return describe(arguments);
  }
  return find_targets(arguments);
}

}  // namespace
}  // namespace iscsi_blkback

int main(int argc, char** argv) {
  iscsi_blkback::keep_standard_streams();
  iscsi_blkback::forbid_core_dumps();
  return iscsi_blkback::run(argc, argv);
}
