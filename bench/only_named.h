// What --only means: the rows of a table whose names contain one of some parts. Any thread.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace iscsi_blkback {

// name_of(row): its name. only: empty: all stay.
template <class Row, class NameOf>
void keep_only_named(std::vector<Row>& rows, const std::vector<std::string>& only,
                     NameOf&& name_of) {
  if (only.empty()) {
    return;
  }
  std::erase_if(rows, [&](const Row& row) {
    const std::string name = name_of(row);
    return std::none_of(only.begin(), only.end(), [&name](const std::string& part) {
      return name.find(part) != std::string::npos;
    });
  });
}

}  // namespace iscsi_blkback
