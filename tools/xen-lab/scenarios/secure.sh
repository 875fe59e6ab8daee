# The Linux kernel's target with mutual CHAP and both digests: a guest's disk works over it through the
# loss of a path; a disk with a wrong secret says what is wrong.
# runs: trixie:pv
user=lab-initiator password=initiator-secret-1 user_in=lab-target password_in=target-secret-22
settings_of() { # NAME LUN PASSWORD PORTAL...
  local name=$1 lun=$2 password=$3 n portals=''; shift 3
  for n; do portals+="'$(portal "$n")', "; done
  cat <<END
[luns.lab-secure-$name]
target = '$(target_iqn)'
lun = $lun
portals = [$portals]
authmethod = 'CHAP'
username = '$user'
password = '$password'
username_in = '$user_in'
password_in = '$password_in'
HeaderDigest = 'CRC32C,None'
DataDigest = 'CRC32C,None'
END
}
service_settings() {
  settings_of right 1 "$password" 1 2
  settings_of wrong 2 another-secret-3 3   # a portal of its own: a guest's disks share their sessions
}
scenario() {
  target_start lio 3
  lio_secure $user $password $user_in $password_in
  guest_create g pv "$(disk_of qdisk xvda iscsi:lab-secure-right)"
  guest_start g fio 'fio_verify xvda 15'
  guest_says g fio 30 running
  show_paths
  cut_portal 1 reset
  sleep 3
  restore_portal 1
  wait_until 20 "portal 1 has a connection again" portal_in_use 1
  attach g "$(disk_of qdisk xvdb iscsi:lab-secure-wrong)" || fail "xl block-attach failed: $(cat "$scenario_dir/attach.log")"
  node=$(backend_node g xvdb)
  wait_until 30 "the disk with a wrong secret has a hotplug-error" node_is_set "$node/hotplug-error"
  error=$(xenstore-read "$node/hotplug-error")
  note "$error"
  grep -qi 'authentication failed' <<< "$error" || fail "the error does not speak of authentication: $error"
  for secret in $password $password_in another-secret-3; do
    ! grep -q "$secret" /tmp/results/iscsi-blkback.log || fail "the log shows a secret"
    ! xenstore-ls -f | grep -q "$secret" || fail "xenstore shows a secret"
  done
  detach g xvdb || fail "xl block-detach failed: $(cat "$scenario_dir/detach.log")"
  guest_finish g fio 60
  guest_shutdown g
  assert_nothing_left
}
