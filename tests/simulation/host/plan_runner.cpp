#include "tests/simulation/host/plan_runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <utility>

namespace iscsi_blkback {
namespace {

// The answer: one line each, "failure RULE TIME WHAT", "happened COUNT WHAT", "fingerprint N".
std::string to_lines(const HostSimulationResult& result) {
  std::string text;
  for (const RuleFailure& failure : result.failures) {
    std::string what = failure.what;
    std::replace(what.begin(), what.end(), '\n', ' ');
    text += fmt::format("failure {} {} {}\n", to_string(failure.rule), failure.at_us, what);
  }
  for (const auto& [what, count] : result.happened) {
    text += fmt::format("happened {} {}\n", count, what);
  }
  return text + fmt::format("fingerprint {}\n", result.fingerprint);
}

std::string_view next_word(std::string_view& line) {
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(line.size(), word.size() + 1));
  return word;
}

template <class Number>
Number number_in(std::string_view word) {
  Number number = 0;
  std::from_chars(word.data(), word.data() + word.size(), number);
  return number;
}

// False: the last line is missing, so the run has not ended.
bool parse_lines(std::string_view text, HostSimulationResult& result) {
  bool complete = false;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::string_view type = next_word(line);
    if (type == "failure") {
      RuleFailure& failure = result.failures.emplace_back();
      failure.rule = rule_named(next_word(line)).value_or(Rule::crash);
      failure.at_us = number_in<std::int64_t>(next_word(line));
      failure.what = std::string(line);
    } else if (type == "happened") {
      const auto count = number_in<std::uint64_t>(next_word(line));
      result.happened[std::string(line)] = count;
    } else if (type == "fingerprint") {
      result.fingerprint = number_in<std::uint64_t>(next_word(line));
      complete = true;
    }
  }
  return complete;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written <= 0) {
      return;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count > 0) {
      text.append(buffer, static_cast<std::size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return text;
    }
  }
}

}  // namespace

PlanRunner::PlanRunner(const Plan& plan, const HostSimulationOptions& options) {
  int ends[2] = {-1, -1};
  ISCSI_BLKBACK_ASSERT(::pipe2(ends, O_CLOEXEC) == 0);
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  child_ = ::fork();
  ISCSI_BLKBACK_ASSERT(child_ >= 0);
  answer_.reset(ends[0]);
  UniqueFd tell(ends[1]);
  if (child_ != 0) {
    return;
  }
  answer_.reset();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) {
    ::_exit(1);  // it has ended before it could be noticed
  }
  ::alarm(static_cast<unsigned>(kLongestWait.count()));
  itimerval longest{};
  longest.it_value.tv_sec = kLongestRun.count();
  ISCSI_BLKBACK_ASSERT(::setitimer(ITIMER_PROF, &longest, nullptr) == 0);
  write_all(tell.get(), to_lines(run_plan(plan, options)));
  std::fflush(nullptr);
  ::_exit(0);
}

PlanRunner::PlanRunner(PlanRunner&& other) noexcept
    : child_(std::exchange(other.child_, 0)), answer_(std::move(other.answer_)) {}

PlanRunner::~PlanRunner() {
  if (child_ != 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
}

HostSimulationResult PlanRunner::result() {
  HostSimulationResult result;
  const bool complete = parse_lines(read_all(answer_.get()), result);
  int status = 0;
  ::waitpid(std::exchange(child_, 0), &status, 0);
  if (!complete) {
    const bool hung =
        WIFSIGNALED(status) && (WTERMSIG(status) == SIGPROF || WTERMSIG(status) == SIGALRM);
    result.failures.push_back({Rule::crash, 0,
                               hung ? "the run does not end"
                               : WIFSIGNALED(status)
                                   ? fmt::format("signal {}", WTERMSIG(status))
                                   : fmt::format("status {}", WEXITSTATUS(status))});
  }
  return result;
}

HostSimulationResult run_apart(const Plan& plan, const HostSimulationOptions& options) {
  return PlanRunner(plan, options).result();
}

}  // namespace iscsi_blkback
