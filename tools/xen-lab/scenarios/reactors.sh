# A guest's four disks on four reactors of its process: all are written to and verified at once, each reactor is at work
# and has its own sessions, a path of all of them is lost, one disk goes and comes; then all is gone.
# runs on demand: trixie:pvh bookworm:pv
# timeout: 600
# steps: spread cut end
service_top_settings() { echo 'reactors = 4'; }
# Threads that have had half a second of a processor at least.
threads_at_work() { # PID
  awk '{ sub(/^.*\) /, ""); if ($12 + $13 >= 50) count++ } END { print count + 0 }' "/proc/$1/task"/*/stat
}
all_at_work() { [ "$(threads_at_work "$1")" -ge 4 ]; } # PID
all_run() { local count; console_count g '\[all\] running*'; [ "$count" -ge 4 ]; }
scenario() {
  local vdev lun=1 pid
  step spread
  target_start tgt 2 64 64 64 64 64
  guest_vcpus=4 guest_create g "$variant" "$(disk qdisk xvda 1)"
  for vdev in xvdb xvdc xvdd; do
    lun=$((lun + 1))
    attach g "$(disk qdisk $vdev $lun)" || fail "xl block-attach of $vdev failed: $(cat "$scenario_dir/attach.log")"
  done
  guest_start g all "for vdev in xvda xvdb xvdc xvdd; do { fio_iops=30 fio_verify \$vdev 3000 --iodepth=4 || touch /tmp/bad; } & done; wait; [ ! -f /tmp/bad ]"
  wait_until 90 "all four disks are written to" all_run
  pid=$(process_of "$(domid g)")
  wait_until 90 "four threads of process $pid are at work" all_at_work "$pid"
  note "threads at work: $(threads_at_work "$pid")"
  # Each reactor that has disks of the target has a session at each portal.
  [ "$(connections | wc -l)" = 8 ] || fail "there are $(connections | wc -l) connections, not 8"
  show_paths
  step cut
  cut_portal 1 drop
  nap 8
  job_goes_on g all
  restore_portal 1
  wait_until 40 "portal 1 has a connection again" portal_in_use 1
  attach g "$(disk qdisk xvde 5)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g fs 90 'check_filesystem xvde'
  detach g xvde || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  job_goes_on g all
  step end
  guest_start g stop stop_fio
  guest_finish g all 120
  guest_shutdown g
  assert_nothing_left
}
