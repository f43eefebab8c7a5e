#!/bin/sh
# Rotates two keys of fake providers as cron would: rotate.sh, an empty
# environment, and nobody who watches. It needs Go, and neither account nor
# network. What it makes is in a directory of its own, which it removes.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
mocks=
cleanup() {
	for pid in $mocks; do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$1"; }

fail() {
	echo "try.sh: $1" >&2
	exit 1
}

say "the program, and a directory such as /etc/keywright"
mkdir "$dir/bin" "$dir/etc"
(cd "$here" && go build -o "$dir/bin/keywright" ../../cmd/keywright)
PATH=$dir/bin:$PATH
cp "$here/keywright.yaml" "$here/rotate.sh" "$dir/etc"
cd "$dir/etc"

say "two fake providers"
for provider in ricloud acedata; do
	keywright mock $provider --quiet --output json --env-file "$dir/$provider.env" >"$dir/$provider.json" &
	mocks="$mocks $!"
done
tries=0
until [ -f "$dir/ricloud.env" ] && [ -f "$dir/acedata.env" ]; do
	tries=$((tries + 1))
	[ $tries -lt 100 ] || fail "the fakes do not start"
	sleep 0.1
done
RICLOUD_URL=$(sed -n 's/^RICLOUD_URL=//p' "$dir/ricloud.env")
PLATFORM_API_BASE_URL=$(sed -n 's/^PLATFORM_API_BASE_URL=//p' "$dir/acedata.env")
export RICLOUD_URL PLATFORM_API_BASE_URL
sed -n 's/^RICLOUD_TOKEN=//p' "$dir/ricloud.env" >ricloud.token
sed -n 's/^ACEDATACLOUD_PLATFORM_TOKEN=//p' "$dir/acedata.env" >acedata-platform.token

say "what is rotated: two keys, and a credential"
keywright ricloud key create --auth-file ricloud.token --token-file "$dir/idle.token" --output name
application=$(sed -n 's/^ *"application": "\(.*\)",*$/\1/p' "$dir/acedata.json")
keywright acedata credential create --auth-file acedata-platform.token --application-id "$application" --name search --token-file search.token --output name
credential=$(keywright acedata credential list --auth-file acedata-platform.token --output name)
sed -i.example "s/00000000-0000-4000-8000-000000000000/$credential/" keywright.yaml
printf '# the service reads this\nRICLOUD_TOKEN=%s\nLOG_LEVEL=info\n' "$(cat ricloud.token)" >billing.env
cp ricloud.token "$dir/ricloud.before"
cp search.token "$dir/search.before"
keywright rotate plan billing

as_cron() { # with what cron gives, and the addresses of the fakes
	env -i PATH="$dir/bin:/usr/bin:/bin" HOME="$dir" LOGNAME="$(id -un)" SHELL=/bin/sh CAMPAIGN="$1" \
		RICLOUD_URL="$RICLOUD_URL" PLATFORM_API_BASE_URL="$PLATFORM_API_BASE_URL" \
		/bin/sh -c ./rotate.sh </dev/null
}

say "cron runs rotate.sh"
as_cron 2027-01
keywright rotate status

say "cron runs it again in the same month: nothing is left to do"
cp ricloud.token "$dir/ricloud.after"
as_cron 2027-01
cmp ricloud.token "$dir/ricloud.after"

say "the tokens are new, everywhere, and accepted"
for name in ricloud search; do
	if cmp -s $name.token "$dir/$name.before"; then
		fail "$name.token is the old one"
	fi
done
grep -Fqx "RICLOUD_TOKEN=$(cat ricloud.token)" billing.env
grep -Fqx 'LOG_LEVEL=info' billing.env
keywright ricloud key current --auth-file ricloud.token --quiet --output name
credential=$(keywright acedata credential list --auth-file acedata-platform.token --output name)
keywright acedata credential get "$credential" --auth-file acedata-platform.token --token-file "$dir/search.now" --quiet >/dev/null
cmp search.token "$dir/search.now"
if keywright ricloud key current --auth-file "$dir/ricloud.before" >/dev/null 2>&1; then
	fail "the old token is still accepted"
fi
echo "done: the old tokens are refused, the new ones are where they belong"
