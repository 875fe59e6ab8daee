// lunex as its user sees it, against a real target on loopback.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/unique_fd.h"
#include "tests/support/tcp_proxy.h"
#include "tests/support/tgt_process.h"
#include "tests/tools/command.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::uint64_t kLunBytes = std::uint64_t{16} << 20;
constexpr int kWaitMs = 60000;  // generous: only bounds a hang

class Lunex : public testing::Test {
 protected:
  void SetUp() override {
    if (!TgtProcess::available()) {
      GTEST_SKIP() << "needs root and the package tgt";
    }
    const auto started = tgt.start({.disk_bytes = kLunBytes, .portals = 2});
    ASSERT_TRUE(started) << started.error().message;
    std::ofstream(folder / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:lunex'\n";
  }

  CommandResult lunex(const std::string& arguments) const {
    const CommandResult result = run_command("'" ISCSI_BLKBACK_LUNEX "' " + arguments +
                                             " --config '" + folder / "lunex.toml" + "'");
    // Whatever is wrong is said in one line.
    EXPECT_LE(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
    EXPECT_EQ(result.exit_code == 0, result.errors.empty()) << result.errors;
    return result;
  }
  nlohmann::json json_of(const std::string& arguments, int exit_code = 0) const {
    const CommandResult result = lunex(arguments + " --json");
    EXPECT_EQ(result.exit_code, exit_code) << result.errors;
    return nlohmann::json::parse(result.output, nullptr, false);
  }
  std::string url(const std::vector<std::uint16_t>& ports, const std::string& lun = "1") const {
    std::string portals;
    for (const std::uint16_t port : ports) {
      portals += (portals.empty() ? "127.0.0.1:" : ",127.0.0.1:") + std::to_string(port);
    }
    return fmt::format("'iscsi://{}/{}/{}'", portals, TgtProcess::kTargetName, lun);
  }
  std::string url() const { return url({tgt.port()}); }
  std::string failing_url(std::uint16_t port) const {
    std::string failing = url({port});
    failing.insert(failing.size() - 1, "?no_path_retry=fail");
    return failing;
  }
  CommandResult interrupted(const std::string& signal, const std::string& arguments) const {
    return run_command(fmt::format("timeout --preserve-status -s {} 1 '{}' {} --config '{}'",
                                   signal, ISCSI_BLKBACK_LUNEX, arguments, folder / "lunex.toml"));
  }
  void show_only_to(const std::string& initiator) {
    ASSERT_TRUE(tgt.administer({"--op", "unbind", "--mode", "target", "--tid", "1", "-I", "ALL"}));
    ASSERT_TRUE(
        tgt.administer({"--op", "bind", "--mode", "target", "--tid", "1", "-Q", initiator}));
  }

  template <class Condition>
  static bool wait_for(Condition condition) {
    for (int i = 0; i < kWaitMs; ++i) {
      if (condition()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  TemporaryFolder folder;
  TgtProcess tgt;
};

TEST_F(Lunex, DiscoversTargets) {
  const CommandResult text = lunex(fmt::format("discover 127.0.0.1:{}", tgt.port()));
  EXPECT_EQ(text.output, fmt::format("127.0.0.1:{},1 {}\n", tgt.port(), TgtProcess::kTargetName));
  const auto json = json_of(fmt::format("discover 127.0.0.1:{}", tgt.port()));
  ASSERT_EQ(json["targets"].size(), 1U);
  EXPECT_EQ(json["targets"][0]["target"], TgtProcess::kTargetName);
  EXPECT_EQ(json["targets"][0]["portals"][0]["port"], tgt.port());
}

TEST_F(Lunex, DiscoveryAtADeadPortalFails) {
  const std::uint16_t port = tgt.port();
  tgt.kill();
  const CommandResult result = lunex(fmt::format("discover 127.0.0.1:{}", port));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr(fmt::format("discovery at 127.0.0.1:{} failed: ", port)));
  EXPECT_THAT(result.errors, HasSubstr("Connection refused"));
}

TEST_F(Lunex, MeasuresReads) {
  const auto json =
      json_of("run --rw=randread --bs=4k --iodepth=32 --runtime=0.3 --sessions=1 " + url());
  EXPECT_GT(json["iops"].get<double>(), 0);
  EXPECT_NEAR(json["bandwidth_bytes_per_s"].get<double>(), json["iops"].get<double>() * 4096, 1);
  EXPECT_GT(json["latency_ns"]["p50"].get<std::int64_t>(), 0);
  EXPECT_GE(json["latency_ns"]["p99"], json["latency_ns"]["p50"]);
  EXPECT_GE(json["latency_ns"]["p99_9"], json["latency_ns"]["p99"]);
  EXPECT_GE(json["latency_ns"]["max"], json["latency_ns"]["p99_9"]);
  EXPECT_GT(json["client_cpu_us_per_io"].get<double>(), 0);
  EXPECT_GT(json["syscalls_per_io"].get<double>(), 0);
  EXPECT_EQ(json["errors"], 0);
  EXPECT_EQ(json["write"]["requests"], 0);
}

TEST_F(Lunex, MeasuresSeveralSessionsAtSeveralPortals) {
  const auto json =
      json_of("run --sessions=3 --iodepth=12 --number_ios=2000 " + url({tgt.port(0), tgt.port(1)}));
  EXPECT_EQ(json["paths_up"], 6);
  EXPECT_EQ(json["requests"], 2000);
  EXPECT_EQ(json["errors"], 0);
}

TEST_F(Lunex, MeasuresMixedWritesAndVerifiesThem) {
  const auto json = json_of(
      "run --rw=randrw --rwmixread=30 --bs=8k --iodepth=16 --number_ios=5000 --size=4m --verify "
      "--write-ok " +
      url());
  EXPECT_EQ(json["requests"], 5000);
  EXPECT_GT(json["read"]["requests"].get<int>(), 1000);
  EXPECT_GT(json["write"]["requests"].get<int>(), 3000);
  EXPECT_EQ(json["errors"], 0);
  EXPECT_TRUE(json["mismatch"].is_null());
}

TEST_F(Lunex, TextHasTheNumbersToo) {
  const CommandResult result = lunex("run --rw=read --bs=64k --size=1m " + url());
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, StartsWith("read of 65536 bytes, 1 at once"));
  EXPECT_THAT(result.output, HasSubstr("16 requests"));
  EXPECT_THAT(result.output, HasSubstr("p99.9"));
  EXPECT_THAT(result.output, HasSubstr("errors: 0"));
}

TEST_F(Lunex, RefusesToWriteWithoutBeingTold) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  const std::string proxied = url({(*proxy)->port()});
  for (const char* command : {"run --rw=write ", "run --rw=randrw ", "verify "}) {
    const CommandResult result = lunex(command + proxied);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.errors, HasSubstr("--write-ok"));
  }
  EXPECT_EQ((*proxy)->accepted(), 0U);  // refused before anybody was asked
}

TEST_F(Lunex, VerifiesTheWholeLun) {
  const auto json = json_of("verify --write-ok " + url());
  EXPECT_EQ(json["verified"], true);
  EXPECT_EQ(json["compared_bytes"], 2 * kLunBytes);
  EXPECT_TRUE(json["mismatch"].is_null());
  const CommandResult text = lunex("verify --write-ok --size=1m --passes=1 " + url());
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.output, HasSubstr("pass 1 of 1: read back and compared 1048576 bytes"));
  EXPECT_THAT(text.output, HasSubstr("every block is right"));
}

TEST_F(Lunex, VerifyFindsTheBlockThatTheTargetSpoils) {
  std::promise<CommandResult> ended;
  std::thread run([&] {
    ended.set_value(lunex("verify --write-ok --bs=4k --size=1m --passes=100000 --json " + url()));
  });
  // Again and again, because the next pass writes over it.
  const UniqueFd disk(::open(tgt.disk_path().c_str(), O_RDWR | O_CLOEXEC));
  auto result = ended.get_future();
  while (result.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
    EXPECT_EQ(::pwrite(disk.get(), "spoilt", 6, 1001 * 512 + 100), 6);
  }
  run.join();
  const CommandResult verified = result.get();
  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_THAT(verified.errors, HasSubstr("block 1001: expected generation "));
  EXPECT_THAT(verified.errors, HasSubstr("torn or damaged"));
  const auto json = nlohmann::json::parse(verified.output, nullptr, false);
  EXPECT_EQ(json["verified"], false);
  EXPECT_EQ(json["mismatch"]["block"], 1001);
  EXPECT_EQ(json["mismatch"]["found_generation"], json["mismatch"]["expected_generation"]);
  EXPECT_NE(json["mismatch"]["computed_checksum"], json["mismatch"]["found_checksum"]);
}

// Which one answers first is chance.
TEST_F(Lunex, PortalsOfDifferentLunsAreRefusedUnlessOneIsNamed) {
  TgtProcess other;
  const auto started = other.start({.disk_bytes = kLunBytes, .portals = 1});
  ASSERT_TRUE(started) << started.error().message;
  ASSERT_TRUE(other.administer({"--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun",
                                "1", "--params", "scsi_id=0123456789abcdef"}));
  const std::string both = url({tgt.port(), other.port()});
  for (const char* command : {"run --number_ios=1 --bs=4k ", "verify --write-ok --passes=1 "}) {
    const CommandResult result = lunex(command + both);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.errors.find("say which one is meant by wwid="), std::string::npos)
        << result.errors;
  }
  const CommandResult described = lunex("info " + both);
  EXPECT_EQ(described.exit_code, 2) << "no disk would be made of them";
  EXPECT_THAT(described.errors, HasSubstr("leads to another LUN"));
  EXPECT_THAT(described.errors, HasSubstr("say which one is meant by wwid="));
  EXPECT_THAT(described.output, HasSubstr("identifier"));
  const auto document = json_of("info " + both, 2);
  EXPECT_THAT(document.value("error", ""), HasSubstr("say which one is meant by wwid="));
  EXPECT_NE(document.value("wwid", ""), "");
  EXPECT_EQ(run_command("cmp --bytes=16777216 /dev/zero '" + other.disk_path() + "'").exit_code, 0);
  const auto info = json_of("info " + url());
  std::string named = both;
  named.insert(named.size() - 1, "?wwid=" + info.value("wwid", ""));
  const CommandResult result =
      run_command("'" ISCSI_BLKBACK_LUNEX "' verify --write-ok --passes=1 " + named +
                  " --config '" + folder / "lunex.toml" + "'");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NE(result.errors.find("without the path by"), std::string::npos) << result.errors;
  EXPECT_EQ(run_command("cmp --bytes=16777216 /dev/zero '" + other.disk_path() + "'").exit_code, 0);
}

// As the guest's process refuses them.
TEST_F(Lunex, SectorsLargerThanTheLunsBlocksAreRefused) {
  std::string large = url();
  large.insert(large.size() - 1, "?sector_size=4096");
  for (const char* command : {"run --number_ios=1 ", "verify --write-ok --passes=1 ", "info "}) {
    const CommandResult result = lunex(command + large);
    EXPECT_EQ(result.exit_code, 2) << command;
    EXPECT_EQ(result.errors,
              "lunex: the LUN has logical blocks of 512 bytes, and no disk of it has larger "
              "sectors: sector_size is 4096 (from the disk's target)\n");
  }
  large.replace(large.find("4096"), 4, "512");
  EXPECT_EQ(lunex("info " + large).exit_code, 0);
}

TEST_F(Lunex, JsonSaysWhatHasFailedWhateverTheCommand) {
  const std::string dead = url({1});
  for (const auto& [command, exit_code] : std::vector<std::pair<std::string, int>>{
           {"info " + dead, 1},
           {"run " + dead, 1},
           {"verify --write-ok " + dead, 1},
           {"discover 127.0.0.1:1", 1},
           {"discover 127.0.0.1:x", 2},
           {"info iscsi:nobody", 2},
           {"run --rw=trim " + dead, 2},
           {"run --rw=write " + url(), 2},
           {"verify " + url(), 2},
           {"run --bs=1000 " + url(), 2},
       }) {
    const CommandResult result = lunex(command + " --json");
    EXPECT_EQ(result.exit_code, exit_code) << command;
    const auto document = nlohmann::json::parse(result.output, nullptr, false);
    ASSERT_TRUE(document.is_object()) << command;
    EXPECT_EQ(result.errors, "lunex: " + document.value("error", "") + "\n") << command;
  }
  EXPECT_FALSE(json_of("info " + url()).contains("error"));
  EXPECT_FALSE(json_of("run --number_ios=1 " + url()).contains("error"));
}

TEST_F(Lunex, GoesOnByTheOtherPathWhenOneIsLost) {
  // Else writes to blocks that the lost path was writing wait for quiesce_time.
  std::ofstream(folder / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:lunex'\n[defaults]\n"
                                          "portal_group_fences = true\n";
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  std::promise<CommandResult> ended;
  std::thread run([&] {
    ended.set_value(
        lunex("run --rw=randrw --write-ok --verify --iodepth=8 --number_ios=60000 "
              "--json " +
              url({(*proxy)->port(), tgt.port()})));
  });
  EXPECT_TRUE(wait_for([&] { return (*proxy)->forwarded(TcpProxy::Way::to_initiator) > 1000000; }));
  (*proxy)->set_refusing(true);
  (*proxy)->reset();
  run.join();
  const CommandResult result = ended.get_future().get();
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  const auto json = nlohmann::json::parse(result.output, nullptr, false);
  EXPECT_EQ(json["requests"], 60000);
  EXPECT_EQ(json["errors"], 0);
  EXPECT_EQ(json["connection_losses"], 1);
  EXPECT_EQ(json["paths"], 2);
  EXPECT_EQ(json["paths_up"], 1) << "at the end, not at the start";
  EXPECT_EQ(json["paths_up_least"], 1);
}

TEST_F(Lunex, SaysThatTheTargetWentAway) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  std::string failing = url({(*proxy)->port()});
  failing.insert(failing.size() - 1, "?no_path_retry=fail");
  std::promise<CommandResult> ended;
  std::thread run(
      [&] { ended.set_value(lunex("run --iodepth=8 --number_ios=1000000 " + failing)); });
  EXPECT_TRUE(wait_for([&] { return (*proxy)->forwarded(TcpProxy::Way::to_initiator) > 1000000; }));
  (*proxy)->set_refusing(true);
  (*proxy)->reset();
  run.join();
  const CommandResult result = ended.get_future().get();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("read of 4096 bytes at byte "));
  EXPECT_THAT(result.output, HasSubstr("connections lost: 1"));
}

// ---- every way a run can end

TEST_F(Lunex, EndsWithResultsAndAStatusOfItsOwnWhenInterrupted) {
  for (const char* signal : {"INT", "TERM"}) {
    const CommandResult result = interrupted(signal, "run --runtime=1h --json " + url());
    EXPECT_EQ(result.exit_code, 3) << result.errors;
    const auto json = nlohmann::json::parse(result.output, nullptr, false);
    EXPECT_EQ(json["interrupted"], true);
    EXPECT_GT(json["requests"].get<int>(), 0);
    EXPECT_EQ(json["errors"], 0);
  }
}

TEST_F(Lunex, AVerifyThatIsInterruptedHasNotVerified) {
  for (const char* options : {"", "--bs=4k --iodepth=1", "--size=1m", "--iodepth=64"}) {
    const CommandResult result = interrupted(
        "INT", fmt::format("verify --write-ok --passes=1000000 {} --json {}", options, url()));
    EXPECT_EQ(result.exit_code, 3) << result.errors;
    const auto json = nlohmann::json::parse(result.output, nullptr, false);
    EXPECT_EQ(json["verified"], false);
    EXPECT_EQ(json["interrupted"], true);
    EXPECT_EQ(json["errors"], 0);
    EXPECT_LT(json["passes_done"].get<int>(), 1000000);
  }
  const CommandResult text =
      interrupted("TERM", "verify --write-ok --passes=1000000 --size=1m " + url());
  EXPECT_EQ(text.exit_code, 3);
  EXPECT_THAT(text.output, HasSubstr("interrupted"));
  EXPECT_THAT(text.output, Not(HasSubstr("every block is right")));
}

TEST_F(Lunex, InterruptedBeforeTheLunWasReachedSaysSo) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  tgt.signal(SIGSTOP);
  for (const char* command : {"run ", "info ", "verify --write-ok "}) {
    const CommandResult result = interrupted("INT", command + url());
    EXPECT_EQ(result.exit_code, 3) << command;
    EXPECT_THAT(result.errors, HasSubstr("interrupted before the LUN was reached"));
  }
  tgt.signal(SIGCONT);
}

// Names are looked up and portals asked before there is a reactor.
TEST_F(Lunex, InterruptedWhileItAsksForTargetsSaysSo) {
  std::ofstream(folder / "lunex.toml")
      << "initiator_name = 'iqn.2026-01.test:lunex'\nportals = ['127.0.0.1:" << tgt.port()
      << "']\n";
  tgt.signal(SIGSTOP);
  const std::string words[] = {
      fmt::format("discover 127.0.0.1:{}", tgt.port()),
      fmt::format("info iscsi:{}/1", TgtProcess::kTargetName),
      fmt::format("verify --write-ok iscsi:{}/1", TgtProcess::kTargetName),
  };
  for (const char* signal : {"INT", "TERM", "HUP"}) {
    for (const std::string& word : words) {
      const CommandResult result = interrupted(signal, word);
      EXPECT_EQ(result.exit_code, 3) << signal << " " << word;
      EXPECT_EQ(result.errors, "lunex: interrupted\n") << signal << " " << word;
    }
  }
  tgt.signal(SIGCONT);
}

TEST_F(Lunex, AnInfoThatIsInterruptedSaysSo) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  const std::string proxied = url({(*proxy)->port()});
  EXPECT_EQ(lunex("info " + proxied).exit_code, 0);
  const std::uint64_t whole = (*proxy)->forwarded(TcpProxy::Way::to_initiator);
  (*proxy)->set_delay(std::chrono::milliseconds(30));
  std::promise<CommandResult> ended;
  std::thread run([&] {
    ended.set_value(run_command(
        fmt::format("'{}' info --config '{}' {} & pid=$!\n"
                    "while [ ! -e '{}' ]; do sleep 0.05; done\n"
                    "kill -TERM $pid; wait $pid",
                    ISCSI_BLKBACK_LUNEX, folder / "lunex.toml", proxied, folder / "now")));
  });
  // Once the LUN is known, after about the half, it is asked anew.
  EXPECT_TRUE(
      wait_for([&] { return (*proxy)->forwarded(TcpProxy::Way::to_initiator) > whole * 17 / 10; }));
  (*proxy)->stall(TcpProxy::Way::to_initiator);
  EXPECT_TRUE(wait_for([&] { return (*proxy)->stalled(TcpProxy::Way::to_initiator) > 0; }));
  std::ofstream(folder / "now") << "";
  run.join();
  const CommandResult result = ended.get_future().get();
  EXPECT_EQ(result.exit_code, 3) << result.errors;
  EXPECT_THAT(result.errors, HasSubstr("interrupted before the LUN"));
  EXPECT_EQ(result.output, "");
}

TEST_F(Lunex, EndsInOrderWhenTheTerminalGoesButNotUnderNohup) {
  const CommandResult result = interrupted("HUP", "run --runtime=1h --json " + url());
  EXPECT_EQ(result.exit_code, 3) << result.errors;
  EXPECT_EQ(nlohmann::json::parse(result.output, nullptr, false)["interrupted"], true);
  const CommandResult stays =
      run_command(fmt::format("trap '' HUP; '{0}' run --runtime=2 --config '{1}' {2} & pid=$!\n"
                              "sleep 0.5; kill -HUP $pid; wait $pid",
                              ISCSI_BLKBACK_LUNEX, folder / "lunex.toml", url()));
  EXPECT_EQ(stays.exit_code, 0) << stays.errors;
  EXPECT_THAT(stays.output, Not(HasSubstr("interrupted")));
}

TEST_F(Lunex, SaysThatItCannotWriteItsResults) {
  for (const char* command :
       {"info ", "run --number_ios=10 ", "verify --write-ok --size=1m --passes=1 "}) {
    for (const char* where : {" > /dev/full", " >&-", " <&- >&-", " --json > /dev/full"}) {
      const CommandResult result =
          run_command(fmt::format("'{}' {} --config '{}' {} {}", ISCSI_BLKBACK_LUNEX, command,
                                  folder / "lunex.toml", url(), where));
      EXPECT_EQ(result.exit_code, 1) << command << where;
      EXPECT_THAT(result.errors, StartsWith("lunex: standard output cannot be written: "))
          << command << where;
      EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
    }
    const CommandResult quiet =
        run_command(fmt::format("'{}' {} --config '{}' {} 2>&-", ISCSI_BLKBACK_LUNEX, command,
                                folder / "lunex.toml", url()));
    EXPECT_EQ(quiet.exit_code, 0) << command;
    EXPECT_NE(quiet.output, "") << command;
  }
}

// What is complained of must not go to a socket that has the number of standard error.
TEST_F(Lunex, NothingTakesThePlaceOfAClosedStream) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  const CommandResult result = run_command(fmt::format(
      "'{0}' run --runtime=30 --config '{1}' {2} <&- >&- 2>&- & pid=$!\n"
      "for i in $(seq 200); do ls -l /proc/$pid/fd > '{3}/fds'\n"
      "grep -q socket '{3}/fds' && break; sleep 0.05; done\n"
      "kill -TERM $pid; wait $pid",
      ISCSI_BLKBACK_LUNEX, folder / "lunex.toml", url({(*proxy)->port()}), folder.path()));
  EXPECT_NE(result.exit_code, 0) << "the results are lost";
  const std::string descriptors = read_whole(folder / "fds");
  for (const char* number : {" 0 -> /dev/null", " 1 -> /dev/null", " 2 -> /dev/null"}) {
    EXPECT_THAT(descriptors, HasSubstr(number));
  }
}

TEST_F(Lunex, DiscoveryWaitsThroughAFirstRefusal) {
  std::ofstream(folder / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:lunex'\n";
  for (const bool of_a_disk : {false, true}) {
    auto proxy = TcpProxy::start(tgt.port());
    ASSERT_TRUE(proxy);
    std::string words = fmt::format("discover 127.0.0.1:{}", (*proxy)->port());
    if (of_a_disk) {
      std::ofstream(folder / "lunex.toml")
          << "initiator_name = 'iqn.2026-01.test:lunex'\nportals = "
             "['127.0.0.1:"
          << (*proxy)->port() << "']\n";
      words = fmt::format("info iscsi:{}/1", TgtProcess::kTargetName);
    }
    (*proxy)->set_refusing(true);
    std::promise<CommandResult> ended;
    std::thread run([&] { ended.set_value(lunex(words)); });
    EXPECT_TRUE(wait_for([&] { return (*proxy)->accepted() >= 1; }));
    (*proxy)->set_refusing(false);
    run.join();
    EXPECT_EQ(ended.get_future().get().exit_code, 0) << words;
  }
}

TEST_F(Lunex, AnInfoWhoseConnectionIsLostBeginsAnew) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  const auto whole = json_of("info " + url({(*proxy)->port()}));
  const std::uint64_t bytes = (*proxy)->forwarded(TcpProxy::Way::to_initiator);
  // In the identification, in the questions, and with the last answers.
  for (const std::uint64_t part : {bytes / 4, bytes / 2, bytes * 3 / 4, bytes - 100}) {
    auto cut = TcpProxy::start(tgt.port());
    ASSERT_TRUE(cut);
    (*cut)->set_refusing(true);
    std::promise<CommandResult> ended;
    std::thread run([&] { ended.set_value(lunex("info --json " + url({(*cut)->port()}))); });
    EXPECT_TRUE(wait_for([&] { return (*cut)->accepted() >= 1; }));
    (*cut)->set_delay(std::chrono::milliseconds(2));
    (*cut)->set_refusing(false);
    EXPECT_TRUE(wait_for([&] { return (*cut)->open() != 0; }));
    (*cut)->cut_after(TcpProxy::Way::to_initiator, part, TcpProxy::Ending::reset);
    run.join();
    const CommandResult result = ended.get_future().get();
    EXPECT_EQ(result.exit_code, 0) << part << ": " << result.errors;
    auto again = nlohmann::json::parse(result.output, nullptr, false);
    again["portal"] = whole["portal"];
    EXPECT_EQ(again, whole) << part;
  }
}

TEST_F(Lunex, ASmallPartIsVerifiedWithoutFurtherOptions) {
  for (const char* size : {"512", "4k", "64k", "1m"}) {
    EXPECT_EQ(
        json_of(fmt::format("verify --write-ok --offset=0 --size={} {}", size, url()))["verified"],
        true)
        << size;
  }
}

// Blocks of a size that nobody has chosen are lessened, and told as they are used.
TEST_F(Lunex, ASmallPartIsReadWithoutFurtherOptions) {
  struct Case {
    const char* options;
    std::uint64_t block_bytes;
    std::uint64_t requests;
    std::uint64_t bytes;
  };
  for (const Case& one :
       {Case{"--size=512", 512, 1, 512}, Case{"--size=3584", 3584, 1, 3584},
        Case{"--size=4k", 4096, 1, 4096}, Case{"--size=5k --rw=read", 4096, 2, 5120},
        Case{"--offset=16776192", 1024, 1, 1024}, Case{"--size=2k --iodepth=8", 2048, 1, 2048},
        Case{"--size=1k --rw=rw --write-ok --verify --number_ios=9", 1024, 9, 9216}}) {
    const auto json = json_of(fmt::format("run {} {}", one.options, url()));
    EXPECT_EQ(json["bs"], one.block_bytes) << one.options;
    EXPECT_EQ(json["requests"], one.requests) << one.options;
    EXPECT_EQ(json["bytes"], one.bytes) << one.options;
  }
  EXPECT_THAT(lunex("run --size=512 " + url()).output, StartsWith("randread of 512 bytes, 1 at"));
  EXPECT_EQ(lunex("run --size=512 --bs=4k " + url()).exit_code, 2);
}

// Nobody is asked for anything then.
TEST_F(Lunex, WhatIsNoNumberOfARangeIsRefusedByThatRange) {
  struct Option {
    const char* words;
    const char* range;
  };
  for (const Option& option :
       {Option{"run --number_ios", "1 to 18446744073709551615"},
        Option{"run --iodepth", "1 to 4096"}, Option{"run --sessions", "1 to 8"},
        Option{"run --rwmixread", "0 to 100"},
        Option{"run --randseed", "0 to 18446744073709551615"},
        Option{"verify --write-ok --passes", "1 to 1000000"}}) {
    for (const char* number :
         {"-1", "-3", "-18446744073709551615", "18446744073709551617", "99999999999999999999",
          "0x10", "1.5", "1e3", "1k", "x", "+1", "''", "' 1'"}) {
      const CommandResult result = lunex(fmt::format("{}={} {}", option.words, number, url()));
      EXPECT_EQ(result.exit_code, 2) << option.words << number;
      EXPECT_THAT(result.errors, HasSubstr(option.range)) << option.words << number;
    }
  }
}

TEST_F(Lunex, AVerifyThatLostItsPathDoesNotJudgeTheLun) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  for (const char* format : {"", "--json "}) {
    (*proxy)->set_refusing(false);
    std::promise<CommandResult> ended;
    const std::uint64_t before = (*proxy)->forwarded(TcpProxy::Way::to_target);
    std::thread run([&] {
      ended.set_value(lunex(fmt::format("verify --write-ok --passes=100000 {}{}", format,
                                        failing_url((*proxy)->port()))));
    });
    EXPECT_TRUE(wait_for(
        [&] { return (*proxy)->forwarded(TcpProxy::Way::to_target) > before + 40000000; }));
    (*proxy)->set_refusing(true);
    (*proxy)->reset();
    run.join();
    const CommandResult result = ended.get_future().get();
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.output, Not(HasSubstr("the LUN is not right")));
    if (*format == '\0') {
      EXPECT_THAT(result.output, HasSubstr("not verified"));
    } else {
      const auto json = nlohmann::json::parse(result.output, nullptr, false);
      EXPECT_EQ(json["verified"], false);
      EXPECT_TRUE(json["mismatch"].is_null());
      EXPECT_GT(json["errors"].get<int>(), 0);
      EXPECT_GT(json["compared_bytes"].get<std::uint64_t>(), 0U);
    }
  }
}

TEST_F(Lunex, ARunWithoutAnyPathDoesNotSpin) {
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  for (const char* options :
       {"--rw=randread", "--rw=read", "--rw=randwrite --write-ok", "--rw=rw --write-ok --verify"}) {
    (*proxy)->set_refusing(false);
    std::promise<CommandResult> ended;
    const std::uint64_t before = (*proxy)->forwarded(TcpProxy::Way::to_initiator);
    std::thread run([&] {
      ended.set_value(lunex(fmt::format("run {} --iodepth=8 --runtime=30 --json {}", options,
                                        failing_url((*proxy)->port()))));
    });
    EXPECT_TRUE(wait_for(
        [&] { return (*proxy)->forwarded(TcpProxy::Way::to_initiator) > before + 100000; }));
    (*proxy)->set_refusing(true);
    (*proxy)->reset();
    run.join();
    const CommandResult result = ended.get_future().get();
    EXPECT_EQ(result.exit_code, 1);
    const auto json = nlohmann::json::parse(result.output, nullptr, false);
    EXPECT_GE(json["errors"].get<int>(), 1);
    EXPECT_LE(json["errors"].get<int>(), 8) << "those that were under way";
    EXPECT_EQ(json["paths_up"], 0);
    EXPECT_EQ(json["paths_up_least"], 0);
  }
}

// A stall is in no latency: what is not answered has to be told apart, with how long it waited.
TEST_F(Lunex, RequestsThatAreNeverAnsweredAreToldWithTheTimeTheyWaited) {
  std::ofstream(folder / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:lunex'\n[defaults]\n"
                                          "path_timeout = 600\ntcp_user_timeout = 600\n"
                                          "noop_out_interval = 0\ncommand_timeout = 600\n";
  auto proxy = TcpProxy::start(tgt.port());
  ASSERT_TRUE(proxy);
  for (const char* format : {"--json ", ""}) {
    std::promise<CommandResult> ended;
    const std::uint64_t before = (*proxy)->forwarded(TcpProxy::Way::to_initiator);
    std::thread run([&] {
      ended.set_value(
          lunex(fmt::format("run --iodepth=4 --runtime=2 {}{}", format, url({(*proxy)->port()}))));
    });
    EXPECT_TRUE(wait_for(
        [&] { return (*proxy)->forwarded(TcpProxy::Way::to_initiator) > before + 100000; }));
    (*proxy)->set_refusing(true);
    (*proxy)->stall(TcpProxy::Way::to_initiator);
    run.join();
    (*proxy)->set_refusing(false);
    const CommandResult result = ended.get_future().get();
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.errors, HasSubstr("4 requests were never answered"));
    if (*format == '\0') {
      EXPECT_THAT(result.output, HasSubstr("never answered: 4"));
      continue;
    }
    const auto json = nlohmann::json::parse(result.output, nullptr, false);
    EXPECT_EQ(json["unanswered"], 4);
    EXPECT_EQ(json["failed"], 0);
    EXPECT_EQ(json["errors"], 4);
    EXPECT_GT(json["unanswered_longest_ns"].get<std::int64_t>(), 1000000000);
    EXPECT_GT(json["unanswered_longest_ns"], json["latency_ns"]["max"]);
  }
}

// ---- names

TEST_F(Lunex, TheNameOfTheCommandLineCountsMoreThanSectionsOfTargets) {
  show_only_to("iqn.2026-01.test:right");
  for (const char* section :
       {"", "[targets.'iqn.2026-01.test:tgt']\nnr_sessions = 1\n",
        "[targets.'iqn.2026-01.test:tgt']\n[luns.a]\ntarget = 'iqn.2026-01.test:tgt'\nlun = 1\n"}) {
    std::ofstream(folder / "lunex.toml") << "initiator_name = 'iqn.2026-01.test:wrong'\n"
                                         << section;
    EXPECT_EQ(lunex("info -i iqn.2026-01.test:right " + url()).exit_code, 0) << section;
  }
}

TEST_F(Lunex, SaysThatATargetMayHideItself) {
  show_only_to("iqn.2026-01.test:right");
  const CommandResult result = lunex("info " + url());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("or it does not show itself to iqn.2026-01.test:lunex"));
}

TEST_F(Lunex, FollowsARedirectToAnotherTarget) {
  TgtProcess other;
  ASSERT_TRUE(other.start({.disk_bytes = kLunBytes}));
  // tgtd does not send an initiator to the initiator's own address, as text.
  for (const auto& [name, value] : {std::pair<std::string, std::string>{"RedirectAddress", "127.1"},
                                    {"RedirectPort", std::to_string(other.port())},
                                    {"RedirectReason", "Temporary"}}) {
    ASSERT_TRUE(tgt.administer(
        {"--op", "update", "--mode", "target", "--tid", "1", "--name", name, "--value", value}));
  }
  EXPECT_EQ(lunex("info " + url()).exit_code, 0);
  EXPECT_EQ(json_of("run --number_ios=100 " + url())["requests"], 100);
  EXPECT_EQ(json_of("verify --write-ok --size=1m " + url())["verified"], true);
}

TEST_F(Lunex, SaysThatThereIsNoSuchLun) {
  const CommandResult result = lunex("run " + url({tgt.port()}, "9"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, StartsWith("lunex: "));
  EXPECT_THAT(result.errors, HasSubstr("LUN"));
}

TEST_F(Lunex, SaysThatNobodyListens) {
  const std::uint16_t port = tgt.port();
  tgt.kill();
  const CommandResult result = lunex("run " + url({port}));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("refused"));
}

TEST_F(Lunex, RefusesBlocksSmallerThanTheLuns) {
  ASSERT_TRUE(tgt.add_lun(2, kLunBytes, 4096));
  const CommandResult result = lunex("run --bs=512 " + url({tgt.port()}, "2"));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("logical blocks of 4096 bytes"));
  EXPECT_EQ(json_of("verify --write-ok --bs=64k " + url({tgt.port()}, "2"))["verified"], true);
}

TEST_F(Lunex, PrintsWhatTheLunSaysOfItself) {
  ASSERT_TRUE(tgt.add_lun(2, 2 * kLunBytes, 4096));
  const auto json = json_of("info " + url());
  EXPECT_EQ(json["vendor"], "IET");
  EXPECT_EQ(json["serial"], "SN1");
  EXPECT_NE(json["wwid"], "");
  EXPECT_EQ(json["capacity_bytes"], kLunBytes);
  EXPECT_EQ(json["logical_block_bytes"], 512);
  EXPECT_EQ(json["write_protected"], false);
  EXPECT_EQ(json["luns"], nlohmann::json({"0", "1", "2"}));  // LUN 0 is tgt's controller
  EXPECT_EQ(json["reservation"], nlohmann::json());
  EXPECT_EQ(json["login"]["HeaderDigest"], "None");
  const auto second = json_of("info " + url({tgt.port()}, "2"));
  EXPECT_EQ(second["capacity_bytes"], 2 * kLunBytes);
  EXPECT_EQ(second["logical_block_bytes"], 4096);
  const CommandResult text = lunex("info " + url());
  EXPECT_THAT(text.output, HasSubstr("IET VIRTUAL-DISK"));
  EXPECT_THAT(text.output, HasSubstr("32768 blocks of 512 bytes"));
}

}  // namespace
}  // namespace iscsi_blkback
