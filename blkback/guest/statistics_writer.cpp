#include "blkback/guest/statistics_writer.h"

#include <utility>

namespace iscsi_blkback {

StatisticsWriter::StatisticsWriter(Reactor& reactor)
    : timer_(
          reactor,
          [](void* self) noexcept {
            auto& writer = *static_cast<StatisticsWriter*>(self);
            writer.write();
            writer.timer_.start_after(kInterval);
          },
          this) {}

void StatisticsWriter::begin(const Vbd& vbd, std::shared_ptr<StatisticsPage> page) {
  if (page == nullptr) {
    return;
  }
  page_ = std::move(page);
  vbd_ = &vbd;
  earlier_ = page_->load();
  timer_.start_after(kInterval);
}

void StatisticsWriter::end() {
  if (page_ != nullptr) {
    write();
    timer_.stop();
    vbd_ = nullptr;
    page_.reset();
  }
}

void StatisticsWriter::write() {
  Vbd3Statistics now = earlier_;
  now += vbd_->vbd3_statistics();
  page_->store(now);
}

}  // namespace iscsi_blkback
