# A target that works on one command at a time, for 3 s on each read, and answers nothing meanwhile, not even a NOP-Out:
# longer than path_timeout. The guest's reads are answered: what was given up once is waited for, and then how long the
# target needs is known.
# On demand only: CI has half an hour for everything; it has the same without a guest (lunex_slow_target_test).
# runs on demand: bookworm:- trixie:-
scenario() {
  null_target_start --busy 3000
  guest_create g pv "$(null_disk xvda)"
  guest_run g slow 200 'for i in 1 2 3 4; do
    dd if=/dev/xvda of=/dev/null bs=4k count=1 skip=$((i * 1000)) iflag=direct || exit 1
  done'
  given_up=$(grep -c 'has stopped answering' /tmp/results/iscsi-blkback.log) || true
  note "given up $given_up times"
  [ "$given_up" -le 3 ] || fail "the target was given up $given_up times"
  guest_shutdown g
  assert_nothing_left
}
