#include "blkback/xen/domain_info.h"

namespace iscsi_blkback {

bool is_refusal(ErrorCode code) {
  return code == ErrorCode::permission_denied || code == ErrorCode::not_found ||
         code == ErrorCode::unsupported;
}

const char* to_string(DomainLife life) {
  switch (life) {
    case DomainLife::running:
      return "running";
    case DomainLife::shut_down:
      return "shut down";
    case DomainLife::dying:
      return "dying";
    case DomainLife::gone:
      return "gone";
  }
  return "?";
}

const char* to_string(ShutdownReason reason) {
  switch (reason) {
    case ShutdownReason::poweroff:
      return "poweroff";
    case ShutdownReason::reboot:
      return "reboot";
    case ShutdownReason::suspend:
      return "suspend";
    case ShutdownReason::crash:
      return "crash";
    case ShutdownReason::watchdog:
      return "watchdog";
    case ShutdownReason::soft_reset:
      return "soft reset";
  }
  return "?";
}

}  // namespace iscsi_blkback
