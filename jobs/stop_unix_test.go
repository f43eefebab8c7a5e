//go:build unix

package jobs

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
)

// pause stops a process, as a machine does that is suspended.
func (p *child) pause() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus // threads run on for a moment
	_, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(p.t, err)
	require.True(p.t, status.Stopped())
}

func (p *child) resume() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGCONT))
}

// written is what the database has of some jobs, but for who has them, and for
// the history's events, which say what a worker has seen.
func written(t *testing.T, st *store.Store, jobs []*scene) []string {
	t.Helper()
	var names []string
	for _, s := range jobs {
		names = append(names, s.Name)
	}
	var all []string
	for _, table := range []string{"journal", "audit", "schedule", "facts", "runs"} {
		rows, err := st.SQL().QueryContext(t.Context(), `SELECT job, md5((to_jsonb(x) - 'owner' - 'session' - 'expires')::text) FROM keywright_`+table+` AS x`)
		require.NoError(t, err)
		for rows.Next() {
			var job, sum string
			require.NoError(t, rows.Scan(&job, &sum))
			if slices.Contains(names, job) {
				all = append(all, table+" of "+job+" "+sum)
			}
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
	slices.Sort(all)
	return all
}

// A worker that was stopped for longer than its lease and the rescue time, and
// continues when another has taken over, sends nothing and writes nothing of what
// may run anywhere: whatever it was about to do. What it owns it ends itself.
func TestStoppedPostgres(t *testing.T) {
	t.Parallel()
	testStopped(t, newTroupe(t, postgresAt(t)))
}

// The same with the times that are the defaults: it takes five minutes.
func TestStoppedPostgresDefaults(t *testing.T) {
	soak(t)
	t.Parallel()
	c := newTroupe(t, postgresAt(t))
	c.Step, c.Rescue, c.Lease = 0, 0, 0
	testStopped(t, c)
}

// soak skips what takes minutes, unless it is asked for.
func soak(t *testing.T) {
	if os.Getenv("KEYWRIGHT_SOAK") == "" {
		t.Skip("it takes minutes; KEYWRIGHT_SOAK=1 runs it")
	}
}

func testStopped(t *testing.T, c *troupe) {
	var free, owned, mutating []*scene
	for _, strategy := range strategies {
		for _, point := range points(strategy) {
			s := c.add(t, strategy, "w1")
			s.StopAt = point
			switch {
			case s.Owner != "":
				owned = append(owned, s)
				continue
			case strings.HasPrefix(point, "before"):
				mutating = append(mutating, s)
			}
			free = append(free, s)
		}
	}
	p := c.first(t)
	p.each(patience, c.scenes, "staying JOB POINT")
	p.pause()
	stopped := time.Now()
	p.goOn() // when it can
	sent := make(map[string]int)
	for _, s := range c.scenes {
		sent[s.Name] = s.by("w1")
	}
	q := c.next(t, "w2")
	took := q.each(5*time.Minute, free, "result JOB DONE")
	var longest time.Duration
	for _, at := range took {
		longest = max(longest, at.Sub(stopped))
	}
	t.Logf("%d rotations taken over from a stopped worker and over after at most %s", len(free), longest.Round(time.Millisecond))
	for _, s := range c.scenes {
		require.Equal(t, sent[s.Name], s.by("w1"), "a process that is stopped")
	}
	st := c.d.open(t)
	require.Eventually(t, func() bool { // the last of them is written down
		rows, err := st.List(t.Context())
		require.NoError(t, err)
		for _, row := range rows {
			if row.Owner == "" && row.LastState != "DONE" {
				return false
			}
		}
		return true
	}, 10*time.Second, 50*time.Millisecond)
	before, requests := written(t, st, free), make(map[string]int)
	for _, s := range free {
		requests[s.Name] = len(s.requests())
	}
	p.resume()
	missing := make(map[string]bool)
	for _, s := range owned {
		missing["result "+s.Name+" DONE"] = true
	}
	for _, s := range mutating {
		missing["late "+s.Name+" "+strings.TrimPrefix(s.StopAt, "before ")] = true
	}
	p.read(5*time.Minute, missing, func(line string) bool {
		for prefix := range missing {
			if strings.HasPrefix(line, prefix) {
				delete(missing, prefix)
			}
		}
		return len(missing) == 0
	})
	p.stop()
	for _, s := range free {
		require.Equal(t, sent[s.Name], s.by("w1"), "what the worker sent of %s that was stopped %s", s.Name, s.StopAt)
		require.Len(t, s.requests(), requests[s.Name], s.Name)
	}
	require.Equal(t, before, written(t, st, free), "what the worker wrote that was stopped")
	q.stop()
	for _, s := range owned {
		require.Zero(t, s.by("w2"), "%s has another owner", s.Name)
	}
	t.Logf("%d requests that were about to be sent were not; %d rotations of the worker's own are over %s after it was stopped",
		len(mutating), len(owned), time.Since(stopped).Round(time.Millisecond))
	c.over(t)
}
