# A target that works on one command at a time, for 3 s on each read, and answers nothing meanwhile, not even a NOP-Out:
# longer than path_timeout. The guest's reads are answered: what was given up once is waited for, and then how long the
# target needs is known.
# On demand only: CI has half an hour for everything; it has the same without a guest (lunex_slow_target_test).
# runs on demand: bookworm:- trixie:-
null_port() { echo $((4000 + scenario_index)); }
scenario() {
  : > "$scenario_dir/null_target.log"
  /usr/libexec/iscsi-blkback/null_target --port "$(null_port)" --name "$(target_iqn)" --lun 1 --size 64 \
    --busy 3000 > "$scenario_dir/null_target.log" 2>&1 &
  echo $! > "$scenario_dir/null_target.pid"
  wait_until 20 "the null target listens" grep -q '^iscsi://' "$scenario_dir/null_target.log"
  guest_create g pv "$(disk_of qdisk xvda "iscsi://127.0.0.1:$(null_port)/$(target_iqn)/1")"
  guest_run g slow 200 'for i in 1 2 3 4; do
    dd if=/dev/xvda of=/dev/null bs=4k count=1 skip=$((i * 1000)) iflag=direct || exit 1
  done'
  given_up=$(grep -c 'has stopped answering' /tmp/results/iscsi-blkback.log)
  note "given up $given_up times"
  [ "$given_up" -le 3 ] || fail "the target was given up $given_up times"
  guest_shutdown g
  assert_nothing_left
}
