// A discovery against a target that says anything. First byte odd: the text of an answer, cut into
// pieces as the second byte says. Even: PDUs of a target behind a login, over the simulated
// network, cut anywhere. It always ends, within its time; what it has found is within its bounds
// and free of what no name and no address has; its sentences are printable.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/printable_text.h"
#include "initiator/discovery/discovery_session.h"
#include "tests/support/scripted_target.h"

namespace {

using namespace iscsi_blkback;

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

void check(const Discovery& discovery) {
  require(discovery.targets.size() <= SendTargetsAnswer::kMaxTargets);
  for (const DiscoveredTarget& target : discovery.targets) {
    require(!target.name.empty() && target.name.size() <= 223);
    require(target.portals.size() <= SendTargetsAnswer::kMaxPortalsOfTarget);
    for (const DiscoveredPortal& portal : target.portals) {
      require(!portal.host.empty() && portal.host.size() <= 300 && portal.port != 0);
      require(printable_text(portal.host, 400) == portal.host);
      require(portal.host != "0.0.0.0" && portal.host != "::");
    }
  }
  require(discovery.left_out.size() < 4096);
  require(printable_text(discovery.left_out, 8192) == discovery.left_out);
}

void answer_text(std::string_view text, std::size_t step) {
  SendTargetsAnswer answer({.host = "192.0.2.9", .port = 3260});
  for (std::size_t at = 0; at < text.size(); at += step) {
    // A copy of exactly this length, so that a step past the end is seen.
    const std::string piece(text.substr(at, step));
    if (auto taken = answer.take(piece); !taken) {
      require(!taken.error().message.empty());
      return;
    }
  }
  if (auto discovery = answer.finish()) {
    check(*discovery);
  }
}

// shape: digests, and how the network cuts. Records: flags, tag, length, then so many bytes of
// text.
void play(std::uint8_t shape, std::string_view input) {
  set_log_level(LogLevel::error);
  SimReactor reactor(shape);
  const SocketAddress address = SocketAddress::parse("10.0.0.1", 3260).value();
  ScriptedTarget target(reactor, address);
  NameResolver& resolver =
      system_name_resolver();  // never asked: a redirect needs a login response
  ChapMemory memory;
  DiscoveryOptions options;
  options.initiator_name = "iqn.2026-01.test:i";
  options.addresses = {address};
  options.portal_name = "10.0.0.1:3260";
  if ((shape & 4) != 0) {
    options.header_digest = options.data_digest = DigestOffer::crc32c_or_none;
  }
  reactor.network().set_split(address, SimDirection::to_client, (shape & 8) != 0 ? 5 : 0);
  std::optional<Result<Discovery>> result;
  DiscoverySession session(reactor, options, resolver, memory);
  session.start(
      [](void* slot, Result<Discovery> discovery) noexcept {
        auto& told = *static_cast<std::optional<Result<Discovery>>*>(slot);
        require(!told);
        told = std::move(discovery);
      },
      &result);
  const std::string digest = (shape & 4) != 0 ? "CRC32C" : "None";
  static_cast<void>(target.accept_login({{"HeaderDigest", digest}, {"DataDigest", digest}}));
  while (input.size() >= 3 && !result && target.connected()) {
    const auto flags = static_cast<std::uint8_t>(input[0]);
    const auto tag = static_cast<std::uint8_t>(input[1]);
    const std::size_t length =
        std::min<std::size_t>(static_cast<std::uint8_t>(input[2]), input.size() - 3);
    const auto* data = reinterpret_cast<const std::byte*>(input.data()) + 3;
    const std::vector<std::byte> text(data, data + length);
    input.remove_prefix(3 + length);
    const auto bytes = static_cast<std::uint32_t>(length);
    switch (flags & 7) {
      case 0:
        target.send_bytes(text);
        break;
      case 1:
        target.send(NopInPdu{.target_transfer_tag = tag, .numbers = target.numbers()});
        break;
      case 2:
        target.send(RejectPdu{.reason = tag, .numbers = target.status_numbers()});
        break;
      case 3:
        target.send(
            LogoutResponsePdu{.initiator_task_tag = tag, .numbers = target.status_numbers()});
        break;
      case 4:
        target.reset();
        break;
      default:
        target.send(TextResponsePdu{.final = (flags & 0x80) != 0,
                                    .more = (flags & 0x40) != 0,
                                    .data_bytes = bytes,
                                    .lun = tag,
                                    .initiator_task_tag = (flags & 0x20) != 0 ? tag : 1U,
                                    .target_transfer_tag = tag == 0xff ? kReservedTag : tag,
                                    .numbers = target.status_numbers()},
                    text);
    }
    reactor.run_for(std::chrono::milliseconds(5));
    target.received.clear();
  }
  require(reactor.run_until([&] { return result.has_value(); }, std::chrono::minutes(2)));
  if (*result) {
    check(**result);
  } else {
    require(!result->error().message.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) {
    return 0;
  }
  const std::string_view rest(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  if ((bytes[0] & 1) != 0) {
    answer_text(rest, 1 + bytes[1]);
  } else {
    play(bytes[1], rest);
  }
  return 0;
}
