#!/bin/bash
# One line for each address that spoke to the store since the lab began: ADDRESS received|sent BYTES, as the store sees it.
set -euo pipefail
/usr/sbin/nft -j list table inet testbed-traffic | jq -r '.nftables[].set | select(.) | .name as $way | .elem[]?.elem | "\(.val) \($way) \(.counter.bytes)"'
