#include "blkback/guest/control_request.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace iscsi_blkback {

Result<ControlRequest> parse_control_request(const std::string& line) {
  const nlohmann::json request = nlohmann::json::parse(line, nullptr, false);
  if (!request.is_object()) {
    return fail(ErrorCode::invalid_argument, "the request is not a JSON object");
  }
  ControlRequest parsed;
  const auto text = [&request](const char* key, std::string& value) {
    const auto found = request.find(key);
    if (found != request.end() && found->is_string()) {
      value = found->get<std::string>();
    }
  };
  text("command", parsed.command);
  text("setting", parsed.setting);
  text("value", parsed.value);
  text("portal", parsed.portal);
  text("target", parsed.target);
  if (parsed.command.empty()) {
    return fail(ErrorCode::invalid_argument, "the request has no \"command\"");
  }
  if (parsed.command == "status") {
    return parsed;
  }
  const auto device = request.find("devid");
  if (device == request.end() || !device->is_number_unsigned() ||
      device->get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
    return fail(ErrorCode::invalid_argument, "the request has no \"devid\"");
  }
  parsed.device_id = device->get<std::uint32_t>();
  return parsed;
}

}  // namespace iscsi_blkback
