package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// childVariable has the settings of a test binary that rotates instead of
// testing.
const childVariable = "KEYWRIGHT_CHILD"

func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		os.Exit(rotateAsChild(settings))
	}
	goleak.VerifyTestMain(m)
}

// childSettings is what a child is told. It holds no token.
type childSettings struct {
	Strategy   strategyName
	Credential keywright.CredentialID
	URL        string
	Dir        string
	Goal       int           // rotations that have to be finished; 0: no end
	KillAt     int           // the step at which it kills itself; 0: none
	Tear       bool          // a write that it kills itself in lacks the last byte only, not most of it
	StopEvery  int           // while it holds the lock, it stops itself at every call and at each so many steps of the disk; 0: never
	Timeout    time.Duration // of a call
	Settle     time.Duration // of the policy
}

// childReport is what a child prints when it ends by itself.
type childReport struct {
	State rotation.State
	Error string   // the class of the error; empty: none
	Steps []string // names of the steps that it took
}

// Files in a child's directory.
func (c childSettings) journal() string  { return filepath.Join(c.Dir, "state") }
func (c childSettings) token() string    { return filepath.Join(c.Dir, "app", "token") }
func (c childSettings) dotenv() string   { return filepath.Join(c.Dir, "app", ".env") }
func (c childSettings) platform() string { return filepath.Join(c.Dir, "platform") }

// errorClasses are names for what a child's rotation may end with.
var errorClasses = []struct {
	name  string
	class error
}{
	{"busy", rotation.ErrBusy}, {"refused", rotation.ErrRefused}, {"not issued", rotation.ErrNotIssued},
	{"stuck", rotation.ErrStuck}, {"unfinished", rotation.ErrUnfinished},
}

func errorClass(err error) string {
	for _, c := range errorClasses {
		if errors.Is(err, c.class) {
			return c.name
		}
	}
	return "other"
}

// rotateAsChild is a program that rotates a key. What it prints beside its
// report is what such a program might log.
func rotateAsChild(text string) int {
	var settings childSettings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, steps := context.Background(), &stepper{childSettings: settings}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	job, err := settings.job(steps, log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	engine, err := rotation.Open(settings.journal(), rotation.WithFS(steppedFS{steps: steps}), rotation.WithLogger(log))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if settings.Goal == 0 {
		fmt.Println("started")
	}
	for {
		status, err := engine.Status(ctx, job.Name)
		var result *rotation.Result
		if err == nil {
			do := engine.Rotate
			if settings.Goal > 0 && status.Generation >= settings.Goal {
				do = engine.Resume
			}
			result, err = do(ctx, job)
		}
		var report childReport
		if err != nil {
			report.Error = errorClass(err)
			fmt.Fprintf(os.Stderr, "%v\n%+v\n%#v\n", err, err, err)
		}
		if result != nil {
			report.State = result.State
			fmt.Fprintf(os.Stderr, "%+v\n", *result)
		}
		if settings.Goal > 0 || err != nil && !errors.Is(err, rotation.ErrUnfinished) && !errors.Is(err, rotation.ErrNotIssued) {
			report.Steps = steps.names
			if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
				return 2
			}
			return 0
		}
	}
}

// job is the job as the program configures it.
func (c childSettings) job(steps *stepper, log *slog.Logger) (rotation.Job, error) {
	job := rotation.Job{
		Name: "app",
		Sinks: []sink.Sink{
			sink.File(c.token(), sink.WithLag(0)),
			sink.Dotenv(c.dotenv(), "TOKEN", sink.WithLag(0)),
		},
		Policy: rotation.Policy{
			Probes: 2, SettleTime: c.Settle,
			VerifyFor: 10 * time.Second, ResolveFor: 10 * time.Second, DistributeFor: 10 * time.Second,
		},
	}
	opts := []keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL(c.URL), keywright.WithLogger(log),
		keywright.WithTimeout(c.Timeout), keywright.WithSettleTime(200 * time.Millisecond),
		keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}), keywright.WithMiddleware(steps.transport),
	}
	if c.Strategy == paired || c.Strategy == overlap {
		rc, err := keywright.NewRicloud(append(opts, keywright.WithTokenSource(keywright.FileToken(c.token())))...)
		job.Strategy = rotation.RicloudOverlap{Client: rc, Key: 1}
		if c.Strategy == paired {
			job.Strategy = rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}}
		}
		return job, err
	}
	ac, err := keywright.NewAceData(append(opts, keywright.WithTokenSource(keywright.FileToken(c.platform())))...)
	job.Strategy = rotation.AceDataInPlace{Client: ac, Credential: c.Credential, AcceptOutage: true}
	if c.Strategy == swap {
		job.Strategy = rotation.AceDataSwap{Client: ac, Credential: c.Credential, IdleFor: -1}
		use := &http.Client{Transport: steps.transport(http.DefaultTransport), Timeout: c.Timeout}
		job.Verify = func(ctx context.Context, token keywright.Secret) error { return useToken(ctx, use, c.URL, token) }
	}
	return job, err
}

// useToken uses a token as the application does.
func useToken(ctx context.Context, client *http.Client, url string, token keywright.Secret) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+keywrighttest.ProbePath, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return rotation.ErrNotAccepted
	}
	return errors.New("the application answers " + resp.Status)
}

// stepper counts what the program does to the world, and kills or stops it.
type stepper struct {
	childSettings
	mu    sync.Mutex
	names []string
	disk  int  // steps of the disk
	holds bool // the job's lock
}

// Names of steps begin with one of these.
const (
	diskStep = "disk "
	callStep = "call "
)

// step is called before and after everything that can be seen from outside.
func (s *stepper) step(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
	isCall := strings.HasPrefix(name, callStep)
	if !isCall {
		s.disk++
	}
	switch name {
	case diskStep + "lock lock" + moment(true):
		s.holds = true
	case diskStep + "unlock lock" + moment(true):
		s.holds = false
	}
	switch {
	case len(s.names) == s.KillAt:
		fmt.Fprintln(os.Stderr, "killed at", name)
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		select {} // until it has happened
	case s.StopEvery > 0 && s.holds && (isCall || s.disk%s.StopEvery == 0):
		fmt.Fprintln(os.Stderr, "stopped at", name)
		stopSelf()
		// A thread may run on for a moment. Only the parent's word counts.
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(2)
		}
	}
}

// stopSelf stops this process until another lets it go on, where there is such
// a thing.
var stopSelf = func() {}

// transport counts calls.
func (s *stepper) transport(next http.RoundTripper) http.RoundTripper {
	return steppedTransport{s, next}
}

type steppedTransport struct {
	steps *stepper
	next  http.RoundTripper
}

func (t steppedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	name := callStep + r.Method + " " + r.URL.Path
	t.steps.step(name + moment(false))
	resp, err := t.next.RoundTrip(r)
	t.steps.step(name + moment(true))
	return resp, err
}

// steppedFS counts what changes the disk.
type steppedFS struct {
	durable.OS
	steps *stepper
}

func (f steppedFS) do(op, name string, change func() error) error {
	name = diskStep + op + " " + filepath.Base(name)
	f.steps.step(name + moment(false))
	err := change()
	f.steps.step(name + moment(true))
	return err
}

func (f steppedFS) Create(name string) (file durable.File, err error) {
	err = f.do("create", name, func() error { file, err = f.OS.Create(name); return err })
	return f.file(file, name, err)
}

func (f steppedFS) OpenWrite(name string) (durable.File, error) {
	file, err := f.OS.OpenWrite(name)
	return f.file(file, name, err)
}

func (f steppedFS) file(file durable.File, name string, err error) (durable.File, error) {
	if err != nil {
		return nil, err
	}
	return steppedFile{file, f, name}, nil
}

func (f steppedFS) Mkdir(name string) error {
	return f.do("mkdir", name, func() error { return f.OS.Mkdir(name) })
}

func (f steppedFS) Rename(oldName, newName string) error {
	return f.do("rename to", newName, func() error { return f.OS.Rename(oldName, newName) })
}

func (f steppedFS) Link(oldName, newName string) error {
	return f.do("link", newName, func() error { return f.OS.Link(oldName, newName) })
}

func (f steppedFS) Remove(name string) error {
	return f.do("remove", name, func() error { return f.OS.Remove(name) })
}

func (f steppedFS) SyncDir(name string) error {
	return f.do("syncdir", name, func() error { return f.OS.SyncDir(name) })
}

func (f steppedFS) Lock(ctx context.Context, name string, wait bool) (unlock func() error, err error) {
	err = f.do("lock", name, func() error { unlock, err = f.OS.Lock(ctx, name, wait); return err })
	if err != nil {
		return nil, err
	}
	release := unlock
	return func() error { return f.do("unlock", name, release) }, nil
}

type steppedFile struct {
	durable.File
	fsys steppedFS
	name string
}

// Write writes in two parts, so that the program can be killed between them.
func (f steppedFile) Write(b []byte) (n int, err error) {
	part := len(b) / 8
	if f.fsys.steps.Tear {
		part = max(0, len(b)-1)
	}
	err = f.fsys.do("write", f.name, func() error {
		if n, err = f.File.Write(b[:part]); err != nil {
			return err
		}
		f.fsys.steps.step(diskStep + "write " + filepath.Base(f.name) + " (torn)")
		more, err := f.File.Write(b[part:])
		n += more
		return err
	})
	return n, err
}

func (f steppedFile) Sync() error { return f.fsys.do("sync", f.name, f.File.Sync) }
