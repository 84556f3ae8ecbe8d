#!/bin/sh
# The life of a powered board from its firmware to its init. Runs as PID 1 of the board's own PID,
# mount, UTS and IPC namespaces, in the board's network namespace; killing it is pulling the plug.
#
# The supervisor reads one line per event from this script's output: `booting WHAT`, `up nfs`,
# `up card`, or `dead REASON`. Everything else goes to the error output, the board's console.
#
# In the environment: BOARD (a folder of this boot), LAB (the folder of boot.sh), SERIAL, CARD (loop
# device or empty), BOOTS_CARD (not empty: the card is the root, come what may), DEPLOY_OS and LAYER
# (the deploy OS and what this lab adds to it), FIRMWARE_SECONDS, KERNEL_SECONDS.
set -uf
exec 3>&1 1>&2

say() { echo "$*" >&3; }
die() {
    say "dead $*"
    exec 3>&-
    exec busybox sleep 2147483647  # still powered, and nothing happens any more
}
# A value that udhcpc.sh wrote.
lease() { sed -n "s/^$1=//p" "$BOARD/lease"; }

# A mount namespace starts as a copy. Copies of the machine's other mounts would keep their devices
# busy for as long as the board is on, so only what lies on the way to something needed stays.
leave_mounts() {
    while read -r _ _ _ _ point _; do
        point=$(printf '%b' "$point")
        keep=
        for path in /bin /usr/bin /lib /dev/fuse /proc/sys /sys/block \
            "$BOARD/" "$DEPLOY_OS/" "$LAYER/" "$LAB/"; do
            case $path in "${point%/}"/*) keep=yes ;; esac
        done
        [ -n "$keep" ] || printf '%s\0' "$point"
    done < /proc/self/mountinfo | xargs -0 -r umount --lazy 2> /dev/null
}

# The cable stays plugged in; what the last system made of the interfaces does not survive.
reset_network() {
    ip -oneline link show | while IFS=': @' read -r _ link _; do
        case $link in lo | eth0) ;; *) ip link delete "$link" < /dev/null ;; esac
    done
    ip link set eth0 down
    ip address flush dev eth0
    ip link set eth0 up
}

firmware() {
    say "booting firmware"
    rm -f "$BOARD/lease"
    leave_mounts
    reset_network
    sleep "$FIRMWARE_SECONDS"
    LEASE=$BOARD/lease busybox udhcpc -i eth0 -f -n -q -t 15 -T 1 -A 1 -s "$LAB/udhcpc.sh" \
        -V PXEClient:Arch:00000:UNDI:002001 || die "firmware: no answer to DHCP"
    ip address replace "$(lease address)" dev eth0
    server=$(lease server)

    say "booting network boot from $server"
    rm -rf "$BOARD/tftp"
    mkdir "$BOARD/tftp"
    fetch config.txt || true  # the firmware does without
    fetch cmdline.txt || die "firmware: TFTP server $server has no $SERIAL/cmdline.txt"
    kernel=$(sed -n 's/^kernel=//p' "$BOARD/tftp/config.txt" 2>/dev/null | tail -n 1)
    fetch "${kernel:-kernel8.img}" || die "firmware: TFTP has no $SERIAL/${kernel:-kernel8.img}"
    [ -s "$BOARD/tftp/${kernel:-kernel8.img}" ] || die "firmware: the kernel is an empty file"
    initrd=$(sed -n 's/^initramfs  *\([^ ]*\).*/\1/p' "$BOARD/tftp/config.txt" 2>/dev/null | tail -n 1)
    [ -z "$initrd" ] || fetch "$initrd" || die "firmware: TFTP has no $SERIAL/$initrd"
    # The kernel starts without an address.
    ip address flush dev eth0 scope global
}

fetch() {
    case $1 in */* | .*) return 1 ;; esac
    busybox tftp -g -b 1400 -r "$SERIAL/$1" -l "$BOARD/tftp/$1" "$server"
}

# Sets root, root_kind (nfs, card or ram), root_number (of the partition), init.
read_cmdline() {
    root=
    init=/sbin/init
    # The firmware passes on the first line.
    head -n 1 "$BOARD/tftp/cmdline.txt" | tr -d '\r' > "$BOARD/cmdline"
    # shellcheck disable=SC2013  # words are wanted
    for word in $(cat "$BOARD/cmdline"); do
        case $word in
            root=*) root=${word#root=} ;;
            init=*) init=${word#init=} ;;
        esac
    done
    [ -z "$BOOTS_CARD" ] || root=/dev/mmcblk0p2
    root_kind=card
    case $root in
        /dev/nfs) root_kind=nfs ;;
        /dev/ram0)
            root_kind=ram
            init=/init
            ;;
        LABEL=*)
            # The kernel knows no labels; whoever wrote this has a RAM disk that does.
            [ -n "$initrd" ] || die "kernel panic: cannot open root device $root: no initramfs"
            root_number=$(labelled "${root#LABEL=}")
            [ -n "$root_number" ] || die "initramfs: no file system has $root"
            ;;
        /dev/mmcblk0p[1-4]) root_number=${root#/dev/mmcblk0p} ;;
        PARTUUID=*-0[1-4])
            wanted=$(echo "${root#PARTUUID=}" | tr A-F a-f)
            [ -n "$CARD" ] || die "kernel panic: cannot open root device $root: no card"
            found=$(od -A n -t x4 -j 440 -N 4 "$CARD" | tr -d ' ')
            [ "${wanted%-*}" = "$found" ] || die "kernel panic: no partition has $root"
            root_number=${root##*-0}
            ;;
        *) die "kernel panic: cmdline.txt has no usable root= (it says '$root')" ;;
    esac
}

# What a kernel finds on the card when it starts: forget what was known, read the table anew.
scan_card() {
    [ -n "$CARD" ] || return 0
    # Not `partx --delete`: it asks the card, which may have changed.
    set +f
    for file in /sys/block/"${CARD#/dev/}"/*/partition; do
        [ ! -e "$file" ] || delpart "$CARD" "$(cat "$file")"
    done
    set -f
    partx --add "$CARD"
}

mount_nfs_root() {
    mount -t tmpfs -o size=50% overlay "$system" || die "kernel panic: no memory for the overlay"
    mkdir "$system/upper" "$system/work" "$system/merged"
    mount -t overlay nfsroot "$system/merged" \
        -o "lowerdir=$LAYER:$DEPLOY_OS,upperdir=$system/upper,workdir=$system/work" ||
        die "kernel panic: the NFS root cannot be mounted"
    system=$system/merged
}

mount_card_root() {
    [ -n "$CARD" ] || die "kernel panic: cannot open root device $root: no card"
    [ -b "${CARD}p$root_number" ] ||
        die "kernel panic: cannot open root device $root: no such partition"
    mount -t ext4 "${CARD}p$root_number" "$system" ||
        die "kernel panic: unable to mount root file system $root"
}

# The number of the partition whose ext4 has this label: 16 bytes at 120 of the superblock, at 1024.
labelled() {
    for number in 1 2 3 4; do
        [ -b "${CARD:-/nowhere}p$number" ] || continue
        found=$(dd if="${CARD}p$number" bs=4 skip=286 count=4 2> /dev/null | tr -d '\0')
        [ "$found" != "$1" ] || echo "$number"
    done
}

mount_ram_root() {
    [ -n "$initrd" ] || die "kernel panic: $root, and no initramfs in config.txt"
    mount -t tmpfs -o mode=755 rootfs "$system" || die "kernel panic: no memory for the RAM disk"
    busybox gzip -dc "$BOARD/tftp/$initrd" > "$BOARD/initrd" &&
        (cd "$system" && busybox cpio -idmu < "$BOARD/initrd") ||
        die "kernel panic: $initrd cannot be unpacked"
    rm "$BOARD/initrd"
}

mount_proc_sys() {
    mount -t proc proc "$system/proc"
    # The kernel is the machine's: nodes must neither reboot nor read it.
    for file in sysrq-trigger kmsg kcore; do
        [ -e "$system/proc/$file" ] && mount --bind /dev/null "$system/proc/$file"
    done
    mount --bind "$system/proc/sys" "$system/proc/sys"
    mount -o remount,bind,ro "$system/proc/sys"
    # Except what is the node's own: its network namespace.
    mount --bind "$system/proc/sys/net" "$system/proc/sys/net"
    mount -o remount,bind,rw "$system/proc/sys/net"
    mount -t sysfs -o ro sysfs "$system/sys"
    # Only the node's own card among the disks. (Do: partition tools find it by its number.)
    for folder in /sys/block /sys/class/block; do
        mount -t tmpfs -o size=64k,mode=755 disks "$system$folder"
        [ -z "$CARD" ] || ln -s "/sys/devices/virtual/block/${CARD#/dev/}" "$system$folder/"
        mount -o remount,ro "$system$folder"
    done
}

mount_dev() {
    dev=$system/dev
    mount -t tmpfs -o mode=755,size=1m dev "$dev"
    while read -r name major minor; do
        mknod -m 666 "$dev/$name" c "$major" "$minor"
    done << EOF
null 1 3
console 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
EOF
    mkdir "$dev/pts" "$dev/shm" "$dev/.kernel"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$dev/pts"
    mount -t tmpfs -o mode=1777 shm "$dev/shm"
    ln -s pts/ptmx "$dev/ptmx"
    ln -s /proc/self/fd "$dev/fd"
    ln -s fd/0 "$dev/stdin"
    ln -s fd/1 "$dev/stdout"
    ln -s fd/2 "$dev/stderr"
    mount_card_files
}

# The card as /dev/mmcblk0. Its partitions are links into the kernel's own devtmpfs, where they come
# and go by themselves; the machine's other disks there are covered.
mount_card_files() {
    [ -n "$CARD" ] || return 0
    loop=${CARD#/dev/}
    mount -t devtmpfs devtmpfs "$dev/.kernel"
    set +f
    for file in "$dev"/.kernel/*; do
        [ -b "$file" ] || continue
        case ${file##*/} in
            "$loop" | "$loop"p*) ;;
            *) mount --bind /dev/null "$file" ;;
        esac
    done
    set -f
    mknod -m 660 "$dev/mmcblk0" b 7 "${loop#loop}"
    for number in 1 2 3 4; do
        ln -s ".kernel/${loop}p$number" "$dev/mmcblk0p$number"
    done
}

# Files that are the kernel's on a real board, and would be the machine's here.
mount_kernel_files() {
    own=$system/run/.board
    mkdir "$own"
    cp "$(command -v busybox)" "$own/busybox"
    cp "$BOARD/cmdline" "$own/cmdline"
    cat /proc/sys/kernel/random/uuid > "$own/boot_id"
    {
        [ -z "$(lease domain)" ] || echo "search $(lease domain)"
        for server in $(lease dns); do echo "nameserver $server"; done
    } > "$own/resolv.conf"
    mount --bind "$own/cmdline" "$system/proc/cmdline"
    mount --bind "$own/boot_id" "$system/proc/sys/kernel/random/boot_id"
}

configure_network() {
    ip address replace "$(lease address)" dev eth0
    router=$(lease router)
    [ -z "$router" ] || ip route replace default via "$router"
}

kernel() {
    say "booting kernel"
    scan_card
    read_cmdline
    sleep "$KERNEL_SECONDS"
    system=$BOARD/system
    mkdir -p "$system"
    "mount_${root_kind}_root"
    [ -x "$system$init" ] || [ -L "$system$init" ] ||
        die "kernel panic: no working $init found on $root"
    mount_proc_sys
    mount_dev
    mount -t tmpfs -o mode=755 run "$system/run"
    mkdir -p "$system/run/lock"
    mount_kernel_files
    configure_network
    hostname "$(cat "$system/etc/hostname" 2> /dev/null || echo localhost)"
}

# From here on nothing but the board's own busybox is used: the machine's files are out of reach.
start_init() {
    cd "$system" || die "kernel panic: the root file system has gone"
    mkdir -p run/.board/machine
    pivot_root . run/.board/machine || die "kernel panic: pivot_root failed"
    case $root_kind in
        ram) say "up card" ;; # its RAM disk, packages and settings came with the card
        *) say "up $root_kind" ;;
    esac
    exec 3>&-
    # shellcheck disable=SC2016  # expanded by the board's own shell
    exec /run/.board/busybox env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=linux \
        /run/.board/busybox chroot . /run/.board/busybox sh -c '
            PATH=
            busybox=/run/.board/busybox
            # As a DHCP client would write it, wherever that name leads to in this system.
            [ -L /etc/resolv.conf ] && $busybox mkdir -p \
                "$($busybox dirname "$($busybox realpath /etc/resolv.conf)")"
            $busybox cat /run/.board/resolv.conf > /etc/resolv.conf
            $busybox umount -l /run/.board/machine
            PATH=/usr/sbin:/usr/bin:/sbin:/bin
            exec "$0"' "$init" < /dev/null
}

firmware
kernel
start_init
