#!/bin/bash
# Finding: GRUB does not take Debian's cloud kernels, nor any of Debian 13's, for kernels of a Xen PV guest.
#
# Software   Debian 12: grub-common (grub-file), linux-image-*-cloud-amd64 6.1 and 6.12, versions below
# Expected   grub-file --is-x86_64-xen-domu says yes: both have CONFIG_XEN_PV=y and boot as PV guests,
#            where xl is given them as kernel=
# Seen       No, of both. GRUB looks for the kernel's Xen notes in what the bzImage holds; it unpacks gzip, xz
#            and lzo, and these are packed with LZ4 (the cloud kernel 6.1) and zstd (6.12; Debian 13's 6.12 as
#            well). The same kernel unpacked, or packed with gzip as plain ELF, is taken for one.
# Matters    pvgrub uses the same reader: "error: not xen image." when a PV guest is upgraded to such a kernel
# Here       The lab's pvgrub scenario gives GRUB a kernel packed with gzip, where Debian's is packed with zstd.
#
# Runs grub-file on the packages' files, without Xen, in a temporary folder. Needs apt (70 MB), lz4 and zstd.
# Exit status: 0 as described, 1 it behaves differently, 2 it could not be tried.
. "$(dirname "$0")/common.bash"

need lz4 zstd
unpack grub-common=2.06-13+deb12u2 libdevmapper1.02.1 libefiboot1 libefivar1 libfreetype6 libfuse2 liblzma5 \
  linux-image-6.1.0-51-cloud-amd64=6.1.177-1 linux-image-6.12.100+deb12-cloud-amd64=6.12.100-1~deb12u1

is_pv_kernel() { # FILE
  if root/usr/bin/grub-file --is-x86_64-xen-domu "$1"; then echo yes; else echo no; fi
}
# What a bzImage holds, by the magic number of its packer.
take_out() { # BZIMAGE MAGIC COMMAND...
  local bzimage=$1 magic=$2 offset; shift 2
  for offset in $(LC_ALL=C grep -aboP "$magic" "$bzimage" | cut -d: -f1); do
    tail -c "+$((offset + 1))" "$bzimage" | "$@" >vmlinux 2>/dev/null || true # other bytes follow
    [ "$(head -c 4 vmlinux | od -An -c | tr -d ' ')" != '177ELF' ] || return 0
  done
  cannot "there is no kernel in $bzimage"
}
try() { # VERSION MAGIC COMMAND...
  local kernel=root/boot/vmlinuz-$1 version=$1; shift
  take_out "$kernel" "$@"
  gzip -1 <vmlinux >vmlinux.gz
  grep -qx CONFIG_XEN_PV=y "root/boot/config-$version" || cannot "the kernel $version has no CONFIG_XEN_PV"
  echo "$version, $(grep -o '^CONFIG_KERNEL_[A-Z0-9]*=y' "root/boot/config-$version"): $(is_pv_kernel "$kernel")," \
    "unpacked: $(is_pv_kernel vmlinux), unpacked and packed with gzip: $(is_pv_kernel vmlinux.gz)"
}
{
  try 6.1.0-51-cloud-amd64 '\x02\x21\x4c\x18' lz4 -dcq
  try 6.12.100+deb12-cloud-amd64 '\x28\xb5\x2f\xfd' zstd -dcq
} >seen
compare 'Whether GRUB takes it for a kernel of a Xen PV guest:' <<'END'
6.1.0-51-cloud-amd64, CONFIG_KERNEL_LZ4=y: no, unpacked: yes, unpacked and packed with gzip: yes
6.12.100+deb12-cloud-amd64, CONFIG_KERNEL_ZSTD=y: no, unpacked: yes, unpacked and packed with gzip: yes
END
