#!/bin/sh
# Called by udhcpc (busybox) on the events of a lease; keeps what the board's firmware needs.
# shellcheck disable=SC2154  # udhcpc sets the variables
case $1 in
    bound | renew)
        {
            echo "address=$ip/${mask:-24}"
            echo "server=${siaddr:-$serverid}"
            echo "router=${router%% *}"
            echo "dns=$dns"
            echo "domain=$domain"
        } > "$LEASE"
        ;;
esac
