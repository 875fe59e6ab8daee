# Two portal groups of the Linux kernel's target, one of them lost in silence with writes under way: no login
# elsewhere ends what its session may still execute, and quiesce_time is longer than the scenario. So the guest's
# writes to the same places go on only when a command through the other group has fenced the lost ones:
# LOGICAL UNIT RESET, which the configuration allows, or PREEMPT AND ABORT of the key that the lost path registered.
# runs on demand: bookworm:reset bookworm:key
host_ended_in_order=1
service_settings() {
  echo "[targets.\"$(target_iqn)\"]"
  case $variant in
    reset) echo 'exclusive_luns = "Yes"' ;;
    key) echo 'reservation_key = "0x1ab00"' ;;
  esac
  echo 'portal_group_fences = "Yes"' # the kernel has both groups
  echo "fence_settle_time = 4"
  echo "quiesce_time = 600"
}
fenced() { grep -q "lost writes are fenced by $1 through $(portal 2):3260" /tmp/results/iscsi-blkback.log; } # COMMAND
keys() { tr -d '\0' < "/run/configfs/target/core/fileio_$scenario_index/disk1/pr/res_pr_registered_i_pts"; }
has_keys() { [ "$(keys | grep -c 'Key: 0x')" = "$1" ]; } # COUNT
scenario() {
  local command='LOGICAL UNIT RESET'
  [ "$variant" = reset ] || command='PREEMPT AND ABORT'
  target_start lio-groups 2
  guest_create g pv "$(disk qdisk xvda 1)"
  [ "$variant" = reset ] || wait_until 20 "both paths have registered a key" has_keys 2
  guest_start g fio 'fio_iops=0 fio_verify xvda 600 --size=1M'
  guest_says g fio 30 running
  sleep 3
  cut_portal 1 drop
  wait_until 30 "the lost writes are fenced by $command" fenced "$command"
  wait_until 20 "the guest's I/O goes on through portal 2" carries_all 2 1
  show_paths
  job_goes_on g fio
  restore_portal 1
  wait_until 20 "the path through portal 1 is ready" path_is 1 ready
  [ "$variant" = reset ] || wait_until 20 "it has registered its key again" has_keys 2
  guest_start g stop stop_fio
  guest_finish g fio 60
  guest_shutdown g
  assert_nothing_left
  [ "$variant" = reset ] || wait_until 20 "no key is left at the target: $(keys)" has_keys 0
}
