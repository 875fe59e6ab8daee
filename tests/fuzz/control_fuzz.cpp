// A request at a guest process's control socket: any line ends in a change within its bounds or in a
// sentence, and the answer is one line whatever was asked.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>

#include "blkback/control/control_protocol.h"
#include "blkback/process/control_request.h"
#include "multipath/attach/disk_url.h"

namespace {

void require(bool condition) {
  if (!condition) {
    __builtin_trap();
  }
}

template <typename Value>
void require_sentence(const iscsi_blkback::Result<Value>& result) {
  if (!result) {
    require(!result.error().message.empty());
    const std::string answer =
        iscsi_blkback::control_answer(tl::unexpected(iscsi_blkback::Error(result.error())));
    for (const char c : answer) {
      require(c >= ' ' && c <= '~');
    }
    require(nlohmann::json::parse(answer, nullptr, false).is_object());
  }
}

void require_bounds(const iscsi_blkback::PathChoice& path) {
  using namespace iscsi_blkback;
  require(!path.portal.host.empty() && path.portal.port != 0);
  require(path.target_name.size() <= kMaxIscsiNameBytes);
  const DiskConfig config = config_for_paths(DiskConfig{}, path);
  require(config.portals.size() == 1 && config.target_name == path.target_name);
  ResolvedPortal resolved;
  resolved.portal = path.portal;
  resolved.target_name = path.target_name;
  require(path.includes(resolved));
}
void require_bounds(const iscsi_blkback::AddPath& change) {
  require_bounds(change.path);
}
void require_bounds(const iscsi_blkback::RemovePath& change) {
  require_bounds(change.path);
}
void require_bounds(const iscsi_blkback::SetNoPathRetry& change) {
  const iscsi_blkback::NoPathRetry wait = change.wait.with(std::chrono::seconds(5));
  require(!wait || (wait->count() >= 0 && *wait <= std::chrono::seconds(5 * 86400)));
}
void require_bounds(const iscsi_blkback::RestoreNoPathRetry&) {}
void require_bounds(const iscsi_blkback::SetPolicies& change) {
  require(change.policies.path_selector.has_value() !=
          change.policies.path_grouping_policy.has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace iscsi_blkback;
  const std::string line(reinterpret_cast<const char*>(data), size);
  const Result<StatusRequest> of_the_service = parse_service_request(line);
  require_sentence(of_the_service);
  const Result<GuestRequest> request = parse_guest_request(line);
  require_sentence(request);
  require(!of_the_service || (request && std::holds_alternative<StatusRequest>(*request)));
  if (const auto* change = request ? std::get_if<DiskChange>(&*request) : nullptr) {
    std::visit([](const auto& what) { require_bounds(what); }, change->what);
  }
  return 0;
}
