// GuestPlatform: what a guest's kernel gives to a frontend: pages granted to another domain, event
// channels, xenstore, time, and another processor. Real: a Linux guest's devices
// (libxen_guest_platform.h). In memory: a guest of MemXen beside the backend under test
// (mem_guest_platform.h). One thread, but for run_beside()'s.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/domain_id.h"
#include "blkback/xen/grant_table.h"

namespace iscsi_blkback {

class GuestPlatform {
 public:
  using Time = std::chrono::microseconds;

  // Granted as long as they are shared.
  struct Pages {
    std::span<std::byte> bytes;  // empty: there are none
    std::vector<GrantReference> references;
  };

  virtual ~GuestPlatform() = default;

  [[nodiscard]] virtual DomainId own_domain() const = 0;

  // bytes is empty when the kernel refuses.
  [[nodiscard]] virtual Pages share(DomainId with, std::size_t count, bool writable) = 0;
  virtual void unshare(Pages& pages) = 0;  // takes the grants back, whoever uses them

  // A port for that domain to bind; 0: the kernel refuses.
  [[nodiscard]] virtual std::uint32_t offer_port(DomainId to) = 0;
  virtual void close_port(std::uint32_t port) = 0;
  virtual void notify(std::uint32_t port) = 0;
  // Waits until a port has rung, at most so long, and hears all that have.
  virtual void wait(Time at_most) = 0;

  // xenstore; nothing, false: it refuses, or there is no such node.
  [[nodiscard]] virtual std::optional<std::string> read(const std::string& path) = 0;
  virtual bool write(const std::string& path, std::string_view value) = 0;
  virtual bool remove(const std::string& path) = 0;

  [[nodiscard]] virtual Time now() = 0;

  // Another processor of the guest calls step again and again, beside everything here, until
  // stop_beside(). What it writes is memory of Pages, by atomic words.
  virtual void run_beside(std::function<void()> step) = 0;
  virtual void stop_beside() = 0;
};

}  // namespace iscsi_blkback
