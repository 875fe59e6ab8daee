// Secret: a password. Its text is on the heap only, never inside of an object that may be on a
// stack, since a core dump that an operator has allowed holds the threads' stacks (core_dumps.h).
// Copies share the text. Any thread, each its own copy.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

namespace iscsi_blkback {

class Secret {
 public:
  Secret() = default;
  template <class Text>
  requires(std::is_convertible_v<const Text&, std::string_view> && !std::same_as<Text, Secret>)
      Secret(const Text& text) {  // NOLINT: written where a std::string would be
    const std::string_view characters = text;
    if (!characters.empty()) {
      std::vector<char> copy(characters.begin(), characters.end());
      copy.push_back('\0');
      text_ = std::make_shared<const std::vector<char>>(std::move(copy));
    }
  }

  [[nodiscard]] std::size_t size() const { return text_ == nullptr ? 0 : text_->size() - 1; }
  [[nodiscard]] bool empty() const { return text_ == nullptr; }
  [[nodiscard]] const char* c_str() const { return text_ == nullptr ? "" : text_->data(); }
  operator std::string_view() const { return {c_str(), size()}; }  // NOLINT: as above
  void clear() { text_.reset(); }

  friend bool operator==(const Secret& one, const Secret& other) {
    return std::string_view(one) == std::string_view(other);
  }
  template <class Text>
  requires(std::is_convertible_v<const Text&, std::string_view> &&
           !std::same_as<Text, Secret>) friend bool
  operator==(const Secret& secret, const Text& text) {
    return std::string_view(secret) == std::string_view(text);
  }

 private:
  std::shared_ptr<const std::vector<char>> text_;  // ends with a null byte; null: empty
};

// Overwrites what functions that have returned have left on this thread's stack, some pages of it.
void wipe_stack();

}  // namespace iscsi_blkback
