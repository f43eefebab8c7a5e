// A program outside the repository that rotates keys on schedule.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

func main() {
	dir, err := os.MkdirTemp("", "keywright-consumer-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := run(context.Background(), dir); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dir string) error {
	st, err := store.OpenSQLite(ctx, filepath.Join(dir, "keywright.db"))
	if err != nil {
		return err
	}
	defer st.Close()
	r, err := jobs.New(st, jobs.WithSealer(rotation.SealKeyFile(filepath.Join(dir, "seal.key"))))
	if err != nil {
		return err
	}
	if _, err := page.New(r, st); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	all, err := r.Snapshot(ctx)
	if err != nil {
		return err
	}
	fmt.Println(len(all), "jobs")
	return r.Stop(ctx)
}
