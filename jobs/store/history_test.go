package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func TestSchedule(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		due, err := s.NextDue(ctx)
		require.NoError(t, err)
		assert.True(t, due.IsZero())
		all, err := s.List(ctx)
		require.NoError(t, err)
		assert.Empty(t, all)
		require.NoError(t, s.Put(ctx))
		require.NoError(t, s.Put(ctx,
			store.Schedule{Job: "c", Due: noon, Spec: "every 1h"},
			store.Schedule{Job: "a", Due: noon.Add(time.Hour), Spec: "x", Owner: "w1"},
			store.Schedule{Job: "B", Due: noon.Add(-time.Hour).In(time.FixedZone("", 3600)), Spec: "x"},
			store.Schedule{Job: "never", Spec: "x"}))
		names := func(all []store.Schedule) (names []string) {
			for _, v := range all {
				names = append(names, v.Job)
			}
			return names
		}
		list := func() []string {
			all, err := s.List(ctx)
			require.NoError(t, err)
			return names(all)
		}
		assert.Equal(t, []string{"B", "a", "c", "never"}, list())
		found, err := s.Due(ctx, noon, 10)
		require.NoError(t, err)
		assert.Equal(t, []string{"B", "c"}, names(found))
		found, err = s.Due(ctx, noon.Add(time.Hour), 1)
		require.NoError(t, err)
		assert.Equal(t, []string{"B"}, names(found))
		found, err = s.Due(ctx, noon.Add(time.Hour), -1)
		require.NoError(t, err)
		assert.Empty(t, found)
		due, err = s.NextDue(ctx)
		require.NoError(t, err)
		assert.Equal(t, noon.Add(-time.Hour), due)

		// What came of a run is kept, and the due time until the spec changes.
		outcome := store.Outcome{Run: noon, State: "DONE", Problem: "a\nb\x00" + strings.Repeat("é", 2000), Attempts: 3, Due: noon.Add(24 * time.Hour)}
		require.NoError(t, s.SetOutcome(ctx, "c", outcome))
		v, err := s.Get(ctx, "c")
		require.NoError(t, err)
		created := v.Created
		require.NoError(t, s.Put(ctx, store.Schedule{Job: "c", Due: noon, Spec: "every 1h"}))
		again, err := s.Get(ctx, "c")
		require.NoError(t, err)
		assert.Equal(t, v, again, "nothing was written")
		require.NoError(t, s.Put(ctx, store.Schedule{Job: "c", Due: noon, Spec: "every 1h", Owner: "w2"}))
		v, err = s.Get(ctx, "c")
		require.NoError(t, err)
		assert.Equal(t, outcome.Due, v.Due)
		assert.Equal(t, "w2", v.Owner)
		require.NoError(t, s.Put(ctx, store.Schedule{Job: "c", Due: noon.Add(time.Minute), Spec: "every 2h"}))
		v, err = s.Get(ctx, "c")
		require.NoError(t, err)
		assert.Equal(t, noon.Add(time.Minute), v.Due)
		assert.Equal(t, "every 2h", v.Spec)
		assert.Empty(t, v.Owner)
		assert.Equal(t, noon, v.LastRun)
		assert.Equal(t, "DONE", v.LastState)
		assert.Equal(t, 3, v.Attempts)
		assert.True(t, strings.HasPrefix(v.LastProblem, "a b\uFFFDéé"), v.LastProblem)
		assert.LessOrEqual(t, len(v.LastProblem), 2000)
		assert.True(t, utf8.ValidString(v.LastProblem))
		assert.Equal(t, created, v.Created)
		assert.False(t, v.Updated.Before(created))

		require.NoError(t, s.SetDue(ctx, "c", time.Time{}))
		v, err = s.Get(ctx, "c")
		require.NoError(t, err)
		assert.True(t, v.Due.IsZero())
		require.ErrorIs(t, s.SetDue(ctx, "none", noon), store.ErrNotFound)
		require.ErrorIs(t, s.SetOutcome(ctx, "none", outcome), store.ErrNotFound)
		_, err = s.Get(ctx, "none")
		require.ErrorIs(t, err, store.ErrNotFound)

		// All or none.
		for _, bad := range []store.Schedule{{Job: "a/b"}, {Job: ""}, {Job: "z", Spec: "a\x00b"}, {Job: "z", Spec: "\xff"}} {
			require.Error(t, s.Put(ctx, store.Schedule{Job: "new"}, bad))
		}
		assert.Equal(t, []string{"B", "a", "c", "never"}, list())

		rowOf := func(job string) store.Schedule {
			row, err := s.Get(ctx, job)
			require.NoError(t, err)
			return row
		}
		removed, err := s.Remove(ctx, rowOf("a"), store.Schedule{Job: "none"})
		require.NoError(t, err)
		assert.Equal(t, []string{"a"}, removed)
		removed, err = s.Remove(ctx)
		require.NoError(t, err)
		assert.Empty(t, removed)
		other := rowOf("c")
		other.Owner += "x" // it has got another owner meanwhile
		removed, err = s.Remove(ctx, other, rowOf("never"))
		require.NoError(t, err)
		assert.Equal(t, []string{"never"}, removed)
		assert.Equal(t, []string{"B", "c"}, list())
	})
}

// Two that put the same jobs in different orders at once do not stop each
// other.
func TestPutAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		stores := []*store.Store{d.open(t), d.open(t)}
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				var all []store.Schedule
				for k := range 40 {
					if i%2 == 1 {
						k = 39 - k
					}
					all = append(all, store.Schedule{Job: fmt.Sprint("j", k), Spec: fmt.Sprint(i), Due: noon})
				}
				assert.NoError(t, stores[i%2].Put(ctx, all...))
			})
		}
		group.Wait()
		all, err := stores[0].List(ctx)
		require.NoError(t, err)
		require.Len(t, all, 40)
	})
}

func TestRuns(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		first, err := s.AddRun(ctx, store.Run{Job: "a", Owner: "w1", Started: noon})
		require.NoError(t, err)
		second, err := s.AddRun(ctx, store.Run{Job: "b"})
		require.NoError(t, err)
		assert.Greater(t, second, first)
		require.NoError(t, s.FinishRun(ctx, store.Run{ID: first, Operation: "op", State: "CONVERGING", Problem: "p", Finished: noon.Add(time.Second), ResumeAt: noon.Add(time.Hour)}))
		require.NoError(t, s.FinishRun(ctx, store.Run{ID: second, State: "DONE"}))
		require.ErrorIs(t, s.FinishRun(ctx, store.Run{ID: second + 99}), store.ErrNotFound)
		runs, err := s.Runs(ctx, "a", 10)
		require.NoError(t, err)
		assert.Equal(t, []store.Run{{ID: first, Job: "a", Operation: "op", Owner: "w1", Started: noon, Finished: noon.Add(time.Second), State: "CONVERGING", Problem: "p", ResumeAt: noon.Add(time.Hour)}}, runs)
		runs, err = s.Runs(ctx, "", 10)
		require.NoError(t, err)
		require.Len(t, runs, 2)
		assert.Equal(t, second, runs[0].ID)
		assert.False(t, runs[0].Finished.IsZero())
		assert.WithinDuration(t, time.Now(), runs[0].Started, time.Minute)
	})
}

func TestEventsAndPrune(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		require.NoError(t, s.AddEvent(ctx))
		for i := range 10 {
			job := []string{"a", "b"}[i%2]
			at := noon.Add(time.Duration(i) * time.Minute)
			require.NoError(t, s.AddEvent(ctx, store.Event{Job: job, Operation: "op", At: at, Kind: store.KindSink, From: "f", To: "t", Sink: "file", Text: fmt.Sprint(i)}))
			_, err := s.AddRun(ctx, store.Run{Job: job, Started: at})
			require.NoError(t, err)
		}
		events, err := s.Events(ctx, "b", 2)
		require.NoError(t, err)
		require.Len(t, events, 2)
		assert.Equal(t, store.Event{ID: events[0].ID, Job: "b", Operation: "op", At: noon.Add(9 * time.Minute), Kind: "sink", From: "f", To: "t", Sink: "file", Text: "9"}, events[0])
		texts := func() (all string) {
			events, err := s.Events(ctx, "", 100)
			require.NoError(t, err)
			for _, e := range events {
				all += e.Text
			}
			return all
		}
		assert.Equal(t, "9876543210", texts())
		n, err := s.Prune(ctx, store.Retention{})
		require.NoError(t, err)
		assert.Zero(t, n)
		n, err = s.Prune(ctx, store.Retention{Before: noon.Add(2 * time.Minute)})
		require.NoError(t, err)
		assert.EqualValues(t, 4, n)
		assert.Equal(t, "98765432", texts())
		n, err = s.Prune(ctx, store.Retention{PerJob: 3})
		require.NoError(t, err)
		assert.EqualValues(t, 4, n)
		assert.Equal(t, "987654", texts())
		_, err = s.Prune(ctx, store.Retention{PerJob: -1})
		require.Error(t, err)
		// What a fault may put into a text is not the database's.
		hostile := "\xff\x00\u202e\x1b[31m" + strings.Repeat("\U0001F511", 1000)
		require.NoError(t, s.AddEvent(ctx, store.Event{Job: hostile, Text: hostile, Kind: hostile, Sink: hostile, From: hostile, To: hostile, Operation: hostile}))
	})
}

func TestEventOf(t *testing.T) {
	t.Parallel()
	at := noon.Add(time.Hour)
	for _, c := range []struct {
		in   rotation.Event
		want store.Event
	}{
		{rotation.StateChanged{Job: "a", Operation: "o", From: rotation.StatePlanned, To: rotation.StateIntent, Old: "fp1", New: "fp2", Time: at},
			store.Event{Job: "a", Operation: "o", At: at, Kind: "state", From: "PLANNED", To: "INTENT"}},
		{rotation.SinkChanged{Job: "a", Operation: "o", Sink: "file", State: rotation.SinkConfirmed, Time: at},
			store.Event{Job: "a", Operation: "o", At: at, Kind: "sink", Sink: "file", To: "confirmed"}},
		{rotation.Waiting{Job: "a", Operation: "o", State: rotation.StateConverging, For: time.Minute, Why: "for the readers"},
			store.Event{Job: "a", Operation: "o", At: noon, Kind: "waiting", To: "CONVERGING", Text: "1m0s for the readers"}},
		{rotation.Window{Job: "a", Operation: "o", Remaining: -time.Hour},
			store.Event{Job: "a", Operation: "o", At: noon, Kind: "window", Text: "-1h0m0s"}},
		{rotation.Failed{Job: "a", Operation: "o", State: rotation.StateIssued, Err: errors.New("no")},
			store.Event{Job: "a", Operation: "o", At: noon, Kind: "failed", To: "ISSUED", Text: "no"}},
		{rotation.Failed{Job: "a"}, store.Event{Job: "a", At: noon, Kind: "failed"}},
		{rotation.StateChanged{Job: "a"}, store.Event{Job: "a", At: noon, Kind: "state"}},
	} {
		assert.Equal(t, c.want, store.EventOf(c.in, noon))
	}
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		r := s.Recorder()
		require.NoError(t, r.Flush(ctx))
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				for k := range 150 {
					r.Observe(rotation.Waiting{Job: fmt.Sprint("j", i), Why: fmt.Sprint(k)})
				}
			})
		}
		group.Wait()
		require.NoError(t, r.Flush(ctx))
		events, err := s.Events(ctx, "j2", 1000)
		require.NoError(t, err)
		require.Len(t, events, 150)
		for i, e := range events {
			assert.Equal(t, fmt.Sprint("0s ", 149-i), e.Text)
		}
		r.Observe(rotation.Waiting{Job: "last"})
		require.NoError(t, r.Close(ctx))
		require.NoError(t, r.Close(ctx))
		r.Observe(rotation.Waiting{Job: "late"}) // is lost, and does no harm
		events, err = s.Events(ctx, "last", 10)
		require.NoError(t, err)
		require.Len(t, events, 1)
	})
}

// While the database is away a run goes on; what has room in memory is
// written later, and the rest is counted.
func TestRecorderOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	d := database{kind: "postgres", where: server.Database(t)}
	ctx := t.Context()
	s := d.open(t, store.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))))
	r := s.Recorder()
	server.Stop(t)
	start := time.Now()
	const sent = 6000
	for i := range sent {
		r.Observe(rotation.Waiting{Job: "a", Why: fmt.Sprint(i)})
	}
	assert.Less(t, time.Since(start), 3*time.Second)
	server.Start(t)
	require.NoError(t, r.Close(ctx))
	all, err := s.Events(ctx, "", 2*sent)
	require.NoError(t, err)
	require.Equal(t, store.KindLost, all[0].Kind)
	var lost int
	_, err = fmt.Sscanf(all[0].Text, "%d events", &lost)
	require.NoError(t, err)
	assert.Equal(t, sent, lost+len(all)-1)
	assert.Equal(t, "0s 0", all[len(all)-1].Text)
}
