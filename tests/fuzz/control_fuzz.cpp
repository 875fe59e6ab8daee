// A request at a guest process's control socket: any line ends in a wish within its bounds or in a
// sentence, and the answer is one line whatever was asked.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "blkback/guest/control_request.h"
#include "blkback/guest/disk_wishes.h"
#include "blkback/process/control_server.h"
#include "multipath/attach/disk_target.h"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace iscsi_blkback;
  const std::string line(reinterpret_cast<const char*>(data), size);
  const Result<ControlRequest> request = parse_control_request(line);
  require_sentence(request);
  if (!request) {
    return 0;
  }
  require(!request->command.empty());
  const Result<PathChoice> choice = parse_path_choice(*request);
  require_sentence(choice);
  if (choice) {
    require(!choice->portal.host.empty() && choice->portal.port != 0);
    require(choice->target_name.size() <= kMaxIscsiNameBytes);
    const DiskPlan plan = plan_paths(DiskPlan{}, *choice);
    require(plan.portals.size() == 1 && plan.target_name == choice->target_name);
    ResolvedPortal path;
    path.portal = choice->portal;
    path.target_name = choice->target_name;
    require(choice->includes(path));
  }
  const Result<PathPolicySettings> policies = parse_policy_change(*request);
  require_sentence(policies);
  require_sentence(parse_no_path_retry(request->value, std::chrono::seconds(5)));
  return 0;
}
