// StatisticsPage: the page of a file that another process reads a disk's statistics from as it
// likes (xentop, see statistics_folder.h). Each number in it is whole at all times; numbers that belong
// together may be one store apart.
//
// Made on the control thread; from then on the I/O side writes it, with no lock and no system call.
// Whoever lets go of it last unmaps it.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "blkback/ring/vbd3_statistics.h"

namespace iscsi_blkback {

class StatisticsPage {
 public:
  // file: empty. The page is there for good: a full file system shows here, and not by SIGBUS later.
  [[nodiscard]] static Result<std::shared_ptr<StatisticsPage>> map(const UniqueFd& file);
  ~StatisticsPage();
  StatisticsPage(const StatisticsPage&) = delete;
  StatisticsPage& operator=(const StatisticsPage&) = delete;

  // Reactor thread.
  void store(const Vbd3Statistics& statistics) noexcept;
  [[nodiscard]] Vbd3Statistics load() const noexcept;

 private:
  explicit StatisticsPage(Vbd3Statistics* shared) : shared_(shared) {}
  Vbd3Statistics* shared_;
};

}  // namespace iscsi_blkback
