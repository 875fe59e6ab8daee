# A driver domain: a PV guest with driver_domain=1 in which our service runs in place of `xl devd`, with a network of its own
# to the target. It serves another guest: a file system, data verified while each path is lost in turn, a disk that comes and
# goes, one whose frontend's nodes it may not read. Then the guest is destroyed under load, and the next one is served.
# runs on demand: trixie:pv bookworm:pv
# timeout: 500
network() { echo "10.$((100 + scenario_index)).0"; }
# The script that libxl runs for the driver domain's network interface; a route to it for each portal, so that a cut one is cut.
network_of_driver_domain() {
  local n
  modprobe xen-netback || fail "dom0's kernel has no netback"
  echo 1 > /proc/sys/net/ipv4/ip_forward
  cat > "$scenario_dir/vif" <<END
#!/bin/sh
case \$1 in online | add)
  ip addr add $(network).1/24 dev "\$vif" && ip link set "\$vif" up && xenstore-write "\$XENBUS_PATH/hotplug-status" connected ;;
esac
END
  chmod 755 "$scenario_dir/vif"
  for n in 1 2; do
    ip -n "t$scenario_index" route add "$(network).0/24" via "10.$scenario_index.$n.2" dev "p$n" table "10$n"
    ip -n "t$scenario_index" rule add from "$(portal $n)" lookup "10$n"
  done
}
driver_domain() {
  guest_ramdisk=$(guest_ramdisk_with /usr/sbin/iscsi-blkback xen-netfront xen-evtchn xen-gntdev xen-gntalloc xen-privcmd)
  guest_memory=512
  guest_settings="driver_domain = 1
vif = ['script=$scenario_dir/vif']"
  guest_create drv pv
  unset guest_ramdisk guest_memory guest_settings
  guest_run drv network 60 "load_modules; ip link set lo up; ip addr add $(network).2/24 dev eth0 && ip link set eth0 up && ip route add default via $(network).1
    mkdir -p /run /var/lib /etc/iscsi; echo InitiatorName=iqn.2026-01.lab:drv > /etc/iscsi/initiatorname.iscsi; ping -c 1 -W 20 $(portal 1)"
  guest_start drv service 'iscsi-blkback'
  guest_says drv service 30 "serves domain $(domid drv)"
}
drv_disk() { echo "backend=$(domain drv),$(disk qdisk "$@")"; } # VDEV LUN
serves_nobody() { guest_run drv "ps-$1" 30 '! ps | grep "[i]scsi-blkback --guest"'; } # NAME
lose_each_path() {
  local n
  for n in 1 2; do
    cut_portal "$n" drop
    sleep 5
    job_goes_on g fio
    restore_portal "$n"
    wait_until 40 "portal $n has a connection again" portal_in_use "$n"
  done
}
# Of a disk that names its backend by name libxl thinks, while it attaches it, that dom0 serves it: it asks for a device model
# of the guest's, to which it sends a signal when the guest ends.
name_a_device_model() { # GUEST
  sleep 1000 &
  disown
  xenstore-write "/local/domain/$(domid "$1")/image/device-model-pid" $!
}
scenario() {
  local node
  target_start tgt 2
  network_of_driver_domain
  driver_domain
  guest_create g pv "$(drv_disk xvda 1)"
  guest_run g fs 90 'check_filesystem xvda'
  begin_fio g fio 30
  lose_each_path
  name_a_device_model g
  attach g "$(drv_disk xvdb 2)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  guest_run g fs2 90 'check_filesystem xvdb'
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  guest_run g gone 40 'wait_no_disk xvdb'
  node=/local/domain/$(domid drv)/backend/qdisk/$(domid g)
  [ "$(xenstore-list "$node")" = 51712 ] || fail "nodes of the detached disk are left: $(xenstore-ls "$node")"
  end_fio g fio
  begin_fio g busy 0
  guest_destroy g
  wait_until 40 "the guest is gone from Xen, so no grant of it is mapped" is_gone "$(domain g)"
  guest_create h pv "$(drv_disk xvda 1)"
  guest_run h fs 90 'check_filesystem xvda'
  guest_shutdown h
  wait_until 40 "no session is left at the target" has_no_sessions
  serves_nobody end
  guest_destroy drv
  assert_nothing_left
  assert_no_kernel_path
}
