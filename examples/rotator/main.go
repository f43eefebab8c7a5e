// Rotator is the smallest program that rotates a key: two keys of ricloud in
// turn, whose token lives in a file and in a line of a dotenv file. Put your own
// keys and paths in its place, and run it from cron; see docs/rotation.md.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

func main() {
	ctx := context.Background()
	const file = "/etc/billing/ricloud.token" // begins with the token of key 7 or of key 8
	rc, err := keywright.NewRicloud(keywright.WithTokenSource(keywright.FileToken(file)))
	if err != nil {
		log.Fatal(err)
	}
	engine, err := rotation.Open("/var/lib/billing/rotation", rotation.WithLogger(slog.Default()))
	if err != nil {
		log.Fatal(err)
	}
	job := rotation.Job{
		Name:     "billing",
		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{7, 8}},
		Sinks: []sink.Sink{ // the most harmless first
			sink.File(file),
			sink.Dotenv("/etc/billing/.env", "RICLOUD_TOKEN", sink.WithLag(time.Minute)),
		},
	}
	plan, err := engine.Plan(ctx, job) // looks, and changes nothing
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(plan)
	result, err := engine.Rotate(ctx, job)
	if err != nil {
		log.Fatal(err) // says whether to run it again, and what to do
	}
	fmt.Println(result.State, result.Fingerprint)
}
