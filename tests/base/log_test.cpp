#include "base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "tests/support/hostile_text.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;

class LogTest : public testing::Test {
 protected:
  LogTest() {
    auto sink = std::make_unique<MemoryLogSink>();
    sink_ = sink.get();
    before_ = set_log_sink(std::move(sink));
  }
  ~LogTest() override {
    set_log_prefix("");
    set_log_level(LogLevel::info);
    set_log_sink(std::move(before_));
  }
  using Lines = std::vector<std::string>;
  const Lines& lines() const { return sink_->lines(); }

 private:
  MemoryLogSink* sink_;
  std::unique_ptr<LogSink> before_;
};

TEST_F(LogTest, WritesLevelPrefixComponentAndText) {
  log_error("session", "login to {} failed: {}", "192.0.2.1:3260", 7);
  set_log_prefix("guest 5");
  log_warning("vbd", "xvda");
  EXPECT_EQ(lines(), (Lines{"error: session: login to 192.0.2.1:3260 failed: 7",
                            "warning: guest 5: vbd: xvda"}));
}

TEST_F(LogTest, DropsWhatIsAboveTheLevel) {
  log_debug("x", "no");
  log_info("x", "yes");
  set_log_level(LogLevel::error);
  log_warning("x", "no");
  set_log_level(LogLevel::debug);
  log_debug("x", "yes");
  EXPECT_EQ(lines(), (Lines{"info: x: yes", "debug: x: yes"}));
}

TEST_F(LogTest, EscapesControlCharactersSoThatNobodyForgesALine) {
  log_info("target", "{}", "a\n<0>error: all is lost\x1b[31m\x7f");
  EXPECT_EQ(lines(), (Lines{"info: target: a\\x0a<0>error: all is lost\\x1b[31m\\x7f"}));
}

TEST_F(LogTest, CutsLongMessages) {
  log_info("target", "{}", std::string(100000, 'x'));
  EXPECT_LT(lines().at(0).size(), kMaxLogMessageBytes + 100);
}

TEST_F(LogTest, WritesNothingOfAHostileTextThatATerminalWouldObey) {
  LogLimiter limiter(1000);
  for (const HostileText& hostile : hostile_texts()) {
    log_info("target", "{}", hostile.text);
    log_limited(limiter, TimePoint(1h), LogLevel::warning, "target", "{}", hostile.text);
  }
  for (const std::string& line : lines()) {
    EXPECT_TRUE(is_harmless(line)) << line;
    EXPECT_LT(line.size(), kMaxLogMessageBytes + 100);
  }
  EXPECT_EQ(lines()[0], "info: target: \\x1b]0;owned\\x07");
}

TEST_F(LogTest, TakesMessagesFromSeveralThreads) {
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([number] {
      for (int i = 0; i < 100; ++i) {
        log_info("thread", "{}", number);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(lines().size(), 400U);
}

TEST_F(LogTest, LimiterLetsABurstThroughThenOneAnInterval) {
  LogLimiter limiter(3, 10s);
  TimePoint now = TimePoint(1h);
  const auto flood = [&](int count) {
    const std::size_t before = lines().size();
    for (int i = 0; i < count; ++i) {
      log_limited(limiter, now, LogLevel::warning, "vbd", "bad request");
    }
    return lines().size() - before;
  };
  EXPECT_EQ(flood(100), 3U);
  now += 9s;
  EXPECT_EQ(flood(100), 0U);
  now += 1s;
  EXPECT_EQ(flood(100), 1U);
  EXPECT_EQ(lines().back(), "warning: vbd: bad request (197 more like it were not logged)");
  now += 25s;
  EXPECT_EQ(flood(100), 2U);
  now += 5s;  // the half interval above is not lost
  EXPECT_EQ(flood(100), 1U);
  now += 1h;
  EXPECT_EQ(flood(100), 3U);  // never more than the burst
}

TEST_F(LogTest, LimiterDoesNotCountWhatTheLevelDrops) {
  LogLimiter limiter(1, 10s);
  log_limited(limiter, TimePoint(1h), LogLevel::debug, "vbd", "noise");
  log_limited(limiter, TimePoint(1h), LogLevel::info, "vbd", "news");
  EXPECT_EQ(lines(), (Lines{"info: vbd: news"}));
}

TEST_F(LogTest, LimitersOfOneOwnerShareItsLimit) {
  LogLimiter all(5, 10s);
  LogLimiter noisy(LogLimit{100, 10s}, all);
  LogLimiter quiet(LogLimit{100, 10s}, all);
  TimePoint now = TimePoint(1h);
  for (int i = 0; i < 100; ++i) {
    log_limited(noisy, now, LogLevel::warning, "vbd", "noise");
  }
  log_limited(quiet, now, LogLevel::warning, "vbd", "news");
  EXPECT_EQ(lines().size(), 5U);
  now += 10s;
  log_limited(quiet, now, LogLevel::warning, "vbd", "news");
  EXPECT_EQ(lines().back(), "warning: vbd: news (1 more like it were not logged)");
}

TEST_F(LogTest, AKindOfMessageThatIsLimitedTakesNothingFromTheOthers) {
  LogLimiter all(100, 10s);
  LogLimiter noisy(LogLimit{3, 10s}, all);
  LogLimiter quiet(LogLimit{3, 10s}, all);
  for (int i = 0; i < 1000; ++i) {
    log_limited(noisy, TimePoint(1h), LogLevel::warning, "vbd", "noise");
  }
  log_limited(quiet, TimePoint(1h), LogLevel::warning, "vbd", "news");
  EXPECT_EQ(lines().back(), "warning: vbd: news");
}

TimePoint budget_clock_now;

TEST_F(LogTest, AProcessLogsNoMoreThanItsBudget) {
  budget_clock_now = TimePoint(1h);
  set_log_budget(LogBudget{10000, 10000}, [] { return budget_clock_now; });
  std::size_t bytes = 0;
  std::size_t left_out = 0;
  for (int minute = 0; minute < 10 * 60; ++minute) {
    for (int i = 0; i < 100; ++i) {
      log_info("target", "{}", std::string(200, 'x'));
    }
    budget_clock_now += 1min;
  }
  for (const std::string& line : lines()) {
    bytes += line.size();
    left_out += line.find("messages were left out") != std::string::npos ? 1 : 0;
  }
  EXPECT_LE(bytes, 10000U + 10 * 10000U + left_out * 100);
  EXPECT_GE(bytes, 10 * 5000U);
  EXPECT_GT(left_out, 0U);
  // What is left for errors is theirs.
  log_error("vbd", "news");
  EXPECT_EQ(lines().back(), "error: vbd: news");
  set_log_budget({});
}

TEST_F(LogTest, WhoLogsForDebuggingHasNoBudget) {
  set_log_level(LogLevel::debug);
  set_log_budget(LogBudget{1000, 1}, [] { return budget_clock_now; });
  for (int i = 0; i < 1000; ++i) {
    log_info("target", "news");
  }
  EXPECT_EQ(lines().size(), 1000U);
  set_log_budget({});
}

// Standard error is a socket to the journal, or a pipe.
class LogToStandardError : public testing::TestWithParam<bool> {
 protected:
  LogToStandardError() {
    EXPECT_EQ(GetParam() ? ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) : ::pipe(ends_), 0);
    ::fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    former_ = ::dup(STDERR_FILENO);
    ::dup2(ends_[1], STDERR_FILENO);
    sink_ = set_log_sink(nullptr);
  }
  ~LogToStandardError() override {
    set_log_sink(std::move(sink_));
    ::dup2(former_, STDERR_FILENO);
    for (const int fd : {ends_[0], ends_[1], former_}) {
      ::close(fd);
    }
  }
  std::string take() {
    std::string taken;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(ends_[0], buffer, sizeof buffer)) > 0;) {
      taken.append(buffer, static_cast<std::size_t>(got));
    }
    return taken;
  }

 private:
  int ends_[2] = {-1, -1};
  int former_ = -1;
  std::unique_ptr<LogSink> sink_;
};

// The threads that log serve disks.
TEST_P(LogToStandardError, DoesNotWaitForWhoeverReadsIt) {
  std::promise<void> done;
  auto ended = done.get_future();
  std::thread logs([&done] {
    for (int i = 0; i < 2000; ++i) {
      log_warning("session", "{}", std::string(1000, 'x'));
    }
    done.set_value();
  });
  EXPECT_EQ(ended.wait_for(30s), std::future_status::ready);
  while (ended.wait_for(1ms) != std::future_status::ready) {
    take();
  }
  logs.join();
  EXPECT_THAT(take(), testing::HasSubstr("xxx\n"));
  log_warning("session", "login failed");
  EXPECT_THAT(take(), testing::ContainsRegex("messages are lost.*\n.*session: login failed\n$"));
}

TEST_P(LogToStandardError, LosesNothingThatIsTaken) {
  std::string taken;
  for (int i = 0; i < 2000; ++i) {
    log_info("session", "{}", i);
    taken += take();
  }
  EXPECT_THAT(taken, testing::HasSubstr("session: 1999\n"));
  EXPECT_THAT(taken, testing::Not(testing::HasSubstr("lost")));
}

INSTANTIATE_TEST_SUITE_P(Log, LogToStandardError, testing::Bool());

}  // namespace
}  // namespace iscsi_blkback
