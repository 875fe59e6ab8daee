// What is wrong with a line that is no TOML, said to somebody who knows iscsid.conf and
// multipath.conf, not TOML: mostly a text without its quotation marks. Pure; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace iscsi_blkback {

struct TomlMistake {
  std::size_t column = 1;  // 1 is the line's first
  std::string sentence;    // does not repeat a value, which may be a password
};

// line: on which the parser stopped, at this column, with these words.
[[nodiscard]] TomlMistake explain_toml_mistake(std::string_view line, std::size_t column,
                                               std::string_view words);

}  // namespace iscsi_blkback
