// Timeline draws two pictures for the manual of package rotation:
// docs/rotation-states.svg, from the table of states in this program, and
// docs/rotation-timeline.svg, from rotations that it performs against the fake
// providers and measures.
//
//	go run ./internal/timeline
//
// It fails if a rotation does not end in DONE, if a change is not drawn in the
// table of states, or if a promise of the manual is broken on the way.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(context.Background(), "docs"); err != nil {
		fmt.Fprintln(os.Stderr, "timeline:", err)
		os.Exit(1)
	}
}

// run performs the rotations and writes both pictures to the directory docs.
func run(ctx context.Context, docs string) error {
	if _, err := os.Stat(docs); err != nil {
		return fmt.Errorf("run it from the root of the repository: go run ./internal/timeline: %w", err)
	}
	done, err := rotations(ctx)
	if err != nil {
		return err
	}
	for _, r := range done {
		fmt.Println(r)
	}
	if err := os.WriteFile(filepath.Join(docs, "rotation-states.svg"), []byte(statesPicture()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "rotation-timeline.svg"), []byte(timelinePicture(done)), 0o644)
}

// rotations performs all of them, one after the other, so that none makes
// another slower.
func rotations(ctx context.Context) (done []*rotated, err error) {
	for _, s := range scenes {
		r, err := s.perform(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
		done = append(done, r)
	}
	return done, nil
}
