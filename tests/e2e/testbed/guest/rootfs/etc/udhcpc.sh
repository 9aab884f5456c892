#!/bin/sh
# Applies what the DHCP server said.
case $1 in bound|renew) ifconfig $interface $ip netmask ${subnet:-255.255.255.0}
  [ -n "$router" ] && route add default gw ${router%% *} 2>/dev/null
  echo "DHCP $interface $ip $(cut -d' ' -f1 /proc/uptime)" > /dev/console;; esac
