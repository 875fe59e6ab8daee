#include "base/link_watch.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/interface_binding.h"

namespace iscsi_blkback {
namespace {

// net/if.h, which has the other flags, lacks it: the driver has a carrier.
constexpr unsigned kLowerUp = 1U << 16;
constexpr std::size_t kMessagesBytes = 32 * 1024;  // the kernel sends no larger ones

}  // namespace

std::vector<int> links_down(std::span<const std::byte> messages) {
  std::vector<int> down;
  while (messages.size() >= NLMSG_HDRLEN) {
    nlmsghdr header{};
    std::memcpy(&header, messages.data(), sizeof header);
    if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > messages.size()) {
      break;
    }
    if ((header.nlmsg_type == RTM_NEWLINK || header.nlmsg_type == RTM_DELLINK) &&
        header.nlmsg_len >= NLMSG_LENGTH(sizeof(ifinfomsg))) {
      ifinfomsg link{};
      std::memcpy(&link, messages.data() + NLMSG_HDRLEN, sizeof link);
      const bool up = (link.ifi_flags & IFF_UP) != 0 && (link.ifi_flags & kLowerUp) != 0;
      const bool lost = header.nlmsg_type == RTM_DELLINK || !up;
      if (link.ifi_family == AF_UNSPEC && lost) {
        down.push_back(link.ifi_index);
      }
    }
    messages =
        messages.subspan(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), messages.size()));
  }
  return down;
}

bool has_link(int interface_index) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  request.ifr_ifindex = interface_index;
  if (ioctl(fd.get(), SIOCGIFNAME, &request) != 0 || ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) {
    return errno != ENODEV;
  }
  return (request.ifr_flags & IFF_UP) != 0 && (request.ifr_flags & IFF_RUNNING) != 0;
}

int interface_of_socket(int fd) {
  SocketAddress local;
  local.length_bytes = sizeof local.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&local.storage), &local.length_bytes) != 0) {
    return 0;
  }
  const Result<std::string> name = interface_having(local);
  return name ? static_cast<int>(if_nametoindex(name->c_str())) : 0;
}

Result<std::unique_ptr<LinkWatch>> LinkWatch::create(Reactor& reactor, Callback callback,
                                                     void* owner) {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (!fd.valid() ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return tl::unexpected(system_error("cannot watch the network interfaces' links", errno));
  }
  std::unique_ptr<LinkWatch> watch(new LinkWatch(std::move(fd), callback, owner));
  watch->watch_ = reactor.watch_readable(
      watch->socket_.get(),
      [](void* self) noexcept { static_cast<LinkWatch*>(self)->on_readable(); }, watch.get());
  return watch;
}

void LinkWatch::on_readable() {
  alignas(nlmsghdr) std::array<std::byte, kMessagesBytes> messages;
  bool lost_messages = false;
  for (;;) {
    sockaddr_nl sender{};
    socklen_t sender_bytes = sizeof sender;
    const ssize_t got = recvfrom(socket_.get(), messages.data(), messages.size(), MSG_TRUNC,
                                 reinterpret_cast<sockaddr*>(&sender), &sender_bytes);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0 && errno == ENOBUFS) {
      lost_messages = true;  // more than the socket had room for
      continue;
    }
    if (got <= 0) {
      break;
    }
    if (sender.nl_pid != 0) {
      continue;  // not the kernel
    }
    lost_messages |= static_cast<std::size_t>(got) > messages.size();
    const std::size_t size = std::min(static_cast<std::size_t>(got), messages.size());
    for (const int index : links_down(std::span(messages).first(size))) {
      callback_(owner_, index);
    }
  }
  if (lost_messages) {
    callback_(owner_, kAnyInterface);
  }
}

}  // namespace iscsi_blkback
