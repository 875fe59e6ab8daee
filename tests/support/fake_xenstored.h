// FakeXenstored: xenstored's side of the wire protocol (docs/misc/xenstore.txt) on a socket in a
// temporary folder, over an in-memory tree. It dies and hangs on demand. A thread of its own serves
// it; calls come from any other thread.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/unique_fd.h"
#include "tests/support/mem_xenstore.h"
#include "tests/support/temporary_folder.h"

namespace iscsi_blkback {

class FakeXenstored {
 public:
  // The tree outlives it.
  explicit FakeXenstored(MemXenStoreTree& tree);
  ~FakeXenstored();
  FakeXenstored(const FakeXenstored&) = delete;
  FakeXenstored& operator=(const FakeXenstored&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // The real client, libxenstore's, of this xenstored: by XENSTORED_PATH, so nothing else may read
  // the environment meanwhile.
  [[nodiscard]] Result<std::unique_ptr<XenStore>> connect(const XenStoreTimes& times = {}) {
    ::setenv("XENSTORED_PATH", path_.c_str(), 1);
    auto store = open_xenstore(times);
    ::unsetenv("XENSTORED_PATH");
    return store;
  }

  // Killed: its connections end, the socket's file stays, what the tree holds too.
  void kill();
  void start();
  // Stopped: takes connections (the kernel does), and reads and writes nothing.
  void set_hung(bool hung);

 private:
  struct Client;

  void run();
  void accept_client();
  // False: the connection ends.
  bool serve(Client& client);
  void answer(Client& client, std::string_view request);
  [[nodiscard]] std::string reply_to(Client& client, std::uint32_t type, std::uint32_t transaction,
                                     const std::string& payload, std::uint32_t& reply_type);
  void take_events(Client& client);
  static bool send_waiting(Client& client);
  void wake();

  MemXenStoreTree& tree_;
  TemporaryFolder folder_;
  std::string path_;
  UniqueFd listener_;
  UniqueFd woken_;  // an eventfd
  std::map<int, std::unique_ptr<Client>> clients_;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> hung_ = false;
  std::thread thread_;
};

}  // namespace iscsi_blkback
