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
	down  atomic.Bool // it cannot be written for now
}

func (m *memory) sink() sink.Sink {
	return sink.Func("memory", sink.Traits{Readable: true, Grade: sink.GradeReadBack}, func(_ context.Context, _, token keywright.Secret) error {
		if m.down.Load() {
			return sink.ErrTemporary
		}
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
				assert.Less(t, int(f.made.Load())-100, r.Done+r.Failed+20, "jobs are made as they are needed, and once before")
			})
		})
	}
}

// begin begins a rotation of one of the fleet's keys, and kills it there.
func (f *fleet) begin(t *testing.T, disk *memfs.FS, i int, state rotation.State) {
	t.Helper()
	p := disk.Process()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, err := rotation.Open("/state", rotation.WithFS(p), rotation.WithObserver(func(v rotation.Event) {
		if s, ok := v.(rotation.StateChanged); ok && s.To == state {
			p.Kill()
			cancel()
		}
	}))
	require.NoError(t, err)
	n := 0
	for job := range f.jobs() {
		if n++; n > i {
			_, err = e.Rotate(ctx, job)
			break
		}
	}
	require.Error(t, err)
	f.in(t, disk, i, state)
}

// in asserts what the journal says about one of the fleet's jobs.
func (f *fleet) in(t *testing.T, disk *memfs.FS, i int, state rotation.State) {
	t.Helper()
	s, err := onDisk(t, disk).Status(t.Context(), fmt.Sprintf("job-%d", i))
	require.NoError(t, err)
	assert.Equal(t, state, s.State, "job-%d", i)
}

// drift makes the sink of a key hold somebody else's token.
func (f *fleet) drift(i int) {
	f.sinks[i].mu.Lock()
	defer f.sinks[i].mu.Unlock()
	f.sinks[i].token = keywright.NewSecret("somebody-elses-token")
}

// What is under way would never be gone on with, and its old token lapse, while
// a canary is refused.
func TestFleetGoesOnFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memfs.New()
		f := newFleet(20)
		f.drift(0)
		f.begin(t, disk, 12, rotation.StateDistributing)
		f.begin(t, disk, 7, rotation.StateConverging)
		f.begin(t, disk, 5, rotation.StatePlanned)
		var told []string
		fleet := &rotation.Fleet{Engine: onDisk(t, disk), MaxFailures: 5, Campaign: "x", Progress: func(p rotation.Progress) { told = append(told, p.Job) }}
		r, err := fleet.Run(t.Context(), f.jobs())
		require.ErrorIs(t, err, rotation.ErrFleet)
		require.ErrorIs(t, err, rotation.ErrRefused)
		assert.Equal(t, 2, r.Done)
		assert.Equal(t, 1, r.Failed)
		assert.True(t, r.Stopped)
		require.Len(t, told, 3)
		assert.Equal(t, "job-0", told[2], "the canary comes after what is under way")
		f.in(t, disk, 12, rotation.StateDone)
		f.in(t, disk, 7, rotation.StateDone)
		f.in(t, disk, 5, rotation.StatePlanned) // nothing was sent: the canary holds it back
		assert.Equal(t, 2, f.issued())

		// Mended, the campaign goes on, and none is rotated twice.
		f.sinks[0].token = keywright.NewSecret(f.toys[0].tokens[0])
		r, err = fleet.Run(t.Context(), f.jobs())
		require.NoError(t, err)
		assert.Equal(t, 20, r.Done)
		assert.Equal(t, 20, f.issued())
	})
}

// Nor does one of those that are under way keep the others back; but when they
// had their turn, they count.
func TestFleetGoesOnWithAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fleet   rotation.Fleet
		spoil   func(*fleet)
		class   error
		stopped bool
		issued  int
	}{
		"stuck":                   {fleet: rotation.Fleet{Width: 1, MaxFailures: 50}, spoil: func(f *fleet) { f.drift(3) }, class: rotation.ErrStuck, stopped: true, issued: 4},
		"stuck, one at a time":    {fleet: rotation.Fleet{Width: 1, MaxFailures: 50, Campaign: "x", PerSecond: 1}, spoil: func(f *fleet) { f.drift(3) }, class: rotation.ErrStuck, stopped: true, issued: 4},
		"too many":                {spoil: func(f *fleet) { f.sinks[3].down.Store(true) }, class: rotation.ErrUnfinished, stopped: true, issued: 4},
		"some may":                {fleet: rotation.Fleet{MaxFailures: 1}, spoil: func(f *fleet) { f.sinks[3].down.Store(true) }, class: rotation.ErrUnfinished, issued: 20},
		"a canary":                {fleet: rotation.Fleet{MaxFailures: 1, Canaries: 4}, spoil: func(f *fleet) { f.sinks[3].down.Store(true) }, class: rotation.ErrUnfinished, stopped: true, issued: 4},
		"no canary, and some may": {fleet: rotation.Fleet{MaxFailures: 1, Canaries: -1}, spoil: func(f *fleet) { f.sinks[3].down.Store(true) }, class: rotation.ErrUnfinished, issued: 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := memfs.New()
				f := newFleet(20)
				for _, i := range []int{3, 4, 10, 19} {
					f.begin(t, disk, i, rotation.StateDistributing)
				}
				c.spoil(f)
				fleet := c.fleet
				fleet.Engine = onDisk(t, disk)
				r, err := fleet.Run(t.Context(), f.jobs())
				require.ErrorIs(t, err, rotation.ErrFleet)
				require.ErrorIs(t, err, c.class)
				assert.Equal(t, 1, r.Failed)
				assert.Equal(t, c.stopped, r.Stopped)
				assert.Equal(t, c.issued, f.issued())
				assert.Equal(t, c.issued-1, r.Done)
				for _, i := range []int{4, 10, 19} {
					f.in(t, disk, i, rotation.StateDone)
				}
			})
		})
	}
}

// A canary that was under way would let the rest begin before it is done.
func TestFleetCanaryUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memfs.New()
		f := newFleet(5)
		f.begin(t, disk, 0, rotation.StateConverging)
		ready := false
		jobs := func(yield func(rotation.Job) bool) {
			for job := range f.jobs() {
				job.Policy.MaxWait = -1
				job.Acknowledge = func(context.Context, keywright.Secret) error {
					if ready {
						return nil
					}
					return rotation.ErrNotReady
				}
				if !yield(job) {
					return
				}
			}
		}
		for range 3 {
			r, err := (&rotation.Fleet{Engine: onDisk(t, disk)}).Run(t.Context(), jobs)
			require.NoError(t, err)
			assert.Equal(t, 1, r.Waiting)
			assert.True(t, r.Stopped)
			assert.Equal(t, 1, f.issued())
		}
		ready = true
		r, err := (&rotation.Fleet{Engine: onDisk(t, disk)}).Run(t.Context(), jobs)
		require.NoError(t, err)
		assert.Equal(t, 5, r.Done)
		assert.Equal(t, 5, f.issued(), "what was under way is not rotated again")
		assert.False(t, r.Stopped)
	})
}

// If all that is left was under way, the fleet was not stopped short of
// anything.
func TestFleetNothingLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memfs.New()
		f := newFleet(2)
		f.begin(t, disk, 0, rotation.StateDistributing)
		f.begin(t, disk, 1, rotation.StateDistributing)
		f.drift(1)
		r, err := (&rotation.Fleet{Engine: onDisk(t, disk)}).Run(t.Context(), f.jobs())
		require.ErrorIs(t, err, rotation.ErrStuck)
		assert.Equal(t, 1, r.Done)
		assert.False(t, r.Stopped)
	})
}

// Jobs that can be had only once would all be left out, as if they were done.
func TestFleetOfJobsThatAreHadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		next, stop := iter.Pull(f.jobs())
		defer stop()
		r, err := (&rotation.Fleet{Engine: onDisk(t, memfs.New())}).Run(t.Context(), func(yield func(rotation.Job) bool) {
			for job, ok := next(); ok; job, ok = next() {
				if !yield(job) {
					return
				}
			}
		})
		require.ErrorIs(t, err, rotation.ErrFleet)
		require.ErrorContains(t, err, "only once")
		assert.True(t, r.Stopped)
		assert.Zero(t, f.issued())
		// Nothing is wrong if there was nothing else, or with an interruption.
		disk := memfs.New()
		f.begin(t, disk, 0, rotation.StateDistributing)
		times := 0
		once := func(yield func(rotation.Job) bool) {
			if times++; times == 1 {
				for job := range f.jobs() {
					yield(job)
					return
				}
			}
		}
		r, err = (&rotation.Fleet{Engine: onDisk(t, disk)}).Run(t.Context(), once)
		require.NoError(t, err)
		assert.Equal(t, 1, r.Done)
		ctx, cancel := context.WithCancel(t.Context())
		times = 0
		_, err = (&rotation.Fleet{Engine: onDisk(t, disk)}).Run(ctx, func(yield func(rotation.Job) bool) {
			once(yield)
			cancel()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, rotation.ErrFleet)
	})
}

// An exit code is made of the error: that a person is needed, or that something
// is under way, must not be hidden by what came first.
func TestFleetErrorIsOfAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memfs.New()
		f := newFleet(150)
		for i := range 130 {
			f.drift(i)
		}
		f.sinks[135].down.Store(true)
		f.toys[140].lost, f.toys[140].calls = true, spoilSink(f, 140)
		fleet := &rotation.Fleet{Engine: onDisk(t, disk), Width: 1, Canaries: -1, MaxFailures: 150}
		r, err := fleet.Run(t.Context(), f.jobs())
		require.ErrorIs(t, err, rotation.ErrFleet)
		require.ErrorIs(t, err, rotation.ErrRefused)
		require.ErrorIs(t, err, rotation.ErrStuck)
		var stuck *rotation.StuckError
		require.ErrorAs(t, err, &stuck)
		assert.Equal(t, "job-140", stuck.Job)
		assert.Len(t, r.Errors, 101)
		assert.Equal(t, 132, r.Failed)
		assert.Equal(t, "rotation: fleet: 132 jobs failed, the first: "+r.Errors[0].Error(), err.Error())
		assert.NotContains(t, err.Error(), "\n")

		f = newFleet(4)
		f.drift(0)
		f.sinks[1].down.Store(true)
		fleet = &rotation.Fleet{Engine: onDisk(t, memfs.New()), Width: 1, Canaries: -1, MaxFailures: 4}
		_, err = fleet.Run(t.Context(), f.jobs())
		require.ErrorIs(t, err, rotation.ErrUnfinished)
		require.NotErrorIs(t, err, rotation.ErrStuck)
		require.ErrorContains(t, err, "the first: job-0: ")
	})
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
