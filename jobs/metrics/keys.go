package metrics

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
)

// Bounds of a scrape.
const (
	// MaxAge is how long what the database said is told again.
	MaxAge = time.Second
	// Timeout is how long a scrape waits for the database.
	Timeout = 5 * time.Second
)

// Source is where the state of the keys comes from; a *jobs.Runner is one.
type Source interface {
	// Snapshot returns how all jobs stand.
	Snapshot(ctx context.Context) ([]jobs.Status, error)
	// WorkerID returns the worker's id.
	WorkerID() string
}

// Option configures [Keys].
type Option func(*Keys)

// WithClock sets where the time of day comes from: time.Now if not given.
func WithClock(now func() time.Time) Option { return func(k *Keys) { k.now = now } }

// WithLogger logs, at Warn, why the database could not be asked.
func WithLogger(l *slog.Logger) Option { return func(k *Keys) { k.log = l } }

// Keys tells how all keys stand. It asks its source when it is scraped, at most
// once in [MaxAge] and for at most [Timeout]. When that fails, what is of the
// keys is left out, and the scrape succeeds with the rest. Register it.
type Keys struct {
	source Source
	now    func() time.Time
	log    *slog.Logger
	info   prometheus.Metric
	errors prometheus.Counter

	mu    sync.Mutex
	known []jobs.Status
	asked time.Time // zero: never; with a monotonic reading
}

// The metrics of keys.
var (
	ageDesc      = desc("keywright_key_age_seconds", "Time since the key's token was issued.", "job")
	dueDesc      = desc("keywright_key_due_seconds", "Time until the key is due; negative: it is overdue.", "job")
	expiresDesc  = desc("keywright_key_expires_seconds", "Time until the key expires, if that is known; negative: it has.", "job")
	stateDesc    = desc("keywright_rotation_state", "1 for the state that the job is in.", "job", "state")
	failuresDesc = desc("keywright_rotation_failures", "Runs of the job in a row that failed.", "job")
	windowDesc   = desc("keywright_rotation_window_remaining_seconds", "Time until the old token lapses by itself, of a rotation that is under way.", "job")
	jobsDesc     = desc("keywright_jobs", "Jobs that are in the state.", "state")
	blockedDesc  = desc("keywright_jobs_blocked", "Jobs that this worker does not run, or does not know.")
	underWayDesc = desc("keywright_rotations_under_way", "Rotations that are begun and not over.")
)

// states are those that jobs are counted in even if none is.
var states = [...]string{
	string(rotation.StateIdle), string(rotation.StatePlanned), string(rotation.StateIntent), string(rotation.StateResolving),
	string(rotation.StateIssued), string(rotation.StateVerified), string(rotation.StateDistributing), string(rotation.StateConverging),
	string(rotation.StateRetiring), string(rotation.StateDone), string(rotation.StateRollingBack), string(rotation.StateRolledBack),
	string(rotation.StateStuck), jobs.StateRefused, jobs.StateFailed,
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// NewKeys returns the metrics of a source. version is that of the program.
func NewKeys(source Source, version string, opts ...Option) *Keys {
	k := &Keys{
		source: source, now: time.Now, log: slog.New(slog.DiscardHandler),
		info: prometheus.MustNewConstMetric(
			desc("keywright_worker_info", "1, for the worker's id and the version of its program.", "worker", "version"),
			prometheus.GaugeValue, 1, clean(source.WorkerID()), clean(version)),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keywright_scrape_errors_total",
			Help: "Scrapes that could not ask the database.",
		}),
	}
	for _, opt := range opts {
		opt(k)
	}
	return k
}

// Describe implements [prometheus.Collector].
func (k *Keys) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{
		ageDesc, dueDesc, expiresDesc, stateDesc, failuresDesc, windowDesc, jobsDesc, blockedDesc, underWayDesc, k.info.Desc(), k.errors.Desc(),
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (k *Keys) Collect(ch chan<- prometheus.Metric) {
	ch <- k.info
	known, err := k.ask()
	if err != nil {
		k.errors.Inc()
		k.log.LogAttrs(context.Background(), slog.LevelWarn, "metrics: the database could not be asked", slog.Any("error", err))
	}
	ch <- k.errors
	if err == nil {
		k.tell(ch, known)
	}
}

// ask returns how the keys stand. Scrapes at the same time ask once.
func (k *Keys) ask() ([]jobs.Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.asked.IsZero() && time.Since(k.asked) < MaxAge {
		return k.known, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	known, err := k.source.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	k.known, k.asked = known, time.Now()
	return known, nil
}

// tell sends what is known of the keys.
func (k *Keys) tell(ch chan<- prometheus.Metric, known []jobs.Status) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := k.now()
	counts := make(map[string]int, len(states))
	for _, state := range states {
		counts[state] = 0
	}
	blocked, underWay := 0, 0
	for i := range known {
		s := &known[i]
		job, state := clean(s.Job), clean(stateOf(s))
		counts[state]++
		gauge(stateDesc, 1, job, state)
		gauge(failuresDesc, float64(s.Attempts), job)
		if !s.Issued.IsZero() {
			gauge(ageDesc, max(0, now.Sub(s.Issued).Seconds()), job) // the provider's clock may be ahead
		}
		if !s.Due.IsZero() {
			gauge(dueDesc, s.Due.Sub(now).Seconds(), job)
		}
		if !s.Expires.IsZero() {
			gauge(expiresDesc, s.Expires.Sub(now).Seconds(), job)
		}
		if s.Blocked != "" {
			blocked++
		}
		if s.UnderWay() {
			underWay++
			if deadline := s.Rotation.Deadline; !deadline.IsZero() {
				gauge(windowDesc, deadline.Sub(now).Seconds(), job)
			}
		}
	}
	for state, n := range counts {
		gauge(jobsDesc, float64(n), state)
	}
	gauge(blockedDesc, float64(blocked))
	gauge(underWayDesc, float64(underWay))
}

// stateOf is the state that a job is in.
func stateOf(s *jobs.Status) string {
	if s.UnderWay() {
		return string(s.Rotation.State)
	}
	return cmp.Or(s.State, string(rotation.StateIdle))
}

// clean makes a text fit for a label.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
