#include "tests/support/sim_target.h"

#include <algorithm>

#include "base/byte_order.h"
#include "initiator/scsi/persistent_reservation.h"
#include "tests/support/sim_target_connection.h"

namespace iscsi_blkback {

bool is_read(const SimCommand& command) {
  const auto range = transfer_of(command.cdb);
  return range && !range->write;
}

bool is_write(const SimCommand& command) {
  const auto range = transfer_of(command.cdb);
  return (range && range->write) || command.cdb[0] == scsi_operation::kUnmap ||
         command.cdb[0] == scsi_operation::kWriteSame16;
}

void SimTarget::Portal::open() {
  if (!listener_) {
    listener_ = target_.reactor_.network().listen(target_.options_.portals[index_].address, *this);
  }
}

void SimTarget::Portal::close() {
  listener_.reset();
  const auto closing = connections;
  for (const auto& connection : closing) {
    connection->kill();
  }
}

void SimTarget::Portal::on_accept(std::unique_ptr<SimStream> stream) noexcept {
  auto connection = std::make_shared<SimTargetConnection>(target_, index_, std::move(stream));
  connections.push_back(connection);
  connection->begin();
}

SimTarget::SimTarget(SimReactor& reactor, SimTargetOptions options)
    : reactor_(reactor), options_(std::move(options)) {
  for (std::size_t index = 0; index < options_.portals.size(); ++index) {
    portals_.push_back(std::make_unique<Portal>(*this, index));
    portals_.back()->open();
  }
}

SimTarget::~SimTarget() {
  stop();
  *alive_ = false;
}

void SimTarget::add_lun(std::uint16_t number, std::shared_ptr<SimLun> lun) {
  luns_[number] = std::move(lun);
}

void SimTarget::remove_lun(std::uint16_t number) {
  luns_.erase(number);
}

void SimTarget::inject(SimFault fault) {
  faults_.push_back(std::move(fault));
}

void SimTarget::release_held() {
  const auto held = std::exchange(held_, {});
  for (const auto& task : held) {
    schedule_execution(task, {});
  }
}

void SimTarget::add_unit_attention(std::uint16_t code) {
  for (const auto& connection : connections()) {
    if (connection->logged_in()) {
      for (const auto& [number, lun] : luns_) {
        connection->unit_attentions[number].push_back(code);
      }
    }
  }
}

void SimTarget::refuse_logins(std::size_t portal, std::uint16_t status) {
  portals_[portal]->login_status = status;
}

void SimTarget::redirect_logins(std::size_t portal, std::string address, std::uint16_t status) {
  portals_[portal]->redirect_status = status;
  portals_[portal]->redirect = std::move(address);
}

void SimTarget::set_hung(bool hung) {
  hung_ = hung;
  if (hung) {
    return;
  }
  for (const auto& task : std::exchange(hung_tasks_, {})) {
    schedule_execution(task, {});
  }
  for (const auto& connection : connections()) {
    connection->resume();
  }
}

void SimTarget::stop() {
  terminate([](const Task&) { return true; });
  for (const auto& portal : portals_) {
    portal->close();
  }
}

void SimTarget::start() {
  for (const auto& portal : portals_) {
    portal->open();
  }
}

void SimTarget::close_portal(std::size_t portal) {
  portals_[portal]->close();
}
void SimTarget::open_portal(std::size_t portal) {
  portals_[portal]->open();
}

void SimTarget::ping() {
  for (const auto& connection : connections()) {
    connection->ping();
  }
}

void SimTarget::send_async_message(AsyncEvent event, std::uint16_t parameter1,
                                   std::uint16_t parameter2, std::uint16_t parameter3) {
  for (const auto& connection : connections()) {
    connection->send_async_message(event, parameter1, parameter2, parameter3);
  }
}

void SimTarget::send_scsi_event(std::uint16_t lun, SenseKey key, std::uint16_t code) {
  for (const auto& connection : connections()) {
    connection->send_scsi_event(lun, key, code);
  }
}

std::size_t SimTarget::sessions() const {
  std::size_t count = 0;
  for (std::size_t portal = 0; portal < portals_.size(); ++portal) {
    count += sessions_at(portal);
  }
  return count;
}

std::size_t SimTarget::living_sessions() const {
  const auto all = connections();
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [](const auto& connection) {
    return connection->logged_in() && !connection->client_gone();
  }));
}

std::size_t SimTarget::sessions_at(std::size_t portal) const {
  const auto& connections = portals_[portal]->connections;
  return static_cast<std::size_t>(
      std::count_if(connections.begin(), connections.end(),
                    [](const auto& connection) { return connection->logged_in(); }));
}

std::vector<std::shared_ptr<SimTargetConnection>> SimTarget::connections() const {
  std::vector<std::shared_ptr<SimTargetConnection>> all;
  for (const auto& portal : portals_) {
    all.insert(all.end(), portal->connections.begin(), portal->connections.end());
  }
  return all;
}

// A login has succeeded: the old session of the same nexus, and everything it left, ends first.
std::size_t SimTarget::reinstate(const SimTargetConnection& successor) {
  const SimPortal& at = options_.portals[successor.portal];
  const std::uint64_t before = counters.terminated_tasks;
  terminate([&](const Task& task) {
    return task.command.initiator_name == successor.initiator_name() &&
           task.command.isid == successor.isid() && task.group_tag == at.group_tag &&
           of_one_node(task, successor.portal);
  });
  const std::uint64_t terminated = counters.terminated_tasks - before;
  bool replaced = terminated != 0;
  for (const auto& other : connections()) {
    const SimPortal& place = options_.portals[other->portal];
    if (other.get() != &successor && other->logged_in() && other->same_initiator(successor) &&
        place.group_tag == at.group_tag && place.node == at.node) {
      other->kill();
      replaced = true;
    }
  }
  counters.reinstatements += replaced ? 1 : 0;
  return terminated;
}

bool SimTarget::may_see(const SimCommand& command) const {
  const auto owner = options_.lun_owners.find(command.lun);
  return owner == options_.lun_owners.end() || owner->second == command.chap_name;
}

void SimTarget::over(const Task& task) {
  if (observer_ != nullptr) {
    observer_->on_command_over(task.wire->number(), task.initiator_task_tag);
  }
}

void SimTarget::terminate(const std::function<bool(const Task&)>& which) {
  tasks_.remove_if([&](const std::shared_ptr<Task>& task) {
    if (!which(*task)) {
      return false;
    }
    task->terminated = true;
    ++counters.terminated_tasks;
    over(*task);
    return true;
  });
  std::erase_if(held_, [](const auto& task) { return task->terminated; });
  std::erase_if(hung_tasks_, [](const auto& task) { return task->terminated; });
  std::erase_if(stuck_, [&](const auto& task) { return which(*task); });
}

void SimTarget::fault_functions(TaskFunction function, std::optional<SimFunctionFault> fault) {
  if (fault) {
    function_faults_[function] = *fault;
  } else {
    function_faults_.erase(function);
  }
}

bool SimTarget::of_one_node(const Task& task, std::size_t portal) const {
  return options_.portals[task.command.portal].node == options_.portals[portal].node;
}

// Tasks of any connection; those of other initiators end without an answer (TAS is 0).
std::size_t SimTarget::abort(const std::function<bool(const Task&)>& which) {
  std::size_t count = 0;
  const auto end = [&](const std::shared_ptr<Task>& task) {
    if (!which(*task)) {
      return false;
    }
    task->terminated = true;
    ++count;
    ++counters.aborted_tasks;
    over(*task);
    if (const auto connection = task->connection.lock()) {
      connection->task_aborted();
    }
    return true;
  };
  tasks_.remove_if(end);
  std::erase_if(stuck_, end);
  std::erase_if(held_, [](const auto& task) { return task->terminated; });
  std::erase_if(hung_tasks_, [](const auto& task) { return task->terminated; });
  return count;
}

std::uint8_t SimTarget::manage(SimTargetConnection& connection,
                               const TaskManagementRequestPdu& request) {
  const std::uint16_t lun = addressed_lun(request.lun);
  const auto own = [&](const Task& task) { return task.connection.lock().get() == &connection; };
  const auto here = [&](const Task& task) { return of_one_node(task, connection.portal); };
  switch (request.function) {
    case TaskFunction::abort_task:
      ++counters.aborts;
      return abort([&](const Task& task) {
               return own(task) && task.initiator_task_tag == request.referenced_task_tag;
             }) != 0 ||
                     connection.forget_write(request.referenced_task_tag)
                 ? 0
                 : 1;
    case TaskFunction::abort_task_set:
      static_cast<void>(
          abort([&](const Task& task) { return own(task) && task.command.lun == lun; }));
      return 0;
    case TaskFunction::logical_unit_reset:
      ++counters.resets;
      static_cast<void>(
          abort([&](const Task& task) { return here(task) && task.command.lun == lun; }));
      return luns_.contains(lun) ? 0 : 2;
    case TaskFunction::target_warm_reset:
    case TaskFunction::target_cold_reset:
      ++counters.resets;
      static_cast<void>(abort(here));
      return 0;
  }
  return 5;
}

std::optional<SimFault> SimTarget::take_fault(const SimCommand& command) {
  for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
    if (fault->matches && !fault->matches(command)) {
      continue;
    }
    SimFault taken = *fault;
    if (fault->count != 0 && --fault->count == 0) {
      faults_.erase(fault);
    }
    return taken;
  }
  return std::nullopt;
}

void SimTarget::arrived(std::shared_ptr<Task> task) {
  tasks_.push_back(task);
  if (observer_ != nullptr) {
    observer_->on_command(task->wire->number(), task->initiator_task_tag, task->command);
  }
  task->fault = take_fault(task->command);
  Duration delay = options_.command_delay;
  if (options_.command_jitter.count() > 0) {
    delay += Duration{static_cast<std::int64_t>(reactor_.schedule_random().below(
        static_cast<std::uint64_t>(options_.command_jitter.count())))};
  }
  if (task->fault) {
    delay += task->fault->extra_delay;
    if (task->fault->hold) {
      task->fault->hold = false;
      held_.push_back(std::move(task));
      return;
    }
  }
  if (options_.single_threaded) {
    const TimePoint now = reactor_.now();
    busy_until_ = std::max(busy_until_, now) + delay;
    delay = busy_until_ - now;
  }
  schedule_execution(std::move(task), delay);
}

void SimTarget::schedule_execution(std::shared_ptr<Task> task, Duration delay) {
  reactor_.schedule(delay, [this, alive = alive_, task = std::move(task)] {
    if (*alive) {
      execute(task);
    }
  });
}

void SimTarget::execute(const std::shared_ptr<Task>& task) {
  if (task->terminated) {
    return;
  }
  if (hung_) {
    hung_tasks_.push_back(task);
    return;
  }
  const std::optional<TimePoint> gone = task->wire->client_gone_since();
  if (gone && options_.late_execution_limit != Duration::zero() &&
      reactor_.now() - *gone > options_.late_execution_limit) {
    terminate([&](const Task& late) { return &late == task.get(); });
    return;
  }
  const std::shared_ptr<SimTargetConnection> connection = task->connection.lock();
  const bool connected = connection && !connection->dead();
  if (!connected && !task->lingered && options_.linger_delay.count() > 0) {
    task->lingered = true;
    schedule_execution(task, options_.linger_delay);
    return;
  }
  tasks_.remove(task);
  SimScsiResult result;
  if (!task->fault || task->fault->execute) {
    result = perform(*task);
    if (!connected && is_write(task->command) && result.status == ScsiStatus::good) {
      ++counters.executed_after_close;
    }
  }
  over(*task);
  if (!connected) {
    return;
  }
  if (task->fault) {
    if (task->fault->drop_connection) {
      connection->kill();
      return;
    }
    if (!task->fault->answer) {
      stuck_.push_back(task);
      return;
    }
    if (task->fault->data) {
      result = {.status = ScsiStatus::good, .sense = {}, .data = *task->fault->data};
      result.data.resize(std::min<std::size_t>(result.data.size(), task->command.expected_bytes));
    } else if (task->fault->cut_bytes != 0) {
      result = perform(*task);
      result.data.resize(result.data.size() -
                         std::min<std::size_t>(result.data.size(), task->fault->cut_bytes));
    } else {
      const bool plain = task->fault->status == ScsiStatus::good &&
                         task->fault->response_code == 0 && task->fault->sense.empty();
      if (plain && !task->fault->execute) {
        result = perform(*task);  // a fault that only delays or holds
      } else if (!plain) {
        result = {.status = task->fault->status, .sense = task->fault->sense, .data = {}};
      }
    }
  }
  connection->answer_task(*task, result);
}

SimScsiResult SimTarget::perform(Task& task) {
  const auto connection = task.connection.lock();
  const auto found = luns_.find(task.command.lun);
  const std::uint8_t operation = task.command.cdb[0];
  if (operation == scsi_operation::kReportLuns) {
    std::vector<std::uint16_t> numbers;
    for (const auto& [number, lun] : luns_) {
      numbers.push_back(number);
    }
    return report_luns(task.command.cdb, numbers);
  }
  if (found == luns_.end() || !may_see(task.command)) {
    return answer_without_lun(task.command.cdb);
  }
  if (connection && operation != scsi_operation::kInquiry) {
    auto& attentions = connection->unit_attentions[task.command.lun];
    if (!attentions.empty()) {
      const std::uint16_t code = attentions.front();
      attentions.pop_front();
      return check_condition(SenseKey::unit_attention, code);
    }
  }
  if (operation == scsi_operation::kPersistentReserveOut) {
    return reserve_out(task);
  }
  return found->second->execute(
      task.command.cdb, task.data,
      static_cast<std::uint16_t>(options_.first_relative_port + task.command.portal));
}

SimScsiResult SimTarget::reserve_out(const Task& task) {
  constexpr std::uint16_t kInvalidFieldInCdb = 0x2400;
  constexpr std::uint16_t kInvalidFieldInList = 0x2600;
  const SimScsiResult conflict{.status = ScsiStatus::reservation_conflict};
  auto& keys = keys_[task.command.lun];
  const std::pair port(task.command.initiator_name, task.command.isid);
  if (task.data.size() < kReserveOutListBytes) {
    return check_condition(SenseKey::illegal_request, kInvalidFieldInList);
  }
  const std::uint64_t key = load_be64(task.data.data());
  const std::uint64_t action_key = load_be64(task.data.data() + 8);
  switch (static_cast<ReserveOutAction>(task.command.cdb[1] & 0x1f)) {
    case ReserveOutAction::register_and_ignore_existing_key:
      if (action_key != 0) {
        keys[port] = action_key;
      } else {
        keys.erase(port);
      }
      return {};
    case ReserveOutAction::preempt_and_abort: {
      if ((task.command.cdb[2] & 0x0f) == 0) {  // as LIO does
        return check_condition(SenseKey::illegal_request, kInvalidFieldInCdb);
      }
      const auto own = keys.find(port);
      const bool known = std::any_of(keys.begin(), keys.end(), [action_key](const auto& entry) {
        return entry.second == action_key;
      });
      if (own == keys.end() || own->second != key || !known) {
        return conflict;
      }
      ++counters.preemptions;
      static_cast<void>(abort([&](const Task& other) {
        const auto registered =
            keys.find(std::pair(other.command.initiator_name, other.command.isid));
        return &other != &task && other.command.lun == task.command.lun &&
               of_one_node(other, task.command.portal) && registered != keys.end() &&
               registered->second == action_key;
      }));
      std::erase_if(keys, [action_key](const auto& entry) { return entry.second == action_key; });
      return {};
    }
    default:
      return check_condition(SenseKey::illegal_request, 0x2000);
  }
}

std::vector<std::uint64_t> SimTarget::keys(std::uint16_t lun) const {
  std::vector<std::uint64_t> all;
  if (const auto found = keys_.find(lun); found != keys_.end()) {
    for (const auto& [port, key] : found->second) {
      all.push_back(key);
    }
  }
  return all;
}

void SimTarget::forget(SimTargetConnection& connection) {
  // Not now: the connection is in a callback of its stream.
  reactor_.schedule(
      {}, [this, alive = alive_, portal = connection.portal, gone = connection.weak_from_this()] {
        if (*alive) {
          std::erase_if(portals_[portal]->connections,
                        [&](const auto& other) { return other == gone.lock(); });
        }
      });
}

}  // namespace iscsi_blkback
