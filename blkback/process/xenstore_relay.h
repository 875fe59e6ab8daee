// XenStoreRelay: one connection of a guest's process to xenstored, by way of the helper: its messages are looked at
// by a XenStoreGate, what xenstored answers is passed on as it comes. One that is not let through ends the
// connection, since the process does not ask for such a thing: it is not itself any more, or the gate is wrong.
// Neither side is waited for: a xenstored that hangs holds up its connections and nothing else. The helper's first
// thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "base/unique_fd.h"
#include "blkback/process/xenstore_gate.h"
#include "blkback/xen/xenstore.h"

namespace iscsi_blkback {

class XenStoreRelay {
 public:
  // client: does not block. address and gate outlive it.
  XenStoreRelay(UniqueFd client, const XenStoreAddress& address, const XenStoreGate& gate);

  // For poll(2): the client's side, and xenstored's (-1: no connection yet, look again after kRetry). A side
  // without events is not to be looked at: its end would be told again and again.
  [[nodiscard]] int client_fd() const { return client_.get(); }
  [[nodiscard]] short client_events() const;
  [[nodiscard]] int xenstored_fd() const { return xenstored_.get(); }
  [[nodiscard]] short xenstored_events() const;
  [[nodiscard]] bool is_connecting() const { return !xenstored_.valid(); }

  // Does what can be done now. False: the connection has ended; why() says it where it is worth a word.
  [[nodiscard]] bool serve();
  [[nodiscard]] const std::string& why() const { return why_; }

  static constexpr std::chrono::milliseconds kRetry{20};
  // xenstored has room for one or two connections that it has not accepted; libxenstore waits, too.
  static constexpr std::chrono::seconds kConnectPatience{5};
  static constexpr std::size_t kMostWaiting = 64 * 1024;  // bytes, in each direction

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] bool connect();
  [[nodiscard]] bool take_requests();
  [[nodiscard]] bool check_requests();
  [[nodiscard]] bool take_answers();
  [[nodiscard]] bool pass_on_requests();
  [[nodiscard]] static bool pass_on(int fd, std::string& bytes);

  UniqueFd client_;
  UniqueFd xenstored_;
  const XenStoreAddress& address_;
  const XenStoreGate& gate_;
  const Clock::time_point opened_ = Clock::now();
  std::string asked_;    // not looked at yet: less than a message
  std::string passed_;   // to xenstored
  std::string answers_;  // to the client
  bool answers_end_ = false;
  std::string why_;
};

}  // namespace iscsi_blkback
