# The process of a guest runs as a user of its own, without root's rights, and everything that a guest's life takes
# still works: I/O, a lost path, a disk that comes and goes, a reboot, files that somebody removes. (Portals that are
# asked for: lines.sh.)
# runs: trixie:pvh bookworm:pv
# tools/test runs: bookworm:pv
# timeout: 500
# steps: rights work files killed
helper_of() { pgrep -P "$1" -x blkback-helper; } # PID
is_in_status() { grep -qE "^$2:[[:space:]]+$3\$" "/proc/$1/status"; } # PID FIELD VALUE
has_given_up() { is_in_status "$1" Seccomp 2; } # PID
expect_rights() { # PID DOMID
  local task user=$((1879048192 + 1 + $2))
  wait_until 20 "process $1 has entered its sandbox" has_given_up "$1"
  for task in "/proc/$1/task"/*; do
    task=${task##*/}
    is_in_status "$1/task/$task" Uid "(${user}[[:space:]]*){4}" || fail "thread $task is another user: $(grep Uid "/proc/$1/task/$task/status")"
    is_in_status "$1/task/$task" Gid '(1879048192[[:space:]]*){4}' || fail "thread $task has another group"
    is_in_status "$1/task/$task" Groups '' || fail "thread $task has more groups"
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
      is_in_status "$1/task/$task" $set 0000000000000000 || fail "thread $task has capabilities: $(grep Cap "/proc/$1/task/$task/status")"
    done
    is_in_status "$1/task/$task" NoNewPrivs 1 || fail "thread $task could gain rights by a program"
    is_in_status "$1/task/$task" Seccomp 2 || fail "thread $task has no filter"
  done
}
expect_descriptors() { # PID DOMID
  local fd to
  ls -l "/proc/$1/fd"
  for fd in "/proc/$1/fd"/*; do
    to=$(readlink "$fd") || continue   # closed meanwhile
    case $to in
      /dev/null | pipe:* | socket:* | anon_inode:* | /dev/xen/gntdev | /dev/xen/evtchn) ;;
      */iscsi-blkback.log | /run/iscsi-blkback/guest-"$2".lock | /run/iscsi-blkback/barrier | /run/iscsi-blkback/barrier/*) ;;
      *) fail "descriptor ${fd##*/} of process $1 is $to" ;;
    esac
  done
}
sandboxed() { # GUEST
  local id pid
  id=$(domid "$1")
  pid=$(process_of "$id")
  [ -n "$pid" ] || fail "no process serves guest $1"
  expect_rights "$pid" "$id"
  expect_descriptors "$pid" "$id"
  [ -n "$(helper_of "$pid")" ] || fail "process $pid has no helper"
}
socket_is_there() { [ -S "/run/iscsi-blkback/guest-$1.sock" ] && [ -f "/run/iscsi-blkback/guest-$1.lock" ] && show_paths | grep -q "xvda"; } # DOMID
scenario() {
  local id pid helper
  step rights
  target_start tgt 2 64 64
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  guest_start g fio 'fio_verify xvda 600'
  guest_says g fio 60 running
  sandboxed g
  step work
  cut_portal 1 reset
  sleep 3
  restore_portal 1
  wait_until 30 "portal 1 has a connection again" portal_in_use 1
  attach g "$(disk qdisk xvdc 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g fio-c 60 'fio_verify xvdc 3'
  sandboxed g
  detach g xvdc || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  job_goes_on g fio
  guest_start g stop stop_fio
  guest_finish g fio 60
  guest_start g reboot 'reboot -f'
  guest_up g 2
  guest_run g fio-2 60 'fio_verify xvda 3'
  sandboxed g
  step files
  # Somebody cleans up: the helper makes them anew.
  id=$(domid g)
  rm "/run/iscsi-blkback/guest-$id.lock" "/run/iscsi-blkback/guest-$id.sock" "/run/iscsi-blkback/guest-$id.xenstore"
  wait_until 20 "the lock and the control socket are back, and answer" socket_is_there "$id"
  guest_run g fio-3 60 'fio_verify xvda 3'
  step killed
  # However a process ends, its helper goes with it.
  pid=$(process_of "$id")
  helper=$(helper_of "$pid")
  kill -KILL "$pid"
  wait_until 10 "the helper $helper has gone with its process" not kill -0 "$helper"
  guest_destroy g
  assert_nothing_left
  ! grep -E 'not let through|helper of this process has gone' /tmp/results/iscsi-blkback.log || fail "the log says that something was refused"
  ! dmesg | grep 'type=1326' || fail "the kernel has refused a system call"
}
