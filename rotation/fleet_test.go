package rotation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// memory is a sink that is a variable.
type memory struct {
	mu    sync.Mutex
	token keywright.Secret
}

func (m *memory) sink() sink.Sink {
	return sink.Func("memory", sink.Traits{Readable: true, Grade: sink.GradeReadBack}, func(_ context.Context, _, token keywright.Secret) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.token = token
		return nil
	}, func(context.Context) (keywright.Secret, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.token, nil
	})
}

// fleet is many toys.
type fleet struct {
	toys  []*toy
	sinks []*memory
	made  atomic.Int32
}

func newFleet(n int) *fleet {
	f := &fleet{}
	for i := range n {
		p := newToy(fmt.Sprint(i))
		f.toys = append(f.toys, p)
		f.sinks = append(f.sinks, &memory{token: keywright.NewSecret(p.tokens[0])})
	}
	return f
}

// jobs makes jobs as they are asked for.
func (f *fleet) jobs() iter.Seq[rotation.Job] {
	return func(yield func(rotation.Job) bool) {
		for i, p := range f.toys {
			f.made.Add(1)
			if !yield(rotation.Job{Name: fmt.Sprintf("job-%d", i), Strategy: toyStrategy{p}, Sinks: []sink.Sink{f.sinks[i].sink()}}) {
				return
			}
		}
	}
}

func (f *fleet) issued() (n int) {
	for _, p := range f.toys {
		n += p.issued
	}
	return n
}

func onDisk(t *testing.T, fsys *memfs.FS) *rotation.Engine {
	t.Helper()
	e, err := rotation.Open("/state", rotation.WithFS(fsys))
	require.NoError(t, err)
	return e
}

func TestFleet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(200)
		var running, most atomic.Int32
		for _, p := range f.toys {
			p.calls = func() {
				n := running.Add(1)
				for {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				pass(t.Context(), 10*time.Millisecond)
				running.Add(-1)
			}
		}
		var told []rotation.Progress
		fleet := &rotation.Fleet{
			Engine: onDisk(t, memfs.New()), Width: 16, Canaries: 3, Wave: 50, PerSecond: 50,
			Progress: func(p rotation.Progress) { told = append(told, p) },
		}
		start := time.Now()
		r, err := fleet.Run(t.Context(), f.jobs())
		require.NoError(t, err)
		assert.Equal(t, 200, r.Done)
		assert.False(t, r.Stopped)
		assert.Equal(t, 200, f.issued())
		assert.LessOrEqual(t, most.Load(), int32(16))
		assert.Greater(t, most.Load(), int32(3))
		assert.GreaterOrEqual(t, time.Since(start), 199*time.Second/50, "the rate of the provider")
		require.Len(t, told, 200)
		assert.Equal(t, 200, told[199].Done)
		for i := range 3 {
			assert.Contains(t, []string{"job-0", "job-1", "job-2"}, told[i].Job, "canaries come first")
		}
	})
}

// A canary that fails stops everything; so does one failure too many, and a job
// that is stuck, whatever the limit.
func TestFleetStops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fleet  rotation.Fleet
		spoil  func(*fleet)
		most   int // that were rotated
		least  int
		failed int
		stops  bool
	}{
		"canary":       {fleet: rotation.Fleet{Canaries: 2, MaxFailures: 10}, spoil: func(f *fleet) { f.toys[1].next = refusal{} }, most: 1, failed: 1, stops: true},
		"first":        {fleet: rotation.Fleet{Width: 1, Canaries: -1}, spoil: func(f *fleet) { f.toys[5].next = refusal{} }, most: 5, least: 5, failed: 1, stops: true},
		"some may":     {fleet: rotation.Fleet{MaxFailures: 3}, spoil: func(f *fleet) { f.toys[5].next, f.toys[9].next = refusal{}, refusal{} }, most: 98, least: 98, failed: 2},
		"stuck":        {fleet: rotation.Fleet{Width: 1, MaxFailures: 50}, spoil: func(f *fleet) { f.toys[7].lost, f.toys[7].calls = true, spoilSink(f, 7) }, most: 7, least: 7, failed: 1, stops: true},
		"too many":     {fleet: rotation.Fleet{Width: 1, MaxFailures: 1}, spoil: func(f *fleet) { f.toys[5].next, f.toys[9].next = refusal{}, refusal{} }, most: 8, least: 8, failed: 2, stops: true},
		"the last one": {fleet: rotation.Fleet{Width: 1}, spoil: func(f *fleet) { f.toys[99].next = refusal{} }, most: 99, least: 99, failed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(100)
				c.spoil(f)
				fleet := c.fleet
				fleet.Engine = onDisk(t, memfs.New())
				r, err := fleet.Run(t.Context(), f.jobs())
				require.ErrorIs(t, err, rotation.ErrFleet)
				assert.Equal(t, c.failed, r.Failed)
				assert.Equal(t, c.stops, r.Stopped)
				assert.GreaterOrEqual(t, r.Done, c.least)
				assert.LessOrEqual(t, r.Done, c.most)
				assert.Less(t, int(f.made.Load()), r.Done+r.Failed+20, "jobs are made as they are needed")
			})
		})
	}
}

// spoilSink makes a sink hold somebody else's token once the new one was
// issued.
func spoilSink(f *fleet, i int) func() {
	return func() {
		if f.toys[i].issued > 0 {
			f.sinks[i].mu.Lock()
			defer f.sinks[i].mu.Unlock()
			f.sinks[i].token = keywright.NewSecret("somebody-elses-token")
		}
	}
}

// A campaign that was killed is taken up: every key is rotated once.
func TestFleetResumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memfs.New()
		f := newFleet(60)
		run := func(killAt int, campaign string) (*rotation.FleetResult, error) {
			p := disk.Process()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var n atomic.Int32
			p.Hook = func(string, string, bool) error {
				if int(n.Add(1)) == killAt {
					p.Kill()
					cancel()
				}
				return nil
			}
			e, err := rotation.Open("/state", rotation.WithFS(p))
			require.NoError(t, err)
			fleet := &rotation.Fleet{Engine: e, Campaign: campaign, Width: 8, MaxFailures: 100}
			return fleet.Run(ctx, f.jobs())
		}
		for kill := 500; kill < 4000; kill += 700 {
			_, err := run(kill, "november")
			require.Error(t, err)
			assert.NotZero(t, f.issued())
			assert.Less(t, f.issued(), 60)
		}
		r, err := run(0, "november")
		require.NoError(t, err)
		assert.Equal(t, 60, r.Done)
		assert.Equal(t, 60, f.issued(), "each was rotated once")
		r, err = run(0, "november")
		require.NoError(t, err)
		assert.Equal(t, 60, r.Done)
		assert.Equal(t, 60, f.issued())
		_, err = run(0, "december")
		require.NoError(t, err)
		assert.Equal(t, 120, f.issued())
	})
}

// Jobs that wait are reported with the time at which they go on.
func TestFleetWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(5)
		jobs := func(yield func(rotation.Job) bool) {
			for job := range f.jobs() {
				job.Policy.MaxWait = -1
				job.Acknowledge = func(context.Context, keywright.Secret) error { return rotation.ErrNotReady }
				if !yield(job) {
					return
				}
			}
		}
		r, err := (&rotation.Fleet{Engine: onDisk(t, memfs.New()), Canaries: -1}).Run(t.Context(), jobs)
		require.NoError(t, err)
		assert.Equal(t, 5, r.Waiting)
		assert.False(t, r.Resume.IsZero())
		assert.False(t, r.Stopped)
		r, err = (&rotation.Fleet{Engine: onDisk(t, memfs.New())}).Run(t.Context(), jobs)
		require.NoError(t, err)
		assert.Equal(t, 1, r.Waiting, "the canary")
		assert.True(t, r.Stopped)
		_, err = (&rotation.Fleet{}).Run(t.Context(), jobs)
		require.ErrorIs(t, err, rotation.ErrFleet)
	})
}

// forgetful is a journal that keeps nothing of what is over: what is weighed is
// the fleet.
type forgetful struct {
	mu   sync.Mutex
	jobs map[string][]byte
}

func (j *forgetful) Begin(_ context.Context, job string) (rotation.Session, error) {
	return &forgetfulSession{journal: j, job: job}, nil
}
func (j *forgetful) Peek(context.Context, string) ([]byte, error) { return nil, nil }

type forgetfulSession struct {
	journal *forgetful
	job     string
	last    []byte
}

func (s *forgetfulSession) Load(context.Context) ([]byte, bool, error) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.jobs[s.job], false, nil
}

func (s *forgetfulSession) Save(_ context.Context, b []byte) error {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.jobs[s.job] = bytes.Clone(b)
	return nil
}
func (s *forgetfulSession) Reserve(context.Context) error { return nil }
func (s *forgetfulSession) Append(_ context.Context, line []byte) error {
	s.last = line
	return nil
}
func (s *forgetfulSession) Last(context.Context) ([]byte, error) { return s.last, nil }
func (s *forgetfulSession) Close() error {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	delete(s.journal.jobs, s.job)
	return nil
}

// Ten thousand jobs take no more memory than sixty-four.
func TestFleetMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	t.Setenv("KEYWRIGHT_TEST_SEALING_KEY", "abababababababababababababababababababababababababababababababab")
	e, err := rotation.Open("", rotation.WithJournal(&forgetful{jobs: make(map[string][]byte)}), rotation.WithSealer(rotation.SealKeyEnv("KEYWRIGHT_TEST_SEALING_KEY")))
	require.NoError(t, err)
	n := 10_000
	if raceDetector {
		n = 2_000
	}
	var most uint64
	before := heap()
	done := 0
	fleet := &rotation.Fleet{Engine: e, Width: 64, Progress: func(rotation.Progress) {
		if done++; done%1000 == 0 {
			most = max(most, heap())
		}
	}}
	r, err := fleet.Run(t.Context(), func(yield func(rotation.Job) bool) {
		for i := range n {
			p := newToy(fmt.Sprint(i))
			m := &memory{token: keywright.NewSecret(p.tokens[0])}
			if !yield(rotation.Job{Name: fmt.Sprintf("job-%d", i), Strategy: toyStrategy{p}, Sinks: []sink.Sink{m.sink()}}) {
				return
			}
		}
	})
	require.NoError(t, err)
	assert.Equal(t, n, r.Done)
	assert.Less(t, most, before+16<<20)
	t.Logf("%d jobs: %d KiB of heap at most, %d KiB before", n, most>>10, before>>10)
}

// Events say what happened in words and fingerprints, and log as they are.
func TestEvents(t *testing.T) {
	t.Parallel()
	scene(t, paired, func(t *testing.T, w *world) {
		var logged bytes.Buffer
		var states []rotation.State
		var sinks []string
		p := w.start(t.Context(), 0)
		defer p.cancel()
		e, err := rotation.Open("/state", rotation.WithFS(p.disk),
			rotation.WithLogger(slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))),
			rotation.WithObserver(func(v rotation.Event) {
				assert.Equal(t, "app", v.About())
				switch v := v.(type) {
				case rotation.StateChanged:
					states = append(states, v.To)
					assert.Len(t, v.Old+v.New, 12*map[bool]int{true: 2, false: 1}[v.Old != "" && v.New != ""]*map[bool]int{true: 1, false: 0}[v.Old+v.New != ""])
				case rotation.SinkChanged:
					sinks = append(sinks, v.Sink+" "+string(v.State))
				}
			}), rotation.WithObserver(nil))
		require.NoError(t, err)
		_, err = e.Rotate(p.ctx, p.job())
		require.NoError(t, err)
		assert.Equal(t, []rotation.State{
			rotation.StatePlanned, rotation.StateIntent, rotation.StateIssued, rotation.StateVerified,
			rotation.StateDistributing, rotation.StateConverging, rotation.StateRetiring, rotation.StateDone,
		}, states)
		assert.Equal(t, []string{
			"file /app/token writing", "file /app/token confirmed", "dotenv /app/.env TOKEN writing", "dotenv /app/.env TOKEN confirmed",
		}, sinks)
		assert.Contains(t, logged.String(), `"msg":"rotation: state","job":"app"`)
		assert.Contains(t, logged.String(), `"msg":"rotation: waiting"`)
		w.say("%s", logged.String())
		w.check()
	})
	var failed rotation.Event = rotation.Failed{Job: "a", Err: errors.New("x")}
	assert.Contains(t, failed.LogValue().String(), "x")
}
