package jobs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A worker on SQLite that is killed, wherever it is, is followed by one that
// takes over in less than a second, and ends what was begun, once.
func TestKilledSQLite(t *testing.T) {
	t.Parallel()
	for _, strategy := range strategies {
		for _, point := range points(strategy) {
			t.Run(strategy+" "+strings.ReplaceAll(point, "/", " "), func(t *testing.T) {
				t.Parallel()
				c := newTroupe(t, sqliteAt(t))
				s := c.add(t, strategy, "w1")
				s.StopAt = point
				p := c.first(t)
				p.until("staying " + s.Name + " " + point)
				p.kill()
				dead := time.Now()
				p = c.next(t, "w1")
				p.until("started")
				started := time.Since(dead)
				over := "result " + s.Name + " DONE"
				line := p.until("starting "+s.Name, over)
				taken := time.Since(dead)
				if line != over && !strings.HasPrefix(line, over) {
					p.until(over)
				}
				t.Logf("killed at %s: taken over after %s, of which %s for the process to start; over after %s", point,
					taken.Round(time.Millisecond), started.Round(time.Millisecond), time.Since(dead).Round(time.Millisecond))
				require.Less(t, taken, takeover)
				p.stop()
				c.over(t)
			})
		}
	}
}

// A worker that is killed at every state in turn ends all the same.
func TestKilledEverywhere(t *testing.T) {
	t.Parallel()
	for strategy, all := range map[string][]string{
		"paired": {
			"PLANNED", "INTENT", "RESOLVING", "INTENT", "after POST /keys/2/rotate", "ISSUED", "VERIFIED", "DISTRIBUTING", "CONVERGING", "RETIRING",
			"before POST /keys/1/rotate", "after POST /keys/1/rotate", "DONE",
		},
		"swap": {
			"PLANNED", "INTENT", "RESOLVING", "INTENT", "after POST /credentials/", "ISSUED", "VERIFIED", "after PATCH new", "DISTRIBUTING", "CONVERGING",
			"RETIRING", "after PATCH old", "after PATCH new", "before DELETE old", "after DELETE old", "DONE",
		},
	} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			c := newTroupe(t, sqliteAt(t))
			s := c.add(t, strategy, "w1")
			for i, point := range all {
				s.StopAt = point
				life := c.childSettings
				job := s.childJob
				job.Trigger = i == 0
				life.Jobs = []childJob{job}
				p := life.spawn(t)
				p.until("staying " + s.Name + " " + point)
				p.kill()
			}
			p := c.next(t, "w1")
			p.until("result " + s.Name + " DONE")
			p.stop()
			c.over(t)
		})
	}
}

// A worker on PostgreSQL that has a rotation at every point there is is killed.
// Another takes over what may run anywhere, and what it owns is ended when it is
// back.
func TestKilledPostgres(t *testing.T) {
	t.Parallel()
	c := newTroupe(t, postgresAt(t))
	var owned []*scene
	for _, strategy := range strategies {
		for _, point := range points(strategy) {
			s := c.add(t, strategy, "w1")
			s.StopAt = point
			if s.Owner != "" {
				owned = append(owned, s)
			}
		}
	}
	p := c.first(t)
	p.each(patience, c.scenes, "staying JOB POINT")
	q := c.next(t, "w2")
	q.until("started")
	p.kill()
	dead := time.Now()
	p = c.next(t, "w1")
	taken := together(t, p, q).each(patience, c.scenes, "result JOB DONE")
	var all []time.Duration
	for _, at := range taken {
		all = append(all, at.Sub(dead).Round(time.Millisecond))
	}
	t.Logf("%d rotations of a killed worker were over after %s to %s, with a rescue after %s", len(all), slices.Min(all), slices.Max(all), c.Rescue)
	p.stop()
	q.stop()
	for _, s := range owned {
		require.Zero(t, s.by("w2"), "%s has another owner", s.Name)
	}
	c.over(t)
}
