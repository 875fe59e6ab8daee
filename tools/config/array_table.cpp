#include "tools/config/array_table.h"

#include "tools/config/config_reader.h"

namespace iscsi_blkback {

const ArrayTable& built_in_arrays() {
  static const ArrayTable table = [] {
    const toml::parse_result parsed = toml::parse(array_table_text());
    ISCSI_BLKBACK_ASSERT(parsed.succeeded() && "arrays.toml is no TOML");
    auto rows = read_arrays(parsed.table(), "arrays.toml");
    ISCSI_BLKBACK_ASSERT(rows && "arrays.toml has a row that is not allowed");
    return *std::move(rows);
  }();
  return table;
}

}  // namespace iscsi_blkback
