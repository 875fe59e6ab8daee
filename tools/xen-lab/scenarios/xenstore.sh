# xenstored fails under a guest with I/O.
#   quota   what the guest may have in xenstore is used up: a further disk does not connect, and can be detached; with room
#           again the next one connects
#   killed  xenstored dies, a path is lost meanwhile, and one that has forgotten everything is started; I/O never stops. The guest
#           is destroyed, which only the hypervisor can tell, and nothing of it is left
# runs on demand: trixie:pvh bookworm:pv
# runs alone: nobody else can live without xenstored
# timeout: 400
# steps: quota killed
fill_quota() { # DOMID
  local data=/local/domain/$1/data n=0 pairs
  while [ $n -lt 1200 ]; do
    pairs=''
    for _ in $(seq 100); do n=$((n + 1)); pairs+=" $data/full/$n x"; done
    # shellcheck disable=SC2086
    xenstore-write $pairs || return 0
  done
}
backend_state() { xenstore-read "$(backend_node g "$1")/state" 2> /dev/null; } # VDEV
no_node() { [ -z "$(backend_node g "$1")" ]; } # VDEV
quota() {
  local id; id=$(domid g)
  fill_quota "$id"
  guest_run g quota 30 'true'
  attach g "$(disk qdisk xvdb 2)" || note "xl block-attach: $(cat "$scenario_dir/attach.log")"
  nap 5
  note "xvdb is in state $(backend_state xvdb), its frontend in $(xenstore-read "/local/domain/$id/device/vbd/51728/state")"
  [ "$(backend_state xvdb)" != 4 ] || fail "the disk has connected: the quota was not full"
  goes_on g fio
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  wait_until 30 "the node of xvdb is gone" no_node xvdb
  xenstore-rm "/local/domain/$id/data/full"
  attach g "$(disk qdisk xvdc 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g fs 90 'check_filesystem xvdc'
  goes_on g fio
}
killed() {
  local id pid program ticks lines log=/tmp/results/iscsi-blkback.log
  id=$(domid g)
  pid=$(pgrep -x oxenstored) || fail "there is no oxenstored"
  program=$(readlink "/proc/$pid/exe")
  lines=$(wc -l < $log)
  kill -KILL "$pid"
  note "xenstored is killed"
  cut_portal 1 drop
  goes_on g fio
  ticks=$(service_cpu_ticks)
  sleep 10
  ticks=$(($(service_cpu_ticks) - ticks))
  restore_portal 1
  wait_until 60 "portal 1 has a connection again" portal_in_use 1
  goes_on g fio
  rm -f /run/xenstore.pid
  "$program" --pid-file /run/xenstore.pid || fail "$program does not start again"
  wait_until 20 "xenstored answers" xenstore-exists /
  note "a new xenstored runs: $(xenstore-ls -f / | wc -l) nodes"
  nap 15
  goes_on g fio
  lines=$(($(wc -l < $log) - lines))
  tail -n "$lines" $log | sed 's/^/  /'
  note "the service and its processes used $ticks ticks in 10 s without xenstored, and have logged $lines lines"
  [ "$lines" -lt 40 ] || fail "$lines lines were logged"
  timeout $((60 * patience)) xl destroy "$id" || note "xl destroy $id: status $?"
  # It has the console's page mapped and hears of no end either.
  kill "$(pgrep -x xenconsoled)"
  wait_until 40 "domain $id is gone from Xen, so no grant of it is mapped" is_gone "$id"
  wait_until 40 "no process serves domain $id" has_no_child "$id"
  wait_until 20 "no session is left at the target" has_no_sessions
  assert_service_healthy
}
scenario() {
  step quota
  target_start tgt 2
  tgt --mode target --op update --tid 1 --name nop_interval --value 2
  tgt --mode target --op update --tid 1 --name nop_count --value 2
  guest_create g "$variant" "$(disk qdisk xvda 1)"
  begin_fio g fio
  quota
  step killed
  killed
}
