// KernelProcess: what the kernel keeps of a simulated process, whichever of its threads runs: the
// files that it has opened and the memory that it has mapped. So that they go when it dies, with
// the locks that it held: nothing of a killed process runs to give them back.
//
// The test program is linked with --wrap for open, close, mmap, munmap and getpid (tests.cmake);
// what is called while a process runs is noted for it. One thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <utility>

#include "tests/support/sim_reactor.h"

namespace iscsi_blkback {

class KernelProcess final : public SimReactor::TurnObserver {
 public:
  KernelProcess(std::string name, pid_t pid) : name_(std::move(name)), pid_(pid) {}
  ~KernelProcess();  // with nothing left
  KernelProcess(const KernelProcess&) = delete;
  KernelProcess& operator=(const KernelProcess&) = delete;

  // The process runs as long as it exists, outside of the turns of its reactors.
  class Running {
   public:
    explicit Running(KernelProcess& process) { process.on_turn_begins(); }
    ~Running() { running_ = nullptr; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
  };

  // The one that runs now; null: none.
  [[nodiscard]] static KernelProcess* running() { return running_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] pid_t pid() const { return pid_; }  // what getpid(2) says while it runs

  // The process has died: closes and unmaps all that it has.
  void release_all();

  void on_turn_begins() override { running_ = this; }
  void on_turn_ends() override { running_ = nullptr; }

  // Of the wrapped calls.
  static void opened(int fd);
  static void closed(int fd);
  static void mapped(void* address, std::size_t length_bytes);
  static void unmapped(void* address);

 private:
  static KernelProcess* running_;
  const std::string name_;
  const pid_t pid_;
};

}  // namespace iscsi_blkback
