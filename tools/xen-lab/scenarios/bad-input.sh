# Disk lines that cannot work: each gets one sentence in its backend node and in the log, the guest's
# other disk goes on, nothing spins, and the bad disk can be detached. Among them are those that xl takes and
# no other backend of the host would serve.
# runs: trixie:vbd3 bookworm:qdisk
bad() { refuses "$1" "$variant" "$(disk_of "$variant" xvdc "$2")" "${3:-.}"; } # NAME TARGET [WORDS]
# What is with libxl's waiting for a script (vbd3, script) must fail there; what is without (qdisk), in the backend node.
refuses() { # NAME qdisk|vbd3|script DISK_LINE WORDS
  local error node
  note "--- $1: $3"
  if [ "$2" = qdisk ]; then
    attach g "$3" || fail "$1: xl block-attach failed: $(cat "$scenario_dir/attach.log")"
    node=$(backend_node g xvdc)
    wait_until 30 "$1: the backend node has a hotplug-error" node_is_set "$node/hotplug-error"
    error=$(xenstore-read "$node/hotplug-error")
    [ "$(wc -l <<< "$error")" = 1 ] || fail "$1: hotplug-error is not one sentence: $error"
  else
    ! attach g "$3" || fail "$1: xl block-attach accepted it"
    error=$(cat "$scenario_dir/attach.log")
    grep -q 'hotplug script\|hotplug-error\|script:' <<< "$error" || note "$1: xl says: $error"
  fi
  note "$1: $error"
  grep -q -- "$4" <<< "$error" || fail "$1: the error does not say $4"
  ! grep -q "$secret" <<< "$error" || fail "$1: the error shows the secret"
  cpu_before=$(service_cpu_ticks "$(domid g)")
  sleep 3
  cpu=$(($(service_cpu_ticks "$(domid g)") - cpu_before))
  [ "$cpu" -lt 150 ] || fail "$1: the processes of the guest used $cpu of 300 ticks of processor time"
  detach g xvdc --force || [ -z "$(backend_node g xvdc)" ] || fail "$1: the bad disk cannot be detached: $(cat "$scenario_dir/detach.log")"
  assert_service_healthy
}
scenario() {
  secret=topsecret99
  target_start tgt 2
  guest_create g pv "$(disk qdisk xvda 1)"
  iqn=$(target_iqn)
  bad 'unknown host' "iscsi://no-such-host.invalid/$iqn/2"
  bad 'dead portal' "iscsi://10.$scenario_index.1.99/$iqn/2"
  bad 'wrong IQN' "iscsi://$(portal 1)/$iqn-wrong/2"
  bad 'missing LUN' "iscsi://$(portal 1)/$iqn/77"
  bad 'larger sectors than blocks' "iscsi://$(portal 1)/$iqn/2?sector_size=4096" 'logical blocks of 512 bytes'
  bad 'malformed URL' "iscsi://$(portal 1):port/$iqn"
  bad 'URL with a secret' "iscsi://user%$secret@$(portal 1)/$iqn/2"
  guest_run g fio 60 'fio_verify xvda 3'
  good=iscsi://$(portal 1)/$iqn/2
  bad 'words behind target=' "$good,access=ro" access
  bad 'a quoted target' "\"$good\"" quotation
  bad 'a blank before iscsi:' " $good" blank
  bad 'a blank at the end' "$good " blank
  if [ "$variant" = vbd3 ]; then format=vhd; else format=qcow2; fi
  refuses "format=$format" "$variant" "format=$format,$(disk_of "$variant" xvdc "$good")" "$format"
  refuses 'a script without backendtype=tap' script "script=block-iscsi-blkback,vdev=xvdc,target=$good" backendtype=tap
  ! grep -q "$secret" /tmp/results/iscsi-blkback.log || fail "the log shows the secret"
  guest_shutdown g
  assert_nothing_left
}
