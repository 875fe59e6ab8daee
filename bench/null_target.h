// NullTarget: an iSCSI target that costs next to nothing, so that a benchmark measures the
// initiator: one LUN in memory, one thread, io_uring; all replies to one receive go out in one
// send. It listens on loopback; any number of connections, each a session of its own.
//
// With raw_reply_bytes it speaks no iSCSI but the floor under it: each request is 48 bytes (and the
// data of a write), each reply 48 bytes (and the data of a read), batched the same way.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "bench/null_target_connection.h"

namespace iscsi_blkback {

struct NullTargetOptions {
  NullTargetSettings settings;
  SimLunOptions lun;
  std::uint16_t portals = 1;
  std::uint16_t port = 0;  // of the first portal, the others follow; 0: any that are free
  // So long after its last event it looks for the next one instead of sleeping: to be woken can
  // cost more than a request, and is not what a benchmark of initiators is to measure.
  Duration busy_poll{};
  std::uint32_t raw_request_bytes = 0;  // 0: iSCSI
  std::uint32_t raw_reply_bytes = 0;
};

// What suits a benchmark: large segments and windows, no unit attention, 512 MiB.
[[nodiscard]] NullTargetOptions null_target_defaults();

class NullTarget {
 public:
  [[nodiscard]] static Result<std::unique_ptr<NullTarget>> create(const NullTargetOptions& options);
  ~NullTarget();
  NullTarget(const NullTarget&) = delete;
  NullTarget& operator=(const NullTarget&) = delete;

  [[nodiscard]] const std::vector<std::uint16_t>& ports() const { return ports_; }
  // Makes access to the LUN as quick as it gets, for this process alone. Its content is lost.
  void take_memory();
  // On the thread that calls it, until stop is set (looked at ten times a second).
  void run(const std::atomic<bool>& stop);
  // Makes its port groups trade their states, soon, and tells every initiator. From any thread,
  // from a signal handler too.
  void swap_port_groups() { swap_wanted_.store(true, std::memory_order_relaxed); }
  // What initiators did against the protocol.
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }

 private:
  struct Ring;
  struct Connection;
  struct Listener {
    UniqueFd fd;
    std::uint16_t group_tag = 1;
  };

  explicit NullTarget(const NullTargetOptions& options);
  [[nodiscard]] Result<void> open();
  void accept_more(Listener& listener);
  void on_accepted(Listener& listener, int fd);
  void on_received(Connection& connection, int result);
  void on_sent(Connection& connection, int result);
  void receive_more(Connection& connection);
  void serve(Connection& connection);
  void serve_raw(Connection& connection);
  void send_more(Connection& connection);
  [[nodiscard]] bool send_now(Connection& connection);
  [[nodiscard]] bool drop_sent(Connection& connection, std::size_t count);
  void end(Connection& connection);
  void reinstate(const Connection& successor);
  void swap_states();

  const NullTargetOptions options_;
  SimLun lun_;
  std::vector<std::uint16_t> ports_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::unique_ptr<Ring> ring_;
  std::uint16_t next_tsih_ = 1;
  TimePoint now_{};
  TimePoint last_event_{};
  std::vector<std::string> violations_;
  std::atomic<bool> swap_wanted_ = false;
};

// A null target in a process of its own, on one core.
class NullTargetProcess {
 public:
  // core: none when negative or when the machine has no such core.
  [[nodiscard]] static Result<std::unique_ptr<NullTargetProcess>> start(
      const NullTargetOptions& options, int core);
  ~NullTargetProcess();
  NullTargetProcess(const NullTargetProcess&) = delete;
  NullTargetProcess& operator=(const NullTargetProcess&) = delete;

  [[nodiscard]] const std::vector<std::uint16_t>& ports() const { return ports_; }
  // SIGSTOP and SIGCONT: a target that hangs while its kernel goes on.
  void stop() { kill(process_, SIGSTOP); }
  void go_on() { kill(process_, SIGCONT); }
  void swap_port_groups() { kill(process_, SIGUSR1); }

 private:
  NullTargetProcess() = default;
  pid_t process_ = -1;
  std::vector<std::uint16_t> ports_;
};

}  // namespace iscsi_blkback
