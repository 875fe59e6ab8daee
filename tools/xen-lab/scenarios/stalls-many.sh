# What a guest sees when something happens to one of its eight paths, through each stack (measuring.sh);
# last, the target sends a path's login to another portal.
# tools/xen-lab/stalls runs it and prints the table.
# runs on demand: bookworm:product bookworm:kernel
# wants: kernel-stack
# timeout: 240
. "$harness_dir/measuring.sh"
redirected() {
  tgt_redirect 9
  cut_for 1 reset 1
  wait_until 60 "a session is at the portal that the target sends to" portal_in_use 9
  calm
}
scenario() {
  network_start 9          # portal 9 is the second tgtd's
  truncate -s 64M "$scenario_dir/disk.1"
  tgt_start 8 1
  other_tgt_start 9
  measure 8
  event one-of-8-reset;  cut_for 7 reset 3;  calm
  event one-of-8-silent; cut_for 16 drop 5;  calm
  event redirect;        redirected
  measured
}
