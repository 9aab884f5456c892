#!/bin/bash
# libs.sh ROOT PROGRAM...: copies the shared libraries of programs to where the loader looks for them below ROOT.
set -euo pipefail
root=$1; shift
ldd "$@" 2>/dev/null | grep -oE '/[^ ():]+\.so[^ ():]*' | sort -u | while read -r f; do
  d=$root/usr/${f#/}; case $f in /usr/*) d=$root/${f#/} ;; esac
  [ -e "$d" ] || { mkdir -p "$(dirname "$d")"; cp -L "$f" "$d"; }
done
