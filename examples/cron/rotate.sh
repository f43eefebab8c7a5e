#!/bin/sh
# Rotates the keys in keywright.yaml beside it once a month, however often it is
# run: a key that is done this month is left alone, and one that is under way
# goes on. Two runs at a time do no harm: keywright locks each key.
#
# It writes to the system's log, or to standard error where there is none. What
# a person must see is on standard error in any case: cron mails it.
#
#   CAMPAIGN  a key is rotated once in each; this month, if it is not set
set -eu
umask 077
cd "$(dirname "$0")"

log() { # PRIORITY TEXT
	if [ -S /dev/log ] && command -v logger >/dev/null; then
		printf '%s\n' "$2" | logger -t keywright -p "user.$1"
	else
		printf '%s\n' "$2" >&2
	fi
}

code=0
said=$(keywright rotate run --all --campaign "${CAMPAIGN:-$(date -u +%Y-%m)}" --canaries 0 2>&1 >/dev/null) || code=$?

# Is any stuck, if only since an earlier run?
grave=0
keywright rotate status --check --quiet >/dev/null 2>&1 || grave=$?
if [ "$grave" -eq 7 ]; then code=7; fi

case $code in
0)
	log info "$said"
	;;
3 | 6 | 130) # under way, asked to wait, interrupted
	log notice "$said
the next run goes on"
	;;
7)
	log alert "$said"
	printf '%s\n' "keywright: a rotation is stuck and needs a person; the tokens in use still work" "$said" >&2
	exit 7
	;;
*)
	log err "$said"
	printf '%s\n' "keywright: a rotation failed with exit code $code; the next run tries again" "$said" >&2
	exit "$code"
	;;
esac
