#!/bin/sh
# Takes the spot agent off this machine; logs stay. See docs/guide/install.md.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for program in "${HOSTLER:-}" "$here/hostler" "$(command -v hostler || true)"; do
    if [ -n "$program" ] && [ -x "$program" ]; then
        exec "$program" uninstall spot-agent "$@"
    fi
done
echo "there is no program hostler: put it beside this script, on PATH, or name it by HOSTLER" >&2
exit 1
