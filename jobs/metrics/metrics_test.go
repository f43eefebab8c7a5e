package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/metrics"
	"github.com/keywright/keywright/rotation"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// source is a runner's stand-in.
type source struct {
	mu    sync.Mutex
	all   []jobs.Status
	err   error
	asked int
	id    string
}

func (s *source) Snapshot(context.Context) ([]jobs.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.all, s.err
}

func (s *source) WorkerID() string { return s.id }

// some are jobs in some states.
func some() []jobs.Status {
	return []jobs.Status{
		{Job: "billing", State: "DONE", Issued: now.Add(-24 * time.Hour), Due: now.Add(29 * 24 * time.Hour), Expires: now.Add(60 * 24 * time.Hour)},
		{Job: "fresh", Due: now.Add(time.Hour)},
		{Job: "late", State: "FAILED", Attempts: 3, Due: now.Add(-time.Minute), Expires: now.Add(-time.Second), Problem: "canary-problem"},
		{Job: "moving", State: "ISSUED", Issued: now.Add(time.Second), Rotation: &rotation.Status{
			State: rotation.StateConverging, Deadline: now.Add(90 * time.Minute), Problem: "canary-problem",
		}},
		{Job: "calm", State: "DISTRIBUTING", Rotation: &rotation.Status{State: rotation.StateDistributing}},
		{Job: "stuck", State: "STUCK", Rotation: &rotation.Status{State: rotation.StateStuck, Deadline: now.Add(-time.Hour)}},
		{Job: "over", State: "ROLLED_BACK", Rotation: &rotation.Status{State: rotation.StateRolledBack}},
		{Job: "other", State: "REFUSED", Blocked: "canary-reason", Owner: "w2"},
		{Job: "strange", State: "A_NEW\xffSTATE"},
	}
}

func newKeys(s *source) *metrics.Keys {
	return metrics.NewKeys(s, "1.2.3", metrics.WithClock(func() time.Time { return now }))
}

// registry has metrics of some jobs and runs.
func registry(t *testing.T, s *source) *prometheus.Registry {
	t.Helper()
	runs := metrics.NewRuns()
	for _, v := range []jobs.Result{
		{Provider: "ricloud", State: "DONE", Over: true, Took: 700 * time.Millisecond},
		{Provider: "ricloud", State: "CONVERGING", Took: time.Second},
		{Provider: "ricloud", State: "DONE", Over: true, Took: time.Second},
		{Provider: "acedata", State: "STUCK", Took: time.Hour, Err: errors.New("canary-problem")},
		{Provider: "acedata", State: "FAILED", Over: true},
		{Provider: "acedata", State: "FAILED"}, // it goes on by itself
		{Provider: "acedata", State: "ROLLED_BACK", Over: true},
		{State: "REFUSED", Over: true},
		{Provider: "t\xffy", State: "DONE", Over: true},
	} {
		v.Job = "canary-job"
		runs.Observe(v)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(runs, newKeys(s))
	return r
}

// What is told is exactly this.
func TestExposition(t *testing.T) {
	t.Parallel()
	r := registry(t, &source{all: some(), id: "w\xff1"})
	want, err := os.Open("testdata/metrics.txt")
	require.NoError(t, err)
	defer want.Close()
	require.NoError(t, testutil.GatherAndCompare(r, want))

	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// What is told is what a scrape reads, and has no text of a job's in it.
func TestScrape(t *testing.T) {
	t.Parallel()
	h := promhttp.HandlerFor(registry(t, &source{all: some(), id: "w1"}), promhttp.HandlerOpts{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	text := w.Body.String()
	require.NotContains(t, text, "canary")
	require.Contains(t, text, `keywright_key_due_seconds{job="late"} -60`)
	// Every metric is in the package's documentation, and the other way round.
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	families := make(map[string]bool)
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			families[strings.Fields(name)[0]] = true
		}
	}
	for name := range families {
		assert.Regexp(t, `\t`+name+`[{ ]`, string(doc))
	}
	assert.Equal(t, len(families), strings.Count(string(doc), "\n//\tkeywright_"))
}

// While the database is away what is of the keys is left out.
func TestAway(t *testing.T) {
	t.Parallel()
	s := &source{err: errors.New("away"), id: "w1"}
	r := prometheus.NewRegistry()
	r.MustRegister(newKeys(s))
	for n := 1; n < 3; n++ {
		require.NoError(t, testutil.GatherAndCompare(r, strings.NewReader(`
# HELP keywright_scrape_errors_total Scrapes that could not ask the database.
# TYPE keywright_scrape_errors_total counter
keywright_scrape_errors_total `+string(rune('0'+n))+`
# HELP keywright_worker_info 1, for the worker's id and the version of its program.
# TYPE keywright_worker_info gauge
keywright_worker_info{version="1.2.3",worker="w1"} 1
`)))
	}
}

// Many scrapes at a time ask once.
func TestCache(t *testing.T) {
	t.Parallel()
	s := &source{all: some(), id: "w1"}
	r := prometheus.NewRegistry()
	r.MustRegister(newKeys(s))
	begun := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := r.Gather()
			assert.NoError(t, err)
		})
	}
	all.Wait()
	require.LessOrEqual(t, s.asked, 1+int(time.Since(begun)/metrics.MaxAge))
}

// BenchmarkScrape tells of ten thousand keys, of which a tenth is under way.
func BenchmarkScrape(b *testing.B) {
	s := &source{id: "w1"}
	for i := range 10_000 {
		v := some()[i%2*3]
		if i%10 == 0 {
			v = some()[3]
		}
		v.Job = "a-job-with-a-long-name-" + strings.Repeat("x", i%7) + time.Duration(i).String()
		s.all = append(s.all, v)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(newKeys(s))
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		b.ReportMetric(float64(w.Body.Len()), "bytes")
	}
}
