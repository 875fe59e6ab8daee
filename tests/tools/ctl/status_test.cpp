// iscsi-blkctl against processes played by the test: a socket in a folder, scripted replies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "blkback/control/control_protocol.h"
#include "tests/support/hostile_text.h"
#include "tests/tools/command.h"
#include "tools/ctl/status_text.h"

namespace iscsi_blkback {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Plays a service or a guest's process: accepts one client after the other, reads its line, and
// answers with a text, or with nothing. Asked for something else than its status, it keeps the
// request and answers done.
class ScriptedProcess {
 public:
  enum class Manner { answers, is_silent, hangs_up };

  ScriptedProcess(const std::string& path, std::string reply, Manner manner = Manner::answers)
      : reply_(std::move(reply)), manner_(manner), listener_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    EXPECT_EQ(::listen(listener_.get(), 4), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedProcess() { stop(); }

  // What was asked for, when all clients have gone.
  const std::vector<std::string>& wishes() {
    stop();
    return overrides_;
  }

 private:
  void stop() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  void serve() {
    std::vector<UniqueFd> clients;
    while (true) {
      clients.emplace_back(::accept(listener_.get(), nullptr, nullptr));
      const int client = clients.back().get();
      if (client < 0) {
        return;
      }
      if (manner_ == Manner::is_silent) {
        continue;
      }
      std::string request;
      for (char c = 0; ::recv(client, &c, 1, 0) == 1 && c != '\n';) {
        request += c;
      }
      const bool asks = request == "{\"command\":\"status\"}";
      if (!asks) {
        overrides_.push_back(request);
      }
      if (manner_ == Manner::answers) {
        // In two pieces, since a stream may do that.
        const std::string line = (asks ? reply_ : "{\"ok\":true}") + "\n";
        ::send(client, line.data(), line.size() / 2, MSG_NOSIGNAL);
        ::send(client, line.data() + line.size() / 2, line.size() - line.size() / 2, MSG_NOSIGNAL);
      }
      clients.pop_back();
    }
  }

  std::string reply_;
  Manner manner_;
  std::vector<std::string> overrides_;
  UniqueFd listener_;
  std::thread thread_;
};

json path(const std::string& portal, const std::string& state) {
  const bool up = state == "ready";
  return {{"dev", portal},
          {"dm_st", up ? "active" : "failed"},
          {"dev_st", up ? "running" : "offline"},
          {"chk_st", state},
          {"pri", 1},
          {"target_wwnn", "iqn.2009-02.com.example:t"},
          {"lun_hex", "0x0001"},
          {"portal", portal},
          {"address", portal},
          {"interface", ""},
          {"session_state", up ? "LOGGED IN" : "FREE"},
          {"quarantined", state == "quarantined"},
          {"last_error", up ? "" : "Connection refused"}};
}

json map(const std::string& name) {
  return {{"name", name},
          {"uuid", "360000000000000000e00000000010001"},
          {"sysfs", "xvda"},
          {"queueing", "on"},
          {"write_prot", "rw"},
          {"features", "1 queue_if_no_path"},
          {"vend", "IET"},
          {"prod", "VIRTUAL-DISK"},
          {"rev", "0001"},
          {"size_bytes", 1073741824U},
          {"ready", true},
          {"path_groups",
           {{{"selector", "round-robin 0"},
             {"pri", 1},
             {"dm_st", "active"},
             {"group", 1},
             {"paths", {path("192.0.2.1:3260", "ready"), path("192.0.2.2:3260", "faulty")}}}}}};
}

std::string guest_reply(unsigned domain, const json& map, const std::string& error = "") {
  return json{{"ok", true},
              {"type", "guest"},
              {"domid", domain},
              {"complete", true},
              {"disks",
               {{{"vdev", "xvda"},
                 {"devid", 51712},
                 {"kind", "qdisk"},
                 {"mode", "w"},
                 {"hotplug_error", error},
                 {"map", map}}}}}
      .dump();
}

const std::string kServiceReply = R"({"ok":true,"type":"service","guests":[]})";

class Ctl : public testing::Test {
 protected:
  CommandResult ctl(const std::string& arguments) {
    return run_command("'" ISCSI_BLKBACK_CTL "' --run-directory '" + folder_.path() + "' " +
                       arguments);
  }
  void plays_service(const std::string& reply = kServiceReply) {
    processes_.push_back(
        std::make_unique<ScriptedProcess>(service_socket_path(folder_.path()), reply));
  }
  void plays_guest(unsigned domain, const std::string& reply,
                   ScriptedProcess::Manner manner = ScriptedProcess::Manner::answers) {
    processes_.push_back(std::make_unique<ScriptedProcess>(
        guest_socket_path(folder_.path(), domain), reply, manner));
  }

  TemporaryFolder folder_;
  std::vector<std::unique_ptr<ScriptedProcess>> processes_;
};

TEST_F(Ctl, ListsLikeMultipath) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  const CommandResult result = ctl("ll");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(result.output,
            "root (360000000000000000e00000000010001) dom5/xvda IET,VIRTUAL-DISK\n"
            "size=1.0G features='1 queue_if_no_path' hwhandler='0' wp=rw\n"
            "`-+- policy='round-robin 0' prio=1 status=active\n"
            "  |- 192.0.2.1:3260 lun 1 active ready  running\n"
            "  `- 192.0.2.2:3260 lun 1 failed faulty offline [Connection refused]\n");
  EXPECT_EQ(result.errors, "");
}

TEST_F(Ctl, GuestsInTheOrderOfTheirNumbers) {
  plays_service();
  plays_guest(10, guest_reply(10, map("ten")));
  plays_guest(9, guest_reply(9, map("nine")));
  const std::string output = ctl("ll").output;
  EXPECT_LT(output.find("dom9/xvda"), output.find("dom10/xvda"));
}

TEST_F(Ctl, JsonHasTheKeysOfMultipathd) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  plays_guest(6, guest_reply(6, nullptr, "no portal answers"));
  const CommandResult result = ctl("ll --json");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  const json document = json::parse(result.output);
  ASSERT_EQ(document["maps"].size(), 1U);
  EXPECT_EQ(document["maps"][0]["name"], "root");
  EXPECT_EQ(document["maps"][0]["path_groups"][0]["paths"].size(), 2U);
  EXPECT_EQ(document["maps"][0]["disk"]["domid"], 5);
  EXPECT_EQ(document["maps"][0]["disk"]["vdev"], "xvda");
  ASSERT_EQ(document["disks_without_map"].size(), 1U);
  EXPECT_EQ(document["disks_without_map"][0]["hotplug_error"], "no portal answers");
}

TEST_F(Ctl, OneDiskByAnyOfItsNames) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  plays_guest(6, guest_reply(6, map("data")));
  EXPECT_THAT(ctl("ll data").output, testing::StartsWith("data "));
  EXPECT_THAT(ctl("ll dom5/xvda").output, testing::StartsWith("root "));
  EXPECT_EQ(json::parse(ctl("ll -j xvda").output)["maps"].size(), 2U);
  EXPECT_EQ(json::parse(ctl("ll -j 360000000000000000e00000000010001").output)["maps"].size(), 2U);
}

TEST_F(Ctl, ChangesOneDiskOfOneGuest) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  plays_guest(6, guest_reply(6, map("data")));
  for (const char* command : {"disablequeueing map data", "restorequeueing map dom6/xvda",
                              "set map data no_path_retry 120s"}) {
    const CommandResult result = ctl(command);
    EXPECT_EQ(result.exit_code, 0) << command << ": " << result.errors;
    EXPECT_EQ(result.output + result.errors, "");
  }
  EXPECT_EQ(processes_[1]->wishes(), std::vector<std::string>());
  const std::vector<std::string> wishes = {
      R"({"command":"disablequeueing","devid":51712})",
      R"({"command":"restorequeueing","devid":51712})",
      R"({"command":"set","devid":51712,"setting":"no_path_retry","value":"120s"})"};
  EXPECT_EQ(processes_[2]->wishes(), wishes);
}

TEST_F(Ctl, AddsAndRemovesPaths) {
  plays_service();
  plays_guest(6, guest_reply(6, map("data")));
  for (const char* command :
       {"add path storage2 map data", "add path 192.0.2.9:3261 target iqn.x:y map dom6/xvda",
        "del path [2001:db8::1]:3260 map data", "remove path [2001:db8::1] map data",
        "del path 2001:db8::2 map data", "del path '[fe80::1%eth1]' map data",
        "del path '[fe80::1%eth1]:3260,1' map data",
        "set map data path_selector 'queue-length 0'"}) {
    const CommandResult result = ctl(command);
    EXPECT_EQ(result.exit_code, 0) << command << ": " << result.errors;
    EXPECT_EQ(result.output + result.errors, "");
  }
  const std::vector<std::string> wishes = {
      R"({"command":"add_path","devid":51712,"portal":"storage2"})",
      R"({"command":"add_path","devid":51712,"portal":"192.0.2.9:3261","target":"iqn.x:y"})",
      R"({"command":"del_path","devid":51712,"portal":"[2001:db8::1]:3260"})",
      R"({"command":"del_path","devid":51712,"portal":"[2001:db8::1]"})",
      R"({"command":"del_path","devid":51712,"portal":"2001:db8::2"})",
      R"({"command":"del_path","devid":51712,"portal":"[fe80::1%eth1]"})",
      R"({"command":"del_path","devid":51712,"portal":"[fe80::1%eth1]:3260,1"})",
      R"({"command":"set","devid":51712,"setting":"path_selector","value":"queue-length 0"})"};
  EXPECT_EQ(processes_[1]->wishes(), wishes);
}

TEST_F(Ctl, PathChangesThatMakeNoSenseAreOneSentence) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  for (const char* wrong :
       {"add", "del path", "add path 192.0.2.1", "add path 192.0.2.1 maps",
        "remove path 192.0.2.1 map", "add 192.0.2.1 map root", "add path 192.0.2.1 map ''",
        "add path 192.0.2.1 target map root", "del path 192.0.2.1 via iqn.x:y map root"}) {
    const CommandResult result = ctl(wrong);
    EXPECT_EQ(result.exit_code, 2) << wrong;
    EXPECT_THAT(result.errors, HasSubstr("is followed by \"path PORTAL map NAME\"")) << wrong;
  }
  const CommandResult unknown = ctl("add path 192.0.2.1 map nobody");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors, HasSubstr("there is no disk nobody"));
}

TEST_F(Ctl, ChangesAllDisks) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  plays_guest(6, guest_reply(6, map("data")));
  EXPECT_EQ(ctl("disablequeueing maps").exit_code, 0);
  EXPECT_EQ(processes_[1]->wishes().size(), 1U);
  EXPECT_EQ(processes_[2]->wishes().size(), 1U);
}

TEST_F(Ctl, ChangesNothingWhenTheNameStandsForTwoDisks) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  plays_guest(6, guest_reply(6, map("data")));
  const CommandResult result = ctl("disablequeueing map xvda");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("dom5/xvda and dom6/xvda"));
  EXPECT_EQ(processes_[1]->wishes().size() + processes_[2]->wishes().size(), 0U);
}

TEST_F(Ctl, ChangesThatMakeNoSenseAreOneSentence) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  for (const char* wrong :
       {"disablequeueing", "disablequeueing root", "disablequeueing map",
        "disablequeueing map root 1", "set map root no_path_retry", "set no_path_retry 5"}) {
    const CommandResult result = ctl(wrong);
    EXPECT_EQ(result.exit_code, 2) << wrong;
    EXPECT_THAT(result.errors, HasSubstr("is followed by \"map NAME")) << wrong;
  }
  const CommandResult unknown = ctl("disablequeueing map nobody");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors, HasSubstr("there is no disk nobody"));
}

// Whoever runs or does not, and whatever disks there are.
TEST_F(Ctl, WhatIsWrongInTheCommandItselfIsSaidBeforeAnybodyIsAsked) {
  for (const auto& [wrong, said] : std::vector<std::pair<const char*, const char*>>{
           {"set map root no_path_retry soon", "no_path_retry is neither queue, fail"},
           {"set maps path_selector best", "path_selector is none of round-robin"},
           {"set maps path_grouping_policy best", "path_grouping_policy is none of failover"},
           {"set map root path_timeout 5", "path_timeout cannot be changed while a disk is in use"},
           {"add path 192.0.2.1:x map root", "port is not a number from 1 to 65535"},
           {"del path 192.0.2.1 target disk map root", "the target name does not begin with iqn."},
           {"-D '' ll", "must be an absolute path"},
           {"-D run ll", "must be an absolute path"},
       }) {
    const CommandResult result = run_command("'" ISCSI_BLKBACK_CTL "' " + std::string(wrong));
    EXPECT_EQ(result.exit_code, 2) << wrong;
    EXPECT_THAT(result.errors, HasSubstr(said)) << wrong;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  }
}

TEST_F(Ctl, AConfigurationThatWasNamedHasToBeThere) {
  for (const char* command : {"ll", "disablequeueing maps"}) {
    const CommandResult result =
        run_command("'" ISCSI_BLKBACK_CTL "' -c '" + (folder_ / "none.toml") + "' " + command);
    EXPECT_EQ(result.exit_code, 2) << command;
    EXPECT_THAT(result.errors, HasSubstr("none.toml: No such file")) << command;
  }
}

// As of lunex: "error" is what standard error has.
TEST_F(Ctl, JsonSaysWhatHasFailed) {
  const CommandResult nobody = ctl("ll --json");
  EXPECT_EQ(nobody.exit_code, 1);
  const std::string sentence = json::parse(nobody.output, nullptr, false).value("error", "");
  EXPECT_EQ(nobody.errors, "iscsi-blkctl: " + sentence + "\n");
  plays_service();
  EXPECT_FALSE(json::parse(ctl("ll --json").output, nullptr, false).contains("error"));
  const json other = json::parse(ctl("ll --json other").output, nullptr, false);
  EXPECT_EQ(other.value("error", ""), "there is no disk other");
  EXPECT_TRUE(other.contains("maps"));
}

TEST_F(Ctl, NoDiskOfThatNameIsAnError) {
  plays_service();
  plays_guest(5, guest_reply(5, map("root")));
  const CommandResult result = ctl("ll other");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.output, "");
  EXPECT_EQ(result.errors, "iscsi-blkctl: there is no disk other\n");
}

TEST_F(Ctl, DiskWithoutPathsYetIsOneLine) {
  plays_service();
  plays_guest(5, guest_reply(5, nullptr, "host nowhere is unknown"));
  EXPECT_EQ(ctl("ll").output, "dom5/xvda: host nowhere is unknown\n");
}

TEST_F(Ctl, NoGuestsIsNoError) {
  plays_service();
  const CommandResult result = ctl("ll");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_EQ(result.output, "");
}

TEST_F(Ctl, NoServiceIsOneClearSentence) {
  const CommandResult result = ctl("ll");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.errors, "iscsi-blkctl: no iscsi-blkback service is running (nobody answers in " +
                               folder_.path() + ")\n");
}

TEST_F(Ctl, SocketsLeftBehindAreNobody) {
  plays_service();
  plays_guest(5, "");
  processes_.clear();  // the files stay
  EXPECT_THAT(ctl("ll").errors, HasSubstr("no iscsi-blkback service is running"));
}

TEST_F(Ctl, GuestsWithoutServiceAreShownWithARemark) {
  plays_guest(5, guest_reply(5, map("root")));
  const CommandResult result = ctl("ll");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("dom5/xvda"));
  EXPECT_THAT(result.errors, HasSubstr("the service is not running"));
}

TEST_F(Ctl, SilentProcessDelaysNobodyAndIsNamed) {
  plays_service();
  for (unsigned domain = 5; domain < 10; ++domain) {
    plays_guest(domain, "", ScriptedProcess::Manner::is_silent);
  }
  plays_guest(10, guest_reply(10, map("root")));
  const auto started = std::chrono::steady_clock::now();
  const CommandResult result = ctl("ll");
  // One second for all together; five would show that they were asked one after the other.
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(4));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("dom10/xvda"));
  EXPECT_THAT(result.errors,
              HasSubstr("iscsi-blkctl: guest 5: its process gives no status: it does not answer"));
}

TEST_F(Ctl, ProcessThatHangsUpIsNobody) {
  plays_service();
  plays_guest(5, "", ScriptedProcess::Manner::hangs_up);
  EXPECT_EQ(ctl("ll").output, "");
}

TEST_F(Ctl, WaitingGuestOfTheServiceIsNamed) {
  plays_service(R"({"ok":true,"type":"service","guests":[{"domid":7,"pid":0,"state":"waiting"}]})");
  EXPECT_THAT(ctl("ll").errors, HasSubstr("guest 7: its process has ended"));
}

TEST_F(Ctl, RefusalIsShown) {
  plays_service();
  plays_guest(5, R"({"ok":false,"error":"busy"})");
  EXPECT_THAT(ctl("ll").errors, HasSubstr("it says: busy"));
}

// What the process of a guest says may come from the guest.
TEST_F(Ctl, BelievesNothing) {
  plays_service();
  json hostile = map("\x1b[31mred\nline");
  hostile["path_groups"][0]["paths"][0]["last_error"] = 5;
  hostile["path_groups"][0]["paths"][1] = "text";
  hostile["size_bytes"] = -5;
  plays_guest(5, guest_reply(5, hostile));
  plays_guest(6, std::string(100000, '['));
  plays_guest(7, R"({"ok":true,"type":"guest","complete":true,"disks":{"a":[1]}})");
  plays_guest(8, R"({"ok":true,"type":"service"})");
  const CommandResult result = ctl("ll");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("\\x1b[31mred\\x0aline"));
  EXPECT_THAT(result.output, HasSubstr("size=0.0K"));
  EXPECT_THAT(result.errors, HasSubstr("guest 6: its process gives no status"));
  EXPECT_THAT(result.errors, HasSubstr("guest 8: its process gives no status"));
  EXPECT_FALSE(json::parse(ctl("ll --json").output, nullptr, false).is_discarded());
}

// As a process that its guest has taken over would write it: JSON of its own making, all of whose
// texts are the hostile one.
TEST_F(Ctl, HostileTextDoesNotReachTheTerminal) {
  plays_service();
  unsigned domain = 5;
  for (const HostileText& hostile : hostile_texts()) {
    json its = map(hostile.text);
    for (const char* key : {"uuid", "vend", "prod", "rev", "queueing", "hwhandler"}) {
      its[key] = hostile.text;
    }
    its["path_groups"][0]["selector"] = hostile.text;
    for (json& its_path : its["path_groups"][0]["paths"]) {
      for (const char* key : {"portal", "address", "interface", "target_wwnn", "last_error"}) {
        its_path[key] = hostile.text;
      }
    }
    json disk{{"vdev", hostile.text}, {"devid", 51712}, {"hotplug_error", hostile.text}};
    json without = disk;
    disk["map"] = its;
    disk[json(hostile.text).dump(-1, ' ', true, json::error_handler_t::replace)] = hostile.text;
    const json reply{
        {"ok", true}, {"type", "guest"}, {"complete", true}, {"disks", {disk, without}}};
    plays_guest(domain++, reply.dump(-1, ' ', false, json::error_handler_t::replace));
    plays_guest(domain++, json{{"ok", false}, {"error", hostile.text}}.dump(
                              -1, ' ', false, json::error_handler_t::replace));
    plays_guest(domain++, "{\"ok\":true,\"type\":\"" + hostile.text.substr(0, 100) + "\"}");
  }
  for (const char* command : {"ll", "ll --json", "ll dom5/x", "del path 192.0.2.1 map dom5/x"}) {
    const CommandResult result = ctl(command);
    EXPECT_TRUE(are_harmless_lines(result.output)) << command;
    EXPECT_TRUE(are_harmless_lines(result.errors)) << command;
  }
  const CommandResult shown = ctl("ll");
  EXPECT_THAT(shown.output, HasSubstr("\\x1b]0;owned\\x07"));
  EXPECT_THAT(shown.errors, HasSubstr("it says: \\x1b]0;owned\\x07"));
  EXPECT_FALSE(json::parse(ctl("ll --json").output, nullptr, false).is_discarded());
}

// What an operator types comes back to the terminal, too.
TEST_F(Ctl, HostileTextOfTheCommandLineDoesNotReachTheTerminal) {
  plays_service();
  for (const HostileText& hostile : hostile_texts(1000)) {
    if (hostile.text.find('\0') != std::string::npos ||
        hostile.text.find('\'') != std::string::npos) {
      continue;
    }
    for (const std::string command : {"ll '", "--'", "ll a '", "del path '", "set map '"}) {
      const CommandResult result = ctl(command + hostile.text + "'");
      EXPECT_TRUE(are_harmless_lines(result.errors)) << command << hostile.name;
    }
  }
}

TEST_F(Ctl, EndlessReplyIsGivenUp) {
  plays_service();
  plays_guest(5, std::string(kMaxControlReplyBytes + 10, 'x'));
  EXPECT_THAT(ctl("ll").errors, HasSubstr("its answer is too long"));
}

TEST_F(Ctl, FilesThatAreNoSocketsOfOursAreIgnored) {
  plays_service();
  for (const char* name : {"guest-x.sock", "guest-.sock", "guest-99999999999.sock", "other"}) {
    std::ofstream(folder_ / name) << "";
  }
  EXPECT_EQ(ctl("ll").exit_code, 0);
}

TEST_F(Ctl, RunDirectoryComesFromTheConfiguration) {
  plays_service();
  const TemporaryFolder other;
  std::ofstream(other / "c.toml") << "run_directory = '" << folder_.path() << "'\n";
  EXPECT_EQ(run_command("'" ISCSI_BLKBACK_CTL "' -c '" + (other / "c.toml") + "' ll").exit_code, 0);
}

}  // namespace
}  // namespace iscsi_blkback
