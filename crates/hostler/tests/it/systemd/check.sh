# What is done on a machine that systemd runs; each step says what it found. Ends with `all done`.
export HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root
ln -s bundle/hostler hostler
step() { # NAME COMMAND…: the command's word must be true
    name=$1; shift
    if out=$("$@" 2>&1); then echo "did: $name"; return; fi
    echo "FAILED: $name: $out"
    journalctl -o cat --no-pager -n 60 -u hostler-agent -u hostler-server
    exit 1
}
show() { systemctl show --value -p "$1" "$2"; }
until_true() { # within a minute of the guest
    for _ in $(seq 120); do "$@" >/dev/null 2>&1 && return 0; sleep 0.5; done
    echo "never: $*"; return 1
}
is() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
run() { "$@" >out 2>&1; code=$?; cat out; return $code; }

step "the server is installed" run /root/hostler install server
step "it stays" is "$(show ActiveState hostler-server)" active
step "it told systemd that it serves" grep -q serves <<<"$(show StatusText hostler-server)"
step "its user is its own" is "$(stat -c %U /proc/$(show MainPID hostler-server))" hostler
step "the admin's login is its owner's alone" is "$(stat -c %a /var/lib/hostler-server/admin.toml)" 600
step "installing again changes nothing" grep -q "nothing to change" <<<"$(hostler install server 2>&1)"

export HOSTLER_JOIN_TOKEN=$(hostler token create --output name)
step "the agent is installed" run hostler install agent --server https://127.0.0.1:8080
unset HOSTLER_JOIN_TOKEN
ready() { hostler node ls | grep -w ready; }
step "its node is ready" until_true ready
cat >sleeper.yaml <<'Y'
name: sleeper
process:
  command: [/bin/sleep, "100000"]
Y
step "work runs" run hostler apply --file sleeper.yaml
pid=$(pgrep -fx '/bin/sleep 100000')
step "it lives in its own slice" grep -q hostler-work.slice /proc/$pid/cgroup
same() { is "$(pgrep -fx '/bin/sleep 100000')" "$pid"; }

systemctl stop hostler-agent
step "work outlives the agent's stop" same
systemctl start hostler-agent
step "the agent is back" until_true ready
step "it took its work over" same
agent=$(show MainPID hostler-agent)
systemctl kill -s KILL hostler-agent
again() { [ "$(show ActiveState hostler-agent)" = active ] && [ "$(show MainPID hostler-agent)" != "$agent" ]; }
step "a killed agent is started again" until_true again
step "work outlives the agent's death" same
agent=$(show MainPID hostler-agent)
kill -STOP "$agent"
step "an agent that hangs is started again" until_true again
step "work outlives the watchdog" same
step "the node is ready again" until_true ready

server=$(show MainPID hostler-server)
lost() { hostler events | grep -c -i lost; }
# While it hung, it may have been.
before=$(lost)
step "reload" systemctl reload hostler-server
step "the same server goes on" is "$(show MainPID hostler-server)" "$server"
step "restart" systemctl restart hostler-server
step "the node comes back to it" until_true ready
step "nothing was called lost" is "$(lost)" "$before"

cp hostler newer; printf '\0' >>newer
step "an upgrade in place" run ./newer install agent
step "it is the new program" cmp -s newer /usr/local/bin/hostler
step "the program before is kept" cmp -s hostler /usr/local/bin/hostler.previous
step "work outlives the upgrade" same
step "the node is ready after it" until_true ready
step "the server runs the new program" cmp -s newer "/proc/$(show MainPID hostler-server)/exe"

step "the agent is taken off" run hostler uninstall agent
step "its unit is gone" is "$(systemctl is-enabled hostler-agent 2>&1 | grep -c enabled)" 0
step "work outlives that too" same
step "the server is taken off" run hostler uninstall server
step "nothing failed" is "$(systemctl --failed --plain --no-legend | grep hostler)" ""

# As the bundle's package brings it, replaces it, and takes it off.
step "the bundle installs its package" run bundle/install.sh --deb
step "a packaged server is installed" run /usr/bin/hostler install server
step "it runs where the package put it" is "$(readlink /proc/$(show MainPID hostler-server)/exe)" /usr/bin/hostler
cp newer /usr/bin/hostler.new
mv /usr/bin/hostler.new /usr/bin/hostler
step "it is installed again after an upgrade" run /usr/bin/hostler install server
step "the upgraded program serves" is "$(readlink /proc/$(show MainPID hostler-server)/exe)" /usr/bin/hostler
step "a packaged agent is installed" run /usr/bin/hostler install agent
step "its node is ready again" until_true ready
step "it found what the one before it left" same
step "the package is purged with work running" run dpkg --purge hostler
step "its services went with it" is "$(systemctl list-unit-files --plain --no-legend 'hostler-*.service')" ""
step "nothing failed with it" is "$(systemctl --failed --plain --no-legend | grep hostler)" ""
step "work outlives the package" same
step "the fleet's data stays" test -s /var/lib/hostler-server/hostler.db
echo "all done"
