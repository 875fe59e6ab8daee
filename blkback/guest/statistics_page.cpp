#include "blkback/guest/statistics_page.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <new>

namespace iscsi_blkback {
namespace {

constexpr std::size_t kPageBytes = 4096;

// A number of the page, for the one thread that writes it and all who read.
void put(std::uint64_t& shared, std::uint64_t value) {
  std::atomic_ref(shared).store(value, std::memory_order_relaxed);
}

}  // namespace

Result<std::shared_ptr<StatisticsPage>> StatisticsPage::map(const UniqueFd& file) {
  if (const int failure = ::posix_fallocate(file.get(), 0, kPageBytes); failure != 0) {
    return tl::unexpected(system_error("a file for statistics", failure));
  }
  void* const page =
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (page == MAP_FAILED) {
    return tl::unexpected(system_error("mapping a file for statistics", errno));
  }
  return std::shared_ptr<StatisticsPage>(new StatisticsPage(new (page) Vbd3Statistics));
}

StatisticsPage::~StatisticsPage() {
  ::munmap(shared_, kPageBytes);
}

void StatisticsPage::store(const Vbd3Statistics& statistics) noexcept {
  put(shared_->waits_for_room, statistics.waits_for_room);
  put(shared_->reads_submitted, statistics.reads_submitted);
  put(shared_->reads_completed, statistics.reads_completed);
  put(shared_->read_sectors, statistics.read_sectors);
  put(shared_->read_microseconds, statistics.read_microseconds);
  put(shared_->writes_submitted, statistics.writes_submitted);
  put(shared_->writes_completed, statistics.writes_completed);
  put(shared_->written_sectors, statistics.written_sectors);
  put(shared_->write_microseconds, statistics.write_microseconds);
  put(shared_->errors, statistics.errors);
}

Vbd3Statistics StatisticsPage::load() const noexcept {
  return *shared_;  // its only writer is this thread
}

}  // namespace iscsi_blkback
