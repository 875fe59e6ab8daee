#include "tests/support/libiscsi_discovery.h"

#include <fmt/format.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace iscsi_blkback {
namespace {

constexpr const char* kConnecting = "connecting";
constexpr std::size_t kMaxTargets = 4096;
constexpr std::size_t kMaxPortalsOfTarget = 256;

// Each of these changes what a libiscsi context does behind its user's back.
constexpr std::array kEnvironment = {
    "LIBISCSI_DEBUG",
    "LIBISCSI_TCP_USER_TIMEOUT",
    "LIBISCSI_TCP_KEEPCNT",
    "LIBISCSI_TCP_KEEPINTVL",
    "LIBISCSI_TCP_KEEPIDLE",
    "LIBISCSI_TCP_SYNCNT",
    "LIBISCSI_BIND_INTERFACES",
    "LIBISCSI_CACHE_ALLOCATIONS",
    "LIBISCSI_CHAP_USERNAME",
    "LIBISCSI_CHAP_PASSWORD",
    "LIBISCSI_CHAP_TARGET_USERNAME",
    "LIBISCSI_CHAP_TARGET_PASSWORD",
    "LIBISCSI_IGNORE_NOP_OUT_ON_STUCK_WAITPDU_QUEUE",
    "LIBISCSI_DROP_CONN_ON_ASYNC_EVENT1",
};

// Before main() and thus before there is a thread that could read the environment at the same time.
[[maybe_unused]] const bool kEnvironmentIsClean = [] {
  for (const char* variable : kEnvironment) {
    ::unsetenv(variable);
  }
  return true;
}();

// What the callbacks write; outlives the context, whose destruction calls back once more.
struct Inquiry {
  bool done = false;
  bool failed = false;
  const char* doing = kConnecting;
  std::vector<DiscoveredTarget> targets;
};

using Context = std::unique_ptr<iscsi_context, int (*)(iscsi_context*)>;

void fail_inquiry(Inquiry& inquiry) {
  inquiry.failed = true;
  inquiry.done = true;
}

void take_targets(Inquiry& inquiry, const iscsi_discovery_address* first) {
  for (const iscsi_discovery_address* entry = first;
       entry != nullptr && inquiry.targets.size() < kMaxTargets; entry = entry->next) {
    if (entry->target_name == nullptr) {
      continue;
    }
    DiscoveredTarget target{.name = entry->target_name, .portals = {}};
    for (const iscsi_target_portal* portal = entry->portals;
         portal != nullptr && target.portals.size() < kMaxPortalsOfTarget; portal = portal->next) {
      if (portal->portal != nullptr) {
        if (auto parsed = parse_target_address(portal->portal)) {
          target.portals.push_back(std::move(*parsed));
        }
      }
    }
    // libiscsi prepends to its lists; the target's own order is the other way round.
    std::reverse(target.portals.begin(), target.portals.end());
    inquiry.targets.push_back(std::move(target));
  }
  std::reverse(inquiry.targets.begin(), inquiry.targets.end());
}

void on_discovered(iscsi_context*, int status, void* data, void* owner) {
  auto& inquiry = *static_cast<Inquiry*>(owner);
  if (status != SCSI_STATUS_GOOD) {
    fail_inquiry(inquiry);
    return;
  }
  take_targets(inquiry, static_cast<const iscsi_discovery_address*>(data));
  inquiry.done = true;
}

void on_login(iscsi_context* context, int status, void*, void* owner) {
  auto& inquiry = *static_cast<Inquiry*>(owner);
  inquiry.doing = "asking for its targets";
  if (status != SCSI_STATUS_GOOD || iscsi_discovery_async(context, on_discovered, owner) != 0) {
    inquiry.doing = "logging in";
    fail_inquiry(inquiry);
  }
}

void on_connect(iscsi_context* context, int status, void*, void* owner) {
  auto& inquiry = *static_cast<Inquiry*>(owner);
  if (status != SCSI_STATUS_GOOD) {
    fail_inquiry(inquiry);
    return;
  }
  inquiry.doing = "logging in";
  if (iscsi_login_async(context, on_login, owner) != 0) {
    fail_inquiry(inquiry);
  }
}

Result<void> prepare(iscsi_context* context, const ChapOptions& chap) {
  if (chap.enabled()) {
    // libiscsi draws its challenges with rand(), which nobody else here uses.
    unsigned seed = 0;
    if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
      return fail(ErrorCode::io, "no random bytes for CHAP");
    }
    ::srand(seed);
    if (iscsi_set_initiator_username_pwd(context, chap.username.c_str(), chap.password.c_str()) !=
            0 ||
        (chap.mutual() && iscsi_set_target_username_pwd(context, chap.username_in.c_str(),
                                                        chap.password_in.c_str()) != 0)) {
      return fail(ErrorCode::invalid_argument, "libiscsi does not take the CHAP credentials");
    }
  }
  return {};
}

}  // namespace

Result<std::vector<DiscoveredTarget>> libiscsi_discover(const SocketAddress& portal,
                                                        const std::string& initiator_name,
                                                        std::chrono::milliseconds timeout,
                                                        const ChapOptions& chap) {
  // Real time: this blocks a thread of its own and is no part of a reactor.
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const std::string where = portal.to_string();
  Inquiry inquiry;
  const Context context(iscsi_create_context(initiator_name.c_str()), &iscsi_destroy_context);
  if (!context) {
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("cannot discover targets as {}: not a usable initiator name", initiator_name));
  }
  const auto failed = [&](const char* doing) {
    const char* text = iscsi_get_error(context.get());
    std::string why = text != nullptr ? text : "";
    while (why.ends_with('\n')) {
      why.pop_back();
    }
    return fail(ErrorCode::unavailable,
                fmt::format("discovery at {} failed while {}: {}", where, doing,
                            why.empty() ? "the connection ended" : why));
  };
  iscsi_set_noautoreconnect(context.get(), 1);
  if (auto prepared = prepare(context.get(), chap); !prepared) {
    return fail(prepared.error().code,
                fmt::format("discovery at {} failed: {}", where, prepared.error().message));
  }
  if (iscsi_set_session_type(context.get(), ISCSI_SESSION_DISCOVERY) != 0 ||
      iscsi_set_header_digest(context.get(), ISCSI_HEADER_DIGEST_NONE) != 0 ||
      iscsi_connect_async(context.get(), where.c_str(), on_connect, &inquiry) != 0) {
    return failed("connecting");
  }
  while (!inquiry.done) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      return fail(
          ErrorCode::timed_out,
          fmt::format("discovery at {} got no answer in time while {}", where, inquiry.doing));
    }
    pollfd descriptor{.fd = iscsi_get_fd(context.get()),
                      .events = static_cast<short>(iscsi_which_events(context.get())),
                      .revents = 0};
    // libiscsi's own timers, too, want to be looked after now and then.
    const auto wait = std::min<std::int64_t>(left.count(), 100);
    if (::poll(&descriptor, 1, static_cast<int>(wait)) < 0 && errno != EINTR) {
      return tl::unexpected(system_error("poll", errno));
    }
    if (std::string_view(inquiry.doing) == kConnecting &&
        (descriptor.revents & (POLLERR | POLLHUP)) != 0) {
      // libiscsi's own words would not say why.
      int error = 0;
      socklen_t length = sizeof error;
      if (::getsockopt(descriptor.fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error != 0) {
        return fail(ErrorCode::unavailable,
                    system_error(fmt::format("discovery at {} failed", where), error).message);
      }
    }
    if (iscsi_service(context.get(), descriptor.revents) < 0) {
      return failed(inquiry.doing);
    }
  }
  if (inquiry.failed) {
    return failed(inquiry.doing);
  }
  return std::move(inquiry.targets);
}

}  // namespace iscsi_blkback
