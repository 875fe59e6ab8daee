// BufferPool: a fixed number of page-aligned buffers of one size, made before I/O begins. What the
// I/O path takes and gives back never allocates, and running out is a bound, not an error. One
// thread.
//
// Last in, first out: the buffer that was used last is the one that is still in the caches.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/result.h"

namespace iscsi_blkback {

class BufferPool {
 public:
  static constexpr std::size_t kPageBytes = 4096;

  // buffer_bytes: a multiple of kPageBytes. Memory is touched here, so that no page fault comes
  // later. Errors: invalid_argument, exhausted.
  [[nodiscard]] static Result<std::unique_ptr<BufferPool>> create(std::size_t buffer_bytes,
                                                                  std::size_t capacity);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();  // every buffer has been released by now

  // Null: none is free. The contents are whatever the last user left.
  [[nodiscard]] std::byte* acquire();
  void release(std::byte* buffer);

  [[nodiscard]] std::size_t buffer_bytes() const { return buffer_bytes_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t available() const { return free_.size(); }

 private:
  BufferPool(std::byte* memory, std::size_t buffer_bytes, std::size_t capacity);

  std::byte* memory_;
  std::size_t buffer_bytes_;
  std::size_t capacity_;
  std::vector<std::byte*> free_;  // a stack
};

}  // namespace iscsi_blkback
