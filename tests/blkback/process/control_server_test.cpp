// The control socket over real unix sockets; the clients are non-blocking, so one thread does.
#include "blkback/process/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/unique_fd.h"
#include "blkback/control/control_protocol.h"
#include "tests/support/sim_reactor.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class ControlServerTest : public testing::Test {
 protected:
  void listen(ControlServer::Handler handler) {
    auto server = ControlServer::listen(reactor_, path_, std::move(handler));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }

  UniqueFd client() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  void send(const UniqueFd& fd, const std::string& text) {
    (void)::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }

  // Everything that has come; closed_: the server has ended the connection.
  std::string receive(const UniqueFd& fd) {
    std::string text;
    char buffer[65536];
    ssize_t count = 0;
    while ((count = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0) {
      text.append(buffer, static_cast<std::size_t>(count));
    }
    closed_ = count == 0 || errno != EAGAIN;
    return text;
  }

  static void echo(const std::string& request, ControlServer::Reply reply) {
    reply("echo " + request);
  }

  SimReactor reactor_{1};
  TemporaryFolder folder_;
  std::string path_ = guest_socket_path(folder_.path(), 5);
  std::unique_ptr<ControlServer> server_;
  bool closed_ = false;
};

TEST_F(ControlServerTest, AnswersSeveralRequestsOnOneConnection) {
  listen(echo);
  const UniqueFd fd = client();
  send(fd, "one\ntwo\nthr");
  reactor_.run_for(10ms);
  EXPECT_EQ(receive(fd), "echo one\necho two\n");
  send(fd, "ee\n");
  reactor_.run_for(10ms);
  EXPECT_EQ(receive(fd), "echo three\n");
}

TEST_F(ControlServerTest, OnlyItsOwnerMayConnect) {
  listen(echo);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(ControlServerTest, ReplacesAStaleSocketAndRemovesItsOwn) {
  std::ofstream(path_) << "stale";
  listen(echo);
  const UniqueFd fd = client();
  send(fd, "x\n");
  reactor_.run_for(10ms);
  EXPECT_EQ(receive(fd), "echo x\n");
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ControlServerTest, AnswersThatComeLaterFindTheirClient) {
  std::vector<ControlServer::Reply> waiting;
  listen(
      [&](const std::string&, ControlServer::Reply reply) { waiting.push_back(std::move(reply)); });
  const UniqueFd a = client();
  UniqueFd b = client();
  send(a, "a\n");
  reactor_.run_for(10ms);
  send(b, "b\n");
  reactor_.run_for(10ms);
  ASSERT_EQ(waiting.size(), 2u);
  b.reset();
  reactor_.run_for(10ms);
  waiting[1]("for b");  // has gone
  waiting[0]("for a");
  reactor_.run_for(10ms);
  EXPECT_EQ(receive(a), "for a\n");
}

TEST_F(ControlServerTest, RefusesARequestThatIsTooLong) {
  listen(echo);
  const UniqueFd fd = client();
  send(fd, std::string(kMaxControlRequestBytes + 10, 'x'));
  reactor_.run_for(10ms);
  EXPECT_THAT(receive(fd), HasSubstr("too long"));
  EXPECT_TRUE(closed_);
}

TEST_F(ControlServerTest, RefusesMoreClientsThanTheBound) {
  listen(echo);
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < ControlServer::kMaxClients; ++i) {
    clients.push_back(client());
    reactor_.run_for(1ms);
  }
  const UniqueFd more = client();
  reactor_.run_for(10ms);
  EXPECT_THAT(receive(more), HasSubstr("too many clients"));
  EXPECT_TRUE(closed_);
}

TEST_F(ControlServerTest, ASilentClientIsSentAway) {
  listen(echo);
  const UniqueFd fd = client();
  reactor_.run_for(6s);
  EXPECT_EQ(receive(fd), "");
  EXPECT_TRUE(closed_);
}

TEST_F(ControlServerTest, AClientThatDoesNotReadDelaysNobody) {
  listen(
      [](const std::string&, ControlServer::Reply reply) { reply(std::string(1024 * 1024, 'x')); });
  const UniqueFd slow = client();
  send(slow, "a\n");
  reactor_.run_for(100ms);
  const UniqueFd other = client();
  send(other, "b\n");
  std::string got;
  for (int i = 0; i < 100 && got.size() < 1024 * 1024 + 1; ++i) {
    reactor_.run_for(20ms);
    got += receive(other);
  }
  EXPECT_EQ(got.size(), 1024u * 1024 + 1);
  reactor_.run_for(6s);  // its time is over
  (void)receive(slow);
  EXPECT_TRUE(closed_);
}

TEST_F(ControlServerTest, RefusesAPathThatIsTooLongForASocket) {
  const auto server = ControlServer::listen(reactor_, "/tmp/" + std::string(200, 'x'), echo);
  ASSERT_FALSE(server);
  EXPECT_THAT(server.error().message, HasSubstr("too long"));
}

TEST(ControlRefusal, IsOneLineOfAscii) {
  EXPECT_EQ(control_refusal("no \"x\"\n"), R"({"error":"no \"x\"\\x0a","ok":false})");
}

}  // namespace
}  // namespace iscsi_blkback
