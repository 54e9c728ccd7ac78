#!/bin/sh
# Installs Hostler from the bundle that this script lies in; reaches no network. Every file of the bundle is compared
# with its sum first, and nothing is changed if one differs.
#
#   ./install.sh                  the program, its pages and completions, below /usr/local
#   ./install.sh --prefix DIR     below another directory
#   ./install.sh --deb            as a Debian package instead
#   ./install.sh --images         loads the images into the Docker engine as well
set -eu

prefix=/usr/local
as=files
images=no

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -gt 1 ] || fail "--prefix needs a directory" 2; prefix=$2; shift ;;
        --deb) as=deb ;;
        --images) images=yes ;;
        *) fail "there is no option $1; the head of this script lists all" 2 ;;
    esac
    shift
done

cd "$(dirname "$0")"
[ -f SHA256SUMS ] || fail "SHA256SUMS is missing: the bundle is not whole"
sha256sum --check --strict --quiet SHA256SUMS >&2 || fail "the bundle is damaged, and nothing was installed"

# Puts a file in its place in one step, so that a program that runs keeps the file that it was started from.
put() {
    mkdir -p "$(dirname "$3")"
    cp "$1" "$3.new"
    chmod "$2" "$3.new"
    mv -f "$3.new" "$3"
}

if [ "$as" = deb ]; then
    set -- hostler_*.deb
    [ -f "$1" ] || fail "this bundle has no Debian package"
    dpkg --install "$1"
else
    for page in man/man1/*.1; do
        put "$page" 644 "$prefix/share/$page"
    done
    put completions/hostler.bash 644 "$prefix/share/bash-completion/completions/hostler"
    put completions/_hostler 644 "$prefix/share/zsh/site-functions/_hostler"
    put completions/hostler.fish 644 "$prefix/share/fish/vendor_completions.d/hostler.fish"
    put hostler.cdx.json 644 "$prefix/share/doc/hostler/hostler.cdx.json"
    put LICENSE 644 "$prefix/share/doc/hostler/LICENSE"
    put hostler 755 "$prefix/bin/hostler"
    for name in miaas-agent node-agent persys-agent spot-agent; do
        ln -sf hostler "$prefix/bin/$name"
    done
    "$prefix/bin/hostler" --version
fi

if [ "$images" = yes ]; then
    [ -f images.tar ] || fail "this bundle has no images"
    docker load --input images.tar
fi
