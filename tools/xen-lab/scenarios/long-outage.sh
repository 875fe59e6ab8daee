# Every path is gone for five minutes, one by resets and one in silence; the guest waits and goes on.
# On demand only: it takes six minutes.
# runs on demand: bookworm:- trixie:-
# timeout: 600
scenario() {
  target_start tgt 2
  guest_create g pv "$(disk qdisk xvda 1)"
  guest_start g fio 'fio_verify xvda 3600'
  guest_says g fio 30 running
  sleep 3
  cut_portal 1 reset
  cut_portal 2 drop
  for minute in 1 2 3 4 5; do
    sleep 60
    tell "no path since $minute min"
    job_goes_on g fio
  done
  show_paths
  restore_portal 1
  restore_portal 2
  for n in 1 2; do wait_until 20 "the path through portal $n is ready" path_is $n ready; done
  sleep 3
  guest_start g stop stop_fio
  guest_finish g fio 60
  guest_shutdown g
  assert_nothing_left
}
