#!/bin/sh
# The first process of a host: creates the host's view of the file system and becomes its systemd.
# Usage: boot-host.sh DISK NAME KEEP, where DISK has up/, work/ and root/ and persists after the host, and KEEP is a directory
# that is the same inside and outside the host.
set -e
disk=$1
name=$2
keep=$3
mount --make-rprivate /
hostname "$name"
for tree in systemd unified; do
  [ -d /sys/fs/cgroup/$tree ] || continue
  mkdir -p "/sys/fs/cgroup/$tree/$name"
  echo 0 > "/sys/fs/cgroup/$tree/$name/cgroup.procs"
done
root=$disk/root
mount -t overlay kvorum -o "lowerdir=/,upperdir=$disk/up,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
for tree in systemd unified; do
  [ -d /sys/fs/cgroup/$tree ] || continue
  mkdir "$root/sys/fs/cgroup/$tree"
  mount --bind "/sys/fs/cgroup/$tree" "$root/sys/fs/cgroup/$tree"
done
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mkdir -p "$root$keep"
mount --bind "$keep" "$root$keep"
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l .outside
exec env -i container=docker PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=kvorum-host.target --log-target=null --show-status=0
