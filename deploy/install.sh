#!/bin/sh
# Installs, joins, upgrades or removes the agent of Sandpiper on this device.
#
#   install.sh --packages DIR        packages from a directory
#   install.sh --from URL            packages from a controller or a web server
#   curl ... URL/install | sh        the same from a controller, which fills in URL and pin below
#
# The token that lets the device join comes from standard input (--token-stdin), from a file
# (--token-file FILE) or from the variable SANDPIPER_TOKEN: other users of this device see the
# arguments of programs, and not those. Run it again to upgrade; a device that has joined keeps
# its identity. The newest package that the checksums list is installed, or that of
# SANDPIPER_VERSION.
set -eu

# Filled in by the controller that serves this.
FROM=
PIN=
VERSION=${SANDPIPER_VERSION:-}
# Everything happens below this directory; a test puts its own there.
ROOT=${SANDPIPER_ROOT:-}
STATE=/var/lib/sandpiper-agent
UNIT=sandpiper-agent.service

say() { printf '%s\n' "$*"; }
fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
usage() {
	cat <<'TEXT'
usage: install.sh (--packages DIR | --from URL [--pin PIN]) [--token-stdin | --token-file FILE]
                  [--name NAME] [--tarball] [--dry-run] [TOKEN]
       install.sh --uninstall [--purge] [--dry-run]
TEXT
}

# Runs a command that changes something, or says what it would be.
change() {
	if [ "$dry" = yes ]; then
		say "would run: $*"
	else
		"$@"
	fi
}

# Prints the platform's name in packages.
platform() {
	machine=${SANDPIPER_MACHINE:-$(uname -m)}
	# A 64-bit kernel under a 32-bit system, as older systems for the Raspberry Pi have it.
	bits=$(getconf LONG_BIT 2>/dev/null || say 64)
	case "$machine" in
	aarch64 | arm64)
		if [ "${SANDPIPER_BITS:-$bits}" = 32 ]; then say armhf; else say arm64; fi
		;;
	armv7* | armv8l) say armhf ;;
	x86_64) say amd64 ;;
	armv6*) fail "this processor ($machine) is older than ARMv7: Pi 1 and Pi Zero are too small for models" ;;
	*) fail "there is no package for $machine: aarch64, armv7 and x86_64 are supported" ;;
	esac
}

board() {
	if [ -r "$ROOT/proc/device-tree/model" ]; then
		tr -d '\0' <"$ROOT/proc/device-tree/model"
	else
		printf 'unknown board'
	fi
}

system() {
	# shellcheck disable=SC1091 # it is there on the device, or not at all
	(. "$ROOT/etc/os-release" 2>/dev/null && say "${PRETTY_NAME:-unknown system}") || say "unknown system"
}

# Puts a file of the packages into $work.
obtain() {
	if [ -n "$packages" ]; then
		[ -r "$packages/$1" ] || fail "there is no $1 in $packages"
		cp "$packages/$1" "$work/$1"
	else
		# With a pin the certificate need not be known to this device, only its key.
		curl -fsS --retry 3 ${pin:+-k --pinnedpubkey "$pin"} -o "$work/$1" "$from/packages/$1" ||
			fail "cannot fetch $from/packages/$1"
	fi
}

# Sets $file to a package that the checksums list: the one of $VERSION, or the newest. Its name is
# $1, a version without blanks and slashes, and $2.
choose() {
	file=$(sed -n "s/^[0-9a-f]\{64\}  \($1${VERSION:-[0-9][0-9A-Za-z.+~-]*}$2\)\$/\1/p" "$work/SHA256SUMS" |
		{ sort -V 2>/dev/null || sort; } | tail -n 1)
	[ -n "$file" ] || fail "there is no $1${VERSION:-VERSION}$2 among the packages of ${packages:-$from}"
}

# Checks a package against the checksums that came from the same place.
verify() {
	(cd "$work" && grep "  $1\$" SHA256SUMS >one && sha256sum -c one >/dev/null) ||
		fail "$1 is damaged: its checksum is not the one of SHA256SUMS"
}

install_deb() {
	# The configuration belongs to the owner of the device: an upgrade leaves it alone, and asks
	# nobody, since this script may be what standard input holds.
	change dpkg --root="${ROOT:-/}" --force-confdef --force-confold --install "$work/$1" </dev/null
}

install_tarball() {
	# The configuration belongs to the owner of the device: an upgrade leaves it alone.
	keep=
	if [ -e "$ROOT/etc/sandpiper/agent.toml" ]; then
		keep=--exclude=etc/sandpiper/agent.toml
	fi
	# tar unlinks a file before it writes one of that name: a running agent keeps its own program
	# until it is restarted.
	change tar -xzf "$work/$1" -C "${ROOT:-/}" ${keep:+"$keep"}
	if ! grep -qs '^sandpiper-agent:' "$ROOT/etc/passwd"; then
		change useradd ${ROOT:+--root "$ROOT"} --system --user-group --home-dir "$STATE" \
			--no-create-home --shell /usr/sbin/nologin sandpiper-agent
	fi
	change mkdir -p "$ROOT$STATE"
	change chmod 0700 "$ROOT$STATE"
	if [ "$dry" = no ]; then
		# By number: below another root the names are others.
		ids=$(awk -F: '$1 == "sandpiper-agent" { print $3 ":" $4 }' "$ROOT/etc/passwd")
		chown "$ids" "$ROOT$STATE"
	fi
	if has_systemd; then
		change systemctl daemon-reload
		change systemctl enable "$UNIT"
	fi
}

has_systemd() { [ -d "$ROOT/run/systemd/system" ]; }

join() {
	if [ -e "$ROOT$STATE/identity.json" ]; then
		say "this device has joined already; its identity stays"
		return
	fi
	if [ -z "$token" ]; then
		say "not joined yet: run \`sandpiper-agent join -\` and paste a token"
		return
	fi
	if [ "$dry" = yes ]; then
		say "would run: sandpiper-agent join -"
		return
	fi
	# printf is part of the shell: the token is an argument of no process.
	printf '%s\n' "$token" | "$ROOT/usr/bin/sandpiper-agent" \
		--config "$ROOT/etc/sandpiper/agent.toml" join - ${name:+--name "$name"} ||
		fail "the device did not join: see above"
}

restart() {
	if has_systemd; then
		change systemctl restart "$UNIT"
	else
		say "there is no systemd here: start \`sandpiper-agent run\` with what starts services"
	fi
}

uninstall() {
	if has_systemd && [ -e "$ROOT/usr/lib/systemd/system/$UNIT" ]; then
		change systemctl disable --now "$UNIT"
	fi
	if command -v dpkg-query >/dev/null && dpkg-query --admindir="$ROOT/var/lib/dpkg" -W sandpiper-agent >/dev/null 2>&1; then
		if [ "$purge" = yes ]; then how=--purge; else how=--remove; fi
		change dpkg --root="${ROOT:-/}" "$how" sandpiper-agent
	else
		change rm -f "$ROOT/usr/bin/sandpiper-agent" "$ROOT/usr/lib/systemd/system/$UNIT"
		change rm -rf "$ROOT/usr/share/doc/sandpiper-agent"
		if has_systemd; then change systemctl daemon-reload; fi
	fi
	if [ "$purge" = yes ]; then
		change rm -rf "$ROOT$STATE" "$ROOT/etc/sandpiper/agent.toml"
		say "removed, with identity, models and configuration"
	else
		say "removed; $STATE stays (--purge removes it too)"
	fi
}

# All of it is read before any of it runs: a download that breaks off does nothing.
main() {
	packages='' from='' pin='' name='' dry=no tarball=no purge=no remove=no
	token=${SANDPIPER_TOKEN:-}
	# Children need not know it.
	unset SANDPIPER_TOKEN
	while [ $# -gt 0 ]; do
		case "$1" in
		--packages | --from | --pin | --name | --token-file)
			[ $# -ge 2 ] || fail "$1 needs a value"
			case "$1" in
			--packages) packages=$2 ;;
			--from) from=${2%/} ;;
			--pin) pin=$2 ;;
			--name) name=$2 ;;
			--token-file) token=$(cat "$2") || fail "cannot read the token from $2" ;;
			esac
			shift
			;;
		--token-stdin) IFS= read -r token || [ -n "$token" ] || fail "standard input holds no token" ;;
		--tarball) tarball=yes ;;
		--dry-run) dry=yes ;;
		--uninstall) remove=yes ;;
		--purge) purge=yes ;;
		-h | --help)
			usage
			exit 0
			;;
		sandpiper-join*)
			say "warning: other users of this device see this token as long as this runs; SANDPIPER_TOKEN hides it" >&2
			token=$1
			;;
		*)
			usage >&2
			fail "unknown argument; a token is given by --token-stdin, --token-file or SANDPIPER_TOKEN"
			;;
		esac
		shift
	done
	if [ -z "$ROOT" ] && [ "$dry" = no ] && [ "$(id -u)" != 0 ]; then
		fail "this changes the system: run it with sudo"
	fi
	if [ "$remove" = yes ]; then
		uninstall
		return
	fi
	[ "$purge" = no ] || fail "--purge goes with --uninstall"
	[ -z "$packages" ] || [ -z "$from" ] || fail "--packages and --from exclude each other"
	if [ -z "$packages$from" ]; then
		from=$FROM pin=${pin:-$PIN}
	fi
	[ -n "$packages$from" ] || fail "say where the packages are: --packages DIR or --from URL"
	[ -n "$packages" ] || command -v curl >/dev/null || fail "curl is needed to fetch packages: install it"
	arch=$(platform)
	say "$(board), $(system), $arch"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	obtain SHA256SUMS
	if [ "$tarball" = no ] && command -v dpkg >/dev/null && [ -d "$ROOT/var/lib/dpkg" ]; then
		choose sandpiper-agent_ "_$arch.deb"
		how=install_deb
	else
		choose sandpiper-agent- "-$arch.tar.gz"
		how=install_tarball
	fi
	obtain "$file"
	verify "$file"
	say "installing $file"
	"$how" "$file"
	join
	restart
}

main "$@"
