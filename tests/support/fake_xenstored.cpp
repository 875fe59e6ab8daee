#include "tests/support/fake_xenstored.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/decimal.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

#ifdef __SANITIZE_THREAD__
// libxenstore's reader thread closes the connection's fd while a call may still use it
// (libxen_xenstore.cpp says what is done about that). Visible, because the sanitizer is another
// library.
extern "C" [[gnu::visibility("default")]] const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:libxenstore.so\n";
}
#endif

namespace iscsi_blkback {
namespace {

std::string message(std::uint32_t type, std::uint32_t transaction, const std::string& payload) {
  const std::uint32_t words[4] = {type, 0, transaction, static_cast<std::uint32_t>(payload.size())};
  std::string bytes(reinterpret_cast<const char*>(words), sizeof words);
  return bytes + payload;
}

std::uint32_t word(std::string_view bytes, std::size_t index) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

std::string ended(std::string text) {
  text += '\0';
  return text;
}

std::vector<std::string> strings_of(const std::string& payload) {
  std::vector<std::string> strings(1);
  for (const char c : payload) {
    if (c == '\0') {
      strings.emplace_back();
    } else {
      strings.back() += c;
    }
  }
  strings.resize(std::max<std::size_t>(strings.size(), 2));
  return strings;
}

const char* name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::not_found:
      return "ENOENT";
    case ErrorCode::permission_denied:
      return "EACCES";
    case ErrorCode::invalid_argument:
      return "EINVAL";
    case ErrorCode::conflict:
      return "EEXIST";
    default:
      return "EIO";
  }
}

}  // namespace

struct FakeXenstored::Client {
  UniqueFd fd;
  std::unique_ptr<MemXenStore> store;
  std::string received;
  std::string to_send;
  std::map<std::uint32_t, std::unique_ptr<MemXenStore::Transaction>> transactions;
  std::uint32_t next_transaction = 1;
};

FakeXenstored::FakeXenstored(MemXenStoreTree& tree, LongLists long_lists)
    : tree_(tree),
      long_lists_(long_lists),
      path_(folder_.path() + "/socket"),
      woken_(::eventfd(0, EFD_CLOEXEC)) {
  start();
}

FakeXenstored::~FakeXenstored() {
  kill();
}

void FakeXenstored::start() {
  kill();
  ::unlink(path_.c_str());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ISCSI_BLKBACK_ASSERT(
      ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      ::listen(listener_.get(), 8) == 0);
  ending_ = false;
  hung_ = false;
  thread_ = std::thread([this] { run(); });
}

void FakeXenstored::kill() {
  if (thread_.joinable()) {
    ending_ = true;
    wake();
    thread_.join();
  }
}

void FakeXenstored::set_hung(bool hung) {
  hung_ = hung;
  wake();
}

void FakeXenstored::wake() {
  ISCSI_BLKBACK_ASSERT(::eventfd_write(woken_.get(), 1) == 0);
}

void FakeXenstored::run() {
  while (!ending_) {
    std::vector<pollfd> waiting = {{woken_.get(), POLLIN, 0}};
    if (!hung_) {
      waiting.push_back({listener_.get(), POLLIN, 0});
      for (const auto& [fd, client] : clients_) {
        const int writes = client->to_send.empty() ? 0 : POLLOUT;
        waiting.push_back({fd, static_cast<short>(POLLIN | writes), 0});
        waiting.push_back({client->store->fd(), POLLIN, 0});
      }
    }
    ISCSI_BLKBACK_ASSERT(::poll(waiting.data(), waiting.size(), -1) > 0);
    if (waiting[0].revents != 0) {
      eventfd_t ignored = 0;
      ISCSI_BLKBACK_ASSERT(::eventfd_read(woken_.get(), &ignored) == 0);
      continue;
    }
    if (waiting[1].revents != 0) {
      accept_client();
    }
    for (std::size_t at = 2; at < waiting.size(); at += 2) {
      const auto found = clients_.find(waiting[at].fd);
      if (waiting[at + 1].revents != 0) {
        take_events(*found->second);
      }
      const bool alive = (waiting[at].revents & ~POLLOUT) == 0 || serve(*found->second);
      if (!alive || !send_waiting(*found->second)) {
        clients_.erase(found);
      }
    }
  }
  clients_.clear();
  listener_.reset();
}

void FakeXenstored::accept_client() {
  auto client = std::make_unique<Client>();
  client->fd.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  client->store = tree_.connect(0);
  const int fd = client->fd.get();
  clients_.emplace(fd, std::move(client));
}

bool FakeXenstored::serve(Client& client) {
  std::array<char, 4096> bytes;
  const ssize_t got = ::recv(client.fd.get(), bytes.data(), bytes.size(), 0);
  if (got <= 0) {
    return false;
  }
  client.received.append(bytes.data(), static_cast<std::size_t>(got));
  while (client.received.size() >= sizeof(xsd_sockmsg)) {
    const std::size_t whole = sizeof(xsd_sockmsg) + word(client.received, 3);
    if (whole > sizeof(xsd_sockmsg) + XENSTORE_PAYLOAD_MAX) {
      return false;  // as xenstored does
    }
    if (client.received.size() < whole) {
      break;
    }
    answer(client, client.received.substr(0, whole));
    client.received.erase(0, whole);
  }
  return true;
}

void FakeXenstored::answer(Client& client, std::string_view request) {
  std::uint32_t type = word(request, 0);
  const std::uint32_t transaction = word(request, 2);
  const std::string payload =
      reply_to(client, type, transaction, std::string(request.substr(sizeof(xsd_sockmsg))), type);
  client.to_send += message(type, transaction, payload);
}

bool FakeXenstored::send_waiting(Client& client) {
  while (!client.to_send.empty()) {
    const ssize_t sent =
        ::send(client.fd.get(), client.to_send.data(), client.to_send.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      return errno == EAGAIN;
    }
    client.to_send.erase(0, static_cast<std::size_t>(sent));
  }
  return true;
}

std::string FakeXenstored::reply_to(Client& client, std::uint32_t type, std::uint32_t transaction,
                                    const std::string& payload, std::uint32_t& reply_type) {
  const auto error = [&](const char* name) {
    reply_type = XS_ERROR;
    return ended(name);
  };
  const auto ok = [&](const Result<void>& done) {
    return done ? ended("OK") : error(name_of(done.error().code));
  };
  MemXenStore::Transaction* inside = nullptr;
  if (transaction != 0) {
    const auto found = client.transactions.find(transaction);
    if (found == client.transactions.end()) {
      return error("ENOENT");
    }
    inside = found->second.get();
  }
  XenStoreAccess& store = inside != nullptr ? static_cast<XenStoreAccess&>(*inside) : *client.store;
  const std::vector<std::string> strings = strings_of(payload);
  const std::string& path = strings[0];
  switch (type) {
    case XS_READ: {
      const auto value = store.read(path);
      return value ? *value : error(name_of(value.error().code));
    }
    case XS_WRITE:
      return ok(store.write(path, std::string_view(payload).substr(path.size() + 1)));
    case XS_RM: {
      const auto removed = store.remove(path);
      const bool last_is_missing =
          !removed && removed.error().code == ErrorCode::not_found &&
          store.read(path.substr(0, std::max<std::size_t>(path.rfind('/'), 1))).has_value();
      return last_is_missing ? ended("OK") : ok(removed);
    }
    case XS_DIRECTORY:
    case XS_DIRECTORY_PART: {
      if (inside != nullptr || (type == XS_DIRECTORY_PART && long_lists_ != LongLists::in_parts)) {
        return error("ENOSYS");
      }
      const auto names = client.store->list(path);
      if (!names) {
        return error(name_of(names.error().code));
      }
      std::string list;
      for (const std::string& name : *names) {
        list += ended(name);
      }
      if (type == XS_DIRECTORY) {
        reply_type = confused_ ? XS_READ : XS_DIRECTORY;
        const bool too_long =
            long_lists_ == LongLists::in_parts && list.size() > XENSTORE_PAYLOAD_MAX;
        return too_long ? error("E2BIG") : list;
      }
      list += '\0';
      const std::string generation = ended(std::to_string(names->size()));
      const auto offset = parse_decimal<std::size_t>(strings[1]);
      if (!offset || *offset >= list.size()) {
        return error("EINVAL");
      }
      const std::string part = list.substr(*offset, XENSTORE_PAYLOAD_MAX - generation.size());
      return generation + part.substr(0, part.rfind('\0') + 1);  // whole names only
    }
    case XS_WATCH:
      return ok(client.store->watch(path, strings[1]));
    case XS_UNWATCH:
      client.store->unwatch(path, strings[1]);
      return ended("OK");
    case XS_TRANSACTION_START: {
      auto begun = client.store->begin();
      if (!begun) {
        return error(name_of(begun.error().code));
      }
      const std::uint32_t number = client.next_transaction++;
      client.transactions[number] = std::move(*begun);
      return ended(std::to_string(number));
    }
    case XS_TRANSACTION_END: {
      if (inside == nullptr) {
        return error("ENOENT");
      }
      Result<void> done;
      if (path == "T") {
        done = client.store->commit(*inside);
      }
      client.transactions.erase(transaction);
      return !done && done.error().code == ErrorCode::conflict ? error("EAGAIN") : ok(done);
    }
    default:
      return error("ENOSYS");
  }
}

void FakeXenstored::take_events(Client& client) {
  for (;;) {
    const auto event = client.store->next_event();
    if (!event || !*event) {
      return;
    }
    client.to_send += message(XS_WATCH_EVENT, 0, ended((*event)->path) + ended((*event)->token));
  }
}

}  // namespace iscsi_blkback
