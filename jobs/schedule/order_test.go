package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/keywright/keywright/jobs/schedule"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	now := at("2026-02-01T10:00")
	type members = []schedule.Member
	// A month ago the canary was rotated, and then the rest. All are due.
	canary := schedule.Member{Name: "canary", Canary: true, Due: now, Planned: at("2026-02-01T09:00"), Last: at("2026-01-01T09:10")}
	rest := schedule.Member{Name: "rest", Due: now, Planned: at("2026-02-01T09:30"), Last: at("2026-01-01T09:40")}
	with := func(m schedule.Member, f func(*schedule.Member)) schedule.Member { f(&m); return m }
	done := with(canary, func(m *schedule.Member) { m.Last, m.Due = at("2026-02-01T09:10"), at("2026-03-01T09:00") })
	for name, c := range map[string]struct {
		members members
		want    []schedule.Turn
	}{
		"none":              {nil, []schedule.Turn{}},
		"no canary":         {members{rest}, []schedule.Turn{{Name: "rest", Begin: true}}},
		"canary first":      {members{rest, canary}, []schedule.Turn{{Name: "canary", Begin: true}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"canary done":       {members{rest, done}, []schedule.Turn{{Name: "rest", Begin: true}}},
		"canary under way":  {members{rest, with(canary, func(m *schedule.Member) { m.State = schedule.Running })}, []schedule.Turn{{Name: "rest", Reason: "waits for the canary canary, which is under way"}}},
		"canary failed":     {members{rest, with(canary, func(m *schedule.Member) { m.State = schedule.Failed })}, []schedule.Turn{{Name: "rest", Reason: "waits for the canary canary, which has failed"}}},
		"under way":         {members{with(rest, func(m *schedule.Member) { m.State = schedule.Running })}, []schedule.Turn{}},
		"not due":           {members{with(rest, func(m *schedule.Member) { m.Due = now.Add(1) }), with(rest, func(m *schedule.Member) { m.Due = time.Time{} })}, []schedule.Turn{}},
		"canary of another": {members{rest, with(canary, func(m *schedule.Member) { m.Group = "b" })}, []schedule.Turn{{Name: "canary", Begin: true}, {Name: "rest", Begin: true}}},
		"canary not due":    {members{rest, with(canary, func(m *schedule.Member) { m.Due = now.Add(time.Hour) })}, []schedule.Turn{{Name: "canary", Begin: true, Reason: "others wait for this canary"}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"canary never due":  {members{rest, with(canary, func(m *schedule.Member) { m.Due, m.Planned = time.Time{}, time.Time{} })}, []schedule.Turn{{Name: "canary", Begin: true, Reason: "others wait for this canary"}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"canary frozen":     {members{rest, with(canary, func(m *schedule.Member) { m.Due, m.Frozen = now.Add(time.Hour), true })}, []schedule.Turn{{Name: "canary", Reason: "others wait for this canary, which is in a freeze"}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"one of two done":   {members{rest, done, with(canary, func(m *schedule.Member) { m.Name = "b" })}, []schedule.Turn{{Name: "b", Begin: true}, {Name: "rest", Reason: "waits for the canary b"}}},
		"expires soon":      {members{with(rest, func(m *schedule.Member) { m.Expires = now.Add(23 * time.Hour) }), with(canary, func(m *schedule.Member) { m.State = schedule.Failed })}, []schedule.Turn{{Name: "rest", Begin: true, Reason: "does not wait for the canary: the key expires soon"}}},
		"never rotated":     {members{with(rest, func(m *schedule.Member) { m.Last, m.FirstSeen = time.Time{}, at("2026-01-01") }), with(canary, func(m *schedule.Member) { m.Last = time.Time{} })}, []schedule.Turn{{Name: "canary", Begin: true}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"new in the group":  {members{with(rest, func(m *schedule.Member) { m.Last, m.FirstSeen = time.Time{}, at("2026-01-31") }), done}, []schedule.Turn{{Name: "rest", Begin: true}}},
		"long done":         {members{with(rest, func(m *schedule.Member) { m.Last = at("2026-01-31") }), with(done, func(m *schedule.Member) { m.Last = at("2026-01-30") })}, []schedule.Turn{{Name: "canary", Begin: true, Reason: "others wait for this canary"}, {Name: "rest", Reason: "waits for the canary canary"}}},
		"oldest first": {members{with(rest, func(m *schedule.Member) { m.Name, m.Planned = "c", time.Time{} }), with(rest, func(m *schedule.Member) { m.Name = "b" }), with(rest, func(m *schedule.Member) { m.Name = "a" }), with(rest, func(m *schedule.Member) { m.Name, m.Planned = "z", at("2025-12-01") })},
			[]schedule.Turn{{Name: "z", Begin: true}, {Name: "a", Begin: true}, {Name: "b", Begin: true}, {Name: "c", Begin: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, schedule.Order(now, c.members))
		})
	}
}

// TestOrder_rounds runs a group with jitter for a year: the canary is rotated
// once a month like the others, and always before them.
func TestOrder_rounds(t *testing.T) {
	t.Parallel()
	s := spec(t, `{"cron": "0 4 1 * *", "jitter": "2d"}`)
	first := spec(t, `{"cron": "0 4 1 * *", "jitter": "2d", "canary": true}`)
	now := at("2026-01-10")
	group := make([]schedule.Member, 20)
	for i := range group {
		group[i] = schedule.Member{Name: fmt.Sprint("job-", i), Canary: i == 13, Last: now.Add(-time.Duration(i) * time.Minute)}
	}
	runs := make(map[string]int)
	canaryRan, month := time.Time{}, time.Duration(20*24*time.Hour)
	for ; now.Before(at("2027-01-10")); now = now.Add(2 * time.Hour) {
		index := make(map[string]*schedule.Member)
		for i := range group {
			m := &group[i]
			index[m.Name] = m
			s := s
			if m.Canary {
				s = first
			}
			due, err := s.Next(schedule.Input{Job: m.Name, Last: m.Last, Now: now})
			assert.NoError(t, err)
			m.Due, m.Planned = due.At, due.Planned
		}
		for _, turn := range schedule.Order(now, group) {
			if m := index[turn.Name]; turn.Begin {
				if m.Canary {
					canaryRan = now
				} else {
					assert.True(t, canaryRan.Before(now) && now.Sub(canaryRan) < month, "%s at %s", m.Name, now)
				}
				m.Last = now.Add(time.Minute)
				runs[m.Name]++
			}
		}
	}
	for name, n := range runs {
		assert.Equal(t, 12, n, name)
	}
	assert.Len(t, runs, len(group))
}
