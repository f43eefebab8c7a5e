package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// stageExample returns what the examples rotate: two keys of a fake ricloud,
// and a folder with the first one's token.
func stageExample() (fake *keywrighttest.Ricloud, rc *keywright.Ricloud, dir string, done func()) {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		log.Fatal(err)
	}
	fake.AddKeys(1)
	if dir, err = os.MkdirTemp("", "keywright-example-"); err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte(fake.Token()+"\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	rc, err = keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithBaseURL(fake.URL()), keywright.WithTokenSource(keywright.FileToken(path)))
	if err != nil {
		log.Fatal(err)
	}
	return fake, rc, dir, func() {
		rc.CloseIdleConnections()
		fake.Close()
		os.RemoveAll(dir)
	}
}

func ExampleEngine_Rotate() {
	fake, rc, dir, done := stageExample()
	defer done()
	ctx := context.Background()

	engine, err := rotation.Open(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	job := rotation.Job{
		Name:     "billing",
		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
		Sinks:    []sink.Sink{sink.File(filepath.Join(dir, "token"), sink.WithLag(0))},
	}
	result, err := engine.Rotate(ctx, job) // if it is stopped anywhere, run it again
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.State)

	token, _ := os.ReadFile(filepath.Join(dir, "token"))
	fmt.Println(string(token) == fake.TokenOf(2)+"\n")
	// Output:
	// DONE
	// true
}

func ExampleEngine_Status() {
	fake, rc, dir, done := stageExample()
	defer done()

	engine, err := rotation.Open(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	job := rotation.Job{
		Name:     "billing",
		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
		Sinks:    []sink.Sink{sink.File(filepath.Join(dir, "token"), sink.WithLag(time.Hour))},
		Policy:   rotation.Policy{MaxWait: -1}, // for a scheduler that calls again
	}
	result, err := engine.Rotate(context.Background(), job)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.State, time.Until(result.ResumeAt).Round(time.Minute))

	status, err := engine.Status(context.Background(), "billing")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.State, status.Sinks[0].State, len(fake.AcceptedTokens(1)))

	result, err = engine.Rollback(context.Background(), job)
	fmt.Println(result.State, result.ResumeAt.IsZero(), err)
	// Output:
	// CONVERGING 1h0m0s
	// CONVERGING confirmed 1
	// ROLLING_BACK false <nil>
}

func ExampleFleet() {
	_, rc, dir, done := stageExample()
	defer done()

	engine, err := rotation.Open(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	fleet := rotation.Fleet{
		Engine: engine, Campaign: "2026-11", Width: 16, Canaries: 2, Wave: 100, PerSecond: 5,
		Progress: func(p rotation.Progress) { fmt.Println(p.Job, p.Result.State, p.Done) },
	}
	result, err := fleet.Run(context.Background(), func(yield func(rotation.Job) bool) {
		yield(rotation.Job{
			Name:     "billing",
			Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
			Sinks:    []sink.Sink{sink.File(filepath.Join(dir, "token"), sink.WithLag(0))},
		})
	})
	fmt.Println(result.Done, result.Failed, err)
	// Output:
	// billing DONE 1
	// 1 0 <nil>
}

// rotateOwnKey rotates the key that the client it returns authenticates with.
func rotateOwnKey(ctx context.Context, engine *rotation.Engine, path string, keys [2]keywright.KeyID, opts ...keywright.Option) (*keywright.Ricloud, error) {
	token, err := keywright.FileToken(path).Token(ctx)
	if err != nil {
		return nil, err
	}
	self := keywright.NewRotatingToken(token)
	rc, err := keywright.NewRicloud(append(opts, keywright.WithTokenSource(self))...)
	if err != nil {
		return nil, err
	}
	_, err = engine.Rotate(ctx, rotation.Job{
		Name:     "self",
		Strategy: rotation.RicloudPaired{Client: rc, Keys: keys},
		Sinks:    []sink.Sink{sink.File(path)}, // for the next start
		Self:     self,
	})
	return rc, err
}

func ExampleJob_self() {
	fake, _, dir, done := stageExample()
	defer done()
	engine, err := rotation.Open(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	rc, err := rotateOwnKey(context.Background(), engine, filepath.Join(dir, "token"), [2]keywright.KeyID{1, 2}, keywright.WithBaseURL(fake.URL()))
	if err != nil {
		log.Fatal(err)
	}
	key, err := rc.Key.Current(context.Background())
	fmt.Println(key.ID, err)
	// Output:
	// 2 <nil>
}

// exitCode says what a scheduled run came to, in the terms of sysexits.h.
func exitCode(result *rotation.Result, err error, keep func(keywright.Secret)) int {
	var unsaved *rotation.UnsavedError
	switch {
	case errors.As(err, &unsaved):
		keep(unsaved.Token) // it may be the only copy
		return 74
	case errors.Is(err, rotation.ErrStuck):
		return 70 // a person: the error has the steps
	case errors.Is(err, rotation.ErrUnfinished):
		return 75 // under way: Resume
	case errors.Is(err, rotation.ErrRefused):
		return 78 // the error says what to do instead
	case errors.Is(err, rotation.ErrNotIssued), errors.Is(err, rotation.ErrBusy):
		return 75 // run it again
	case err != nil:
		return 1
	case !result.ResumeAt.IsZero():
		return 75 // it waits: Resume at that time
	}
	return 0
}

func ExampleStuckError() {
	err := fmt.Errorf("nightly: %w", &rotation.StuckError{Job: "billing", State: rotation.StateIssued, Err: rotation.ErrNotAccepted})
	fmt.Println(exitCode(nil, err, func(keywright.Secret) {}))
	// Output:
	// 70
}
