# What a guest sees when behind one of two portals there is another LUN all of a sudden, through each stack
# (measuring.sh): a second tgtd takes the portal over. The other LUN is empty, and must be so afterwards.
# tools/xen-lab/stalls runs it, last, and prints the table.
# runs on demand: bookworm:product bookworm:kernel
# wants: kernel-stack
# timeout: 200
. "$harness_dir/measuring.sh"
swapped() {
  local bytes
  cut_portal 2 reset
  tgt --mode portal --op delete --param "portal=$(portal 2):3260" || fail "tgtd keeps portal 2"
  other_tgt_start 2 2
  restore_portal 2
  sleep 12
  [ "$variant" != product ] || wait_until 30 "the path to another LUN is quarantined" path_is 2 quarantined
  ! job_output g fio | grep -q 'verify: bad' || verdict "the guest read another LUN's data"
  bytes=$(tr -d '\0' < "$scenario_dir/disk.2" | wc -c)
  [ "$bytes" = 0 ] || verdict "$(((bytes + 1023) / 1024)) KiB written to the other LUN"
}
scenario() {
  target_start tgt 2 64
  truncate -s 64M "$scenario_dir/disk.2"
  measure 2
  event lun-swap; swapped
  measured
}
