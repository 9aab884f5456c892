#!/bin/bash
# Makes the images no registry is needed for: localhost/pause:1 (every pod's first process), and localhost/tools:1 (restic, bash,
# busybox, curl, ssh, CA certificates, user 65532), whose one layer is also the base of the operator's image.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
I=$CACHE/images; mkdir -p "$I"
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
mkdir "$t/pause"
gcc -static -Os -s -o "$t/pause/pause" "$TB/images/pause.c"
"$TB/images/layer.sh" "$t/pause" "$t/pause.layer"
"$TB/images/oci-image.sh" localhost/pause:1 "$I/pause.tar" '{"User":"65535","Entrypoint":["/pause"]}' "$t/pause.layer"

# as in Debian, /bin, /sbin, /lib and /lib64 are links into /usr, so that libraries are found under both names
r=$t/base; mkdir -p "$r"/{tmp,etc/ssl/certs,usr/local/bin,usr/bin,usr/sbin,usr/lib,usr/lib64,root,var/tmp}
for d in bin sbin lib lib64; do ln -s "usr/$d" "$r/$d"; done
cp /bin/busybox "$r/bin/"
for a in $(/bin/busybox --list); do case $a in busybox | bash | su | login) ;; *) ln -s busybox "$r/bin/$a" ;; esac; done
cp "$BIN/restic" "$r/usr/local/bin/"
for f in /bin/bash /usr/bin/curl /usr/bin/ssh /usr/bin/ssh-keygen /usr/bin/ssh-keyscan; do cp -L "$f" "$r/usr/bin/"; done
"$TB/images/libs.sh" "$r" "$BIN/restic" /bin/bash /usr/bin/curl /usr/bin/ssh /usr/bin/ssh-keygen /usr/bin/ssh-keyscan
cp /etc/ssl/certs/ca-certificates.crt "$r/etc/ssl/certs/"
printf 'root:x:0:0:root:/root:/bin/bash\nnonroot:x:65532:65532::/tmp:/bin/bash\n' >"$r/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$r/etc/group"; echo 'hosts: files dns' >"$r/etc/nsswitch.conf"; chmod 1777 "$r/tmp" "$r/var/tmp"
"$TB/images/layer.sh" "$r" "$I/base.tar.new"
"$TB/images/oci-image.sh" localhost/tools:1 "$I/tools.tar" '{"User":"65532:65532","Cmd":["/bin/bash"]}' "$I/base.tar.new"
mv "$I/base.tar.new" "$I/base.tar"
ls -l --block-size=K "$I"
