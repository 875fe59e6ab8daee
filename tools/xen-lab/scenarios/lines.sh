# The short disk lines: `iscsi:IQN/LUN`, whose portals are asked for (SendTargets) at the ones that the
# configuration lists; and `iscsi:ALIAS`, a LUN that the configuration names. One path is lost meanwhile.
# runs: trixie:pv bookworm:pv
# tools/test runs: bookworm:pv
service_settings() {
  echo "portals = ['$(portal 1)', '$(portal 2)']"   # tgt tells only the portal that it was asked at
  echo "[luns.lab-alias]"
  echo "target = '$(target_iqn)'"
  echo "lun = 2"
  echo "portals = ['$(portal 1)', '$(portal 2)']"
}
all_paths_are_there() {
  show_paths > "$scenario_dir/paths" || return 1   # a busy machine may not answer in time
  for n in 1 2; do [ "$(grep -c "$(portal $n):3260" "$scenario_dir/paths")" = 2 ] || return 1; done
}
scenario() {
  local other_kind=vbd3
  [ "$suite" = trixie ] || other_kind=qdisk
  target_start tgt 2
  guest_create g pv "$(disk_of qdisk xvda "iscsi:$(target_iqn)/1")" "$(disk_of $other_kind xvdb iscsi:lab-alias)"
  for vdev in xvda xvdb; do guest_start g "fio-$vdev" "fio_verify $vdev 8"; done
  for vdev in xvda xvdb; do guest_says g "fio-$vdev" 30 running; done
  wait_until 60 "both disks have a path through both portals" all_paths_are_there
  cat "$scenario_dir/paths"
  cut_portal 1 reset
  sleep 3
  restore_portal 1
  for vdev in xvda xvdb; do guest_finish g "fio-$vdev" 60; done
  guest_shutdown g
  assert_nothing_left
}
