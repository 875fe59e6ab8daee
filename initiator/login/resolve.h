// Names to addresses. resolve() blocks (DNS): control threads only. A NameResolver does the same
// for a reactor without keeping it waiting.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/byte_stream.h"
#include "base/reactor.h"
#include "base/result.h"

namespace iscsi_blkback {

inline constexpr std::size_t kMaxAddressesOfName = 16;  // ours

// host: a name or a numeric address without brackets. The addresses are in the resolver's order,
// without duplicates, at least one, at most kMaxAddressesOfName. Error: not_found, with the resolver's reason.
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
  // target_name: on whose behalf; what one target wants to know does not keep others waiting.
  [[nodiscard]] virtual std::unique_ptr<NameLookup> look_up(Reactor& reactor,
                                                            const std::string& target_name,
                                                            const std::string& host,
                                                            std::uint16_t port, Answer answer,
                                                            void* owner) = 0;
};

// Asks resolve, which may hang, on LookupThreads; a question that is being asked already is not
// asked again. resolve: any thread, several at once, also after the resolver has gone.
using BlockingResolve =
    std::function<Result<std::vector<SocketAddress>>(const std::string& host, std::uint16_t port)>;
[[nodiscard]] std::unique_ptr<NameResolver> make_threaded_name_resolver(BlockingResolve resolve);

// The same with the system's resolver; one for the whole process.
[[nodiscard]] NameResolver& system_name_resolver();

}  // namespace iscsi_blkback
