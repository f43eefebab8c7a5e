package jobs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// childVariable has the settings of a test binary that works instead of
// testing.
const childVariable = "KEYWRIGHT_JOBS_CHILD"

func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		os.Exit(workAsChild(settings))
	}
	// Most tests wait, and cost little meanwhile.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// quickly makes River poll fast, and start without delay.
func quickly() Option {
	return func(o *options) error { o.poll, o.fast = slow*100*time.Millisecond, true; return nil }
}

// key is a provider with one key: it accepts two tokens, the last being new.
type key struct {
	name string
	all  *world

	mu      sync.Mutex
	tokens  []string
	issued  int
	overlap time.Duration
	inspect error
	issue   error
	calls   func(what string)
	held    string // by the sink
	sinkErr error
	ready   error // what Acknowledge answers
	lag     time.Duration
}

// world is what all keys of a test have in common.
type world struct {
	mu      sync.Mutex
	order   []string // of Issue
	working int
	most    int
}

func (k *key) call(what string) {
	k.mu.Lock()
	f := k.calls
	k.mu.Unlock()
	if f != nil {
		f(what)
	}
}

type fakeError struct{ text string }

func (e fakeError) Error() string              { return e.text }
func (e fakeError) Outcome() keywright.Outcome { return keywright.Rejected }

func (k *key) Traits() rotation.Traits {
	k.mu.Lock()
	defer k.mu.Unlock()
	return rotation.Traits{Name: "toy", Provider: "toy", Key: "key of " + k.name, Overlap: k.overlap, Issue: "issue", Retire: "retire"}
}

func (k *key) newest() keywright.Secret { return keywright.NewSecret(k.tokens[len(k.tokens)-1]) }

func (k *key) Inspect(_ context.Context, op *rotation.Operation) error {
	k.call("inspect")
	k.mu.Lock()
	defer k.mu.Unlock()
	op.Old = k.newest()
	return k.inspect
}

func (k *key) Issue(_ context.Context, op *rotation.Operation) error {
	k.all.mu.Lock()
	k.all.order = append(k.all.order, k.name)
	k.all.working++
	k.all.most = max(k.all.most, k.all.working)
	k.all.mu.Unlock()
	defer func() { k.all.mu.Lock(); k.all.working--; k.all.mu.Unlock() }()
	k.call("issue")
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.issue != nil {
		return k.issue
	}
	k.issued++
	k.tokens = append(k.tokens, fmt.Sprintf("token-%s-%d-%s", k.name, k.issued, op.ID))
	op.New = k.newest()
	if f := k.calls; f != nil { // the answer is on its way
		k.mu.Unlock()
		defer k.mu.Lock()
		f("issued")
	}
	return nil
}

func (k *key) Resolve(_ context.Context, op *rotation.Operation) (rotation.Verdict, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.newest().Equal(op.Old) {
		return rotation.NotExecuted, nil
	}
	op.New = k.newest()
	return rotation.Executed, nil
}

func (k *key) Verify(_ context.Context, op *rotation.Operation) error {
	k.call("verify")
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.tokens, op.New.Reveal()) {
		return nil
	}
	return rotation.ErrNotAccepted
}

func (k *key) Retire(_ context.Context, op *rotation.Operation) error {
	k.call("retire")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens = slices.DeleteFunc(k.tokens, func(t string) bool { return t == op.Old.Reveal() })
	return nil
}

func (k *key) set(f func()) { k.mu.Lock(); defer k.mu.Unlock(); f() }

func (k *key) count() int { k.mu.Lock(); defer k.mu.Unlock(); return k.issued }

// memory is the sink of a key.
type memory struct{ *key }

func (m memory) Name() string { return "memory " + m.name }
func (m memory) Traits() sink.Traits {
	return sink.Traits{Lag: m.lag, Readable: true, Grade: sink.GradeReadBack, Guarantee: "it is there"}
}

func (m memory) Read(context.Context) (sink.Reading, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sink.Reading{Token: keywright.NewSecret(m.held)}, nil
}

func (m memory) CompareAndWrite(_ context.Context, previous sink.Reading, token keywright.Secret) error {
	m.call("write")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sinkErr != nil {
		return m.sinkErr
	}
	if !previous.Token.Equal(keywright.NewSecret(m.held)) {
		return sink.ErrConflict
	}
	m.held = token.Reveal()
	return nil
}

func (m memory) Confirm(_ context.Context, token keywright.Secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held != token.Reveal() {
		return sink.ErrConflict
	}
	return nil
}

func newKey(w *world, name string) *key {
	token := "token-" + name + "-0-0123456789abcdef"
	return &key{name: name, all: w, tokens: []string{token}, held: token, overlap: rotation.UntilRetired}
}

// job rotates a key.
func (k *key) job(spec *schedule.Spec) Job {
	return Job{Job: rotation.Job{
		Name: k.name, Strategy: k, Sinks: []sink.Sink{memory{k}},
		Policy: rotation.Policy{Probes: 1, SettleTime: 50 * time.Millisecond, VerifyFor: time.Second, DistributeFor: time.Second, ResolveFor: time.Second},
	}, Schedule: spec}
}

func specOf(t testing.TB, text string) *schedule.Spec {
	t.Helper()
	spec, err := schedule.Parse([]byte(text))
	require.NoError(t, err)
	return spec
}

// clock is a time of day that a test moves.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// database is a place that stores are opened at.
type database struct {
	kind, where string
	dir         string // of the sealing key
}

func openAt(ctx context.Context, d database, opts ...store.Option) (*store.Store, error) {
	if d.kind == "postgres" {
		return store.OpenPostgres(ctx, d.where, opts...)
	}
	return store.OpenSQLite(ctx, d.where, opts...)
}

func (d database) open(t testing.TB, opts ...store.Option) *store.Store {
	t.Helper()
	s, err := openAt(t.Context(), d, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func sqliteAt(t testing.TB) database {
	dir := filepath.Join(t.TempDir(), "private")
	return database{kind: "sqlite", where: filepath.Join(dir, "keywright.db"), dir: dir}
}

func postgresAt(t testing.TB) database {
	return database{kind: "postgres", where: pgtest.Start(t), dir: filepath.Join(t.TempDir(), "private")}
}

// both runs a test on either database.
func both(t *testing.T, test func(*testing.T, database)) {
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, sqliteAt(t)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, postgresAt(t)) })
}

// bench is a runner with what a test asks of it.
type bench struct {
	*Runner
	t       testing.TB
	clock   *clock
	results chan Result
}

// sealer has one key for all workers of a test.
func sealer(t testing.TB, d database) rotation.Sealer {
	require.NoError(t, os.MkdirAll(d.dir, 0o700))
	return rotation.SealKeyFile(filepath.Join(d.dir, "seal.key"))
}

func newBench(t testing.TB, d database, c *clock, opts ...Option) *bench {
	t.Helper()
	b := &bench{t: t, clock: c, results: make(chan Result, 10000)}
	st := d.open(t, store.WithLease(5*time.Second))
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("KEYWRIGHT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r, err := New(st, slices.Concat([]Option{
		WithSealer(sealer(t, d)), WithWorkerID("w1"), WithClock(c.now), WithSweep(time.Second), quickly(),
		WithLimit("toy", Limit{}), WithResults(func(v Result) { b.results <- v }), WithLogger(log),
	}, opts)...)
	require.NoError(t, err)
	b.Runner = r
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start(jobs ...Job) *bench {
	b.t.Helper()
	require.NoError(b.t, b.Register(b.t.Context(), jobs...))
	require.NoError(b.t, b.Start(b.t.Context()))
	return b
}

func (b *bench) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		b.t.Error(err)
	}
}

// next is what the next step comes to.
func (b *bench) next() Result {
	b.t.Helper()
	select {
	case v := <-b.results:
		return v
	case <-time.After(40 * time.Second):
		require.Fail(b.t, "nothing was run")
		return Result{}
	}
}

// until returns the first result that is so.
func (b *bench) until(f func(Result) bool) Result {
	b.t.Helper()
	for {
		if v := b.next(); f(v) {
			return v
		}
	}
}

func (b *bench) status1(job string) Status {
	b.t.Helper()
	s, err := b.Status(b.t.Context(), job)
	require.NoError(b.t, err)
	return s
}

// sweeps waits until it has been looked twice for what is due.
func (b *bench) sweeps() {
	b.t.Helper()
	require.NoError(b.t, b.sweepOnce(b.t.Context()))
	b.idle()
}

// idle waits until no River job is about to run.
func (b *bench) idle() {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		var n int
		err := b.store.SQL().QueryRowContext(b.t.Context(), b.store.Rebind(`SELECT COUNT(*) FROM river_job WHERE kind = ? AND state IN ('available', 'running')`), rotateArgs{}.Kind()).Scan(&n)
		return err == nil && n == 0
	}, 30*time.Second, 20*time.Millisecond)
}
