# What else happens to paths, under a guest that writes and verifies over eight of them: one is lost, a
# cable is pulled, the target stops and goes on (with what it had not executed yet), the target is silent for 3 s before
# each answer, a path comes and goes once a second, the target sends logins elsewhere.
# On demand only: CI has half an hour for everything.
# runs on demand: bookworm:-
# steps: one-of-8 link-down target-stopped target-slow flapping redirect
one_of_eight() {
  cut_portal 3 drop
  wait_until 10 "the path through portal 3 is down" path_is 3 faulty
  for n in 1 2 4 5 6 7 8; do path_is $n ready || fail "portal 3 was cut, and the path through portal $n is not ready"; done
  restore_portal 3
  wait_until 20 "the path through portal 3 is ready" path_is 3 ready
}
link_loss_told() { grep -q "$(portal 2):3260.* lost its link" /tmp/results/iscsi-blkback.log; }
cable_pulled() {
  link_down 2
  wait_until 10 "the log says that the link is lost" link_loss_told   # and not only that nobody answers
  wait_until 10 "the path whose link is down is down" path_is 2 faulty
  link_up 2
  wait_until 20 "the path whose link is up again is ready" path_is 2 ready
}
target_stopped() {
  local pid; pid=$(tgtd_pid)
  [ -n "$pid" ] || fail "there is no tgtd"
  kill -STOP "$pid"
  sleep 4     # twice the path_timeout: every path is given up, and what they carried goes elsewhere
  show_paths
  job_goes_on g fio
  kill -CONT "$pid"
  wait_until 30 "a path is ready" path_is 1 ready
}
# Longer than path_timeout, pings included, on all paths alike: what the target does complete is waited for.
target_slow() {
  local pid; pid=$(tgtd_pid)
  [ -n "$pid" ] || fail "there is no tgtd"
  : > "$scenario_dir/slow"
  while [ -e "$scenario_dir/slow" ] && kill -STOP "$pid"; do
    sleep 3; kill -CONT "$pid"; sleep 0.3
  done &
  guest_run g slow 120 'dd if=/dev/xvda of=/dev/null bs=4k count=4 iflag=direct'
  rm "$scenario_dir/slow"
  wait $!
  wait_until 30 "a path is ready" path_is 1 ready
}
flapping() {
  for turn in 1 2 3 4 5 6 7 8 9 10; do
    cut_portal 1 reset
    nap 0.5
    restore_portal 1
    nap 0.5
  done
  show_paths
  wait_until 20 "the path through portal 1 is ready" path_is 1 ready
}
# The LUN moves to another member of the array, like an EqualLogic's: the first tgtd sends whoever logs in
# to a second one, which serves the same disk at a portal that the disk line does not name.
redirected() {
  other_tgt_start 9
  tgt_redirect 9
  cut_portal 1 reset
  restore_portal 1
  wait_until 20 "a session is at the portal that the target sends to" portal_in_use 9
  wait_until 20 "the redirected path is ready" path_is 1 ready
  for n in 2 3 4 5 6 7 8; do cut_portal $n reset; done
  sleep 2     # the redirected path alone
  show_paths
  job_goes_on g fio
  for n in 2 3 4 5 6 7 8; do restore_portal $n; done
}
scenario() {
  step one-of-8
  network_start 9          # portal 9 is the second tgtd's
  truncate -s 64M "$scenario_dir/disk.1"
  tgt_start 8 1
  guest_create g pv "$(disk qdisk xvda 1 8)"
  guest_start g fio 'fio_verify xvda 600'
  guest_says g fio 30 running
  for n in 1 2 3 4 5 6 7 8; do wait_until 20 "the path through portal $n is ready" path_is $n ready; done
  one_of_eight;   job_goes_on g fio
  step link-down
  cable_pulled;   job_goes_on g fio
  step target-stopped
  target_stopped; job_goes_on g fio
  step target-slow
  target_slow;    job_goes_on g fio
  step flapping
  flapping;       job_goes_on g fio
  step redirect
  redirected
  guest_start g stop stop_fio
  # A newer write to what portal 1 has lost waits for quiesce_time: the second tgtd fences nothing of the first.
  guest_finish g fio 90
  assert_no_kernel_path
  guest_shutdown g
  assert_nothing_left
}
