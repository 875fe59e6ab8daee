# What a guest sees when something happens to either of its two paths or to both, through each stack
# (measuring.sh): links are cut in three ways, the target stops, bytes arrive after they were given up.
# tools/xen-lab/stalls runs it and prints the table.
# runs on demand: bookworm:product bookworm:kernel bookworm:kernel-presets
# wants: kernel-stack
# timeout: 400
. "$harness_dir/measuring.sh"
flapping() {
  local turn
  for turn in 1 2 3 4; do cut_portal 2 reset; nap 0.5; restore_portal 2; nap 0.5; done
}
target_stopped() { # SECONDS
  local pid; pid=$(tgtd_pid)
  kill -STOP "$pid"; sleep "$1"; kill -CONT "$pid"
}
# A path is silent until its writes have gone to the other one and were followed by newer ones to the same blocks;
# then the target is given the old bytes. A block that has an older content afterwards than the guest was told is lost.
released_stale_writes() {
  local old
  guest_start g generations 'write_generations xvda'
  guest_says g generations 10 writing
  delay_portal 2 22
  sleep 17   # a second or two after the slower stack has given the path up
  note "$(packets_on_the_way 2) packets on their way to portal 2"
  guest_start g enough 'touch /tmp/enough'   # nothing newer that would hide the old
  sleep 9
  delay_portal 2 0
  calm
  guest_start g check 'touch /tmp/check'
  guest_finish g generations 60
  old=$(job_output g generations | sed -n 's/^old //p')
  note "${old:-?} of 8 blocks hold something else than was acknowledged last"
  [ "$old" = 0 ] || verdict "${old:-?} of 8 blocks hold something else than was acknowledged last"
}
scenario() {
  target_start tgt 2 64
  measure 2
  event nothing;     sleep 5
  event reset;       cut_for 7 reset 1;     calm
  event silent;      cut_for 16 drop 2;     calm
  event all-reset;   cut_for 6 reset 1 2;   calm
  if [ "$variant" != kernel-presets ]; then
    event link-down; link_down 1; sleep 16; link_up 1; calm
    event flapping;  flapping;              calm
    event stopped;   target_stopped 3;      calm
    event stale;     released_stale_writes
  fi
  measured
}
