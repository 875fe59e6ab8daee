#include "blkback/control/control_protocol.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json_text.h"

namespace iscsi_blkback {

std::string guest_socket_path(const std::string& run_directory, unsigned domain) {
  return fmt::format("{}/guest-{}.sock", run_directory, domain);
}

std::string service_socket_path(const std::string& run_directory) {
  return run_directory + "/service.sock";
}

std::string control_answer(const Result<void>& result) {
  return result ? "{\"ok\":true}" : control_refusal(result.error().message);
}

std::string control_refusal(const std::string& sentence) {
  return json_text({{"ok", false}, {"error", sentence}});
}

}  // namespace iscsi_blkback
