# What an array does to a LUN in use, with the Linux kernel's target, a portal group for each of two
# portals: the LUN grows; behind one portal there is another LUN all of a sudden; the controllers swap
# their roles (ALUA, implicit), and the initiator tells a standby one to take over (explicit).
# On demand only: CI has half an hour for everything.
# runs on demand: bookworm:-
# steps: growth lun-swap alua-flip alua-explicit
lio_backing=loop
service_settings() {
  echo "[targets.\"$(target_iqn)\"]"
  echo "capacity_polling_interval = 1"   # LIO does not say that a LUN has grown
}

growth() {
  local device
  device=$(losetup -nO NAME -j "$scenario_dir/disk.1")
  truncate -s 96M "$scenario_dir/disk.1"
  losetup -c $device
  guest_run g grown 30 'wait_size xvda 196608 && check_end xvda'
}
lun_swap() {
  cut_portal 2 reset
  lio_swap_lun 2 1 2
  restore_portal 2
  wait_until 30 "the path to another LUN is quarantined" path_is 2 quarantined
  sleep 2
  show_paths
  job_goes_on g fio
  cmp -s <(head -c 64M /dev/zero) "$scenario_dir/disk.2" || fail "the other LUN was written to"
  cut_portal 2 reset
  lio_swap_lun 2 2 1
  alua_join 2
  restore_portal 2
  wait_until 30 "the path to the right LUN is ready" path_is 2 ready
}
alua_flip() {
  wait_until 20 "I/O goes through the active/optimized controller 1" carries_all 1 2
  alua_become 2 $alua_optimized; alua_become 1 $alua_non_optimized
  wait_until 20 "I/O goes through controller 2" carries_all 2 1
  alua_become 1 $alua_optimized; alua_become 2 $alua_standby
  wait_until 20 "I/O is back at controller 1" carries_all 1 2
  wait_until 20 "the standby path is ghost" path_is 2 ghost
  alua_become 2 $alua_optimized; alua_become 1 $alua_standby
  wait_until 20 "I/O goes through controller 2 while the other is standby" carries_all 2 1
  wait_until 20 "the standby path is ghost" path_is 1 ghost
}
alua_explicit() {
  cut_portal 2 reset
  wait_until 30 "controller 1 was told to be active/optimized" alua_is 1 $alua_optimized
  wait_until 20 "I/O goes through controller 1" carries_all 1 2
  show_paths
  restore_portal 2
  wait_until 20 "portal 2 has a connection again" portal_in_use 2
}
scenario() {
  step growth
  target_start lio-groups 2
  alua_start
  guest_create g pv "$(disk qdisk xvda 1)"
  guest_start g fio 'fio_verify xvda 600'
  guest_says g fio 30 running
  growth;        job_goes_on g fio
  step lun-swap
  lun_swap;      job_goes_on g fio
  step alua-flip
  alua_flip;     job_goes_on g fio
  step alua-explicit
  alua_explicit; job_goes_on g fio
  guest_start g stop stop_fio
  guest_finish g fio 60
  assert_no_kernel_path
  guest_shutdown g
  assert_nothing_left
}
