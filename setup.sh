#!/bin/sh
# Sets a machine up for LiquidNet: the Debian packages it calls, and a virtual environment in
# .venv with pinned Python packages.  Run again it only looks whether anything is missing.
# `setup.sh vm` also gets what virtual machines take: another kernel (testbed/vm.py), and the
# images of small guests (testbed/guests).
set -eu
cd "$(dirname "$0")"

PACKAGES="iproute2 iputils-ping nftables tcpdump tshark iperf3 mptcpize openvswitch-switch
openvswitch-testcontroller slirp4netns ffmpeg libopenh264-7 libyuv0 openssh-server
mininet bridge-utils net-tools"
PROGRAMS="ip ping nft tcpdump tshark iperf3 mptcpize ovs-vswitchd ffmpeg"
WANTED=${1:-}
[ "$WANTED" != vm ] || PACKAGES="$PACKAGES qemu-system-x86 qemu-utils busybox-static kmod mmdebstrap"
PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 2; }

missing_packages() {
    for package in $PACKAGES; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q ' installed$' || echo "$package"
    done
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

missing_programs() {
    for program in $PROGRAMS; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a package's services when it is installed; LiquidNet runs private ones only.
install_quietly() {
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then ours=no; else ours=yes; fi
    [ $ours = no ] || printf '#!/bin/sh\nexit 101\n' | as_root sh -c "cat > $policy && chmod 755 $policy"
    status=0
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $1 \
        >"$log" 2>&1 || status=$?
    [ $ours = no ] || as_root rm -f $policy
    return $status
}

install_packages() {
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        fail "these Debian packages are missing: $missing; as root run: apt-get install $missing"
    fi
    say "installing Debian packages: $missing"
    log=$(mktemp)
    as_root apt-get update -q >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "apt-get update failed"; }
    install_quietly "$missing" || { tail -n 5 "$log" >&2; fail "apt-get install failed"; }
    rm -f "$log"
    # tests start an SSH server of their own; the machine's need not be one
    case " $missing" in *" openssh-server "*) as_root systemctl -q disable ssh.service || true ;; esac
}

check_programs() {
    missing=$(missing_programs | tr '\n' ' ')
    [ -z "$missing" ] || fail "there is no apt here; install what gives these programs: $missing\
(iproute2, iputils, nftables, tcpdump, wireshark-cli, iperf3, mptcpd, openvswitch, ffmpeg)"
}

make_environment() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$PYTHON is $("$PYTHON" -V 2>&1); LiquidNet needs Python 3.11 or later (set PYTHON=)"
    stamp=$(cat pyproject.toml requirements.lock | cksum)
    [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ] || return 0
    say "making the Python environment in .venv"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" >.venv/stamp
}

# virtme-ng and a kernel of Debian's, into ~/.cache/liquidnet; neither is installed.
fetch_machine() {
    images="function micro xen"
    lacks="import sys; from testbed import guests, vm; print(vm.missing(), *map(guests.missing, sys.argv[1:]), sep='')"
    # shellcheck disable=SC2086
    [ -n "$(.venv/bin/python -c "$lacks" $images)" ] || return 0
    say "fetching a kernel for a virtual machine, and packages for guests"
    as_root apt-get update -q >/dev/null || fail "apt-get update failed"
    .venv/bin/python -c 'from testbed import vm; vm.fetch()' || fail "see above"
    for image in $images; do
        .venv/bin/testbed image build $image || fail "see above"
    done
}

if command -v apt-get >/dev/null; then install_packages; else check_programs; fi
make_environment
[ "$WANTED" != vm ] || fetch_machine
say "ready: .venv/bin/testbed"
