#include "tools/config/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "base/split.h"
#include "base/unique_fd.h"
#include "multipath/attach/disk_url.h"
#include "tools/config/config_options.h"
#include "tools/config/config_reader.h"
#include "tools/config/toml_mistake.h"

namespace iscsi_blkback {
namespace {

struct FileText {
  std::string text;
  bool others_may_read = false;
};

Result<FileText> read_file(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return tl::unexpected(system_error(fmt::format("cannot open {}", path), errno));
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) {
    return tl::unexpected(system_error(fmt::format("cannot read {}", path), errno));
  }
  FileText result;
  result.others_may_read = (status.st_mode & (S_IRWXG | S_IRWXO)) != 0;
  std::string& text = result.text;
  std::array<char, 16384> piece{};
  for (ssize_t got = -1; got != 0;) {
    got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno != EINTR) {
      return tl::unexpected(system_error(fmt::format("cannot read {}", path), errno));
    }
    text.append(piece.data(), got < 0 ? 0 : static_cast<std::size_t>(got));
    if (text.size() > kMaxConfigurationBytes) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("{} has more than {} bytes", path, kMaxConfigurationBytes));
    }
  }
  return result;
}

// What toml++ cannot cope with: where it looks for blanks and finds a letter like an umlaut, its
// behaviour is undefined, and no option needs one (comments may have them and are made harmless
// here); and a key of very many parts, a.a.a..., exhausts the stack.
Result<std::string> screened(std::string_view text, const std::string& name) {
  std::string result;
  std::uint32_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    result += number++ == 0 ? "" : "\n";
    const bool is_comment = trimmed(line, " \t").starts_with('#');
    for (const char c : line.substr(0, kMaxConfigurationLineBytes)) {
      const bool is_ascii = static_cast<unsigned char>(c) < 0x80;
      if (!is_ascii && !is_comment) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}:{}: characters beyond ASCII may only stand in lines that begin "
                                "with #",
                                name, number));
      }
      result += is_ascii ? c : '?';
    }
    if (line.size() > kMaxConfigurationLineBytes) {
      return fail(ErrorCode::invalid_argument,
                  fmt::format("{}:{}: the line has more than {} bytes", name, number,
                              kMaxConfigurationLineBytes));
    }
  }
  return result;
}

bool has_secrets(const Configuration& configuration) {
  bool found = false;
  for_each_options(configuration, [&](const DiskOptions& options) {
    found = found || !options.session.chap.password.empty() ||
            !options.session.discovery_chap.password.empty();
  });
  return found;
}

}  // namespace

Result<Configuration> parse_configuration(std::string_view text, const std::string& name) {
  if (text.size() > kMaxConfigurationBytes) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} has more than {} bytes", name, kMaxConfigurationBytes));
  }
  const auto safe = screened(text, name);
  if (!safe) {
    return tl::unexpected(safe.error());
  }
  const toml::parse_result parsed = toml::parse(*safe, std::string_view{});
  if (parsed.failed()) {
    const toml::source_position at = parsed.error().source().begin;
    const std::vector<std::string_view> lines = split(*safe, '\n');
    const TomlMistake mistake = explain_toml_mistake(
        at.line >= 1 && at.line <= lines.size() ? lines[at.line - 1] : std::string_view(),
        at.column, parsed.error().description());
    return fail(ErrorCode::invalid_argument,
                fmt::format("{}:{}:{}: {}", name, at.line, mistake.column, mistake.sentence));
  }
  return read_document(parsed.table(), name);
}

Result<std::string> parse_initiator_name(std::string_view text, const std::string& name) {
  std::uint32_t number = 0;
  std::uint32_t generated_at = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    line = trimmed(line);
    const std::size_t equals = std::min(line.find('='), line.size());
    const std::string_view key = trimmed(line.substr(0, equals));
    if (equals == line.size()) {
      continue;
    }
    if (key == "InitiatorName") {
      const std::string_view value = trimmed(line.substr(equals + 1));
      if (auto checked = check_iscsi_name("InitiatorName", value); !checked) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}:{}: {}", name, number, checked.error().message));
      }
      return std::string(value);
    }
    generated_at = key == "GenerateName" ? number : generated_at;
  }
  if (generated_at != 0) {
    return fail(ErrorCode::not_found,
                fmt::format("{}:{}: GenerateName says that open-iscsi has not generated a name yet",
                            name, generated_at));
  }
  return fail(ErrorCode::not_found, fmt::format("{} has no line InitiatorName=", name));
}

Result<std::string> read_initiator_name(const std::string& path) {
  const auto text = read_file(path);
  if (!text) {
    return tl::unexpected(text.error());
  }
  return parse_initiator_name(text->text, path);
}

void set_initiator_name(Configuration& configuration, const std::string& name) {
  configuration.initiator_name = name;
  for_each_options(configuration,
                   [&](DiskOptions& options) { options.session.initiator_name = name; });
}

Result<Configuration> read_configuration(const ConfigurationFiles& files) {
  const auto text = read_file(files.configuration);
  if (!text) {
    if (text.error().code == ErrorCode::not_found && !files.must_exist) {
      return parse_configuration("", files.configuration);
    }
    return tl::unexpected(text.error());
  }
  auto configuration = parse_configuration(text->text, files.configuration);
  if (configuration && text->others_may_read && has_secrets(*configuration)) {
    return fail(ErrorCode::permission_denied,
                fmt::format("{} has passwords in it and others may read it: chmod 600 {}",
                            files.configuration, files.configuration));
  }
  return configuration;
}

Result<Configuration> load_configuration(const ConfigurationFiles& files) {
  auto configuration = read_configuration(files);
  if (!configuration || !configuration->initiator_name.empty()) {
    return configuration;
  }
  const auto name = read_initiator_name(files.initiator_name);
  if (!name) {
    return fail(name.error().code,
                fmt::format("there is no initiator name: {} sets no initiator_name, and {}",
                            files.configuration, name.error().message));
  }
  set_initiator_name(*configuration, *name);
  return configuration;
}

std::optional<LogLevel> parse_log_level(std::string_view text) {
  constexpr std::array kLevels{LogLevel::error, LogLevel::warning, LogLevel::info, LogLevel::debug};
  const auto found = std::find_if(kLevels.begin(), kLevels.end(),
                                  [&](LogLevel level) { return text == to_string(level); });
  return found == kLevels.end() ? std::nullopt : std::optional(*found);
}

bool is_run_directory(std::string_view text) {
  return text.size() > 1 && text.size() <= kMaxRunDirectoryBytes && text.front() == '/' &&
         text.find('\0') == std::string_view::npos;
}

std::vector<std::string_view> configuration_settings() {
  std::vector<std::string_view> names;
  for (const ConfigOption& option : config_options()) {
    if ((option.sections & kOfDisks) != 0) {
      names.push_back(option.name);
    }
  }
  return names;
}

}  // namespace iscsi_blkback
