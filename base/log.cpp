#include "base/log.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <mutex>

#include "base/printable_text.h"

namespace iscsi_blkback {
namespace {

// As much as is taken at once. A line is shorter than what a pipe that has room takes.
ssize_t write_some(std::string_view text) {
  const ssize_t sent = ::send(STDERR_FILENO, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0 || errno != ENOTSOCK) {
    return sent;
  }
  pollfd room{STDERR_FILENO, POLLOUT, 0};
  return ::poll(&room, 1, 0) > 0 ? ::write(STDERR_FILENO, text.data(), text.size()) : -1;
}

// One write(2) a line, so that lines of several processes do not mix. What nobody takes (a journal
// that hangs) is lost: the threads that log serve disks.
class StderrSink : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) noexcept override {
    if (lost_ != 0) {
      const std::string lost = fmt::format("log: {} messages are lost, nobody took them", lost_);
      lost_ = put(text_of(LogLevel::warning, lost)) ? 0 : lost_;
    }
    if (lost_ != 0 || !put(text_of(level, line))) {
      ++lost_;
    }
  }

 private:
  [[nodiscard]] virtual std::string text_of(LogLevel level, std::string_view line) const = 0;

  static bool put(std::string text) {
    text += '\n';
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t written = write_some(rest);
      if (written <= 0) {
        return false;
      }
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
    return true;
  }

  std::uint64_t lost_ = 0;
};

// sd-daemon(3): the journal reads the syslog priority from "<N>".
class JournalSink final : public StderrSink {
  std::string text_of(LogLevel level, std::string_view line) const override {
    static constexpr char kPriorities[] = {'3', '4', '6', '7'};
    std::string text = {'<', kPriorities[static_cast<std::size_t>(level)], '>'};
    text += line;
    return text;
  }
};

class TimestampSink final : public StderrSink {
  std::string text_of(LogLevel level, std::string_view line) const override {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);  // for people; nothing measures time with it
    tm local{};
    localtime_r(&now.tv_sec, &local);
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03} {}: {}", local.tm_year + 1900,
                       local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec,
                       now.tv_nsec / 1000000, to_string(level), line);
  }
};

bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  return stream != nullptr && fstat(STDERR_FILENO, &status) == 0 &&
         fmt::format("{}:{}", status.st_dev, status.st_ino) == stream;
}

TimePoint monotonic_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // of no reactor: any thread logs
  return TimePoint(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

struct Log {
  std::mutex mutex;
  std::unique_ptr<LogSink> sink = make_stderr_log_sink();
  std::string prefix;
  std::optional<LogMeter> meter;
  TimePoint (*clock)() = monotonic_now;
};

// Never destroyed: threads and destructors of other statics may still log at exit.
Log& the_log() {
  static Log* const log = new Log;
  return *log;
}

std::atomic<LogLevel> log_level{LogLevel::info};

constexpr std::size_t kLogLineBytes = 40;  // what a sink puts before a line, about

}  // namespace

const char* to_string(LogLevel level) {
  switch (level) {
    case LogLevel::error:
      return "error";
    case LogLevel::warning:
      return "warning";
    case LogLevel::info:
      return "info";
    case LogLevel::debug:
      return "debug";
  }
  return "unknown";
}

std::unique_ptr<LogSink> make_stderr_log_sink() {
  if (stderr_is_journal()) {
    return std::make_unique<JournalSink>();
  }
  return std::make_unique<TimestampSink>();
}

void MemoryLogSink::write(LogLevel level, std::string_view line) noexcept {
  lines_.push_back(fmt::format("{}: {}", to_string(level), line));
}

bool MemoryLogSink::contains(std::string_view text) const {
  return std::any_of(lines_.begin(), lines_.end(), [text](const std::string& line) {
    return line.find(text) != std::string::npos;
  });
}

std::unique_ptr<LogSink> set_log_sink(std::unique_ptr<LogSink> sink) {
  if (sink == nullptr) {
    sink = make_stderr_log_sink();
  }
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  return std::exchange(log.sink, std::move(sink));
}

void set_log_level(LogLevel level) {
  log_level.store(level, std::memory_order_relaxed);
}

bool log_enabled(LogLevel level) {
  return level <= log_level.load(std::memory_order_relaxed);
}

void set_log_prefix(std::string prefix) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.prefix = std::move(prefix);
}

void set_log_budget(std::optional<LogBudget> budget, TimePoint (*clock)()) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.clock = clock != nullptr ? clock : monotonic_now;
  log.meter.reset();
  if (budget) {
    log.meter.emplace(*budget);
  }
}

void log_message(LogLevel level, std::string_view component, std::string_view message) noexcept {
  if (!log_enabled(level)) {
    return;
  }
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  std::string line;
  if (!log.prefix.empty()) {
    line = log.prefix + ": ";
  }
  line += component;
  line += ": ";
  line += printable_text(message, kMaxLogMessageBytes);
  if (log.meter && !log_enabled(LogLevel::debug)) {
    if (!log.meter->allow(log.clock(), level, line.size() + kLogLineBytes)) {
      return;
    }
    if (const std::uint64_t left_out = log.meter->take_left_out(); left_out != 0) {
      log.sink->write(LogLevel::warning,
                      fmt::format("{}log: {} messages were left out, there were too many",
                                  log.prefix.empty() ? "" : log.prefix + ": ", left_out));
    }
  }
  log.sink->write(level, line);
}

bool LogMeter::allow(TimePoint now, LogLevel level, std::uint64_t bytes) {
  using Hours = std::chrono::duration<double, std::ratio<3600>>;
  const double earned = std::chrono::duration_cast<Hours>(now - filled_).count() *
                        static_cast<double>(budget_.bytes_per_hour);
  if (earned >= static_cast<double>(budget_.burst_bytes - left_)) {
    left_ = budget_.burst_bytes;
    filled_ = now;
  } else if (earned >= 1) {
    left_ += static_cast<std::uint64_t>(earned);
    filled_ = now;
  }
  const std::uint64_t kept = level == LogLevel::error ? 0 : budget_.burst_bytes / 4;
  if (left_ < kept + bytes) {
    ++left_out_;
    return false;
  }
  left_ -= bytes;
  return true;
}

bool LogLimiter::allow(TimePoint now) {
  if (tokens_ < burst_) {
    const auto earned = (now - refilled_) / interval_;
    if (earned >= static_cast<Duration::rep>(burst_ - tokens_)) {
      tokens_ = burst_;
    } else if (earned > 0) {
      tokens_ += static_cast<std::uint32_t>(earned);
      refilled_ += earned * interval_;
    }
  }
  if (tokens_ == 0 || (all_ != nullptr && !all_->allow(now))) {
    ++suppressed_;
    return false;
  }
  if (tokens_ == burst_) {
    refilled_ = now;  // a full bucket earns nothing: the interval starts with the first message
  }
  --tokens_;
  return true;
}

}  // namespace iscsi_blkback
