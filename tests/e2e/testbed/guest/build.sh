#!/bin/bash
# Builds the test bed's guest: a bootable disk of 64 MiB (Linux, busybox, dropbear) that is up within seconds under plain emulation.
# Runs outside the lab (downloads Debian's kernel package). Result: $CACHE/guest/guest.qcow2
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
G=$CACHE/guest; mkdir -p "$G"; cd "$G"
if [ ! -d k/boot ]; then
  pkg=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  apt-get -o APT::Sandbox::User=root download -q "$pkg"; rm -rf k.new; dpkg-deb -x linux-image-*.deb k.new; rm -f linux-image-*.deb; mv k.new k
fi
MD=$(ls -d k/lib/modules/*)
rm -rf ird root; mkdir -p ird/{bin,proc,sys,dev,root,lib/modules} root
# --- initial RAM disk: drivers with their dependencies, in load order
cp /usr/bin/busybox ird/bin/busybox; install "$TB/guest/initrd-init" ird/init
declare -A seen; order=()
addmod() {
  local m=$1 f d; [ -z "${seen[$m]:-}" ] || return 0; seen[$m]=1
  f=$(find "$MD" -name "$m.ko" -o -name "${m//_/-}.ko" | head -1); [ -n "$f" ] || return 0
  for d in $(modinfo -F depends "$f" | tr ',' ' '); do addmod "$d"; done
  cp "$f" ird/lib/modules/; order+=("$(basename "$f")")
}
for m in virtio_pci virtio_blk virtio_net virtio_rng button evdev isofs ata_piix sr_mod; do addmod $m; done
printf '%s\n' "${order[@]}" > ird/lib/modules/order
(cd ird && find . | cpio -o -H newc --quiet) > initrd
# --- root file system
cp -a "$TB/guest/rootfs/." root/; chown -R 0:0 root
mkdir -p root/{bin,proc,sys,dev,tmp,lib64,lib/x86_64-linux-gnu,root/.ssh,home,var/run}
cp /usr/bin/busybox root/bin/; for a in $(/usr/bin/busybox --list); do [ -e "root/bin/$a" ] || ln -s busybox "root/bin/$a"; done
cp /usr/sbin/dropbear /usr/bin/dropbearkey root/bin/
for l in $(ldd /usr/sbin/dropbear | grep -oE '/[^ ]+\.so[^ ]*'); do
  case $l in */ld-linux*) cp -L "$l" root/lib64/ ;; *) cp -L "$l" root/lib/x86_64-linux-gnu/ ;; esac
done
printf 'root:x:0:0:root:/root:/bin/sh\n' > root/etc/passwd; printf 'root:*:19000:0:99999:7:::\n' > root/etc/shadow
printf 'root:x:0:\n' > root/etc/group; echo /bin/sh > root/etc/shells; chmod 700 root/root root/root/.ssh
cp k/boot/vmlinuz-* root/boot/vmlinuz; cp initrd root/boot/initrd
echo "hello from the root disk" > root/www/root.txt
ln -s PWRF root/etc/acpi/PWRB
for x in "" c d; do mkdir -p "root/data$x"; ln -s "/data$x" "root/www/data$x"; done
chmod 755 root/sbin/init root/sbin/disks root/etc/udhcpc.sh root/etc/acpi/PWRF/* root/www/cgi-bin/*
# --- disk: one partition, syslinux (it cannot read files that "mkfs -d" put there, hence the mount)
rm -f guest.raw; truncate -s 64M guest.raw
printf 'label: dos\n2048,,L,*\n' | sfdisk -q guest.raw
dd if=/usr/lib/syslinux/mbr/mbr.bin of=guest.raw bs=440 count=1 conv=notrunc status=none
LO=$(losetup -f --show -o $((2048 * 512)) --sizelimit $(((64 * 1024 - 1024) * 1024)) guest.raw)
trap 'umount "$G/mnt" 2>/dev/null || true; losetup -d "$LO" 2>/dev/null || true' EXIT
# extlinux cannot read a file system with the newer features
mkfs.ext4 -q -O ^64bit,^metadata_csum,^has_journal -L guestroot "$LO"
mkdir -p mnt; mount "$LO" mnt; cp -a root/. mnt/; extlinux --install mnt/boot/extlinux; umount mnt; losetup -d "$LO"; trap - EXIT
# --- does it boot? (on a copy that is thrown away)
rm -f console; qemu-system-x86_64 -m 128 -display none -nodefaults -snapshot -drive file=guest.raw,if=virtio,format=raw -serial file:console </dev/null &
q=$!; wait_for $PATIENCE grep -qa HTTPD-UP console || { cat console; kill $q; echo "the guest does not boot"; exit 1; }
grep -a HTTPD-UP console; kill $q; wait $q || true; rm -f console
qemu-img convert -O qcow2 guest.raw guest.qcow2.new; mv guest.qcow2.new guest.qcow2
rm -rf ird root mnt initrd
ls -la --block-size=K guest.raw guest.qcow2
