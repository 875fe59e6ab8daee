// ControlServer: a unix stream socket (mode 0600) on which a service or a guest process answers
// questions. One request is one line of JSON, one reply is one line of JSON, in ASCII and with
// printable strings (json_text.h); a connection may ask several times. Runs on the control thread's
// reactor; a slow or silent client delays nobody: there are at most kMaxClients, each is given
// kClientTimeout, and neither request nor reply grows beyond its bound.
//
// Sockets: RUN_DIRECTORY/service.sock and RUN_DIRECTORY/guest-DOMID.sock.
//
// Request:  {"command":"status"}
// Refusal:  {"ok":false,"error":"one sentence"}
// Done:     {"ok":true}
//
// Requests to a guest process that change one of its disks, multipathd's words where it has them:
//   {"command":"disablequeueing", "devid":51712}      no_path_retry = fail
//   {"command":"restorequeueing", "devid":51712}      no_path_retry as configured
//   {"command":"set", "devid":51712, "setting":"no_path_retry", "value":"120s"}
//     or path_selector, path_grouping_policy
//   {"command":"add_path", "devid":51712, "portal":"192.0.2.3:3260"}
//   {"command":"del_path", "devid":51712, "portal":"192.0.2.3:3260"}
//     both also with "target":"iqn...", if the target is not the disk's; answered when the path has
//     begun to come or to go
//
// Reply of the service:
//   {"ok":true, "type":"service", "version":"0.1.0", "domid":0, "pid":812,
//    "guests":[{"domid":5, "pid":901, "state":"serving", "restarts":0, "adopted":false}]}
//   state: serving | waiting (crashed, to be restarted soon); pid is 0 while waiting; adopted:
//   found running by a restarted service.
//
// Reply of a guest process:
//   {"ok":true, "type":"guest", "version":"0.1.0", "domid":5, "pid":901,
//    "complete":true,              false: the I/O thread did not answer in time; no disk then has
//                                  "map" or "statistics"
//    "disks":[{
//      "vdev":"xvda", "devid":51712, "kind":"qdisk", "mode":"w",
//      "params":"aio:iscsi://192.0.2.1/iqn.2009-02.com.example:t/1",
//                                  as in xenstore; never a secret
//      "state":"Connected",        xenbus names, "Unknown" without a node
//      "frontend_state":"Connected",
//      "hotplug_error":"",         why the disk cannot be used, one sentence; else empty
//      "map":{                     null until the disk's target is resolved; multipathd's key names
//        "name":"xvda", "uuid":"36001405...", "sysfs":"xvda", "failback":"immediate",
//        "queueing":"on",          on | off | "30 sec" (no_path_retry)
//        "paths":2, "write_prot":"rw", "dm_st":"active",
//        "features":"1 queue_if_no_path", "hwhandler":"0", "prio":"const", "pgpolicy":"multibus",
//        "action":"", "path_faults":0, "vend":"IET", "prod":"VIRTUAL-DISK", "rev":"0001",
//        "switch_grp":0, "map_loads":1, "total_q_time":0, "q_timeouts":0,
//        "portal_group_fences":"trial",   as decided: yes, no, trial
//        "size_bytes":1073741824, "ready":true, "queued":0, "held":0,
//        "hedged":0,               reads and flushes that were asked for twice, so far
//        "waiting_for_space":0, "in_flight":0,
//        "path_groups":[{
//          "selector":"round-robin 0", "pri":1, "dm_st":"active", "marginal_st":"normal",
//          "group":1, "paths":[{
//            "dev":"192.0.2.1:3260", "dev_t":"-", "dm_st":"active", "dev_st":"running",
//            "chk_st":"ready",     ready | ghost | faulty | i/o pending; a quarantined path is faulty
//            "checker":"tur", "pri":1, "host_wwnn":"[undef]",
//            "target_wwnn":"iqn.2009-02.com.example:t", "host_wwpn":"[undef]",
//            "target_wwpn":"[undef]", "host_adapter":"[undef]", "lun_hex":"0x0001",
//            "marginal_st":"normal",   normal | marginal
//            "marginal_sec":0,     how many seconds it has been marginal
//            "portal":"storage1:3260", "address":"192.0.2.1:3260", "interface":"",
//            "session_state":"LOGGED IN", "quarantined":false,
//            "suspect":false,      silent for stall_probe: chk_st is i/o pending
//            "fenced_alone":false, portal_group_fences is trial, and no fence through another portal
//                                  has proven that it ends this path's tasks
//            "in_flight":0, "requests":10, "failures":0, "last_error":""}]}]},
//      "statistics":{              null while no ring is mapped
//        "read_requests":0, "write_requests":0, "flush_requests":0, "discard_requests":0,
//        "error_responses":0, "read_sectors":0, "written_sectors":0, "discarded_sectors":0,
//        "in_flight":0, "held_flushes":0}         failed, and tried again
//    }]}
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/reactor.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace iscsi_blkback {

class ControlServer {
 public:
  // Hands over one reply line (without the newline), at once or later, on the same thread; a reply
  // for a client that has gone is dropped.
  using Reply = std::function<void(std::string line)>;
  // request: one line, at most kMaxRequestBytes, not yet parsed. Reply must be called once.
  using Handler = std::function<void(const std::string& request, Reply reply)>;

  static constexpr std::size_t kMaxClients = 16;
  static constexpr std::size_t kMaxRequestBytes = 4096;
  static constexpr std::size_t kMaxReplyBytes = 4 * 1024 * 1024;
  static constexpr std::chrono::seconds kClientTimeout{5};

  // Replaces a stale socket file at path; the folder must exist. Errors: invalid_argument (the path is too long);
  // the system call's.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> listen(Reactor& control,
                                                                     const std::string& path,
                                                                     Handler handler);
  // The two halves of listen(), where another process makes the socket.
  [[nodiscard]] static Result<UniqueFd> open_socket(const std::string& path);
  [[nodiscard]] static std::unique_ptr<ControlServer> serve(Reactor& control, UniqueFd socket,
                                                            const std::string& path,
                                                            Handler handler);
  ~ControlServer();  // closes every connection and removes the file
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  class Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The socket that the process of this guest, or the service, listens on.
[[nodiscard]] std::string guest_socket_path(const std::string& run_directory, unsigned domain);
[[nodiscard]] std::string service_socket_path(const std::string& run_directory);

[[nodiscard]] std::string control_refusal(const std::string& sentence);
[[nodiscard]] std::string control_answer(const Result<void>& result);

}  // namespace iscsi_blkback
