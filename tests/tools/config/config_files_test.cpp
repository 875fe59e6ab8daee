// The files that make up a configuration: who may read them, the initiator's name, and that the
// documentation has every option.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/temporary_folder.h"
#include "tests/tools/config/config_text.h"

namespace iscsi_blkback {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(ConfigSecrets, PasswordsThatOthersMayReadAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "iscsi-blkback.toml";
  std::ofstream(path) << kChap;
  ::chmod(path.c_str(), 0600);
  ConfigurationFiles files;
  files.configuration = path;
  EXPECT_TRUE(read_configuration(files));
  for (const mode_t mode : {mode_t{0640}, mode_t{0604}, mode_t{0620}}) {
    ::chmod(path.c_str(), mode);
    const auto refused = read_configuration(files);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("chmod 600"));
  }
  std::ofstream(path) << "[defaults]\n";
  EXPECT_TRUE(read_configuration(files)) << "without passwords it is nobody's business";
}

// --- The initiator's name

Result<std::string> name_in(const std::string& text) {
  return parse_initiator_name(text, "i.iscsi");
}

TEST(InitiatorName, OfOpenIscsi) {
  EXPECT_EQ(name_in("## a comment\n# InitiatorName=iqn.no\n InitiatorName = iqn.1993-08.org.debian:"
                    "01:ab \r\n"),
            "iqn.1993-08.org.debian:01:ab");
  EXPECT_EQ(name_in("InitiatorName=eui.02004567A425678D"), "eui.02004567A425678D");
}

TEST(InitiatorName, RefusesFileWithoutAny) {
  EXPECT_EQ(name_in("# nothing\nx\n").error().message, "i.iscsi has no line InitiatorName=");
}

TEST(InitiatorName, RefusesNameNotGeneratedYet) {
  EXPECT_THAT(name_in("# once\nGenerateName=yes\n").error().message,
              StartsWith("i.iscsi:2: GenerateName"));
}

TEST(InitiatorName, RefusesNameThatIsNone) {
  EXPECT_THAT(name_in("\nInitiatorName=host\n").error().message,
              StartsWith("i.iscsi:2: InitiatorName does not begin"));
}

// --- Files

class ConfigFiles : public testing::Test {
 protected:
  ConfigFiles() {
    files_.configuration = folder_ / "iscsi-blkback.toml";
    files_.initiator_name = folder_ / "initiatorname.iscsi";
  }

  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  TemporaryFolder folder_;
  ConfigurationFiles files_;
};

TEST_F(ConfigFiles, MissingFileMeansDefaults) {
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  const auto configuration = load_configuration(files_);
  ASSERT_TRUE(configuration) << configuration.error().message;
  EXPECT_EQ(configuration->initiator_name, "iqn.x:host");
  EXPECT_EQ(configuration->session.initiator_name, "iqn.x:host");
}

TEST_F(ConfigFiles, MissingFileThatWasNamedIsRefused) {
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  files_.must_exist = true;
  const auto configuration = load_configuration(files_);
  ASSERT_FALSE(configuration);
  EXPECT_THAT(configuration.error().message, HasSubstr("iscsi-blkback.toml: No such file"));
}

TEST_F(ConfigFiles, FolderInsteadOfFileIsRefused) {
  std::filesystem::create_directory(files_.configuration);
  EXPECT_THAT(read_configuration(files_).error().message, HasSubstr("Is a directory"));
}

TEST_F(ConfigFiles, OwnNameComesFirst) {
  write(files_.configuration, "initiator_name = 'iqn.x:own'\n");
  write(files_.initiator_name, "InitiatorName=iqn.x:other\n");
  EXPECT_EQ(load_configuration(files_)->initiator_name, "iqn.x:own");
}

TEST_F(ConfigFiles, NameReachesTheLuns) {
  write(files_.configuration, kLun);
  write(files_.initiator_name, "InitiatorName=iqn.x:host\n");
  EXPECT_EQ(load_configuration(files_)->luns.at("root").session.initiator_name, "iqn.x:host");
}

TEST_F(ConfigFiles, NoInitiatorNameAnywhereIsRefused) {
  const auto configuration = load_configuration(files_);
  ASSERT_FALSE(configuration);
  EXPECT_THAT(configuration.error().message, StartsWith("there is no initiator name: "));
  EXPECT_THAT(configuration.error().message, HasSubstr("initiatorname.iscsi: No such file"));
}

// --- Documentation

std::string source_file(const std::string& name) {
  std::ifstream file(std::string(ISCSI_BLKBACK_SOURCE_FOLDER) + "/tools/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ConfigDocumentation, ManPageHasEveryOption) {
  const std::string page = source_file("man/iscsi-blkback.toml.5");
  for (const std::string_view name : configuration_settings()) {
    EXPECT_THAT(page, HasSubstr(std::string(name)));
  }
}

TEST(ConfigDocumentation, ExampleHasEveryOption) {
  const std::string example = source_file("packaging/iscsi-blkback.toml");
  for (const std::string_view name : configuration_settings()) {
    EXPECT_THAT(example, HasSubstr("\n#" + std::string(name) + " = "));
  }
}

TEST(ConfigDocumentation, ExampleAsInstalledIsAllDefaults) {
  const Configuration configuration = accepted(source_file("packaging/iscsi-blkback.toml"));
  EXPECT_TRUE(configuration.luns.empty());
  EXPECT_TRUE(configuration.discovery_portals.empty());
}

// What stands commented out is either the default or an example, and can be used as it is.
TEST(ConfigDocumentation, ExampleWithEverythingUncommentedIsTheDefaultsToo) {
  std::istringstream lines(source_file("packaging/iscsi-blkback.toml"));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    const bool option = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    text += (option ? line.substr(1) : line) + "\n";
  }
  const Configuration configuration = accepted(text);
  ASSERT_EQ(configuration.luns.size(), 1U);
  EXPECT_EQ(configuration.discovery_portals.size(), 2U);
  EXPECT_EQ(configuration.max_ring_page_order, Configuration{}.max_ring_page_order);
  EXPECT_EQ(configuration.run_directory, Configuration{}.run_directory);
  const MultipathOptions& multipath = configuration.multipath;
  EXPECT_EQ(multipath.path_grouping_policy, PathPolicies{}.path_grouping_policy);
  EXPECT_EQ(multipath.path_selector, PathPolicies{}.path_selector);
  EXPECT_EQ(multipath.rr_min_io, PathPolicies{}.rr_min_io);
  EXPECT_EQ(multipath.no_path_retry.value(), PathPolicies{}.no_path_retry);
  EXPECT_EQ(multipath.fence_settle_time, MultipathOptions{}.fence_settle_time);
  EXPECT_EQ(multipath.polling_interval, MultipathOptions{}.polling_interval);
  EXPECT_EQ(multipath.checker_timeout, MultipathOptions{}.checker_timeout);
  EXPECT_EQ(multipath.quiesce_time, MultipathOptions{}.quiesce_time);
  const SessionOptions& session = configuration.session;
  const SessionOptions defaults;
  EXPECT_EQ(session.login_timeout, defaults.login_timeout);
  EXPECT_EQ(session.logout_timeout, defaults.logout_timeout);
  EXPECT_EQ(session.noop_out_interval, defaults.noop_out_interval);
  EXPECT_EQ(session.noop_out_timeout, defaults.noop_out_timeout);
  EXPECT_EQ(session.max_commands, defaults.max_commands);
  EXPECT_EQ(session.initial_r2t, defaults.initial_r2t);
  EXPECT_EQ(session.immediate_data, defaults.immediate_data);
  EXPECT_EQ(session.first_burst_length, defaults.first_burst_length);
  EXPECT_EQ(session.max_burst_length, defaults.max_burst_length);
  EXPECT_EQ(session.max_recv_data_segment_length, defaults.max_recv_data_segment_length);
  EXPECT_EQ(session.max_outstanding_r2t, defaults.max_outstanding_r2t);
  EXPECT_EQ(session.default_time2wait, defaults.default_time2wait);
  EXPECT_EQ(session.default_time2retain, defaults.default_time2retain);
  EXPECT_EQ(session.connect_timeout, defaults.connect_timeout);
  EXPECT_EQ(session.stall_probe, defaults.stall_probe);
  EXPECT_EQ(session.path_timeout, defaults.path_timeout);
  EXPECT_EQ(session.tcp_user_timeout, defaults.tcp_user_timeout);
  EXPECT_EQ(session.relogin_backoff_min, defaults.relogin_backoff_min);
  EXPECT_EQ(session.relogin_backoff_max, defaults.relogin_backoff_max);
}

}  // namespace
}  // namespace iscsi_blkback
