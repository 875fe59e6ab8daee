// The control sockets' protocol: what iscsi-blkctl, or any other program, asks the service and the guests'
// processes, and what they answer. One request is one line of JSON, one reply is one line of JSON, in ASCII
// and with printable strings (json_text.h); a connection may ask several times. The server's end is
// blkback/process/control_server.h, iscsi-blkctl's is tools/ctl/status_client.h. Pure.
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

#include <cstddef>
#include <string>

#include "base/result.h"

namespace iscsi_blkback {

// Neither line is longer; what is, is refused by whom it reaches.
inline constexpr std::size_t kMaxControlRequestBytes = 4096;
inline constexpr std::size_t kMaxControlReplyBytes = 4 * 1024 * 1024;

// The socket that the process of this guest, or the service, listens on.
[[nodiscard]] std::string guest_socket_path(const std::string& run_directory, unsigned domain);
[[nodiscard]] std::string service_socket_path(const std::string& run_directory);

// The replies to a request that asks for nothing: refused, with why; done, or why not.
[[nodiscard]] std::string control_refusal(const std::string& sentence);
[[nodiscard]] std::string control_answer(const Result<void>& result);

}  // namespace iscsi_blkback
