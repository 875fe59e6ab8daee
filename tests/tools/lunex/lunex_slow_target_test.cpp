// lunex with a target that works on one command at a time and answers nothing meanwhile, not even a
// NOP-Out, for longer than path_timeout; all settings are the defaults. With the real kernel, which
// alone knows whether it hears the other one: the simulated one (tests/support/sim_stream) is
// modelled on it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "bench/null_target.h"
#include "tests/tools/command.h"

namespace iscsi_blkback {
namespace {

class LunexAtASlowTarget : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    NullTargetOptions options = null_target_defaults();
    options.lun.block_count = 2048;
    options.settings.busy = std::chrono::seconds(3);
    auto opened = NullTarget::create(options);
    if (!opened) {
      GTEST_SKIP() << opened.error().message;
    }
    target_ = std::move(*opened);
    thread_ = std::thread([this] { target_->run(stop_); });
    url_ = fmt::format("iscsi://127.0.0.1:{}/{}/0", target_->ports().front(),
                       options.settings.protocol.name);
    std::ofstream(folder_ / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:lunex'\n";
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  TemporaryFolder folder_;
  std::unique_ptr<NullTarget> target_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
  std::string url_;
};

// What was given up once is waited for. The time only bounds what would never end.
TEST_P(LunexAtASlowTarget, HasItsAnswers) {
  const CommandResult result = run_command(
      fmt::format("timeout 120 '{}' run --number_ios=2 --iodepth=1 {} --config '{}' '{}'",
                  ISCSI_BLKBACK_LUNEX, GetParam(), folder_ / "lunex.toml", url_));
  EXPECT_EQ(result.exit_code, 0) << result.errors;
}

INSTANTIATE_TEST_SUITE_P(Paths, LunexAtASlowTarget, testing::Values("", "--sessions=2"),
                         [](const auto& test) {
                           return std::string(*test.param == '\0' ? "One" : "Two");
                         });

}  // namespace
}  // namespace iscsi_blkback
