package page_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
)

// tenThousand keys, some of each kind, with texts as long as they come.
func tenThousand() *fake {
	f := new(fake)
	long := strings.Repeat("it went wrong in a way that takes long to tell, ", 40)
	for i := range 10_000 {
		s := jobs.Status{
			Job: fmt.Sprintf("tenant-%05d", i), Provider: "ricloud", Strategy: "ricloud-paired", Key: fmt.Sprintf("keys %d and %d", 2*i, 2*i+1), State: "DONE",
			Due: in(time.Duration(i) * time.Minute), Reason: "every 30d, 6h of jitter", LastRun: ago(day), Issued: ago(day), Finished: ago(day),
		}
		switch i % 5 {
		case 0:
			s = underWay(s.Job, rotation.StateDistributing, time.Hour)
			s.Rotation.Sinks = make([]rotation.SinkStatus, 4)
			for j := range s.Rotation.Sinks {
				s.Rotation.Sinks[j] = rotation.SinkStatus{Name: fmt.Sprintf("vault secret/%s/%d", s.Job, j), State: rotation.SinkWriting}
			}
			s.Problem = long
		case 1:
			s.State, s.Problem, s.Attempts = jobs.StateFailed, long, 7
		case 2:
			s.Overdue, s.Due = true, ago(time.Duration(i)*time.Second)
		}
		f.all = append(f.all, s)
	}
	return f
}

func TestTenThousand(t *testing.T) {
	t.Parallel()
	p := newPage(t, tenThousand())
	for _, target := range []string{"/", "/?page=100", "/?q=tenant-0", "/?state=running"} {
		w := get(p, target)
		require.Equal(t, 200, w.Code)
		require.Less(t, w.Body.Len(), 256<<10)
		require.Len(t, parse(t, w.Body.String()).names(), 100)
	}
}

func BenchmarkOverview(b *testing.B) {
	p := newPage(b, tenThousand())
	for name, target := range map[string]string{"first": "/", "last": "/?page=100", "search": "/?q=no-such-key", "group": "/?state=healthy"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var w *httptest.ResponseRecorder
			for b.Loop() {
				w = get(p, target)
			}
			b.ReportMetric(float64(w.Body.Len()), "body-bytes")
		})
	}
}

func BenchmarkKey(b *testing.B) {
	f := stuckKey()
	for range 5 {
		f.events = append(f.events, f.events...)
	}
	p := newPage(b, f)
	b.ReportAllocs()
	for b.Loop() {
		get(p, "/keys/payments")
	}
}
