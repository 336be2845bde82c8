#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that building and testing need; does nothing when all are there.
#
#   test/install-deps.sh [--check] [GROUP]...      groups: build unit test demo demo-sql lint bench fuzz power boards image kernel boot
#                                                      pkg:NAME; default: build test
#
# DEPS_CHECK=no: nothing is looked for; a distribution's recipe knows what it builds with.
# As root it installs what is missing; daemons that come along are not started. Otherwise, or with --check, it prints the
# command and fails.
set -eu

build="gcc make musl-dev linux-libc-dev xz-utils ca-certificates binutils"
fuzz="clang libclang-rt-14-dev"
unit="libc6-dev libcmocka-dev openssl"
peers="python3 freeradius freeradius-utils swaks libnet-ssleay-perl libio-socket-ssl-perl msmtp curl openssl"
demo="$peers util-linux openssl python3-aiosmtpd"
sql="freeradius-postgresql postgresql"
boards="gcc-aarch64-linux-gnu gcc-arm-linux-gnueabi gcc-arm-linux-gnueabihf gcc-mips-linux-gnu gcc-mipsel-linux-gnu gcc-powerpc-linux-gnu gcc-riscv64-linux-gnu qemu-user-static"
guest="qemu-system-x86 busybox-static e2fsprogs"
image="cpio dpkg coreutils"
kernel="flex bison bc libc6-dev bzip2 $image"	# and BusyBox
cross="gcc-mipsel-linux-gnu gcc-aarch64-linux-gnu qemu-user-static"	# for the boards that tests run and boot
boot="qemu-system-mips qemu-system-arm qemu-system-x86 ipxe-qemu e2fsprogs"
test="$unit $peers $sql $guest $image $boot $cross $fuzz libssl-dev valgrind libc6-dbg python3-pytest strace binutils tshark fail2ban dovecot-imapd dovecot-pop3d ucspi-tcp ipsvd unbound mandoc shellcheck util-linux procps iproute2 systemd"
lint="libssl-dev clang clang-tidy clang-tools clang-format cppcheck shellcheck mandoc python3-pyflakes"
bench="$peers libc6-dev libssl-dev strace dpkg util-linux"
power="python3 $guest f2fs-tools btrfs-progs xfsprogs"

test "${DEPS_CHECK:-}" != no || exit 0
check=
packages=
for word; do
	case $word in
	--check) check=yes ;;
	build) packages="$packages $build" ;;
	unit) packages="$packages $unit" ;;
	test) packages="$packages $test" ;;
	demo) packages="$packages $demo" ;;
	demo-sql) packages="$packages $sql" ;;
	lint) packages="$packages $lint" ;;
	bench) packages="$packages $bench" ;;
	fuzz) packages="$packages $fuzz" ;;
	boards) packages="$packages $boards" ;;
	power) packages="$packages $power" ;;
	kernel) packages="$packages $kernel" ;;
	image) packages="$packages $image" ;;
	boot) packages="$packages $boot" ;;
	pkg:*) packages="$packages ${word#pkg:}" ;;
	*)
		echo "usage: $0 [--check] [build|unit|test|demo|demo-sql|lint|bench|fuzz|power|boards|image|kernel|boot|pkg:NAME]..." >&2
		exit 2 ;;
	esac
done
test -n "$packages" || packages="$build $test"

if ! command -v dpkg-query > /dev/null; then
	echo "install-deps.sh: this is no Debian; please see to these yourself: $packages" >&2
	exit 0
fi

missing=
for p in $packages; do
	case " $(dpkg-query -W -f '${db:Status-Status} ' "$p" 2> /dev/null || true)" in
	*" installed "*) ;;
	*) case " $missing " in *" $p "*) ;; *) missing="$missing $p" ;; esac ;;
	esac
done
test -n "$missing" || exit 0

if test -n "$check" || test "$(id -u)" != 0; then
	echo "install-deps.sh: packages are missing; as root: apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

# Debian starts a daemon on installation unless this file says no (status 101).
policy=/usr/sbin/policy-rc.d
if ! test -e $policy; then
	trap 'rm -f $policy' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
fi

echo "install-deps.sh: installing$missing"
install() {
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends $missing < /dev/null
}
update() {
	apt-get -q update || { sleep 5; apt-get -q update; } || echo "install-deps.sh: apt-get update failed; going on" >&2
}
# The lists may be missing or old: try with what is there, then with new ones.
install || { update; install; }
