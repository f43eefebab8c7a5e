//go:build unix

package rotation_test

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// stopwatch adds up the time that calls take, and counts them.
type stopwatch struct{ spent, calls atomic.Int64 }

// middleware puts the stopwatch before a transport.
func (s *stopwatch) middleware(next http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(r *http.Request) (*http.Response, error) {
		start := time.Now()
		resp, err := next.RoundTrip(r)
		s.spent.Add(int64(time.Since(start)))
		s.calls.Add(1)
		return resp, err
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// BenchmarkRotate is an undisturbed rotation to one file on the local disk:
// what it takes beyond the provider's calls, the disk's syncs included.
func BenchmarkRotate(b *testing.B) {
	fake, err := keywrighttest.NewRicloud()
	require.NoError(b, err)
	defer fake.Close()
	fake.AddKeys(1)
	watch := &stopwatch{}
	rc, err := keywright.NewRicloud(quick(fake.URL(), keywright.WithToken(fake.Token()), keywright.WithMiddleware(watch.middleware))...)
	require.NoError(b, err)
	dir := b.TempDir()
	path := filepath.Join(dir, "token")
	require.NoError(b, os.WriteFile(path, []byte(fake.Token()+"\n"), 0o600))
	e, err := rotation.Open(filepath.Join(dir, "state"))
	require.NoError(b, err)
	job := rotation.Job{
		Name: "app", Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}},
		Sinks: []sink.Sink{sink.File(path, sink.WithLag(0))},
	}
	for b.Loop() {
		_, err := e.Rotate(b.Context(), job)
		require.NoError(b, err)
	}
	perOp := func(d time.Duration) float64 { return float64(d) / float64(b.N) / 1e6 }
	b.ReportMetric(perOp(b.Elapsed()-time.Duration(watch.spent.Load())), "engine-ms/op")
	b.ReportMetric(perOp(time.Duration(watch.spent.Load())), "provider-ms/op")
	b.ReportMetric(float64(watch.calls.Load())/float64(b.N), "calls/op")
}

// BenchmarkFleet is ten thousand rotations, 64 at a time, on the local disk,
// at a provider that allows so many a second: who is waited for, and how much
// of the machine it takes.
func BenchmarkFleet(b *testing.B) {
	const jobs, perSecond = 10_000, 250
	e, err := rotation.Open(filepath.Join(b.TempDir(), "state"))
	require.NoError(b, err)
	fleet := &rotation.Fleet{Engine: e, Width: 64, PerSecond: perSecond}
	var used time.Duration
	for b.Loop() {
		before := cpuTime(b)
		f := newFleet(jobs)
		r, err := fleet.Run(b.Context(), f.jobs())
		require.NoError(b, err)
		require.Equal(b, jobs, r.Done)
		used += cpuTime(b) - before
	}
	elapsed := b.Elapsed()
	b.ReportMetric(100*elapsed.Seconds()/(float64(b.N)*jobs/perSecond), "%-of-the-provider's-time")
	b.ReportMetric(100*used.Seconds()/(elapsed.Seconds()*float64(runtime.NumCPU())), "%CPU")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N)/jobs, "CPU-us/rotation")
}

// cpuTime is what this process has used.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
