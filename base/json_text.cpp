#include "base/json_text.h"

#include <nlohmann/json.hpp>

#include "base/printable_text.h"

namespace iscsi_blkback {
namespace {

using nlohmann::json;

json printable(const json& value) {
  if (value.is_string()) {
    return printable_text(value.get_ref<const std::string&>(), kMaxJsonStringBytes);
  }
  if (value.is_array()) {
    json array = json::array();
    for (const json& element : value) {
      array.push_back(printable(element));
    }
    return array;
  }
  if (value.is_object()) {
    json object = json::object();
    for (const auto& [key, element] : value.items()) {
      object[printable_text(key, kMaxJsonStringBytes)] = printable(element);
    }
    return object;
  }
  return value;
}

}  // namespace

std::string json_text(const json& document, int indent) {
  return printable(document).dump(indent, ' ', /*ensure_ascii=*/true,
                                  json::error_handler_t::replace);
}

}  // namespace iscsi_blkback
