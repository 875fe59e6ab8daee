// XenStore on libxenstore. Its reader thread feeds a pipe that holds one byte for the whole queue
// of watch events: the fd is readable while the queue is not empty, and only reading until there is
// nothing clears it.
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "blkback/xen/xenstore.h"

extern "C" {
#include <xenstore.h>
}

namespace iscsi_blkback {
namespace {

struct FreeDeleter {
  void operator()(void* allocated) const { std::free(allocated); }
};
template <class T>
using Allocated = std::unique_ptr<T, FreeDeleter>;

constexpr int kMaxTransactionAttempts = 64;

Error xenstore_error(const char* what, const std::string& path) {
  // xenstored's connection is gone for good after one of these.
  if (errno == EPIPE || errno == ECONNRESET || errno == EBADF || errno == ECONNREFUSED) {
    return Error{ErrorCode::unavailable,
                 fmt::format("the connection to xenstored is gone ({} {})", what, path)};
  }
  return system_error(fmt::format("{} xenstore node {}", what, path), errno);
}

Result<std::string> read_node(xs_handle* handle, xs_transaction_t transaction,
                              const std::string& path) {
  unsigned int length = 0;
  const Allocated<void> value(xs_read(handle, transaction, path.c_str(), &length));
  if (value == nullptr) {
    return tl::unexpected(xenstore_error("reading", path));
  }
  return std::string(static_cast<const char*>(value.get()), length);
}

Result<void> write_node(xs_handle* handle, xs_transaction_t transaction, const std::string& path,
                        std::string_view value) {
  if (!xs_write(handle, transaction, path.c_str(), value.data(),
                static_cast<unsigned int>(value.size()))) {
    return tl::unexpected(xenstore_error("writing", path));
  }
  return {};
}

Result<void> remove_node(xs_handle* handle, xs_transaction_t transaction, const std::string& path) {
  // xs_rm calls it a success when only the last component is missing (xenstore.txt: RM). Asking
  // first costs a round trip, which is nothing on the control thread.
  if (Result<std::string> there = read_node(handle, transaction, path); !there) {
    return tl::unexpected(there.error());
  }
  if (!xs_rm(handle, transaction, path.c_str())) {
    return tl::unexpected(xenstore_error("removing", path));
  }
  return {};
}

Result<std::vector<std::string>> list_node(xs_handle* handle, xs_transaction_t transaction,
                                           const std::string& path) {
  unsigned int count = 0;
  const Allocated<char*> names(xs_directory(handle, transaction, path.c_str(), &count));
  if (names == nullptr) {
    return tl::unexpected(xenstore_error("listing", path));
  }
  return std::vector<std::string>(names.get(), names.get() + count);
}

class Transaction final : public XenStoreAccess {
 public:
  Transaction(xs_handle* handle, xs_transaction_t transaction)
      : handle_(handle), transaction_(transaction) {}

  Result<std::string> read(const std::string& path) override {
    return read_node(handle_, transaction_, path);
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    return write_node(handle_, transaction_, path, value);
  }
  Result<void> remove(const std::string& path) override {
    return remove_node(handle_, transaction_, path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return list_node(handle_, transaction_, path);
  }

 private:
  xs_handle* handle_;
  xs_transaction_t transaction_;
};

class LibxenXenStore final : public XenStore {
 public:
  explicit LibxenXenStore(xs_handle* handle) : handle_(handle) {}
  ~LibxenXenStore() override { xs_close(handle_); }

  Result<std::string> read(const std::string& path) override {
    return read_node(handle_, XBT_NULL, path);
  }
  Result<void> write(const std::string& path, std::string_view value) override {
    return write_node(handle_, XBT_NULL, path, value);
  }
  Result<void> remove(const std::string& path) override {
    return remove_node(handle_, XBT_NULL, path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return list_node(handle_, XBT_NULL, path);
  }

  Result<void> transaction(const std::function<Result<void>(XenStoreAccess&)>& body) override {
    for (int attempt = 0; attempt < kMaxTransactionAttempts; ++attempt) {
      const xs_transaction_t started = xs_transaction_start(handle_);
      if (started == XBT_NULL) {
        return tl::unexpected(xenstore_error("starting a transaction for", "(all)"));
      }
      Transaction transaction(handle_, started);
      const Result<void> done = body(transaction);
      if (!done) {
        (void)xs_transaction_end(handle_, started, true);
        return done;
      }
      if (xs_transaction_end(handle_, started, false)) {
        return {};
      }
      if (errno != EAGAIN) {
        return tl::unexpected(xenstore_error("ending a transaction for", "(all)"));
      }
    }
    return fail(ErrorCode::conflict,
                fmt::format("a xenstore transaction conflicted {} times", kMaxTransactionAttempts));
  }

  Result<void> watch(const std::string& path, const std::string& token) override {
    if (!xs_watch(handle_, path.c_str(), token.c_str())) {
      return tl::unexpected(xenstore_error("watching", path));
    }
    return {};
  }

  void unwatch(const std::string& path, const std::string& token) override {
    (void)xs_unwatch(handle_, path.c_str(), token.c_str());
  }

  int fd() const override { return xs_fileno(handle_); }

  Result<std::optional<WatchEvent>> next_event() override {
    errno = 0;
    const Allocated<char*> event(xs_check_watch(handle_));
    if (event == nullptr) {
      if (errno == EAGAIN || errno == 0) {
        return std::optional<WatchEvent>{};
      }
      return fail(ErrorCode::unavailable, "the connection to xenstored is gone");
    }
    return std::optional<WatchEvent>(
        WatchEvent{event.get()[XS_WATCH_PATH], event.get()[XS_WATCH_TOKEN]});
  }

 private:
  xs_handle* handle_;
};

}  // namespace

Result<std::unique_ptr<XenStore>> open_xenstore() {
  xs_handle* handle = xs_open(XS_UNWATCH_FILTER);
  if (handle == nullptr) {
    return tl::unexpected(system_error(
        "cannot reach xenstored (no /run/xenstored/socket and no /dev/xen/xenbus)", errno));
  }
  return std::make_unique<LibxenXenStore>(handle);
}

}  // namespace iscsi_blkback
