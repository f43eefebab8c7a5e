package metrics

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
)

// Runs counts what runs on this worker come to, and how long their steps take.
// Register it.
type Runs struct {
	ended *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

// results are the labels of states that a run ends in.
var results = map[string]string{
	string(rotation.StateDone):       "done",
	string(rotation.StateRolledBack): "rolled_back",
	string(rotation.StateStuck):      "stuck",
	jobs.StateRefused:                "refused",
	jobs.StateFailed:                 "failed",
}

// unknown is the provider of a job that could not be made.
const unknown = "unknown"

// NewRuns returns metrics that have counted nothing. The counters of the
// providers of package rotation are there from the start, so that the first run
// is seen as an increase.
func NewRuns() *Runs {
	r := &Runs{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keywright_rotation_runs_total",
			Help: "Runs that ended on this worker, by what they came to.",
		}, []string{"provider", "result"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keywright_rotation_step_seconds",
			Help:    "How long a step of a rotation took on this worker.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"provider"}),
	}
	for _, provider := range [...]string{"ricloud", "acedata"} {
		r.took.WithLabelValues(provider)
		for _, result := range results {
			r.ended.WithLabelValues(provider, result)
		}
	}
	return r
}

// Observe is for [jobs.WithResults].
func (r *Runs) Observe(v jobs.Result) {
	provider := clean(cmp.Or(v.Provider, unknown))
	r.took.WithLabelValues(provider).Observe(v.Took.Seconds())
	if result := results[v.State]; result != "" && (v.Over || v.State == string(rotation.StateStuck)) {
		r.ended.WithLabelValues(provider, result).Inc()
	}
}

// Describe implements [prometheus.Collector].
func (r *Runs) Describe(ch chan<- *prometheus.Desc) {
	r.ended.Describe(ch)
	r.took.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (r *Runs) Collect(ch chan<- prometheus.Metric) {
	r.ended.Collect(ch)
	r.took.Collect(ch)
}
