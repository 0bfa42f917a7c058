#!/bin/sh
# PID 1 of the peer, on the host's own root file system, read-only. Brings up the kernel's IPsec and the network, then runs what it is told:
# a line N on the serial line is "run N.sh in the shared folder"; the answer is "N STATUS". The kernel's command line says
# koura.share= (a folder of the host), koura.modules= (where the kernel's modules are), koura.addresses= (comma between).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# MOUNT (of the kernel's command line, too) is a copy of mount(8) without its set-user-ID bit: in a user namespace of one user that
# bit makes it the program of somebody unknown, who may not mount.
"$MOUNT" -t tmpfs -o mode=0755 tmpfs /run
cp "$MOUNT" /run/mount
mount() { /run/mount "$@"; }
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs -o mode=1777 tmpfs /tmp
for word in $(cat /proc/cmdline); do
    case $word in
        koura.share=*) share=${word#*=} ;;
        koura.modules=*) modules=${word#*=} ;;
        koura.addresses=*) addresses=${word#*=} ;;
    esac
done
mkdir -p /run/share /run/root/lib/modules
mount -t hostfs -o "$share" none /run/share
ln -s "$modules" "/run/root/lib/modules/$(uname -r)"
printf '#!/bin/sh\nexec /sbin/modprobe -d /run/root "$@"\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a ipv6 xfrm_user esp4 ah4 ipcomp esp6 ah6 ipcomp6 xfrm_algo
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/router_solicitations
ip link set lo up
ip link set vec0 name eth0
# Checksums in the packets themselves: what is captured and sealed is whole.
ethtool -K eth0 tx off tso off gso off gro off >/dev/null 2>&1
ip link set eth0 up
for address in $(echo "$addresses" | tr , ' '); do
    case $address in
        *:*) ip -6 addr add "$address" dev eth0 nodad ;;
        *) ip addr add "$address" dev eth0 ;;
    esac
done
exec </dev/ttyS0 >/dev/ttyS0
stty raw -echo clocal
echo ready
while read -r number; do
    timeout 120 sh "/run/share/$number.sh" </dev/null >"/run/share/$number.out" 2>"/run/share/$number.err"
    echo "$number $?"
done
