#include "base/block_device.h"

namespace iscsi_blkback {

const char* to_string(IoStatus status) {
  switch (status) {
    case IoStatus::ok:
      return "ok";
    case IoStatus::medium_error:
      return "medium error";
    case IoStatus::target_error:
      return "target error";
    case IoStatus::not_supported:
      return "not supported";
    case IoStatus::out_of_range:
      return "out of range";
    case IoStatus::write_protected:
      return "write protected";
    case IoStatus::no_space:
      return "no space";
    case IoStatus::reservation_conflict:
      return "reservation conflict";
    case IoStatus::no_path:
      return "no path";
    case IoStatus::aborted:
      return "aborted";
  }
  return "unknown status";
}

const char* to_string(BlockOperation operation) {
  switch (operation) {
    case BlockOperation::read:
      return "read";
    case BlockOperation::write:
      return "write";
    case BlockOperation::flush:
      return "flush";
    case BlockOperation::discard:
      return "discard";
  }
  return "unknown operation";
}

}  // namespace iscsi_blkback
