package page_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/page"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

func stuckKey() *fake {
	return &fake{
		all: []jobs.Status{{
			Job: "payments", Strategy: "ricloud-overlap", Provider: "ricloud", Key: "key 41", Owner: "worker-a", Due: in(19 * time.Hour), State: "STUCK", Problem: "of the row",
			Attempts: 2, LastRun: ago(time.Minute), Generation: 7, Issued: ago(31 * day), Finished: ago(30 * day),
			Rotation: &rotation.Status{
				Job: "payments", State: rotation.StateStuck, Resume: rotation.StateDistributing, Operation: "op2", Problem: "of the journal", Issued: ago(4*time.Hour + 30*time.Minute), Deadline: in(time.Hour),
				Steps: []string{"mend the vault", "then run Resume"},
				Sinks: []rotation.SinkStatus{{Name: "file a", State: rotation.SinkConfirmed, Confirmed: ago(4 * time.Hour)}, {Name: "vault b", State: rotation.SinkFailed, Problem: "it is sealed"}, {Name: "github c", State: rotation.SinkConflict}, {Name: "file d", State: rotation.SinkPending}, {Name: "file e", State: rotation.SinkWriting}},
			},
		}},
		events: []store.Event{
			{Operation: "op2", At: ago(time.Hour), Kind: store.KindState, From: "DISTRIBUTING", To: "STUCK"},
			{Operation: "op2", At: ago(2 * time.Hour), Kind: store.KindFailed, To: "DISTRIBUTING", Text: "it is sealed"},
			{Operation: "op2", At: ago(3 * time.Hour), Kind: store.KindWaiting, To: "DISTRIBUTING", Text: "1m0s for the vault"},
			{Operation: "op2", At: ago(4 * time.Hour), Kind: store.KindSink, Sink: "file a", To: "confirmed"},
			{Operation: "op2", At: ago(5 * time.Hour), Kind: store.KindWindow, Text: "5h59m"},
			{Operation: "op2", At: ago(5 * time.Hour), Kind: store.KindState, From: "PLANNED", To: "INTENT"},
			{Operation: "op1", At: ago(30 * day), Kind: store.KindState, From: "RETIRING", To: "DONE"},
			{At: ago(31 * day), Kind: store.KindLost, Text: "12 events"},
			{At: ago(32 * day), Kind: "note", To: "DONE", Text: "by hand"},
		},
		runs: []store.Run{
			{Started: ago(time.Hour), State: ""},
			{Owner: "worker-a", Started: ago(2 * time.Hour), Finished: ago(2*time.Hour - 700*time.Millisecond), State: "DISTRIBUTING", Problem: "it is sealed", ResumeAt: ago(time.Hour)},
			{Owner: "worker-b", Started: ago(30 * day), Finished: ago(30*day - 14*time.Second), State: "DONE"},
		},
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	doc := show(t, newPage(t, stuckKey()), "/keys/payments")
	require.Equal(t, "payments", doc.one(t, "h1", "").text)
	require.Equal(t, "payments: Stuck · keywright", doc.one(t, "title", "").text)
	require.Equal(t, "Stuck in DISTRIBUTING", doc.one(t, "p", "standing").text)
	callout := doc.one(t, "section", "callout")
	require.Equal(t, "What went wrong of the journal What to do mend the vault then run Resume With keywright-rotator, Resume is trigger and Rollback is rollback, each with the name of the job. It is tried again by itself in 19 h, or when it is triggered.", callout.text)
	require.Equal(t, "The old token’s life 1 h of 6 h left It lapses by itself at 2026-11-22 12:02:41 UTC. The new one must be everywhere before.", doc.one(t, "section", "life").text)
	require.Equal(t, "16.7", doc.one(t, "rect", "fill").attrs["width"])
	var sinks, timeline, runs []string
	for _, e := range doc.all("tr", "") {
		if e.inside("table", "runs") {
			runs = append(runs, e.text)
		} else {
			sinks = append(sinks, e.text)
		}
	}
	require.Equal(t, []string{"Sink State Confirmed", "file a Confirmed 4 h ago 2026-11-22 07:02:41 UTC", "vault b Failed it is sealed", "github c Somebody else wrote", "file d Waits", "file e Being written"}, sinks)
	for _, e := range doc {
		if e.name == "li" && e.inside("ol", "timeline") || e.name == "h3" {
			timeline = append(timeline, e.text)
		}
	}
	require.Equal(t, []string{
		"What to do",
		"Rotation op2", "Stuck 2026-11-22 10:02:41 UTC", "Did not work it is sealed 2026-11-22 09:02:41 UTC", "Waits 1m0s for the vault 2026-11-22 08:02:41 UTC", "file a: Confirmed 2026-11-22 07:02:41 UTC",
		"Left of the old token’s life 5h59m 2026-11-22 06:02:41 UTC", "Asking for a token 2026-11-22 06:02:41 UTC",
		"Rotation op1", "Done 2026-10-23 11:02:41 UTC",
		"Without a rotation", "Not all was written down 12 events 2026-10-22 11:02:41 UTC", "note Done by hand 2026-10-21 11:02:41 UTC",
	}, timeline)
	require.Equal(t, []string{
		"Began Came to Took Worker", "2026-11-22 10:02:41 UTC Not over", "2026-11-22 09:02:41 UTC Delivering it is sealed goes on at 2026-11-22 10:02:41 UTC 0.7 s worker-a", "2026-10-23 11:02:41 UTC Done 14 s worker-b",
	}, runs)
	facts := doc.one(t, "dl", "facts").text
	for _, want := range []string{
		"Key key 41", "Provider ricloud", "Strategy ricloud-overlap", "Runs on worker-a alone", "Tried again in 19 h 2026-11-23 06:02:41 UTC", "Old token issued 31 d ago", "New token issued 4 h 30 min ago", "Expires never, or not known",
		"Last rotated 30 d ago", "Rotations finished 7", "Last run Stuck, 1 min ago", "2 failed in a row", "State in the journal STUCK", "token asked for 5 h ago", "Operation op2",
	} {
		require.Contains(t, facts, want)
	}
}

// The bar begins when this rotation's token was asked for, if that is known.
func TestKey_window(t *testing.T) {
	t.Parallel()
	f := stuckKey()
	life := func() string {
		return show(t, newPage(t, f), "/keys/payments").one(t, "section", "life").text
	}
	asked := slices.IndexFunc(f.events, func(e store.Event) bool { return e.To == "INTENT" })
	f.events[asked].Operation = "op1"
	require.Contains(t, life(), "1 h of 5 h 30 min left", "from the new token's issue")
	f.all[0].Rotation.Resume = rotation.StateResolving
	require.Contains(t, life(), "1 h left", "the issue is that of the old token")
	f.events[asked].Operation = "op2"
	require.Contains(t, life(), "1 h of 6 h left")
	f.all[0].Rotation.Deadline = ago(time.Hour)
	require.Contains(t, life(), "Over, 1 h ago It lapsed at 2026-11-22 10:02:41 UTC")
}

func TestKey_quiet(t *testing.T) {
	t.Parallel()
	p := newPage(t, &fake{all: []jobs.Status{{Job: "new", Blocked: "no token"}, {Job: "done", State: "DONE", Running: false, Due: in(day), Reason: "every 1d", Rotation: &rotation.Status{
		State: rotation.StateDone, Problem: "of long ago", Steps: []string{"nothing"}, Deadline: in(time.Hour), Sinks: []rotation.SinkStatus{{Name: "file a", State: rotation.SinkConfirmed, Confirmed: now}},
	}}}})
	doc := show(t, p, "/keys/new")
	main := doc.one(t, "main", "key").text
	for _, want := range []string{"Not rotated yet", "This worker does not run it: no token", "Runs on any worker", "Next due not by itself", "Token issued not known", "Last run never", "No event is on record.", "No run is on record."} {
		require.Contains(t, main, want)
	}
	doc = show(t, p, "/keys/done")
	require.Empty(t, doc.all("section", "callout"), "nothing is wrong")
	require.Empty(t, doc.all("section", "life"))
	require.Contains(t, doc.one(t, "main", "key").text, "1 of 1 confirmed")
	require.Contains(t, doc.one(t, "main", "key").text, "Next due in 1 d 2026-11-23 11:02:41 UTC every 1d")
}

func TestKey_bounds(t *testing.T) {
	t.Parallel()
	f := stuckKey()
	f.events, f.runs = slices.Repeat(f.events[:1], 5000), slices.Repeat(f.runs[1:2], 5000)
	f.all[0].Rotation.Sinks = slices.Repeat(f.all[0].Rotation.Sinks[:1], 5000)
	f.all[0].Rotation.Steps = slices.Repeat([]string{"a step"}, 5000)
	w := get(newPage(t, f), "/keys/payments")
	require.Less(t, w.Body.Len(), 500<<10)
	doc := parse(t, w.Body.String())
	text := doc.one(t, "main", "key").text
	for _, want := range []string{"And 4,800 more.", "Older events are in the database.", "Earlier runs are in the database.", "5000 of 5000"} {
		require.Contains(t, text, want)
	}
	require.Len(t, doc.all("ol", "timeline"), 1)
	require.Equal(t, 50, strings.Count(text, "a step"))
	f.events, f.runs = f.events[:200], f.runs[:50]
	text = show(t, newPage(t, f), "/keys/payments").one(t, "main", "key").text
	require.NotContains(t, text, "in the database")
}

func TestKey_history(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := stuckKey()
	f.history = errors.New("canary of the driver")
	doc := show(t, newPage(t, f, page.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))), "/keys/payments")
	text := doc.one(t, "main", "key").text
	require.Contains(t, text, "The history cannot be read now")
	require.Contains(t, text, "mend the vault", "what is known is shown all the same")
	require.NotContains(t, text, "canary")
	require.Contains(t, log.String(), "canary of the driver")
}

func TestTimes(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("elsewhere", 2*3600)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for want, due := range map[string]time.Time{
		"now": now, "in 59 s": in(59 * time.Second), "in 1 min": in(time.Minute), "in 9 min 59 s": in(10*time.Minute - time.Second), "in 10 min": in(10*time.Minute + time.Second),
		"in 1 h": in(time.Hour), "in 1 h 1 min": in(time.Hour + time.Minute), "in 1 d 23 h": in(2*day - time.Minute), "in 10 d": in(10*day + 5*time.Hour), "in 364 d": in(364 * day),
		"in 1 y": in(365 * day), "in 2 y 35 d": in((730 + 35) * day), "3 s ago": ago(3 * time.Second), "2 h ago": ago(2 * time.Hour).In(berlin),
		"2027 y 86 d ago": time.Time{}.Add(time.Second), "in 7978 y 147 d": far, // longer than a duration can be
		"not by itself": {}, "not by itself ": far.Add(time.Second), "not by itself  ": time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		f := &fake{all: []jobs.Status{{Job: "k", State: "DONE", Due: due}}}
		text := show(t, newPage(t, f), "/keys/k").one(t, "dl", "facts").text
		require.Contains(t, text, "Next due "+strings.TrimSpace(want), want)
		show(t, newPage(t, f), "/")
	}
	f := &fake{all: []jobs.Status{{Job: "k", State: "DONE", Due: in(2 * time.Hour).In(berlin)}}}
	doc := show(t, newPage(t, f, page.WithClock(func() time.Time { return now.In(berlin) })), "/keys/k")
	require.Contains(t, doc.one(t, "dl", "facts").text, "in 2 h 2026-11-22 13:02:41 UTC")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		target string
		status int
		text   string
	}{
		{errors.New("canary: no route to host"), "/", 503, "The database does not answer"},
		{errors.New("canary: no route to host"), "/keys/billing", 503, "The database does not answer"},
		{fmt.Errorf("canary: %w", jobs.ErrNotRunning), "/", 503, "The worker is not running"},
		{fmt.Errorf("canary: %w", jobs.ErrNotRunning), "/keys/billing", 503, "The worker is not running"},
		{context.DeadlineExceeded, "/", 503, "The database does not answer"},
		{nil, "/keys/nobody", 404, "There is no such page"}, {nil, "/keys/", 404, "There is no such page"}, {nil, "/key", 404, "There is no such page"}, {nil, "/keys/billing/", 404, "There is no such page"},
		{errors.New("invalid byte sequence"), "/keys/%ff", 404, "There is no such page"}, {errors.New("invalid byte sequence"), "/keys/a%00b", 404, "There is no such page"},
	} {
		var log bytes.Buffer
		f := oneKey()
		f.err = c.err
		w := get(newPage(t, f, page.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))), c.target)
		require.Equal(t, c.status, w.Code, c.target)
		doc := parse(t, w.Body.String())
		require.Equal(t, c.text, doc.one(t, "h1", "").text)
		require.NotContains(t, w.Body.String(), "canary")
		require.NotContains(t, w.Body.String(), "worker-a")
		if c.status == 503 {
			require.Equal(t, "10", w.Header().Get("Retry-After"))
			require.Contains(t, log.String(), c.err.Error(), "the log has the reason")
		}
	}
}

// A database that does not answer holds no request up for long, and no more than
// some at a time ask it.
func TestPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := oneKey()
		var asking, most atomic.Int32
		f.snapshot = func(ctx context.Context) error {
			n := asking.Add(1)
			defer asking.Add(-1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}
		p := newPage(t, f)
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if code := get(p, "/").Code; code != http.StatusServiceUnavailable {
					t.Errorf("status %d", code)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 10*time.Second, time.Since(began))
		require.EqualValues(t, 4, most.Load())

		// Whoever has gone away is not told, and the log is not filled.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := request(p, "GET", "/", func(r *http.Request) { *r = *r.WithContext(ctx) })
		require.Empty(t, w.Body.String())
	})
}
