// SimTarget: a well-behaved iSCSI target in memory, on the simulated network: portals, portal
// groups, LUNs, sessions with reinstatement, immediate and solicited data. What it does wrong, it
// does because a test asked for it (SimFault, set_hung, refuse_logins ...).
//
// A command whose bytes had all arrived when its connection ended may still execute, after its
// delay and linger_delay, unless a login with the same initiator name, ISID and portal group has
// terminated it (RFC 7143 6.3.5) or the target was stopped. That is what makes a blind retry
// dangerous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "initiator/pdu/pdu.h"
#include "tests/support/sim_lun.h"
#include "tests/support/sim_network.h"
#include "tests/support/target_options.h"

namespace iscsi_blkback {

class SimConnection;
class SimTargetConnection;

struct SimPortal {
  SocketAddress address;
  std::uint16_t group_tag = 1;
  // Nodes know nothing of each other's sessions and tasks, whatever the groups' tags say, and of the
  // LUN they share what it holds and which keys are registered.
  unsigned node = 0;
};

struct SimTargetOptions : TargetOptions {
  std::vector<SimPortal> portals;
  // Relative target port identifier of the first portal; each has one of its own.
  std::uint16_t first_relative_port = 1;
  Duration command_delay{};
  Duration command_jitter{};  // more than 0 reorders
  Duration linger_delay{};
  bool single_threaded = false;  // one command at a time: the next begins when one has ended
  // Since the initiator's end of a connection is gone: for how long what is on its way may still
  // become a command, and for how long a command may still be executed. 0: for ever.
  Duration late_arrival_limit{};
  Duration late_execution_limit{};
  // LUNs that only the one who logged in by this name of chap_secrets can see.
  std::map<std::uint16_t, std::string> lun_owners = {};
};

// One command as a fault's filter sees it.
struct SimCommand {
  std::size_t portal = 0;
  std::string initiator_name = {};
  Isid isid{};
  std::uint16_t lun = 0;
  Cdb cdb{};
  std::uint32_t expected_bytes = 0;
  std::string chap_name = {};  // of the session
};

// What happens to commands in place of, or in addition to, their execution.
struct SimFault {
  std::function<bool(const SimCommand&)> matches = {};  // empty: every command
  std::uint32_t count = 1;       // how many commands it takes; 0: all from now on
  bool execute = false;          // execute as well (its own status is not reported)
  bool answer = true;            // false: never answered
  bool hold = false;             // wait for release_held()
  bool drop_connection = false;  // instead of the answer
  Duration extra_delay{};
  std::uint8_t response_code = 0;  // of the iSCSI response
  ScsiStatus status = ScsiStatus::good;
  std::vector<std::byte> sense = {};  // make_sense(...)
  std::uint32_t cut_bytes = 0;        // reads: so many bytes less than asked, as underflow
  std::uint32_t overflow_bytes = 0;   // says that so much more was to be transferred
  std::optional<std::vector<std::byte>> data = {};  // of a read, in place of what it would be
};

// What happens to task management functions in place of their execution.
struct SimFunctionFault {
  bool answer = true;         // false: never answered
  bool execute = true;        // do what was asked for, where answered
  std::uint8_t response = 0;  // of the answer; 0: the true one
  Duration delay{};           // executed and answered so much later
};

// Hears what happens at a target. A command is known by its connection's number (SimConnection)
// and its initiator task tag.
class SimTargetObserver {
 public:
  // terminated: tasks that ended with it, of an older session of the same name and ISID.
  virtual void on_login(std::uint64_t connection, std::size_t portal, const Isid& isid,
                        std::size_t terminated) = 0;
  // With all of its data.
  virtual void on_command(std::uint64_t connection, std::uint32_t tag,
                          const SimCommand& command) = 0;
  // It has been executed, or never will be.
  virtual void on_command_over(std::uint64_t connection, std::uint32_t tag) = 0;
  // No command of it that is not complete yet ever will be.
  virtual void on_connection_gone(std::uint64_t connection) = 0;

 protected:
  ~SimTargetObserver() = default;
};

[[nodiscard]] bool is_read(const SimCommand& command);
[[nodiscard]] bool is_write(const SimCommand& command);

class SimTarget {
 public:
  SimTarget(SimReactor& reactor, SimTargetOptions options);
  ~SimTarget();  // resets every connection
  SimTarget(const SimTarget&) = delete;
  SimTarget& operator=(const SimTarget&) = delete;

  void set_observer(SimTargetObserver* observer) { observer_ = observer; }

  void add_lun(std::uint16_t number, std::shared_ptr<SimLun> lun);
  void remove_lun(std::uint16_t number);
  [[nodiscard]] SimLun& lun(std::uint16_t number) { return *luns_.at(number); }

  // Faults take effect in the order in which they were added; the first that matches wins.
  void inject(SimFault fault);
  void clear_faults() { faults_.clear(); }
  void release_held();
  [[nodiscard]] std::size_t held() const { return held_.size(); }
  // nullopt: as they are meant. For the function given.
  void fault_functions(TaskFunction function, std::optional<SimFunctionFault> fault);
  void add_unit_attention(std::uint16_t code);  // for every session that exists now, every LUN

  // Login status (e.g. 0x0203) of every login at this portal from now on; 0: accept.
  void refuse_logins(std::size_t portal, std::uint16_t status);
  // One bit of the next PDU with data that goes to an initiator is turned over on its way.
  void damage_next_data() { damage_next_data_ = true; }
  // Where logins at this portal are sent, for now (status 0x0101) or for good (0x0102); empty:
  // nowhere.
  void redirect_logins(std::size_t portal, std::string address, std::uint16_t status = 0x0101);
  // MaxCmdSN stays where it is, whatever is answered.
  void keep_window_closed(bool closed) { window_closed_ = closed; }
  // A hung target: connections stay, nothing is read, executed or answered until it goes on.
  void set_hung(bool hung);
  // The process dies: connections are reset, tasks are gone; media stay. And comes back.
  void stop();
  void start();
  void close_portal(std::size_t portal);  // connections reset, new ones refused
  void open_portal(std::size_t portal);
  // To every connection.
  void ping();
  void send_async_message(AsyncEvent event, std::uint16_t parameter1 = 0,
                          std::uint16_t parameter2 = 0, std::uint16_t parameter3 = 0);
  void send_scsi_event(std::uint16_t lun, SenseKey key, std::uint16_t code);

  [[nodiscard]] const SocketAddress& address(std::size_t portal) const {
    return options_.portals[portal].address;
  }
  [[nodiscard]] std::size_t sessions() const;  // logged in
  // Without those whose initiator has gone, which only the target does not know.
  [[nodiscard]] std::size_t living_sessions() const;
  // Registered for persistent reservations of a LUN.
  [[nodiscard]] std::vector<std::uint64_t> keys(std::uint16_t lun) const;
  void forget_keys() { keys_.clear(); }
  [[nodiscard]] std::size_t sessions_at(std::size_t portal) const;

  struct Counters {
    std::uint64_t logins = 0;
    std::uint64_t logouts = 0;
    std::uint64_t reinstatements = 0;
    std::uint64_t terminated_tasks = 0;      // by reinstatement or stop
    std::uint64_t executed_after_close = 0;  // writes of a connection that was gone
    std::uint64_t pings_answered = 0;        // by the initiator
    std::uint64_t aborts = 0;                // ABORT TASK received
    std::uint64_t resets = 0;                // of a LUN or the target, received
    std::uint64_t preemptions = 0;           // PREEMPT AND ABORT, done
    std::uint64_t aborted_tasks = 0;         // by any of them
  };
  Counters counters;
  // What initiators did against RFC 7143; a test expects none.
  std::vector<std::string> violations;
  SimTargetOptions& options() { return options_; }  // for later logins and commands

 private:
  friend class SimTargetConnection;
  class Portal;
  struct Task;

  // How many tasks it has terminated.
  std::size_t reinstate(const SimTargetConnection& successor);
  void arrived(std::shared_ptr<Task> task);
  void execute(const std::shared_ptr<Task>& task);
  [[nodiscard]] SimScsiResult perform(Task& task);
  // PERSISTENT RESERVE OUT: keys only, nobody reserves.
  [[nodiscard]] SimScsiResult reserve_out(const Task& task);
  [[nodiscard]] std::optional<SimFault> take_fault(const SimCommand& command);
  void schedule_execution(std::shared_ptr<Task> task, Duration delay);
  [[nodiscard]] bool may_see(const SimCommand& command) const;
  void over(const Task& task);
  void forget(SimTargetConnection& connection);
  // Returns the response (11.6.1).
  [[nodiscard]] std::uint8_t manage(SimTargetConnection& connection,
                                    const TaskManagementRequestPdu& request);
  [[nodiscard]] bool of_one_node(const Task& task, std::size_t portal) const;
  [[nodiscard]] std::size_t abort(const std::function<bool(const Task&)>& which);
  void terminate(const std::function<bool(const Task&)>& which);
  [[nodiscard]] std::vector<std::shared_ptr<SimTargetConnection>> connections() const;

  SimReactor& reactor_;
  SimTargetOptions options_;
  SimTargetObserver* observer_ = nullptr;
  TimePoint busy_until_{};  // single_threaded
  std::map<std::uint16_t, std::shared_ptr<SimLun>> luns_;
  std::vector<std::unique_ptr<Portal>> portals_;
  std::list<SimFault> faults_;
  std::list<std::shared_ptr<Task>> tasks_;  // arrived and neither executed nor terminated
  std::vector<std::shared_ptr<Task>> held_;
  std::vector<std::shared_ptr<Task>> hung_tasks_;
  std::vector<std::shared_ptr<Task>> stuck_;  // never to be answered
  std::map<TaskFunction, SimFunctionFault> function_faults_;
  // Of a LUN: by initiator port (name and ISID).
  std::map<std::uint16_t, std::map<std::pair<std::string, Isid>, std::uint64_t>> keys_;
  bool hung_ = false;
  bool damage_next_data_ = false;
  bool window_closed_ = false;
  std::uint16_t next_tsih_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // events outlive the target
};

}  // namespace iscsi_blkback
