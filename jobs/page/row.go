package page

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation"
)

// row is a key.
type row struct {
	Job       *jobs.Status
	Href      string // empty: it has no page
	Elsewhere bool   // another worker owns it
	Group     group
	Words     string // its state
	Code      string // its state, as the journal has it; empty: nothing is under way
	Problem   string // what went wrong last
	Issued    moment
	Due       moment // none while a rotation is under way
	Again     bool   // it is tried again then, rather than due
	Why       string // it is due then
	Expires   moment
	Expired   bool
	Window    *window
	Sinks     *sinks
	Last      string // what the last run came to
	LastAt    moment
}

// sinks is how far the delivery is.
type sinks struct {
	Confirmed, Total int
	Trouble          bool   // one failed, or somebody else wrote to it
	Names            string // of those that are not confirmed, for a title
}

func sinksOf(s *rotation.Status) *sinks {
	if s == nil || len(s.Sinks) == 0 {
		return nil
	}
	v := &sinks{Total: len(s.Sinks)}
	var waiting []string
	for _, one := range s.Sinks {
		switch one.State {
		case rotation.SinkConfirmed:
			v.Confirmed++
			continue
		case rotation.SinkFailed, rotation.SinkConflict:
			v.Trouble = true
		}
		if len(waiting) < 10 {
			waiting = append(waiting, clean(one.Name, lengthName))
		}
	}
	if len(waiting) > 0 {
		v.Names = "Not confirmed: " + strings.Join(waiting, ", ")
	}
	if more := v.Total - v.Confirmed - len(waiting); more > 0 {
		v.Names += " and " + strconv.Itoa(more) + " more"
	}
	return v
}

func (p *Page) row(e entry, now time.Time, layout string) row {
	s := e.job
	v := row{
		Job: s, Href: p.keyPath(s.Job), Elsewhere: s.Owner != "" && s.Owner != p.source.WorkerID(), Group: e.group, Words: e.words, Problem: s.Problem,
		Issued: at(s.Issued, now, layout), Expires: at(s.Expires, now, layout), Expired: expired(s, now),
		Window: windowOf(s.Rotation, time.Time{}, now, layout), Sinks: sinksOf(s.Rotation),
		Last: stateWords(s.State), LastAt: at(s.LastRun, now, layout),
	}
	if s.UnderWay() {
		v.Code = string(s.Rotation.State)
		v.Problem = cmp.Or(s.Rotation.Problem, s.Problem)
	}
	switch {
	case e.group == groupRunning: // Due is when it is looked after, which is of no interest
	case e.group == groupFailed, v.Code != "", s.State == string(rotation.StateStuck):
		v.Due, v.Again = at(s.Due, now, layout), true
	default:
		v.Due, v.Why = at(s.Due, now, layout), s.Reason
	}
	return v
}
