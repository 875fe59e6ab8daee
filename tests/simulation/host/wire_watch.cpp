#include "tests/simulation/host/wire_watch.h"

#include <algorithm>
#include <cstring>

namespace iscsi_blkback {
namespace {

// RFC 7143 11.2.1, 11.3.
constexpr std::uint8_t kOpcodeMask = 0x3f;
constexpr std::uint8_t kScsiCommand = 0x01;
constexpr std::uint8_t kTaskManagement = 0x02;
constexpr std::uint8_t kLogicalUnitReset = 5;  // 11.5.1
constexpr std::size_t kCdbOffset = 32;
// SBC-4: WRITE(10), UNMAP, WRITE(16), WRITE SAME(16).
constexpr std::uint8_t kWrites[] = {0x2a, 0x42, 0x8a, 0x93};

std::uint32_t big_endian(const std::uint8_t* bytes, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) {
    value = value << 8 | bytes[i];
  }
  return value;
}

}  // namespace

SimTargetObserver& WireWatch::observer_of(std::size_t target) {
  std::unique_ptr<TargetObserver>& observer = observers_[target];
  if (observer == nullptr) {
    observer = std::make_unique<TargetObserver>(*this, target);
  }
  return *observer;
}

bool WireWatch::writes_over(unsigned computer, std::size_t target, std::uint16_t lun,
                            TimePoint sent_until) {
  const TimePoint now = reactor_.now();
  return std::none_of(connections_.begin(), connections_.end(), [&](const auto& entry) {
    const Connection& connection = entry.second;
    const std::optional<TimePoint> client_gone = connection.wire->client_gone_since();
    if (connection.computer != computer || connection.target != target ||
        (client_gone && now - *client_gone > late_limit_)) {
      return false;
    }
    return std::any_of(connection.writes.begin(), connection.writes.end(), [&](const auto& write) {
      return write.second.lun == lun && write.second.sent_at <= sent_until;
    });
  });
}

void WireWatch::on_client_sends(SimConnection& connection, SimReactor& sender,
                                std::span<const iovec> parts) {
  Connection& at = connections_[connection.number()];
  if (at.wire == nullptr) {
    forget_old_connections();
    at.wire = connection.shared_from_this();
    at.target = owner_.target_at(connection.link().name);
    at.computer = sender.computer();
  }
  for (const iovec& part : parts) {
    const auto* bytes = static_cast<const std::uint8_t*>(part.iov_base);
    std::size_t left = part.iov_len;
    while (left > 0) {
      if (at.skip_bytes > 0) {
        const std::size_t skipped = std::min(left, at.skip_bytes);
        at.skip_bytes -= skipped;
        bytes += skipped;
        left -= skipped;
        continue;
      }
      const std::size_t count = std::min(left, kHeaderBytes - at.header_bytes);
      std::memcpy(at.header.data() + at.header_bytes, bytes, count);
      at.header_bytes += count;
      bytes += count;
      left -= count;
      if (at.header_bytes == kHeaderBytes) {
        at.header_bytes = 0;
        const std::size_t data = big_endian(at.header.data() + 5, 3);
        at.skip_bytes = std::size_t{at.header[4]} * 4 + (data + 3) / 4 * 4;
        on_header(at, sender);
      }
    }
  }
}

void WireWatch::on_header(Connection& connection, const SimReactor& sender) {
  const std::uint8_t* header = connection.header.data();
  const auto lun = static_cast<std::uint16_t>(big_endian(header + 8, 2) & 0x3fff);
  if ((header[0] & kOpcodeMask) == kTaskManagement && (header[1] & 0x7f) == kLogicalUnitReset) {
    owner_.on_lun_reset(sender, lun);
    return;
  }
  if ((header[0] & kOpcodeMask) != kScsiCommand ||
      std::find(std::begin(kWrites), std::end(kWrites), header[kCdbOffset]) == std::end(kWrites)) {
    return;
  }
  if (!connection.gone) {
    connection.writes[big_endian(header + 16, 4)] = {.lun = lun, .sent_at = reactor_.now()};
  }
  owner_.on_write_sent(sender, connection.target, lun);
}

WireWatch::Connection* WireWatch::find(std::uint64_t number) {
  const auto found = connections_.find(number);
  return found == connections_.end() ? nullptr : &found->second;
}

// A connection that only the target has ended may still be sent on.
void WireWatch::forget_old_connections() {
  std::erase_if(connections_, [](const auto& entry) {
    const Connection& connection = entry.second;
    return connection.gone && connection.writes.empty() &&
           connection.wire->client_gone_since().has_value();
  });
}

void WireWatch::TargetObserver::on_login(std::uint64_t /*connection*/, std::size_t portal,
                                         const Isid& isid, std::size_t terminated) {
  const std::size_t usual = portals_.emplace(isid, portal).first->second;
  watch_.owner_.on_login(terminated, usual != portal);
}

void WireWatch::TargetObserver::on_command(std::uint64_t connection, std::uint32_t tag,
                                           const SimCommand& command) {
  if (Connection* at = watch_.find(connection)) {
    if (const auto write = at->writes.find(tag); write != at->writes.end()) {
      write->second.arrived = true;
    }
  }
  watch_.owner_.on_command_arrived(target_, command);
}

void WireWatch::TargetObserver::on_command_over(std::uint64_t connection, std::uint32_t tag) {
  if (Connection* at = watch_.find(connection)) {
    at->writes.erase(tag);
  }
}

void WireWatch::TargetObserver::on_connection_gone(std::uint64_t connection) {
  if (Connection* at = watch_.find(connection)) {
    at->gone = true;
    std::erase_if(at->writes, [](const auto& write) { return !write.second.arrived; });
  }
}

}  // namespace iscsi_blkback
