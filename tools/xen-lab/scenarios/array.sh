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
lun_folder() { echo "$(cat "$scenario_dir/lio")/tpgt_$1/lun/lun_1"; } # GROUP
controller() { echo "/run/configfs/target/core/fileio_$scenario_index/disk1/alua/controller$1"; } # GROUP
# Each portal group's port belongs to a controller, of which the first is active/optimized.
make_controllers() {
  local n
  for n in 1 2; do
    mkdir "$(controller $n)" && echo $((10 + n)) > "$(controller $n)/tg_pt_gp_id" &&
      echo 3 > "$(controller $n)/alua_access_type" &&
      echo "controller$n" > "$(lun_folder $n)/alua_tg_pt_gp" || fail "LIO refuses controller $n"
  done
  be 2 "$non_optimized"
}
optimized=0 non_optimized=1 standby=2
be() { echo "$2" > "$(controller "$1")/alua_access_state" || fail "LIO refuses state $2 of controller $1"; note "controller $1 is in state $2 now"; } # N STATE
is() { [ "$(cat "$(controller "$1")/alua_access_state")" = "$2" ]; } # N STATE

growth() {
  local device
  device=$(losetup -nO NAME -j "$scenario_dir/disk.1")
  truncate -s 96M "$scenario_dir/disk.1"
  losetup -c $device
  guest_run g grown 30 'wait_size xvda 196608 && check_end xvda'
}
lun_swap() {
  local core=/run/configfs/target/core/fileio_$scenario_index lun
  lun=$(lun_folder 2)
  cut_portal 2 reset
  rm "$lun/disk1" && ln -s "$core/disk2" "$lun/disk2" || fail "LIO refuses the swap"
  restore_portal 2
  wait_until 30 "the path to another LUN is quarantined" path_is 2 quarantined
  sleep 2
  show_paths
  job_goes_on g fio
  cmp -s <(head -c 64M /dev/zero) "$scenario_dir/disk.2" || fail "the other LUN was written to"
  cut_portal 2 reset
  rm "$lun/disk2" && ln -s "$core/disk1" "$lun/disk1" && echo controller2 > "$lun/alua_tg_pt_gp" || fail "LIO refuses to swap back"
  restore_portal 2
  wait_until 30 "the path to the right LUN is ready" path_is 2 ready
}
alua_flip() {
  wait_until 20 "I/O goes through the active/optimized controller 1" carries_all 1 2
  be 2 $optimized; be 1 $non_optimized
  wait_until 20 "I/O goes through controller 2" carries_all 2 1
  be 1 $optimized; be 2 $standby
  wait_until 20 "I/O is back at controller 1" carries_all 1 2
  wait_until 20 "the standby path is ghost" path_is 2 ghost
  be 2 $optimized; be 1 $standby
  wait_until 20 "I/O goes through controller 2 while the other is standby" carries_all 2 1
  wait_until 20 "the standby path is ghost" path_is 1 ghost
}
alua_explicit() {
  cut_portal 2 reset
  wait_until 30 "controller 1 was told to be active/optimized" is 1 $optimized
  wait_until 20 "I/O goes through controller 1" carries_all 1 2
  show_paths
  restore_portal 2
  wait_until 20 "portal 2 has a connection again" portal_in_use 2
}
scenario() {
  step growth
  target_start lio-groups 2
  make_controllers
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
