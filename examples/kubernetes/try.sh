#!/bin/sh
# Runs the CronJob of mock/ twice without a cluster; see try/main.go. It needs
# Go, kubectl and Linux, and neither account nor network.
set -eu
cd "$(dirname "$0")"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
CGO_ENABLED=0 go build -o "$dir/keywright" ../../cmd/keywright
go build -o "$dir/try" ./try
kubectl kustomize mock >"$dir/mock.yaml"
"$dir/try" -program "$dir/keywright" <"$dir/mock.yaml"
