// ReportQueries: questions to the I/O side how its disks fare. Each is answered once: with the
// reports, or without them when they do not come in time. Owned by GuestBackend, control thread
// only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/reactor.h"
#include "blkback/guest/data_plane.h"

namespace iscsi_blkback {

class ReportQueries {
 public:
  // reports: null when there are none; its own to take from.
  using Done = std::function<void(std::vector<DiskReport>* reports)>;

  // data_plane outlives it and, once this is gone, answers no more.
  ReportQueries(Reactor& control, DataPlane& data_plane);
  ~ReportQueries();
  ReportQueries(const ReportQueries&) = delete;
  ReportQueries& operator=(const ReportQueries&) = delete;

  // Not answered from inside, and at most kTimeout later. Beyond kMaxWaiting the I/O side is not
  // asked.
  void ask(Done done);

  static constexpr std::chrono::milliseconds kTimeout{500};
  static constexpr std::size_t kMaxWaiting = 32;

 private:
  struct Query;

  void answer(const Query& query, std::vector<DiskReport>* reports);

  Reactor& control_;
  DataPlane& data_plane_;
  std::vector<std::unique_ptr<Query>> queries_;
  std::uint64_t next_number_ = 1;
};

}  // namespace iscsi_blkback
