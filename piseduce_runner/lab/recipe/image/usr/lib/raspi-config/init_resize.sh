#!/bin/sh
# Stands for the script of Raspberry Pi OS that takes init's place on the first boot, grows the
# second partition and reboots. A deployed system must never come here, so this one stops.
echo "init_resize.sh: the kernel started init=$0: this system was not configured; halting"
mount -o remount,ro /
sync
exec busybox halt -f
