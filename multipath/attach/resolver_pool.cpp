#include "multipath/attach/resolver_pool.h"

#include <fmt/format.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "initiator/login/shared_lookups.h"

namespace iscsi_blkback {
namespace {

// Who asks, and for what, as far as the answer depends on it. Secrets are told apart by a hash, so
// that no more copies of them are made.
std::string discovery_text(const Portal& at, const SessionOptions& session,
                           const std::string& target_name) {
  const ChapOptions& chap = session.discovery_chap;
  const auto hash = std::hash<std::string_view>{};
  std::string text = fmt::format(
      "{} {} {} {} {} {} {} {} {} {:x} {} {:x}", at.to_string(), at.interface_binding.to_string(),
      target_name, session.initiator_name, session.connect_timeout.count(),
      session.login_timeout.count(), static_cast<unsigned>(session.header_digest),
      static_cast<unsigned>(session.data_digest), chap.username, hash(chap.password),
      chap.username_in, hash(chap.password_in));
  for (const ChapAlgorithm algorithm : chap.algorithms) {
    text += fmt::format(" {}", static_cast<unsigned>(algorithm));
  }
  return text;
}

// Questions of one kind that wait for their answers, each with the end of the patience for it.
template <class Value>
class Waiting {
 public:
  using Done = std::function<void(Result<Value>)>;

  Waiting(Reactor& control, LookupThreads& threads, std::chrono::milliseconds patience)
      : control_(control), lookups_(threads), patience_(patience) {}

  void ask(const std::string& what, const std::string& name, const std::vector<std::string>& keys,
           typename SharedLookups<Value>::Look look, Done done) {
    Entry& entry = *entries_.emplace_back(std::make_unique<Entry>(*this, name, std::move(done)));
    entry.timer.start_after(patience_);
    entry.interest =
        lookups_.ask(control_, what, keys, std::move(look),
                     [&entry](Result<Value> answer) { entry.owner.end(entry, std::move(answer)); });
  }

 private:
  struct Entry {
    Entry(Waiting& of, std::string portal, Done to_tell)
        : owner(of),
          name(std::move(portal)),
          done(std::move(to_tell)),
          timer(
              of.control_,
              [](void* self) noexcept {
                auto& entry = *static_cast<Entry*>(self);
                entry.owner.end(
                    entry, fail(ErrorCode::timed_out,
                                fmt::format("{} is still being asked or looked up after "
                                            "{} s; check the DNS settings of this host",
                                            entry.name, entry.owner.patience_.count() / 1000)));
              },
              this) {}
    Waiting& owner;
    std::string name;
    Done done;
    Timer timer;
    std::unique_ptr<typename SharedLookups<Value>::Interest> interest;
  };

  void end(Entry& entry, Result<Value> answer) {
    const Done done = std::move(entry.done);
    entries_.remove_if([&](const auto& other) { return other.get() == &entry; });
    done(std::move(answer));
  }

  Reactor& control_;
  SharedLookups<Value> lookups_;
  std::chrono::milliseconds patience_;
  std::list<std::unique_ptr<Entry>> entries_;
};

class ResolverPool final : public AsyncPortalResolver {
 public:
  ResolverPool(Reactor& control, PortalResolver& directory, std::chrono::milliseconds patience)
      : directory_(directory),
        addresses_(control, threads_, patience),
        portals_(control, threads_, patience) {}

  void resolve(const Portal& portal, const std::string& target_name,
               std::function<void(Result<std::vector<SocketAddress>>)> done) override {
    const std::string name = portal.to_string();
    addresses_.ask(
        name, name, {"target " + target_name},
        [&directory = directory_, portal] { return directory.resolve(portal); }, std::move(done));
  }

  void discover(const Portal& at, const SessionOptions& session, const std::string& target_name,
                std::function<void(Result<std::vector<Portal>>)> done) override {
    const std::string name = at.to_string();
    portals_.ask(
        discovery_text(at, session, target_name), name, {"target " + target_name, "portal " + name},
        [&directory = directory_, at, session, target_name] {
          return directory.discover(at, session, target_name);
        },
        std::move(done));
  }

 private:
  PortalResolver& directory_;
  LookupThreads threads_;
  Waiting<std::vector<SocketAddress>> addresses_;
  Waiting<std::vector<Portal>> portals_;
};

}  // namespace

std::unique_ptr<AsyncPortalResolver> make_resolver_pool(Reactor& control, PortalResolver& directory,
                                                        std::chrono::milliseconds patience) {
  return std::make_unique<ResolverPool>(control, directory, patience);
}

}  // namespace iscsi_blkback
