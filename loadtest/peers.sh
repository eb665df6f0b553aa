#!/bin/sh
# The servers that `loadtest versus` puts beside ours, from Debian's packages.
#
#   loadtest/peers.sh [DIR]        DIR: where what must not be installed is unpacked; target/peers unless named
#
# Nothing is started and no mail system of this machine is changed:
#   Dovecot             is installed, with the start of its service forbidden while that goes on
#   Postfix             is used when it is installed; otherwise it is unpacked too
#   Exim, OpenSMTPD     are unpacked into DIR/root: as packages they and Postfix exclude each other
#   popa3d              is built from Debian's source into DIR/root/usr/sbin, with virtual users, and without its limits of
#                       50 sessions an address and 5 connections waiting, which would be what is measured
# Again is harmless: what is there stays. A peer that could not be had is named, and the exit code is 1; `loadtest versus`
# leaves it out.
set -u

HERE=$(cd "$(dirname "$0")/.." && pwd)
DIR=${1:-${CARGO_TARGET_DIR:-$HERE/target}/peers}
POPA3D=1.0.3
missing=""

say() { echo "peers: $*" >&2; }

if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
    say "apt-get and dpkg-deb are needed: peers come from Debian's packages"
    exit 1
fi
mkdir -p "$DIR/debs" "$DIR/root" || exit 1
DIR=$(cd "$DIR" && pwd)

# ---- Installed ---------------------------------------------------------------------------------------
dovecot() {
    [ -x /usr/lib/dovecot/pop3-login ] && return
    [ "$(id -u)" = 0 ] || { say "root is needed to install dovecot-pop3d"; return 1; }
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends dovecot-pop3d > "$DIR/dovecot.log" 2>&1
}

# ---- Unpacked ----------------------------------------------------------------------------------------
# Packages, as files, into DIR/root.
unpack() {
    for package; do
        [ -e "$DIR/debs/$package.unpacked" ] && continue
        (cd "$DIR/debs" && rm -f "${package}"_*.deb && apt-get -q download "$package") > "$DIR/debs/$package.log" 2>&1 \
            && dpkg-deb -x "$DIR"/debs/"$package"_*.deb "$DIR/root" && : > "$DIR/debs/$package.unpacked" || return 1
    done
}

# Libraries that an executable lacks, by the packages that Debian has them in.
libraries() {
    program=$1
    shift
    for package; do
        LD_LIBRARY_PATH="$(libs)" ldd "$program" 2> /dev/null | grep -q "not found" || return 0
        unpack "$package" || return 1
    done
    ! LD_LIBRARY_PATH="$(libs)" ldd "$program" | grep "not found"
}

libs() { echo "$DIR"/root/usr/lib/*-linux-gnu "$DIR"/root/lib/*-linux-gnu | tr ' ' ':'; }

postfix() {
    [ -x /usr/sbin/postfix ] && return
    say "Postfix is not installed: its paths are part of it, so unpacking is no way; install postfix to have it"
    return 1
}

exim() {
    unpack exim4-base exim4-daemon-light && libraries "$DIR/root/usr/sbin/exim4" \
        libidn12 libgnutls-dane0 libunbound8 libevent-2.1-7 libnsl2 libtirpc3 libdb5.3 libpcre2-8-0 libidn2-0 libgnutls30
}

opensmtpd() {
    unpack opensmtpd && libraries "$DIR/root/usr/sbin/smtpd" libevent-2.1-7 libdb5.3 libssl3 libasr0
}

# ---- Built -------------------------------------------------------------------------------------------
popa3d() {
    [ -x "$DIR/root/usr/sbin/popa3d" ] && return
    command -v cc > /dev/null && command -v make > /dev/null || { say "cc and make are needed to build popa3d"; return 1; }
    private=$DIR/apt
    mkdir -p "$private/lists/partial" "$private/cache" "$DIR/build" "$DIR/root/usr/sbin"
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    echo "deb-src http://deb.debian.org/debian $suite main" > "$private/sources.list"
    set -- -q -o Dir::Etc::sourcelist="$private/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$private/lists" -o Dir::Cache="$private/cache"
    (
        set -e
        apt-get "$@" update
        cd "$DIR/build"
        # The original source is what is built; Debian's patches are for its packaging.
        apt-get "$@" source --tar-only popa3d
        tar xf popa3d_$POPA3D.orig.tar.gz
        cd popa3d-$POPA3D
        # Everything the peer must find lies below /mnt, where its mount namespace has the private folder.
        sed -i \
            -e 's/^\(#define POP_STANDALONE\).*/\1 1/' \
            -e 's/^\(#define POP_VIRTUAL\).*/\1 1/' \
            -e 's/^\(#define VIRTUAL_ONLY\).*/\1 1/' \
            -e 's/^\(#define DAEMON_ADDR\).*/\1 "127.0.0.1"/' \
            -e 's/^\(#define DAEMON_PORT\).*/\1 atoi(getenv("POPA3D_PORT"))/' \
            -e 's/^\(#define MAX_SESSIONS_PER_SOURCE\).*/\1 20000/' \
            -e 's/^\(#define MAX_SESSIONS\)[^_].*/\1 20000/' \
            -e 's/^\(#define MAX_BACKLOG\).*/\1 511/' \
            -e 's/^\(#define MIN_DELAY\).*/\1 0/' \
            -e 's#^\(\#define VIRTUAL_HOME_PATH\).*#\1 "/mnt/vhome"#' \
            -e 's#^\(\#define POP_CHROOT\).*#\1 "/mnt/empty"#' params.h
        # In the foreground, so that whoever started it sees it end.
        sed -i -e 's/^#include <stdio.h>/&\n#include <stdlib.h>/' -e 's/switch (fork())/switch (0)/' standalone.c
        make CFLAGS="-O2 -fomit-frame-pointer -include crypt.h" LIBS=-lcrypt
        cp popa3d "$DIR/root/usr/sbin/popa3d"
    ) > "$DIR/popa3d.log" 2>&1
}

for peer in dovecot postfix exim opensmtpd popa3d; do
    if $peer; then
        say "$peer: there"
    else
        say "$peer: could not be had; $DIR/$peer.log or $DIR/debs/*.log may say why"
        missing="$missing $peer"
    fi
done
[ -z "$missing" ]
