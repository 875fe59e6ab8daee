# How long a guest's reads and writes wait when something happens to their paths, through the product and
# through the kernel's own stack (xen-blkback on dm-multipath on open-iscsi, with the usual advice for a
# SAN: NOPs every 5 s with 5 s for the answer, 5 s replacement_timeout, queue_if_no_path): the same target, the
# same cuts, the same guest, in one boot. tools/xen-lab/stalls runs both and prints the table. Results: stalls.txt.
# runs on demand: bookworm:product bookworm:kernel
# wants: kernel-stack
# timeout: 400
event() { guest_start g "mark-$1" "mark $1"; wait_until 10 "the guest has marked $1" job_ended g "mark-$1"; tell "$1"; } # NAME
# The next event finds both paths in use, whatever time it takes to get them back.
all_is_well() {
  if [ "$variant" = kernel ]; then has_paths 2; else path_is 1 ready && path_is 2 ready; fi
}
calm() { sleep 2; event "after-$1"; wait_until 60 "both paths are ready again" all_is_well; } # NAME
cut_for() { # SECONDS WAY PORTAL...
  local seconds=$1 way=$2 n; shift 2
  for n; do cut_portal "$n" "$way"; done
  sleep "$seconds"
  for n; do restore_portal "$n"; done
}
events() {
  local pid turn; pid=$(tgtd_pid)
  event nothing; sleep 3
  event reset;        cut_for 7 reset 1;  calm reset
  event silent;       cut_for 16 drop 2;  calm silent
  event link-down;    link_down 1; sleep 16; link_up 1; calm link-down
  event flapping
  for turn in 1 2 3 4; do cut_portal 2 reset; nap 0.5; restore_portal 2; nap 0.5; done
  calm flapping
  event stopped;      kill -STOP "$pid"; sleep 3; kill -CONT "$pid"; calm stopped
  event all-reset;    cut_for 6 reset 1 2; calm all-reset
}

configure_kernel_stack() {
  cat > /etc/multipath.conf <<'END'
defaults {
  user_friendly_names no
  find_multipaths no
  path_grouping_policy multibus
  no_path_retry queue
  polling_interval 5
}
blacklist {
  devnode "^(vd|loop|ram|xvd)"
}
END
  echo 'InitiatorName=iqn.2026-01.lab:dom0' > /etc/iscsi/initiatorname.iscsi
  sed -i 's/^node.conn\[0\].timeo.noop_out_interval = .*/node.conn[0].timeo.noop_out_interval = 5/
    s/^node.conn\[0\].timeo.noop_out_timeout = .*/node.conn[0].timeo.noop_out_timeout = 5/
    s/^node.session.timeo.replacement_timeout = .*/node.session.timeo.replacement_timeout = 5/' /etc/iscsi/iscsid.conf
  grep -E '^node.*(noop_out|replacement_timeout)' /etc/iscsi/iscsid.conf
}
has_map() { map=$(dmsetup ls --target multipath 2> /dev/null | sed -n 's/[[:blank:]]*(.*//p'); [ -n "$map" ]; }
has_paths() { [ "$(multipathd show paths 2> /dev/null | grep -c 'active *ready *running')" = "$1" ]; } # COUNT
kernel_stack_start() { # PORTALS
  local n
  tar -C / --skip-old-files --keep-directory-symlink -xf /kernel-stack.tar && ldconfig || fail "open-iscsi cannot be unpacked"
  udevadm control --reload
  mkdir -p /run/lock/iscsi /etc/iscsi/nodes /etc/multipath
  configure_kernel_stack
  modprobe -a xen_blkback iscsi_tcp sd_mod dm_multipath dm_service_time dm_round_robin || fail "the kernel lacks a module"
  iscsid || fail "iscsid does not start"
  multipathd || fail "multipathd does not start"
  wait_until 20 "multipathd answers" multipathd show daemon
  for n in $(seq "$1"); do
    iscsiadm -m node -o new -T "$(target_iqn)" -p "$(portal "$n"):3260" && iscsiadm -m node -T "$(target_iqn)" -p "$(portal "$n"):3260" --login ||
      fail "open-iscsi cannot log in to portal $n"
  done
  wait_until 30 "there is a multipath map" has_map
  wait_until 40 "the map has $1 paths" has_paths "$1"
  multipath -ll; iscsiadm -m session -P 2 | grep -E 'Recovery Timeout'
}
kernel_stack_stop() {
  multipath -f "$map" || { dmsetup message "$map" 0 fail_if_no_path; multipath -f "$map"; }
  iscsiadm -m node --logoutall=all
  iscsiadm -k 0
  multipathd shutdown
}
scenario() {
  target_start tgt 2 64
  if [ "$variant" = kernel ]; then
    kernel_stack_start 2
    line="backendtype=phy,vdev=xvda,access=rw,target=/dev/mapper/$map"
  else
    line=$(disk qdisk xvda 1)
  fi
  guest_create g pv "$line"
  guest_start g fio 'stalls_fio xvda'
  guest_says g fio 30 running
  sleep 2
  events
  [ "$variant" = product ] || multipath -ll
  guest_start g stop stop_fio
  guest_finish g fio 60
  guest_run g report 60 report_stalls
  job_output g report | grep -v '^exit' > "$scenario_dir/stalls.txt"
  guest_shutdown g
  [ "$variant" = product ] || kernel_stack_stop
  assert_nothing_left
  grep -qx 'errors 0' "$scenario_dir/stalls.txt" || fail "fio saw errors"
}
