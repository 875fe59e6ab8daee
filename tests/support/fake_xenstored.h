// FakeXenstored: xenstored's side of the wire protocol (docs/misc/xenstore.txt) on a socket in a
// temporary folder, over an in-memory tree; in C's way or in oxenstored's, where they differ. It
// dies and hangs on demand. A thread of its own serves it; calls come from any other thread.
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

// How a list is given that is longer than a message may be (XENSTORE_PAYLOAD_MAX).
enum class LongLists : std::uint8_t {
  in_parts,        // C's xenstored: E2BIG to XS_DIRECTORY, then XS_DIRECTORY_PART
  in_one_message,  // oxenstored by its socket, which knows no XS_DIRECTORY_PART
};

class FakeXenstored {
 public:
  // The tree outlives it.
  explicit FakeXenstored(MemXenStoreTree& tree, LongLists long_lists = LongLists::in_parts);
  ~FakeXenstored();
  FakeXenstored(const FakeXenstored&) = delete;
  FakeXenstored& operator=(const FakeXenstored&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // The real client, libxenstore's, of this xenstored: by XENSTORED_PATH, so nothing else may read
  // the environment meanwhile.
  [[nodiscard]] Result<std::unique_ptr<XenStore>> connect(const XenStoreTimes& times = {},
                                                          SlowCallListener* listener = nullptr) {
    ::setenv("XENSTORED_PATH", path_.c_str(), 1);
    auto store = open_xenstore(times, listener);
    ::unsetenv("XENSTORED_PATH");
    return store;
  }

  // Killed: its connections end, the socket's file stays, what the tree holds too.
  void kill();
  void start();
  // Stopped: takes connections (the kernel does), and reads and writes nothing.
  void set_hung(bool hung);
  // Lists are answered as if something else had been asked.
  void set_confused(bool confused) { confused_ = confused; }

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
  const LongLists long_lists_;
  TemporaryFolder folder_;
  std::string path_;
  UniqueFd listener_;
  UniqueFd woken_;  // an eventfd
  std::map<int, std::unique_ptr<Client>> clients_;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> hung_ = false;
  std::atomic<bool> confused_ = false;
  std::thread thread_;
};

}  // namespace iscsi_blkback
