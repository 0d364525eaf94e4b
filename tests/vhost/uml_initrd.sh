#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The initrd of a guest for User-Mode Linux: busybox, the kernel's balloon driver, and an init that runs the
# commands of its console. usage: uml_initrd.sh FILE. Exit status 77: something is missing, the last line says what.
set -eu
file=$1

skip() {
	echo "$1"
	exit 77
}

command -v linux.uml >/dev/null || skip "skipped: no linux.uml (Debian: apt-get install user-mode-linux)"
busybox=$(command -v busybox) || skip "skipped: no busybox (Debian: apt-get install busybox-static)"
command -v cpio >/dev/null || skip "skipped: no cpio (Debian: apt-get install cpio)"
module=$(find /usr/lib/uml/modules -name virtio_balloon.ko 2>/dev/null | head -n 1)
[ -n "$module" ] || skip "skipped: the modules of user-mode-linux have no virtio_balloon"
if ldd "$busybox" >/dev/null 2>&1; then
	skip "skipped: $busybox needs libraries (Debian: apt-get install busybox-static)"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/bin" "$folder/proc" "$folder/sys" "$folder/dev" "$folder/tmp"
cp "$busybox" "$folder/bin/busybox"
cp "$module" "$folder/virtio_balloon.ko"
cat >"$folder/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=95% tmp /tmp
stty -echo 2>/dev/null
insmod /virtio_balloon.ko
echo "guest is ready"
while read -r line; do
	eval "$line"
	echo "guest: done $?"
done
END
chmod +x "$folder/init"
(cd "$folder" && find . | cpio -o -H newc --quiet) | gzip -1 >"$file"
