#!/bin/bash
# layer.sh DIRECTORY OUT.tar: a directory as an image layer, the same bytes for the same files.
set -euo pipefail
tar -C "$1" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 -cf "$2" .
