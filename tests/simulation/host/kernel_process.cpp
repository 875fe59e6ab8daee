#include "tests/simulation/host/kernel_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <map>

#include "base/result.h"

// Declared by the linker (--wrap).
extern "C" {
int __real_open(const char* path, int flags, ...);
int __real_close(int fd);
void* __real_mmap(void* address, std::size_t length, int protection, int flags, int fd, off_t at);
int __real_munmap(void* address, std::size_t length);
pid_t __real_getpid();
int __wrap_open(const char* path, int flags, ...);
int __wrap_close(int fd);
void* __wrap_mmap(void* address, std::size_t length, int protection, int flags, int fd, off_t at);
int __wrap_munmap(void* address, std::size_t length);
pid_t __wrap_getpid();
}

namespace iscsi_blkback {
namespace {

// Of all simulated processes: whoever closes or unmaps it.
std::map<int, KernelProcess*> file_owners;  // by descriptor
struct Mapping {
  KernelProcess* owner = nullptr;
  std::size_t length_bytes = 0;
};
std::map<void*, Mapping> mappings;  // by address

}  // namespace

KernelProcess* KernelProcess::running_ = nullptr;

KernelProcess::~KernelProcess() {
  for (const auto& [fd, owner] : file_owners) {
    ISCSI_BLKBACK_ASSERT(owner != this);
  }
  for (const auto& [address, mapping] : mappings) {
    ISCSI_BLKBACK_ASSERT(mapping.owner != this);
  }
}

void KernelProcess::release_all() {
  std::erase_if(file_owners, [this](const auto& file) {
    return file.second == this && __real_close(file.first) == 0;
  });
  std::erase_if(mappings, [this](const auto& mapping) {
    return mapping.second.owner == this &&
           __real_munmap(mapping.first, mapping.second.length_bytes) == 0;
  });
}

void KernelProcess::opened(int fd) {
  if (running_ != nullptr && fd >= 0) {
    file_owners[fd] = running_;
  }
}

void KernelProcess::closed(int fd) {
  file_owners.erase(fd);
}

void KernelProcess::mapped(void* address, std::size_t length_bytes) {
  if (running_ != nullptr && address != MAP_FAILED) {
    mappings[address] = {running_, length_bytes};
  }
}

void KernelProcess::unmapped(void* address) {
  mappings.erase(address);
}

}  // namespace iscsi_blkback

int __wrap_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  const int fd = __real_open(path, flags, mode);
  iscsi_blkback::KernelProcess::opened(fd);
  return fd;
}

int __wrap_close(int fd) {
  iscsi_blkback::KernelProcess::closed(fd);
  return __real_close(fd);
}

void* __wrap_mmap(void* address, std::size_t length, int protection, int flags, int fd, off_t at) {
  void* mapped = __real_mmap(address, length, protection, flags, fd, at);
  if ((flags & MAP_FIXED) == 0) {  // else within one that is known
    iscsi_blkback::KernelProcess::mapped(mapped, length);
  }
  return mapped;
}

int __wrap_munmap(void* address, std::size_t length) {
  iscsi_blkback::KernelProcess::unmapped(address);
  return __real_munmap(address, length);
}

pid_t __wrap_getpid() {
  const iscsi_blkback::KernelProcess* running = iscsi_blkback::KernelProcess::running();
  return running != nullptr ? running->pid() : __real_getpid();
}
