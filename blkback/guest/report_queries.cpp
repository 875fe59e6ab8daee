#include "blkback/guest/report_queries.h"

#include <algorithm>
#include <utility>

namespace iscsi_blkback {

struct ReportQueries::Query {
  Query(ReportQueries& owner, std::uint64_t own_number, Done callback)
      : queries(owner),
        number(own_number),
        done(std::move(callback)),
        timer(owner.control_, &Query::on_timeout, this) {}
  static void on_timeout(void* self) noexcept {
    const Query& query = *static_cast<Query*>(self);
    query.queries.answer(query, nullptr);
  }

  ReportQueries& queries;
  const std::uint64_t number;
  Done done;
  Timer timer;
};

ReportQueries::ReportQueries(Reactor& control, DataPlane& data_plane)
    : control_(control), data_plane_(data_plane) {}

ReportQueries::~ReportQueries() = default;

void ReportQueries::ask(Done done) {
  queries_.push_back(std::make_unique<Query>(*this, next_number_++, std::move(done)));
  Query& added = *queries_.back();
  if (queries_.size() > kMaxWaiting) {
    added.timer.start_after(Duration::zero());
    return;
  }
  added.timer.start_after(kTimeout);
  data_plane_.query([this, number = added.number](std::vector<DiskReport> reports) {
    const auto waiting = std::find_if(queries_.begin(), queries_.end(),
                                      [&](const auto& query) { return query->number == number; });
    if (waiting != queries_.end()) {
      answer(**waiting, &reports);
    }
  });
}

void ReportQueries::answer(const Query& query, std::vector<DiskReport>* reports) {
  const auto found = std::find_if(queries_.begin(), queries_.end(),
                                  [&](const auto& other) { return other.get() == &query; });
  const std::unique_ptr<Query> answered = std::move(*found);
  queries_.erase(found);
  answered->done(reports);
}

}  // namespace iscsi_blkback
