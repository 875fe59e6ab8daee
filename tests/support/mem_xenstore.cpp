#include "tests/support/mem_xenstore.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "tests/support/ready_fd.h"

namespace iscsi_blkback {
namespace {

constexpr std::size_t kMaxAbsolutePathBytes = 3072;  // xs_wire.h: XENSTORE_ABS_PATH_MAX
constexpr std::size_t kMaxPayloadBytes = 4096;       // xs_wire.h: XENSTORE_PAYLOAD_MAX

bool is_special(const std::string& path) {
  return !path.empty() && path.front() == '@';
}

bool is_valid(const std::string& path) {
  if (path.empty() || path.size() > kMaxAbsolutePathBytes || path.find("//") != std::string::npos ||
      (path.size() > 1 && path.back() == '/')) {
    return false;
  }
  return std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '/' || c == '_' || c == '@';
  });
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

tl::unexpected<Error> no_node(const std::string& path) {
  return fail(ErrorCode::not_found, fmt::format("xenstore has no node {}", path));
}

tl::unexpected<Error> no_permission(DomainId domain, const std::string& path) {
  return fail(ErrorCode::permission_denied,
              fmt::format("domain {} has no permission for xenstore node {}", domain, path));
}

}  // namespace

MemXenStoreTree::MemXenStoreTree(MemFaults& faults) : faults_(faults) {
  nodes_["/"] = Node{};
}

std::unique_ptr<MemXenStore> MemXenStoreTree::connect(DomainId self) {
  return std::make_unique<MemXenStore>(*this, self);
}

void MemXenStoreTree::conflict_next_commits(std::uint32_t count) {
  const std::lock_guard lock(mutex_);
  conflicts_to_inject_ = count;
}

void MemXenStoreTree::break_connections() {
  const std::lock_guard lock(mutex_);
  break_them();
}

void MemXenStoreTree::break_them() {
  hung_ = false;
  for (MemXenStore* connection : connections_) {
    connection->broken_ = true;
    connection->show();
  }
  goes_on_.notify_all();
}

void MemXenStoreTree::break_connections_after_next_commit() {
  const std::lock_guard lock(mutex_);
  breaks_after_commit_ = true;
}

void MemXenStoreTree::forget_everything() {
  const std::lock_guard lock(mutex_);
  nodes_.clear();
  nodes_["/"] = Node{};
  ++generation_;
}

void MemXenStoreTree::set_hung(bool hung) {
  const std::lock_guard lock(mutex_);
  hung_ = hung;
  for (MemXenStore* connection : connections_) {
    connection->show();
  }
  goes_on_.notify_all();
}

void MemXenStoreTree::fire_special(const std::string& path) {
  const std::lock_guard lock(mutex_);
  ISCSI_BLKBACK_ASSERT(is_special(path));
  for (MemXenStore* connection : connections_) {
    for (const MemXenStore::Watch& watch : connection->watches_) {
      if (watch.path == path) {
        connection->queue(WatchEvent{path, watch.token});
      }
    }
  }
}

std::string MemXenStoreTree::dump(const std::string& below) const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const auto& [path, node] : nodes_) {
    if (is_at_or_below(path, below) && !node.value.empty()) {
      text += fmt::format("{} = {}\n", path, node.value);
    }
  }
  return text;
}

std::size_t MemXenStoreTree::watch_count() const {
  const std::lock_guard lock(mutex_);
  std::size_t count = 0;
  for (const MemXenStore* connection : connections_) {
    count += connection->watches_.size();
  }
  return count;
}

bool MemXenStoreTree::may(const Permissions& permissions, DomainId domain, Access wanted) {
  if (domain == 0 || domain == permissions.owner) {
    return true;
  }
  const auto listed = permissions.listed.find(domain);
  const Access granted = listed == permissions.listed.end() ? permissions.others : listed->second;
  return granted == Access::both || granted == wanted;
}

const MemXenStoreTree::Permissions& MemXenStoreTree::effective(const Nodes& nodes,
                                                               const std::string& path) {
  std::string at = path;
  for (;;) {
    const auto node = nodes.find(at);
    if (node != nodes.end()) {
      return node->second.permissions;
    }
    at = parent_of(at);
  }
}

bool MemXenStoreTree::is_at_or_below(const std::string& path, const std::string& top) {
  return top == "/" ||
         (path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/'));
}

void MemXenStoreTree::fire(const std::string& path, bool exact_only) {
  for (MemXenStore* connection : connections_) {
    for (const MemXenStore::Watch& watch : connection->watches_) {
      const bool matches =
          exact_only ? path == watch.absolute : is_at_or_below(path, watch.absolute);
      if (!matches || !may(effective(nodes_, path), connection->self_, Access::read)) {
        continue;
      }
      // A watch on a relative path is told relative paths.
      const std::size_t prefix = watch.absolute.size() - watch.path.size();
      connection->queue(WatchEvent{path.substr(prefix), watch.token});
    }
  }
}

Result<void> MemXenStoreTree::write_node(Nodes& nodes, DomainId self, const std::string& path,
                                         std::string_view value, std::vector<Change>& changes) {
  if (path.size() + 1 + value.size() > kMaxPayloadBytes) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("the value of xenstore node {} is too long", path));
  }
  if (!may(effective(nodes, path), self, Access::write)) {
    return no_permission(self, path);
  }
  for (std::string missing = path; !nodes.contains(missing); missing = parent_of(missing)) {
    Node created;
    created.permissions = effective(nodes, parent_of(missing));
    if (self != 0) {
      created.permissions.owner = self;
    }
    nodes[missing] = created;
  }
  nodes[path].value = std::string(value);
  changes.push_back({path, false});
  return {};
}

Result<void> MemXenStoreTree::remove_node(Nodes& nodes, DomainId self, const std::string& path,
                                          std::vector<Change>& changes) {
  if (path == "/") {
    return fail(ErrorCode::invalid_argument, "the root of xenstore cannot be removed");
  }
  const auto node = nodes.find(path);
  if (node == nodes.end()) {
    return no_node(path);
  }
  if (!may(node->second.permissions, self, Access::write)) {
    return no_permission(self, path);
  }
  changes.push_back({path, false});
  std::erase_if(nodes, [&](const auto& other) {
    if (!is_at_or_below(other.first, path)) {
      return false;
    }
    if (other.first != path) {
      changes.push_back({other.first, true});
    }
    return true;
  });
  return {};
}

Result<std::string> MemXenStore::Transaction::read(const std::string& path) {
  const std::lock_guard lock(store_.tree_.mutex_);
  if (Result<void> alive = store_.check("xenstore read"); !alive) {
    return tl::unexpected(alive.error());
  }
  Result<std::string> at = store_.absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  return read_in(nodes_, store_.self_, *at);
}

Result<void> MemXenStore::Transaction::write(const std::string& path, std::string_view value) {
  const std::lock_guard lock(store_.tree_.mutex_);
  if (Result<void> alive = store_.check("xenstore write"); !alive) {
    return alive;
  }
  Result<std::string> at = store_.absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  return MemXenStoreTree::write_node(nodes_, store_.self_, *at, value, changes_);
}

Result<void> MemXenStore::Transaction::remove(const std::string& path) {
  const std::lock_guard lock(store_.tree_.mutex_);
  if (Result<void> alive = store_.check("xenstore remove"); !alive) {
    return alive;
  }
  Result<std::string> at = store_.absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  return MemXenStoreTree::remove_node(nodes_, store_.self_, *at, changes_);
}

Result<std::string> MemXenStore::Transaction::read_in(const MemXenStoreTree::Nodes& nodes,
                                                      DomainId self, const std::string& path) {
  const auto node = nodes.find(path);
  if (!MemXenStoreTree::may(MemXenStoreTree::effective(nodes, path), self,
                            MemXenStoreTree::Access::read)) {
    return no_permission(self, path);
  }
  if (node == nodes.end()) {
    return no_node(path);
  }
  return node->second.value;
}

MemXenStore::MemXenStore(MemXenStoreTree& tree, DomainId self)
    : tree_(tree), self_(self), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ISCSI_BLKBACK_ASSERT(fd_ >= 0);
  const std::lock_guard lock(tree_.mutex_);
  tree_.connections_.insert(this);
}

MemXenStore::~MemXenStore() {
  {
    const std::lock_guard lock(tree_.mutex_);
    tree_.connections_.erase(this);
  }
  close(fd_);
}

Result<std::string> MemXenStore::absolute(const std::string& path) const {
  const std::string full =
      path.starts_with('/') ? path : fmt::format("/local/domain/{}/{}", self_, path);
  if (path.empty() || !is_valid(full)) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" is not a path that xenstore accepts", path));
  }
  return full;
}

Result<void> MemXenStore::check(const char* call) {
  tree_.goes_on_.wait(tree_.mutex_, [this] { return !tree_.hung_; });  // the caller has locked it
  if (broken_) {
    return fail(ErrorCode::unavailable, "the connection to xenstored is gone");
  }
  if (tree_.faults_.hit(call)) {
    return fail(ErrorCode::io, fmt::format("{} failed (injected)", call));
  }
  return {};
}

void MemXenStore::show() {
  const bool shows = broken_ || (!events_.empty() && !tree_.hung_);
  eventfd_t value = 0;
  if (std::exchange(shows_, shows) == shows) {
    return;
  }
  if (shows) {
    signal_ready(fd_);
  } else {
    ISCSI_BLKBACK_ASSERT(eventfd_read(fd_, &value) == 0);
  }
}

Result<std::string> MemXenStore::read(const std::string& path) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore read"); !alive) {
    return tl::unexpected(alive.error());
  }
  Result<std::string> at = absolute(path);
  if (!at) {
    return at;
  }
  return Transaction::read_in(tree_.nodes_, self_, *at);
}

Result<void> MemXenStore::write(const std::string& path, std::string_view value) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore write"); !alive) {
    return alive;
  }
  Result<std::string> at = absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  std::vector<MemXenStoreTree::Change> changes;
  if (Result<void> written = MemXenStoreTree::write_node(tree_.nodes_, self_, *at, value, changes);
      !written) {
    return written;
  }
  ++tree_.generation_;
  tree_.fire(*at, false);
  return {};
}

Result<void> MemXenStore::remove(const std::string& path) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore remove"); !alive) {
    return alive;
  }
  Result<std::string> at = absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  std::vector<MemXenStoreTree::Change> changes;
  if (Result<void> removed = MemXenStoreTree::remove_node(tree_.nodes_, self_, *at, changes);
      !removed) {
    return removed;
  }
  ++tree_.generation_;
  for (const MemXenStoreTree::Change& change : changes) {
    tree_.fire(change.path, change.exact_only);
  }
  return {};
}

Result<std::vector<std::string>> MemXenStore::list(const std::string& path) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore list"); !alive) {
    return tl::unexpected(alive.error());
  }
  Result<std::string> at = absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  if (Result<std::string> readable = Transaction::read_in(tree_.nodes_, self_, *at); !readable) {
    return tl::unexpected(readable.error());
  }
  std::vector<std::string> names;
  for (const auto& [other, node] : tree_.nodes_) {
    if (other != "/" && parent_of(other) == *at) {
      names.push_back(other.substr(other.rfind('/') + 1));
    }
  }
  return names;
}

Result<std::unique_ptr<MemXenStore::Transaction>> MemXenStore::begin() {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore transaction"); !alive) {
    return tl::unexpected(alive.error());
  }
  return std::make_unique<Transaction>(*this, tree_.nodes_, tree_.generation_);
}

Result<void> MemXenStore::commit(Transaction& transaction) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore commit"); !alive) {
    return alive;
  }
  const bool injected = tree_.conflicts_to_inject_ > 0;
  tree_.conflicts_to_inject_ -= injected ? 1 : 0;
  if (injected || transaction.generation_ != tree_.generation_) {
    return fail(ErrorCode::conflict, "another writer got in between");
  }
  tree_.nodes_ = std::move(transaction.nodes_);
  if (!transaction.changes_.empty()) {
    ++tree_.generation_;
  }
  for (const MemXenStoreTree::Change& change : transaction.changes_) {
    tree_.fire(change.path, change.exact_only);
  }
  if (std::exchange(tree_.breaks_after_commit_, false)) {
    tree_.break_them();
    return check("xenstore commit");
  }
  return {};
}

Result<void> MemXenStore::transaction(const std::function<Result<void>(XenStoreAccess&)>& body) {
  for (int attempt = 0; attempt < kMaxTransactionAttempts; ++attempt) {
    auto transaction = begin();
    if (!transaction) {
      return tl::unexpected(transaction.error());
    }
    if (Result<void> done = body(**transaction); !done) {
      return done;
    }
    const Result<void> done = commit(**transaction);
    if (done || done.error().code != ErrorCode::conflict) {
      return done;
    }
  }
  return fail(ErrorCode::exhausted,
              fmt::format("a xenstore transaction conflicted {} times", kMaxTransactionAttempts));
}

Result<void> MemXenStore::watch(const std::string& path, const std::string& token) {
  const std::lock_guard lock(tree_.mutex_);
  if (Result<void> alive = check("xenstore watch"); !alive) {
    return alive;
  }
  Watch added{path, token, path};
  if (!is_special(path)) {
    Result<std::string> at = absolute(path);
    if (!at) {
      return tl::unexpected(at.error());
    }
    added.absolute = *at;
  }
  const bool twice = std::any_of(watches_.begin(), watches_.end(), [&](const Watch& watch) {
    return watch.path == path && watch.token == token;
  });
  if (twice) {
    return fail(ErrorCode::conflict, fmt::format("{} is already watched as \"{}\"", path, token));
  }
  watches_.push_back(added);
  queue(WatchEvent{path, token});
  return {};
}

void MemXenStore::unwatch(const std::string& path, const std::string& token) {
  const std::lock_guard lock(tree_.mutex_);
  if (!check("xenstore unwatch")) {
    return;  // it goes on firing
  }
  std::erase_if(watches_,
                [&](const Watch& watch) { return watch.path == path && watch.token == token; });
  std::erase_if(events_, [&](const WatchEvent& event) {
    return event.token == token && MemXenStoreTree::is_at_or_below(event.path, path);
  });
  show();
}

void MemXenStore::queue(WatchEvent event) {
  events_.push_back(std::move(event));
  show();
}

Result<std::optional<WatchEvent>> MemXenStore::next_event() {
  const std::lock_guard lock(tree_.mutex_);
  if (broken_) {
    return fail(ErrorCode::unavailable, "the connection to xenstored is gone");
  }
  if (events_.empty() || tree_.hung_) {
    return std::optional<WatchEvent>{};
  }
  WatchEvent event = std::move(events_.front());
  events_.pop_front();
  show();
  return std::optional<WatchEvent>(std::move(event));
}

Result<void> MemXenStore::set_permissions(const std::string& path,
                                          const MemXenStoreTree::Permissions& permissions) {
  const std::lock_guard lock(tree_.mutex_);
  Result<std::string> at = absolute(path);
  if (!at) {
    return tl::unexpected(at.error());
  }
  const auto node = tree_.nodes_.find(*at);
  if (node == tree_.nodes_.end()) {
    return no_node(*at);
  }
  if (self_ != 0 && self_ != node->second.permissions.owner) {
    return no_permission(self_, *at);
  }
  node->second.permissions = permissions;
  ++tree_.generation_;
  tree_.fire(*at, false);
  return {};
}

}  // namespace iscsi_blkback
