// Names to addresses. resolve() blocks (DNS): control threads only. A NameResolver does the same
// for a reactor without keeping it waiting.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/reactor.h"
#include "base/result.h"

namespace iscsi_blkback {

// host: a name or a numeric address without brackets. The addresses are in the resolver's order,
// without duplicates, at least one.
[[nodiscard]] Result<std::vector<SocketAddress>> resolve(const std::string& host,
                                                         std::uint16_t port);

// One question that is under way. Destroying it, from its own answer too, forgets it.
class NameLookup {
 public:
  virtual ~NameLookup() = default;
};

class NameResolver {
 public:
  // Once, on the reactor, never from inside look_up().
  using Answer = void (*)(void* owner, Result<std::vector<SocketAddress>> addresses) noexcept;

  virtual ~NameResolver() = default;
  [[nodiscard]] virtual std::unique_ptr<NameLookup> look_up(Reactor& reactor,
                                                            const std::string& host,
                                                            std::uint16_t port, Answer answer,
                                                            void* owner) = 0;
};

// The system's resolver, on a thread for each question; one that hangs is left behind.
[[nodiscard]] NameResolver& system_name_resolver();

}  // namespace iscsi_blkback
