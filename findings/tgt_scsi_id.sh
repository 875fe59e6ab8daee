#!/bin/bash
# Finding: tgt reads a scsi_id as a hexadecimal number, so that LUNs with different ids have one
# NAA designator.
#
# Software   Debian 12: tgt, the version below; asked by libiscsi 1.19
# Expected   VPD page 0x83 tells LUNs apart: each designator of a LUN that claims to be unique in
#            the world is (SPC-4 7.8.6). scsi_id, which tgtadm takes as a text and shows as it was
#            written, is where tgt's administrator sets it
# Seen       The T10 vendor id has the text. The NAA designator of type 6 has what is left of it
#            when each letter from g to z and each other sign counts as 0: mysql-log, mysql-tmp and
#            root are one disk, srv-1 and vm.01 another. The one of type 3 has only the numbers of
#            target and LUN, so that it is the same on each server with a target 1 and a LUN 1.
# Matters    What goes by one designator prefers NAA 6 (udev's scsi_id, and multipath-tools by it):
#            two LUNs become two paths to one disk, whose data are mixed then.
# Here       All designators and the serial number are compared (initiator/scsi/lun_names.h).
#
# Runs tgtd on a free port of the loopback address. Needs root, apt, gcc and python3. Exit status:
# 0 as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

readonly version='1:1.0.85-1+deb12u1'
need gcc python3
unpack "tgt=$version" libiscsi-dev libiscsi7 "${for_tgt[@]}"
start_tgtd 127.0.0.1
make_target 1 iqn.2026-11.example:disk

cat >names.c <<'C'
// Prints a LUN's designators: type and value, NAA in hexadecimal.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
int main(int count, char** words) {
  struct iscsi_context* iscsi = iscsi_create_context("iqn.2026-11.example:host");
  const int lun = atoi(words[2]);
  iscsi_set_targetname(iscsi, "iqn.2026-11.example:disk");
  iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
  if (count != 3 || iscsi_full_connect_sync(iscsi, words[1], lun) != 0) return 2;
  struct scsi_task* task = iscsi_inquiry_sync(iscsi, lun, 1, 0x83, 255);
  if (task == NULL || task->status != SCSI_STATUS_GOOD || task->datain.size < 4) return 2;
  const unsigned char* at = task->datain.data + 4;
  const unsigned char* end = task->datain.data + task->datain.size;
  for (; end - at >= 4 && end - at - 4 >= at[3]; at += 4 + at[3]) {
    const int naa = (at[1] & 15) == 3;
    printf(naa ? " NAA " : " T10 ");
    for (int i = 0; i < at[3]; ++i) {
      if (naa) printf("%02x", at[4 + i]);
      else if (at[4 + i] > ' ') putchar(at[4 + i]);
    }
  }
  puts("");
  return 0;
}
C
build_with_libiscsi names
lun=0
for id in mysql-log mysql-tmp root srv-1 vm.01; do
  truncate -s 1M "$((++lun)).image"
  tgtadm --mode logicalunit --op new --tid 1 --lun "$lun" --backing-store "$work/$lun.image"
  tgtadm --mode logicalunit --op update --tid 1 --lun "$lun" --params "scsi_id=$id"
  echo "$id:$(./names "127.0.0.1:$port" "$lun")"
done >seen
compare "tgt $version" <<'T'
mysql-log: T10 mysql-log NAA 3000000100000001 NAA 60000000000000000000000000000000
mysql-tmp: T10 mysql-tmp NAA 3000000100000002 NAA 60000000000000000000000000000000
root: T10 root NAA 3000000100000003 NAA 60000000000000000000000000000000
srv-1: T10 srv-1 NAA 3000000100000004 NAA 60000000000000000000000000000001
vm.01: T10 vm.01 NAA 3000000100000005 NAA 60000000000000000000000000000001
T
