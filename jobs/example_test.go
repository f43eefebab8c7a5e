package jobs_test

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

func ExampleNew() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	st, err := store.OpenSQLite(ctx, "/var/lib/rotator/keywright.db")
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	client, err := keywright.NewRicloud(keywright.WithMiddleware(jobs.Guard))
	if err != nil {
		log.Fatal(err)
	}
	monthly, err := schedule.Parse([]byte(`{"every": "30d", "jitter": "1d"}`))
	if err != nil {
		log.Fatal(err)
	}

	r, err := jobs.New(st, jobs.WithSealer(rotation.SealKeyFile("/mnt/keys/seal.key")))
	if err != nil {
		log.Fatal(err)
	}
	billing := jobs.Job{Schedule: monthly, Job: rotation.Job{
		Name:     "billing",
		Strategy: rotation.RicloudPaired{Client: client, Keys: [2]keywright.KeyID{7, 8}},
		Sinks:    []sink.Sink{sink.File("/run/secrets/ricloud")},
	}}
	if err := r.Register(ctx, billing); err != nil {
		log.Fatal(err)
	}
	if err := r.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
