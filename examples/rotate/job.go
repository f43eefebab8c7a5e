package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// Where the rotating process learns what to do. No token is among it: that is
// in the files.
const (
	envDir = "KEYWRIGHT_EXAMPLE_DIR"
	envURL = "KEYWRIGHT_EXAMPLE_URL"
)

const jobName = "service"

func tokenFile(dir string) string  { return filepath.Join(dir, "token") }
func dotenvFile(dir string) string { return filepath.Join(dir, ".env") }
func journal(dir string) string    { return filepath.Join(dir, "journal") }

// sinks are the places that the token is delivered to. The service looks at
// its file at the latest when a token is refused, so that a short lag will do;
// nobody reads the dotenv file here.
func sinks(dir string) []sink.Sink {
	return []sink.Sink{
		sink.File(tokenFile(dir), sink.WithLag(50*time.Millisecond)),
		sink.Dotenv(dotenvFile(dir), "RICLOUD_TOKEN", sink.WithLag(50*time.Millisecond)),
	}
}

// newJob describes the rotation: which keys, how, and where to.
func newJob(dir, url string) (rotation.Job, error) {
	rc, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithTimeout(time.Second),
		keywright.WithTokenSource(keywright.FileToken(tokenFile(dir))))
	if err != nil {
		return rotation.Job{}, err
	}
	return rotation.Job{
		Name:     jobName,
		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
		Sinks:    sinks(dir),
		// This provider is in the same machine: a call whose answer was lost
		// has arrived after half a second, or never will. The default is a
		// minute.
		Policy: rotation.Policy{SettleTime: 500 * time.Millisecond},
	}, nil
}

// child is the rotating process.
func child(ctx context.Context, dir, url string) error {
	e, err := rotation.Open(journal(dir))
	if err != nil {
		return err
	}
	job, err := newJob(dir, url)
	if err != nil {
		return err
	}
	_, err = e.Rotate(ctx, job)
	return err
}

// runChild starts this program as the rotating process and kills it after a
// while, if it has not ended.
func runChild(ctx context.Context, dir, url string, after time.Duration) (killed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	cmd := exec.CommandContext(ctx, self) // killed with SIGKILL
	cmd.Env = append(os.Environ(), envDir+"="+dir, envURL+"="+url)
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	switch {
	case err == nil:
		return false, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return true, nil
	}
	return false, fmt.Errorf("the rotating process: %w: %s", err, said.String())
}
