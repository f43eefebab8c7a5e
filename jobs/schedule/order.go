package schedule

import (
	"cmp"
	"slices"
	"time"
)

// State is how a job stands.
type State int

// The states of a job.
const (
	Idle    State = iota // no rotation is under way, and the last one succeeded
	Running              // a rotation is under way
	Failed               // the last rotation failed, and is not over
)

// Member is a job as [Order] sees it.
type Member struct {
	// Name is the job's name.
	Name string
	// Group is that of its [Spec].
	Group string
	// Canary is that of its [Spec].
	Canary bool
	// State is how it stands.
	State State
	// Due is its [Due.At]; zero: never.
	Due time.Time
	// Planned is its [Due.Planned]; zero: as Due.
	Planned time.Time
	// Last is when its last rotation was finished; zero: never.
	Last time.Time
	// FirstSeen is when it was first known.
	FirstSeen time.Time
	// Expires is when its key expires; zero: never, or it is not known.
	Expires time.Time
	// Frozen says that a freeze window of its [Spec] is open; see [Spec.FrozenAt].
	// It only matters to a canary that is not due itself.
	Frozen bool
}

// Turn is what [Order] says about a job.
type Turn struct {
	// Name is the job's name.
	Name string
	// Begin says that a rotation may begin now.
	Begin bool
	// Reason says why it may not, or why it may before it is due; else empty.
	Reason string
}

// Order says which jobs may begin a rotation now. It returns those that are due
// and not under way, the canaries of a group first, and else those that were
// planned first; it returns no others, but canaries that others wait for.
//
// A job of a group waits until every canary of the group has been rotated for
// this turn: in the second half of the time from the job's own last rotation to
// its time. A canary that was not, and is not due, may begin all the same. A
// canary under way or failed holds the others back. No job waits for canaries
// when its key is closer to its expiry than [Margin].
//
// Canaries do not wait for each other, and a group without any does not wait.
// Call Order again when a rotation has ended.
func Order(now time.Time, members []Member) []Turn {
	groups := make(map[string]*flock)
	for i := range members {
		m := &members[i]
		if m.Canary {
			g := groups[m.Group]
			if g == nil {
				g = new(flock)
				groups[m.Group] = g
			}
			g.add(m)
		}
	}
	type turn struct {
		Turn
		m *Member
	}
	var turns []turn
	for i := range members {
		m := &members[i]
		if m.Canary || !m.ready(now) {
			continue
		}
		t := turn{Turn{Name: m.Name, Begin: true}, m}
		if g := groups[m.Group]; g != nil {
			why := g.holds(m)
			switch {
			case why == "":
			case m.urgent(now):
				t.Reason = "does not wait for the canary: the key expires soon"
			default:
				t.Begin, t.Reason = false, why
			}
		}
		turns = append(turns, t)
	}
	for i := range members {
		m := &members[i]
		if !m.Canary || m.State != Idle {
			continue
		}
		switch wanted := m.Last.Before(groups[m.Group].wanted); {
		case m.ready(now):
			turns = append(turns, turn{Turn{Name: m.Name, Begin: true}, m})
		case wanted && m.Frozen:
			turns = append(turns, turn{Turn{Name: m.Name, Reason: "others wait for this canary, which is in a freeze"}, m})
		case wanted:
			turns = append(turns, turn{Turn{Name: m.Name, Begin: true, Reason: "others wait for this canary"}, m})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int {
		if a.m.Canary != b.m.Canary {
			if a.m.Canary {
				return -1
			}
			return 1
		}
		return cmp.Or(a.m.planned().Compare(b.m.planned()), cmp.Compare(a.Name, b.Name))
	})
	out := make([]Turn, len(turns))
	for i := range turns {
		out[i] = turns[i].Turn
	}
	return out
}

// ready reports whether the job is due and not under way.
func (m *Member) ready(now time.Time) bool {
	return m.State == Idle && !m.Due.IsZero() && !m.Due.After(now)
}

func (m *Member) planned() time.Time {
	if m.Planned.IsZero() {
		return m.Due
	}
	return m.Planned
}

// urgent reports whether the key is close to its expiry.
func (m *Member) urgent(now time.Time) bool {
	return !m.Expires.IsZero() && now.After(m.Expires.Add(-margin(m.Expires, m.from())))
}

// since returns from when on a rotation of a canary is for this turn of m.
func (m *Member) since() time.Time {
	from, to := m.from(), m.planned()
	if from.IsZero() || !from.Before(to) {
		return to
	}
	return from.Add(to.Sub(from) / 2)
}

// from returns when the key came into use, as far as is known.
func (m *Member) from() time.Time {
	if m.Last.IsZero() {
		return m.FirstSeen
	}
	return m.Last
}

// flock is the canaries of a group.
type flock struct {
	running, failed *Member
	last            *Member   // whose rotation is the longest ago
	wanted          time.Time // a canary that was not rotated since is waited for
}

func (g *flock) add(m *Member) {
	switch m.State {
	case Running:
		g.running = m
	case Failed:
		g.failed = m
	}
	if g.last == nil || m.Last.Before(g.last.Last) {
		g.last = m
	}
}

// holds returns why m waits for the canaries; empty: it does not.
func (g *flock) holds(m *Member) string {
	since := m.since()
	if g.wanted.Before(since) {
		g.wanted = since
	}
	switch {
	case g.failed != nil:
		return "waits for the canary " + g.failed.Name + ", which has failed"
	case g.running != nil:
		return "waits for the canary " + g.running.Name + ", which is under way"
	case g.last.Last.Before(since):
		return "waits for the canary " + g.last.Name
	}
	return ""
}
