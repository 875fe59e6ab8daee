# The words of the scenarios that measure how long a guest's requests wait, through one of three stacks by
# the scenario's variant: the product; the kernel's own (`kernel`: xen-blkback on dm-multipath on open-iscsi
# with the usual advice for a SAN: NOPs every 5 s with 5 s for the answer, 5 s replacement_timeout,
# queue_if_no_path); the same as Debian and its authors preset them (`kernel-presets`). The same target, cuts and guest.
# Sourced by those scenarios, in dom0. Results: stalls.txt, from report_stalls in guest/lib.sh.

# A path that failed a short while ago is used again as soon as it is back: each event finds all paths in use.
service_settings() {
  echo "[targets.\"$(target_iqn)\"]"
  echo "marginal_path_double_failed_time = 0"
}

### Events #######################################################################################

# What is measured from now on belongs to this event.
event() { # NAME
  current=$1
  guest_start g "mark-$1" "mark $1"
  wait_until 10 "the guest has marked $1" job_ended g "mark-$1"
  tell "$1"
}
# The end of an event: the next one finds all paths in use, whatever time it takes to get them back.
calm() {
  sleep 2
  wait_until 60 "all paths are well again" all_is_well
  if [ -z "$errors_since" ] && job_ended g fio; then errors_since=$current; verdict "the guest saw an error"; fi
}
errors_since=''
all_is_well() { has_paths "$paths"; }
has_paths() { # COUNT
  if [ "$variant" = product ]; then [ "$(show_paths 2> /dev/null | grep -cE 'lun [0-9]+ +[a-z]+ +ready( |$)')" = "$1" ]
  else [ "$(multipathd show paths 2> /dev/null | grep -c 'active *ready *running')" = "$1" ]; fi
}
cut_for() { # SECONDS reset|drop PORTAL...
  local seconds=$1 way=$2 n; shift 2
  for n; do cut_portal "$n" "$way"; done
  sleep "$seconds"
  for n; do restore_portal "$n"; done
}
# What became of the data in an event, for the table; where nothing did there is nothing to say.
verdict() { note "verdict $current: $1"; echo "verdict $current $1" >> "$scenario_dir/verdicts"; } # SENTENCE

### A measured guest #############################################################################

# The variant's stack, a guest g with a disk on LUN 1 through it, and fio on that disk.
measure() { # PORTALS
  local line
  paths=$1
  if [ "$variant" = product ]; then
    line=$(disk qdisk xvda 1 "$1")
  else
    kernel_stack_start "$1"
    line="backendtype=phy,vdev=xvda,access=rw,target=/dev/mapper/$map"
  fi
  guest_create g pv "$line"
  guest_start g fio 'stalls_fio xvda'
  guest_says g fio 30 running
  wait_until 60 "all paths are well" all_is_well
  sleep 2
}
# The product's guest has seen no error; what the kernel's has seen is in the table.
measured() {
  show_stack
  guest_start g stop stop_fio
  wait_until 60 "fio ends" job_ended g fio
  guest_run g report 60 report_stalls
  { job_output g report | grep -v '^exit'; cat "$scenario_dir/verdicts" 2> /dev/null; } > "$scenario_dir/stalls.txt"
  cat "$scenario_dir/stalls.txt"
  [ "$variant" != product ] || guest_finish g fio 1
  guest_shutdown g
  [ "$variant" = product ] || kernel_stack_stop
  assert_nothing_left
  if [ "$variant" = product ]; then
    grep -qx 'errors 0' "$scenario_dir/stalls.txt" || fail "fio saw errors"
    [ ! -f "$scenario_dir/verdicts" ] || fail "$(cat "$scenario_dir/verdicts")"
  fi
}
show_stack() { if [ "$variant" = product ]; then show_paths; else multipath -ll; multipathd show paths; fi; }

### The kernel's stack ###########################################################################

kernel_stack_configure() {
  # What both variants need: a map of these LUNs, in which a cut meets I/O. An array's own entry is kept.
  cat > /etc/multipath.conf <<'END_OF_FILE'
defaults {
  user_friendly_names no
  find_multipaths no
  path_grouping_policy multibus
}
blacklist {
  devnode "^(vd|loop|ram|xvd)"
}
END_OF_FILE
  echo 'InitiatorName=iqn.2026-01.lab:dom0' > /etc/iscsi/initiatorname.iscsi
  cp -n /etc/iscsi/iscsid.conf /etc/iscsi/iscsid.conf.preset
  cp /etc/iscsi/iscsid.conf.preset /etc/iscsi/iscsid.conf
  if [ "$variant" = kernel ]; then
    printf '%s\n' 'overrides {' '  no_path_retry queue' '}' >> /etc/multipath.conf
    sed -i 's/^node.conn\[0\].timeo.noop_out_interval = .*/node.conn[0].timeo.noop_out_interval = 5/
      s/^node.conn\[0\].timeo.noop_out_timeout = .*/node.conn[0].timeo.noop_out_timeout = 5/
      s/^node.session.timeo.replacement_timeout = .*/node.session.timeo.replacement_timeout = 5/' /etc/iscsi/iscsid.conf
  fi
  grep -E '^node.*(noop_out|replacement_timeout)' /etc/iscsi/iscsid.conf
}
has_map() { map=$(dmsetup ls --target multipath 2> /dev/null | sed -n 's/[[:blank:]]*(.*//p'); [ -n "$map" ]; }
kernel_stack_start() { # PORTALS
  local n
  touch "$scenario_dir/kernel-stack"
  tar -C / --skip-old-files --keep-directory-symlink -xf /kernel-stack.tar && ldconfig || fail "open-iscsi cannot be unpacked"
  udevadm control --reload
  mkdir -p /run/lock/iscsi /etc/multipath
  rm -rf /etc/iscsi/nodes; mkdir /etc/iscsi/nodes
  kernel_stack_configure
  modprobe -a xen_blkback iscsi_tcp sd_mod dm_multipath dm_service_time dm_round_robin scsi_dh_alua || fail "the kernel lacks a module"
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
kernel_stack_ended() { ! pgrep -x iscsid && ! pgrep -x multipathd; } > /dev/null
# Also after a failure in the middle, with requests that wait for a path.
kernel_stack_stop() {
  local map
  for map in $(dmsetup ls --target multipath | sed -n 's/[[:blank:]]*(.*//p'); do
    multipath -f "$map" || { dmsetup message "$map" 0 fail_if_no_path; multipath -f "$map"; }
  done
  iscsiadm -m node --logoutall=all
  iscsiadm -k 0
  multipathd shutdown
  wait_until 20 "open-iscsi and multipathd have ended" kernel_stack_ended
  rm -f "$scenario_dir/kernel-stack"
}
