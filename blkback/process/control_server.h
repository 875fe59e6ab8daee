// ControlServer: a unix stream socket (mode 0600) on which a service or a guest process answers
// questions, in the words of blkback/control/control_protocol.h. Runs on the control thread's
// reactor; a slow or silent client delays nobody: there are at most kMaxClients, each is given
// kClientTimeout, and neither request nor reply grows beyond its bound.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/reactor.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class ControlServer {
 public:
  // Hands over one reply line (without the newline), at once or later, on the same thread; a reply
  // for a client that has gone is dropped.
  using Reply = std::function<void(std::string line)>;
  // request: one line, at most kMaxControlRequestBytes, not yet parsed. Reply must be called once.
  using Handler = std::function<void(const std::string& request, Reply reply)>;

  static constexpr std::size_t kMaxClients = 16;
  static constexpr std::chrono::seconds kClientTimeout{5};

  // Replaces a stale socket file at path; the folder must exist. Errors: invalid_argument (the path is too long);
  // the system call's.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> listen(Reactor& control,
                                                                     const std::string& path,
                                                                     Handler handler);
  // The two halves of listen(), where another process makes the socket.
  [[nodiscard]] static Result<UniqueFd> open_socket(const std::string& path);
  [[nodiscard]] static std::unique_ptr<ControlServer> serve(Reactor& control, UniqueFd socket,
                                                            const std::string& path,
                                                            Handler handler);
  ~ControlServer();  // closes every connection and removes the file
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  class Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace iscsi_blkback
