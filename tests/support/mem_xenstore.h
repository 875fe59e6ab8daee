// The in-memory twin of xenstored: one tree, and connections to it from several domains under the
// daemon's rules. Any thread.
//
// Enforced: permissions (domain 0 may do everything; others by owner and list, inherited from the
// parent at creation), syntax and length of paths, size of values, a watch fires once at
// registration and for every change at or below it that its owner may read, transactions that see
// another writer's commit conflict, watches and relative paths as in xenstored (below
// /local/domain/<self>).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/domain_id.h"
#include "blkback/xen/xenstore.h"
#include "tests/support/mem_faults.h"

namespace iscsi_blkback {

class MemXenStore;

class MemXenStoreTree {
 public:
  enum class Access : std::uint8_t { none, read, write, both };

  struct Permissions {
    DomainId owner = 0;
    Access others = Access::none;  // for everybody who is not listed
    std::map<DomainId, Access> listed;
  };

  explicit MemXenStoreTree(MemFaults& faults);

  [[nodiscard]] std::unique_ptr<MemXenStore> connect(DomainId self);

  // The next count commits of transactions conflict, whatever they did.
  void conflict_next_commits(std::uint32_t count);
  // xenstored has died: every open connection is dead from now on.
  void break_connections();
  // It dies when it has done the next commit, before it has said so.
  void break_connections_after_next_commit();
  // It has been started anew, and knows nothing.
  void forget_everything();
  // xenstored does not answer while it hangs: calls of any connection block, and nobody hears
  // anything, until it goes on or dies.
  void set_hung(bool hung);
  // Fires the special watches @introduceDomain and @releaseDomain.
  void fire_special(const std::string& path);

  // The whole tree, one "path = value" line per node with a value, in order; for test messages.
  [[nodiscard]] std::string dump(const std::string& below = "/") const;
  [[nodiscard]] std::size_t watch_count() const;

 private:
  friend class MemXenStore;

  struct Node {
    std::string value;
    Permissions permissions;
  };
  using Nodes = std::map<std::string, Node>;  // by absolute path; "/" is the root

  static bool may(const Permissions& permissions, DomainId domain, Access wanted);
  // The permissions that count for path: its own, else those of the nearest node above.
  static const Permissions& effective(const Nodes& nodes, const std::string& path);
  static bool is_at_or_below(const std::string& path, const std::string& top);
  void fire(const std::string& path, bool exact_only);
  void break_them();  // the connections; mutex_ is held

  struct Change {
    std::string path;
    bool exact_only = false;  // below a removed node: only a watch of exactly this node fires
  };
  static Result<void> write_node(Nodes& nodes, DomainId self, const std::string& path,
                                 std::string_view value, std::vector<Change>& changes);
  static Result<void> remove_node(Nodes& nodes, DomainId self, const std::string& path,
                                  std::vector<Change>& changes);

  MemFaults& faults_;
  mutable std::mutex mutex_;
  Nodes nodes_;
  std::uint64_t generation_ = 0;  // changes with every write
  std::uint32_t conflicts_to_inject_ = 0;
  bool breaks_after_commit_ = false;
  bool hung_ = false;
  std::condition_variable_any goes_on_;
  std::set<MemXenStore*> connections_;
};

// One connection of one domain.
class MemXenStore final : public XenStore {
 public:
  MemXenStore(MemXenStoreTree& tree, DomainId self);
  ~MemXenStore() override;

  [[nodiscard]] Result<std::string> read(const std::string& path) override;
  [[nodiscard]] Result<void> write(const std::string& path, std::string_view value) override;
  [[nodiscard]] Result<void> remove(const std::string& path) override;
  [[nodiscard]] Result<std::vector<std::string>> list(const std::string& path) override;
  [[nodiscard]] Result<void> transaction(
      const std::function<Result<void>(XenStoreAccess&)>& body) override;
  [[nodiscard]] Result<void> watch(const std::string& path, const std::string& token) override;
  void unwatch(const std::string& path, const std::string& token) override;
  [[nodiscard]] int fd() const override { return fd_; }
  [[nodiscard]] Result<std::optional<WatchEvent>> next_event() override;

  // A transaction step by step, for a server (FakeXenstored). conflict: another got in between.
  class Transaction;
  [[nodiscard]] Result<std::unique_ptr<Transaction>> begin();
  [[nodiscard]] Result<void> commit(Transaction& transaction);

  // The toolstack's side; the caller must own the node or be domain 0.
  [[nodiscard]] Result<void> set_permissions(const std::string& path,
                                             const MemXenStoreTree::Permissions& permissions);

  // As libxl: tries at most this often.
  static constexpr int kMaxTransactionAttempts = 64;

 private:
  friend class MemXenStoreTree;

  struct Watch {
    std::string path;  // as registered
    std::string token;
    std::string absolute;
  };

  [[nodiscard]] Result<std::string> absolute(const std::string& path) const;
  [[nodiscard]] Result<void> check(const char* call);
  void queue(WatchEvent event);
  void show();  // whether there is something to take

  MemXenStoreTree& tree_;
  DomainId self_;
  int fd_;
  bool broken_ = false;
  bool shows_ = false;  // the eventfd is readable
  std::vector<Watch> watches_;
  std::deque<WatchEvent> events_;
};

// Works on a copy of the tree. It conflicts when anything was written meanwhile, which is stricter
// than xenstored (there: only when a node that it used was).
class MemXenStore::Transaction final : public XenStoreAccess {
 public:
  Transaction(MemXenStore& store, MemXenStoreTree::Nodes nodes, std::uint64_t generation)
      : store_(store), nodes_(std::move(nodes)), generation_(generation) {}

  [[nodiscard]] Result<std::string> read(const std::string& path) override;
  [[nodiscard]] Result<void> write(const std::string& path, std::string_view value) override;
  [[nodiscard]] Result<void> remove(const std::string& path) override;

 private:
  friend class MemXenStore;
  static Result<std::string> read_in(const MemXenStoreTree::Nodes& nodes, DomainId self,
                                     const std::string& path);

  MemXenStore& store_;
  MemXenStoreTree::Nodes nodes_;
  std::uint64_t generation_;  // of the tree that it is a copy of
  std::vector<MemXenStoreTree::Change> changes_;
};

}  // namespace iscsi_blkback
