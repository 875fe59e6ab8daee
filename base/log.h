// The log: one line a message, for the person who runs the host. Callable from any thread, but
// never on the way of a request: it takes a lock and writes to a file descriptor. It does not wait
// for whoever reads there.
//
// Whatever a guest or a target can cause as often as it likes goes through a LogLimiter (XSA-180: a
// guest must not be able to fill dom0's disk with log lines), and a process whose messages they
// cause has a LogBudget for all of them together. Text from outside may be part of a message: it is
// made printable and its length is bounded here, once for all (printable_text.h).
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace iscsi_blkback {

enum class LogLevel : std::uint8_t { error, warning, info, debug };

[[nodiscard]] const char* to_string(LogLevel level);

inline constexpr std::size_t kMaxLogMessageBytes = 2000;  // longer ones are cut

// Where messages go. write() is called with the log's lock held, with one finished line (no newline
// in it) and must not log.
class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void write(LogLevel level, std::string_view line) noexcept = 0;
};

// With "<N>" prefixes when standard error is the journal (JOURNAL_STREAM), else with times.
[[nodiscard]] std::unique_ptr<LogSink> make_stderr_log_sink();

// For tests. Read it when nothing logs any more.
class MemoryLogSink : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) noexcept override;
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }
  [[nodiscard]] bool contains(std::string_view text) const;

 private:
  std::vector<std::string> lines_;  // "error: session: text"
};

// Replaces the sink (at first: standard error); returns the one before. Null is standard error.
std::unique_ptr<LogSink> set_log_sink(std::unique_ptr<LogSink> sink);
// Messages above this level are dropped before they are formatted. At first: info.
void set_log_level(LogLevel level);
[[nodiscard]] bool log_enabled(LogLevel level);
// Put before every message, "guest 5" for a guest's process.
void set_log_prefix(std::string prefix);

// What a process may log: burst_bytes at once, and as many again as bytes_per_hour gives. A quarter
// of it is left to errors.
struct LogBudget {
  std::uint64_t burst_bytes = 0;
  std::uint64_t bytes_per_hour = 0;
};

class LogMeter {
 public:
  explicit LogMeter(LogBudget budget) : budget_(budget), left_(budget.burst_bytes) {}

  // False: this message is left out.
  [[nodiscard]] bool allow(TimePoint now, LogLevel level, std::uint64_t bytes);
  // Since the last call.
  [[nodiscard]] std::uint64_t take_left_out() { return std::exchange(left_out_, 0); }

 private:
  LogBudget budget_;
  std::uint64_t left_;
  TimePoint filled_{};
  std::uint64_t left_out_ = 0;
};

// For the process from now on, unless it logs for debugging; none at first. clock: null is the
// system's.
void set_log_budget(std::optional<LogBudget> budget, TimePoint (*clock)() = nullptr);

// Writes one message. component: who speaks ("session", "vbd"), a literal.
void log_message(LogLevel level, std::string_view component, std::string_view message) noexcept;

template <class... Args>
void log_error(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::error, component, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::warning)) {
    log_message(LogLevel::warning, component, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void log_info(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::info)) {
    log_message(LogLevel::info, component, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void log_debug(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::debug)) {
    log_message(LogLevel::debug, component, fmt::format(format, std::forward<Args>(args)...));
  }
}

struct LogLimit {
  std::uint32_t burst = 10;
  Duration interval = std::chrono::seconds(30);
};

// One per kind of message and object, used by one thread: lets a burst through, then one message an
// interval, and counts the rest.
class LogLimiter {
 public:
  constexpr explicit LogLimiter(std::uint32_t burst = 10,
                                Duration interval = std::chrono::seconds(30))
      : burst_(burst), interval_(interval), tokens_(burst) {}
  constexpr explicit LogLimiter(LogLimit limit) : LogLimiter(limit.burst, limit.interval) {}
  // all: what limits all messages of which these are some, and outlives it.
  constexpr LogLimiter(LogLimit limit, LogLimiter& all) : LogLimiter(limit) { all_ = &all; }

  // True: write the message, and take_suppressed() says how many were dropped before it.
  [[nodiscard]] bool allow(TimePoint now);
  [[nodiscard]] std::uint64_t take_suppressed() { return std::exchange(suppressed_, 0); }

 private:
  std::uint32_t burst_;
  Duration interval_;
  std::uint32_t tokens_;
  TimePoint refilled_{};
  std::uint64_t suppressed_ = 0;
  LogLimiter* all_ = nullptr;
};

template <class... Args>
void log_limited(LogLimiter& limiter, TimePoint now, LogLevel level, std::string_view component,
                 fmt::format_string<Args...> format, Args&&... args) {
  if (!log_enabled(level) || !limiter.allow(now)) {
    return;
  }
  std::string message = fmt::format(format, std::forward<Args>(args)...);
  if (const std::uint64_t suppressed = limiter.take_suppressed(); suppressed != 0) {
    message += fmt::format(" ({} more like it were not logged)", suppressed);
  }
  log_message(level, component, message);
}

}  // namespace iscsi_blkback
