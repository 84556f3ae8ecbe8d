#!/bin/busybox ash
# Stands for Tiny Core's: `-b` backs up what /opt/.filetool.lst names. Says what goes wrong, and ends
# with 1 then.
[ "$1" = -b ] || { echo "usage: filetool.sh -b"; exit 1; }
folder=$(readlink -f /etc/sysconfig/tcedir)
target=$folder/$(cat /etc/sysconfig/mydata).tgz
[ -d "$folder" ] || { echo "Invalid device"; exit 1; }
sed -i '/^$/d' /opt/.filetool.lst
# Debian's busybox reads no list of files from a file, nor what is to be left out.
# shellcheck disable=SC2046  # words are wanted
if ! said=$(sudo /bin/tar -C / -czf "$target" $(cat /opt/.filetool.lst) 2>&1) ||
    [ -n "$said" ]; then
    echo "There was an issue: $said"
    exit 1
fi
# Tiny Core syncs everything; here that would be every node's card.
sudo /bin/sync -f "$target" 2> /dev/null || sync
echo Done.
