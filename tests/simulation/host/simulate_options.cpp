#include "tests/simulation/host/simulate_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string_view>
#include <thread>

namespace iscsi_blkback {
namespace {

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  while (!list.empty()) {
    const std::string_view part = list.substr(0, list.find(','));
    parts.push_back(part);
    list.remove_prefix(std::min(list.size(), part.size() + 1));
  }
  return parts;
}

// Fills a set from a list of names.
template <class Value, class Named>
Result<void> take_names(std::string_view list, Named named, std::set<Value>& to) {
  for (const std::string_view name : split(list)) {
    const auto value = named(name);
    if (!value) {
      return fail(ErrorCode::invalid_argument, fmt::format("\"{}\" is no such name", name));
    }
    to.insert(*value);
  }
  return {};
}

// "target.chap=0,event.same_domid=0"
Result<void> take_settings(std::string_view list, GeneratorOptions& options) {
  for (const std::string_view part : split(list)) {
    const std::size_t dot = part.find('.');
    const std::size_t equals = part.find('=');
    if (dot == std::string_view::npos || equals == std::string_view::npos || equals < dot) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("\"{}\" is not like target.chap=0", part));
    }
    GeneratorOptions::Setting setting;
    setting.record = part.substr(0, dot);
    setting.name = part.substr(dot + 1, equals - dot - 1);
    const std::string_view value = part.substr(equals + 1);
    std::from_chars(value.data(), value.data() + value.size(), setting.value);
    Plan any = generate_plan(1);
    if (auto applied = apply(setting, any); !applied) {
      return applied;
    }
    options.settings.push_back(std::move(setting));
  }
  return {};
}

Result<std::string> read_text(const std::string& path) {
  const auto cannot = [&] {
    return tl::unexpected(system_error(fmt::format("{} cannot be read", path), errno));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             std::fclose);
  if (!file) {
    return cannot();
  }
  std::string text;
  char buffer[4096];
  while (const std::size_t count = std::fread(buffer, 1, sizeof buffer, file.get())) {
    text.append(buffer, count);
  }
  if (std::ferror(file.get()) != 0) {  // a folder can be opened
    return cannot();
  }
  return text;
}

Result<void> read_plan(const std::string& path, SimulateOptions& options) {
  const auto text = read_text(path);
  if (!text) {
    return tl::unexpected(text.error());
  }
  auto plan = parse_plan(*text);
  if (!plan) {
    return fail(ErrorCode::invalid_argument, path + ": " + plan.error().message);
  }
  options.plan = std::move(*plan);
  options.plan_file = path;
  return {};
}

Result<void> no_such_option(std::string_view name) {
  if (std::string_view(kSimulateUsage).find(fmt::format("  {}=", name)) != std::string_view::npos) {
    return fail(ErrorCode::invalid_argument, fmt::format("{0} needs a value, as {0}=...", name));
  }
  return fail(ErrorCode::not_found,
              fmt::format("there is no option {}; simulate --help lists them", name));
}

Result<void> take_value(std::string_view name, const std::string& value, SimulateOptions& options) {
  if (value.empty()) {
    return no_such_option(name);
  }
  if (name == "--seeds") {
    const auto range = parse_seed_range(value);
    if (!range) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("seeds: a number or a range like 1-1000, not \"{}\"", value));
    }
    options.seeds = *range;
  } else if (name == "--profile") {
    const auto names = profile_names();
    if (std::find(names.begin(), names.end(), value) == names.end()) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("there is no profile {}; simulate --profiles lists them", value));
    }
    options.generator.profile = value;
  } else if (name == "--only") {
    return take_names(value, event_kind_named, options.generator.only);
  } else if (name == "--without") {
    return take_names(value, event_kind_named, options.generator.without);
  } else if (name == "--set") {
    return take_settings(value, options.generator);
  } else if (name == "--ignore") {
    return take_names(value, rule_named, options.simulation.ignored);
  } else if (name == "--break") {
    const auto breakage = breakage_named(value);
    if (!breakage) {
      return fail(ErrorCode::invalid_argument, fmt::format("\"{}\" cannot be broken", value));
    }
    options.simulation.breakage = *breakage;
  } else if (name == "--jobs") {
    const auto [end, error] =
        std::from_chars(value.data(), value.data() + value.size(), options.jobs);
    if (error != std::errc() || end != value.data() + value.size() || options.jobs == 0) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("jobs: a number from 1 on, not \"{}\"", value));
    }
  } else if (name == "--keep") {
    options.keep_folder = value;
    options.shrinks = true;
  } else if (name == "--plan") {
    return read_plan(value, options);
  } else {
    return no_such_option(name);
  }
  return {};
}

Result<void> take_flag(std::string_view name, SimulateOptions& options) {
  if (name == "--stop") {
    options.stops = true;
  } else if (name == "--shrink") {
    options.shrinks = true;
  } else if (name == "--disk") {
    options.disk = true;
  } else if (name == "--print") {
    options.prints = true;
  } else if (name == "--log") {
    options.simulation.prints_log = true;
  } else if (name == "--counts") {
    options.counts = true;
  } else {
    return no_such_option(name);
  }
  return {};
}

Result<void> check_for_disks(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    if (name != "--disk" && name != "--seeds" && name != "--jobs" && name != "--shrink" &&
        name != "--print") {
      return fail(
          ErrorCode::invalid_argument,
          fmt::format("{} is not for --disk, which takes only --seeds, --jobs, --shrink and "
                      "--print",
                      name));
    }
  }
  return {};
}

// What only chooses or makes plans would be without effect.
Result<void> check_for_plan(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    for (const char* of_seeds :
         {"--seeds", "--profile", "--only", "--without", "--set", "--stop"}) {
      if (name == of_seeds) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is for seeds, and --plan is run instead of them", name));
      }
    }
  }
  return {};
}

}  // namespace

Result<SimulateOptions> parse_simulate_options(const std::vector<std::string>& words) {
  SimulateOptions options;
  options.jobs = std::max(std::thread::hardware_concurrency(), 1U);
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    const auto taken = equals == std::string::npos
                           ? take_flag(word, options)
                           : take_value(std::string_view(word).substr(0, equals),
                                        word.substr(equals + 1), options);
    if (!taken) {
      return tl::unexpected(taken.error());
    }
  }
  if (options.disk) {
    if (auto suitable = check_for_disks(words); !suitable) {
      return tl::unexpected(suitable.error());
    }
  }
  if (options.plan) {
    if (auto suitable = check_for_plan(words); !suitable) {
      return tl::unexpected(suitable.error());
    }
  }
  return options;
}

}  // namespace iscsi_blkback
