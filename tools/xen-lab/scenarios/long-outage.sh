# Every path is gone for five minutes, one by resets and one in silence; the guest waits and goes on, through
# each stack (measuring.sh).
# On demand only: it takes six minutes. tools/xen-lab/stalls runs it, both stacks side by side.
# runs on demand: bookworm:product bookworm:kernel trixie:product
# wants: kernel-stack
# timeout: 600
. "$harness_dir/measuring.sh"
outage() {
  local minute
  cut_portal 1 reset
  cut_portal 2 drop
  for minute in 1 2 3 4 5; do
    sleep 60
    tell "no path since $minute min"
    job_goes_on g fio
  done
  show_stack
  restore_portal 1
  restore_portal 2
  calm
}
scenario() {
  target_start tgt 2 64
  # The target notices by itself that an initiator is gone behind a dead link.
  tgt --mode target --op update --tid 1 --name nop_interval --value 2
  tgt --mode target --op update --tid 1 --name nop_count --value 2
  measure 2
  event long-outage; outage
  measured
}
