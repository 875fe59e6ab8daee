# What a disk's backend node tells its guest, and what is written there while the disk is attached: the LUN's serial
# number and designators, sectors of 4 KiB of a LUN with such blocks, a CD drive; the mode becomes r and w again.
# runs: trixie:pv bookworm:pv
page_of() { xenstore-read "$(backend_node g "$1")/sm-data/scsi/0x12/$2" | base64 -d; } # VDEV PAGE
write_fails() { guest_run g "$1" 30 '! dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct 2> /dev/null && dd if=/dev/xvda of=/dev/null bs=4k count=1 iflag=direct 2> /dev/null'; } # JOB
write_works() { guest_run g "$1" 30 'dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct 2> /dev/null'; } # JOB
scenario() {
  local said
  lio_4kn=3 target_start lio 2 64 64 64
  guest_create g "$variant" "$(disk qdisk xvda 1)" "devtype=cdrom,$(disk qdisk xvdb 2)" "$(disk qdisk xvdc 3)?sector_size=4096"
  write_works writes

  said=$(page_of xvda 0x80 | tail -c +5)
  [ "$said" = "SN$scenario_index-1" ] || fail "page 0x80 says that the serial number is $said"
  said=$(page_of xvda 0x83 | od -An -tx1 -w8 | head -n 1)
  note "page 0x83 begins with$said"
  [[ "$said" = ' 00 83 00 '?*' 01 03 00 10' ]] || fail "page 0x83 does not begin with an NAA designator: $said"

  guest_run g cd 20 '[ "$(cat /sys/block/xvdb/ro) $(cat /sys/block/xvdb/removable)" = "1 1" ] && dd if=/dev/xvdb of=/dev/null bs=1M count=4 2> /dev/null'
  guest_run g blocks 20 '[ "$(cat /sys/block/xvdc/queue/logical_block_size) $(cat /sys/block/xvdc/size)" = "4096 131072" ]'
  guest_run g verify 60 'fio_verify xvdc 10'

  xenstore-write "$(backend_node g xvda)/mode" r
  sleep 2
  write_fails refused
  xenstore-write "$(backend_node g xvda)/mode" w
  sleep 2
  write_works again
  guest_shutdown g
  assert_nothing_left
}
