# Two guests at once on one target; one is destroyed, the other one's I/O goes on.
# runs: trixie:-
scenario() {
  target_start tgt 2
  guest_create a pv "$(disk qdisk xvda 1)"
  guest_create b pvh "$(disk qdisk xvda 2)"
  guest_start a fio 'fio_verify xvda 30'
  guest_start b fio 'fio_verify xvda 10'
  sleep 4
  first=$(domid a)
  guest_destroy a
  wait_until 20 "no process serves the destroyed guest" has_no_child "$first"
  guest_finish b fio 60
  guest_shutdown b
  assert_nothing_left
}
