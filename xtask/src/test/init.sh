#!/bin/sh
# The guest of the tests: does what its kernel's command line says and writes to the serial console.
#
#   hostler.say=one,two   lines that it writes
#   hostler.disks=1       what is on its disks, and in what cloud-init would read; it writes to them
#   hostler.net=ADDRESS   has that address, with the length of its prefix, and a web server on port 80
#   hostler.root=vda      it goes on with the system on that disk
#   hostler.agent=URL     it is a node of the server there, by the token in hostler.token; its address on the network
#                         between emulator and guest is the one that it always has there
#   hostler.orchion=ADDR  it is a node by Orchion's contract, too
#   hostler.console=tty   where it writes, if that is not the first serial port of a PC
#   hostler.end=off       then it powers off; panic: the kernel gives up; wait: it obeys the power button;
#                         ignore: it does not
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
say= disks= net= root= agent= token= orchion= console=ttyS0 end=wait
for word in $(cat /proc/cmdline); do
    case $word in
        hostler.*) eval "${word#hostler.}" ;;
    esac
done
exec </dev/null >"/dev/$console" 2>&1
load() {
    for module; do insmod "/modules/$module.ko"; done
}
address() {
    load failover net_failover virtio_net
    ip link set lo up
    ip link set eth0 up
    ip addr add "$1" dev eth0
}

if [ "$disks$net$root$agent" ]; then
    load virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
fi
if [ "$root" ]; then
    load virtio_blk
    while [ ! -b "/dev/$root" ]; do sleep 0.1; done
    mount -t ext4 "/dev/$root" /mnt
    umount /proc /sys
    mount --move /dev /mnt/dev
    exec switch_root /mnt /sbin/init <>/mnt/dev/console >&0 2>&0
fi
if [ "$disks" ]; then
    load virtio_blk fat vfat nls_cp437 nls_ascii
    for disk in vda vdb; do
        echo "$disk: $(head -c 5 /dev/$disk | tr -d '\0\n')"
        echo dirty >/dev/$disk
    done
    sync
    mount -t vfat -o ro /dev/vdc /mnt
    echo "seed: $(head -n 1 /mnt/user-data)"
    echo "files:$(cd /mnt && for file in *; do printf ' %s' "$file"; done)"
fi
if [ "$net" ]; then
    address "$net"
    echo "hello from the guest" >/www/index.html
    httpd -p 80 -h /www
    echo up
fi
if [ "$agent" ]; then
    address 10.0.2.15/24
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs var /var
    node-agent -orchestrator "$orchion" -hostname by-orchion -agent-host 10.0.2.15 &
    export HOSTLER_JOIN_TOKEN="$token"
    while :; do
        hostler agent --name board --server "$agent" --docker-socket /nonexistent/docker.sock &
        echo $! >/var/agent
        wait $!
        echo "the agent ended with $?"
    done
fi
if [ "$end" = wait ]; then
    load button evdev
    for button in /dev/input/event*; do
        (dd if="$button" bs=24 count=1 >/dev/null 2>&1; sync; poweroff -f) &
    done
fi
old=$IFS
IFS=,
for line in $say; do echo "$line"; done
IFS=$old
case $end in
    # The console has to be written out before the machine is gone.
    off) sleep 0.5; poweroff -f ;;
    panic) load pvpanic pvpanic-pci; sleep 0.5; exit 1 ;;
esac
while :; do sleep 1000; done
