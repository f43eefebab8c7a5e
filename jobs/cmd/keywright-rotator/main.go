// Keywright-rotator rotates the keys of keywright.yaml on schedule, with its
// journal in SQLite or PostgreSQL, and shows how they stand: on a page, in
// metrics for Prometheus, and in its log. See docs/jobs.md; deploy has a unit
// for systemd, manifests for Kubernetes, and a Dockerfile.
package main

import (
	"os"
	_ "time/tzdata" // schedules name time zones, and the machine may have none

	"github.com/keywright/keywright/jobs/internal/rotator"
)

func main() { os.Exit(rotator.Main(os.Args[1:])) }
