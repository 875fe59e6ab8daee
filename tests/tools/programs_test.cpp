// The command lines of the programs: --help, --version, refusals, and that the man pages say the
// same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "blkback/version.h"
#include "tests/tools/command.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;

struct Program {
  std::string name;
  std::string path;
  std::vector<std::string> help_commands;  // arguments
};

const Program kDaemon{"iscsi-blkback", ISCSI_BLKBACK_DAEMON, {"--help"}};
const Program kCtl{"iscsi-blkctl", ISCSI_BLKBACK_CTL, {"--help", "ll --help"}};

CommandResult run(const Program& program, const std::string& arguments) {
  return run_command("'" + program.path + "' " + arguments);
}

std::set<std::string> long_options(const std::string& text) {
  static const std::regex kOption("(^|[^-a-z])(--[a-z][-a-z]*)");
  std::set<std::string> options;
  for (std::sregex_iterator at(text.begin(), text.end(), kOption), end; at != end; ++at) {
    options.insert((*at)[2]);
  }
  return options;
}

std::string man_page(const std::string& name) {
  const std::string page = read_whole(ISCSI_BLKBACK_SOURCE_FOLDER "/tools/" + name + ".8");
  EXPECT_NE(page, "") << name;
  return std::regex_replace(page, std::regex(R"(\\-)"), "-");
}

class Programs : public testing::TestWithParam<const Program*> {};

INSTANTIATE_TEST_SUITE_P(All, Programs, testing::Values(&kDaemon, &kCtl), [](const auto& program) {
  return program.param->name == "iscsi-blkctl" ? "ctl" : "daemon";
});

TEST_P(Programs, HelpAndManPageHaveTheSameOptions) {
  std::set<std::string> of_help;
  for (const std::string& arguments : GetParam()->help_commands) {
    const CommandResult help = run(*GetParam(), arguments);
    EXPECT_EQ(help.exit_code, 0);
    of_help.merge(long_options(help.output));
  }
  EXPECT_GE(of_help.size(), 3U);
  EXPECT_EQ(of_help, long_options(man_page(GetParam()->name)));
}

TEST_P(Programs, VersionIsThatOfTheProject) {
  const CommandResult result = run(*GetParam(), "--version");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, testing::StartsWith(GetParam()->name + " " + kVersion));
}

TEST_P(Programs, RefusesUnknownOption) {
  const CommandResult result = run(*GetParam(), "--frobnicate");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.output, "");
  EXPECT_NE(result.errors, "");
}

class Daemon : public testing::Test {
 protected:
  std::string file(const std::string& text) {
    std::ofstream(folder_ / "c.toml") << text;
    return "--config '" + folder_ / "c.toml" + "' ";
  }
  TemporaryFolder folder_;
};

TEST_F(Daemon, CheckConfigAcceptsARightFile) {
  const CommandResult result =
      run(kDaemon, file("initiator_name = 'iqn.x:host'\n") + "--check-config");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr("is right"));
}

TEST_F(Daemon, CheckConfigSaysFileLineAndWhatIsWrong) {
  const CommandResult result =
      run(kDaemon, file("initiator_name = 'iqn.x:host'\nportal = []\n") + "--check-config");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.errors, folder_ / "c.toml" +
                               ":2: portal is not an option of this file; did you mean portals?\n");
}

TEST_F(Daemon, DoesNotStartWithAWrongFile) {
  const CommandResult result = run(kDaemon, file("xyz = 1\n"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("c.toml:1: xyz is not an option of this file"));
}

TEST_F(Daemon, RefusesAFileThatIsNotThere) {
  const CommandResult result = run(kDaemon, "--config '" + folder_ / "none" + "' --check-config");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("No such file"));
}

TEST_F(Daemon, RefusesGuestsThatCannotBe) {
  EXPECT_EQ(run(kDaemon, "--guest 32752 --check-config").exit_code, 2);
  EXPECT_EQ(run(kDaemon, "--guest -1 --check-config").exit_code, 2);
  EXPECT_EQ(run(kDaemon, "--guest five --check-config").exit_code, 2);
}

TEST_F(Daemon, RefusesUnknownLogLevel) {
  const CommandResult result = run(kDaemon, "--log-level loud --check-config");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("error, warning, info or debug"));
}

TEST_F(Daemon, RefusesRelativeRunDirectory) {
  EXPECT_EQ(run(kDaemon, "--run-directory run --check-config").exit_code, 2);
}

TEST(CtlCommandLine, NeedsACommand) {
  EXPECT_EQ(run(kCtl, "").exit_code, 2);
}

}  // namespace
}  // namespace iscsi_blkback
