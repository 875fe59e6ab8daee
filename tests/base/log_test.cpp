#include "base/log.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace iscsi_blkback
