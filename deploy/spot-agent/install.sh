#!/bin/sh
# Installs the spot agent on this machine. CLIENT_TOKEN is required, SERVER_URL names the server;
# docs/guide/install.md says the rest.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for program in "${HOSTLER:-}" "$here/hostler" "$(command -v hostler || true)"; do
    if [ -n "$program" ] && [ -x "$program" ]; then
        exec "$program" install spot-agent "$@"
    fi
done
echo "there is no program hostler: put it beside this script, on PATH, or name it by HOSTLER" >&2
exit 1
