package page

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// How much of the history is on a key's page, and how many sinks.
const (
	mostEvents = 200
	mostRuns   = 50
	mostSinks  = 200
	mostSteps  = 50
)

// keyView is the data of the template.
type keyView struct {
	frame
	row
	Home      string
	Rotation  *rotation.Status // nil: nothing is known
	Begun     moment           // when the token was asked for
	Finished  moment
	NewIssued moment // while a rotation is under way
	Stuck     string // where it is stuck; empty: it is not
	Steps     []string
	SinkList  []sinkRow
	MoreSink  int

	NoHistory  bool // it could not be read
	Operations []operation
	MoreEvents bool
	Runs       []runRow
	MoreRuns   bool
}

// sinkRow is a sink.
type sinkRow struct {
	Name, Words, Problem string
	Group                group
	Confirmed            moment
}

// operation is what has happened in one rotation, the latest first.
type operation struct {
	ID     string
	Events []eventRow
}

// eventRow is something that has happened.
type eventRow struct {
	At          moment
	What        string // in words
	Sink        string // which it is about
	Detail      string
	Group       group // whose mark it has
	Unimportant bool
}

// runRow is a run.
type runRow struct {
	store.Run
	StartedAt moment
	ResumesAt moment
	Took      string
	Words     string
	Group     group
}

func (p *Page) serveKey(w http.ResponseWriter, r *http.Request, name string) {
	var (
		status jobs.Status
		events []store.Event
		runs   []store.Run
		lost   error // of the history: the rest is shown without
	)
	err := p.ask(r.Context(), func() (err error) {
		if status, err = p.source.Status(r.Context(), name); err != nil {
			return err
		}
		events, runs, lost = p.past(r.Context(), name)
		return nil
	})
	switch {
	case errors.Is(err, jobs.ErrUnknown), err != nil && !isText(name): // a database may not even look for such a name
		p.notFound(w, r)
		return
	case err != nil:
		p.unavailable(w, r, err)
		return
	case lost != nil:
		p.log.LogAttrs(r.Context(), slog.LevelWarn, "the history of a key cannot be shown", slog.Any("error", lost))
	}
	v := p.key(&status, events, runs, r.URL.Query().Get("refresh") == "off")
	v.NoHistory = lost != nil
	p.render(w, r, http.StatusOK, "key", v)
}

// isText reports whether a text can be in any database.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// past asks for one more than is shown, to tell whether there are more.
func (p *Page) past(ctx context.Context, name string) ([]store.Event, []store.Run, error) {
	events, err := p.history.Events(ctx, name, mostEvents+1)
	if err != nil {
		return nil, nil, err
	}
	runs, err := p.history.Runs(ctx, name, mostRuns+1)
	return events, runs, err
}

func (p *Page) key(s *jobs.Status, events []store.Event, runs []store.Run, paused bool) *keyView {
	now := p.now().UTC()
	v := &keyView{
		row: p.row(newEntry(s, now), now, toSecond), Rotation: s.Rotation,
		Home: p.home(filter{group: groups, paused: paused}.query()), Finished: at(s.Finished, now, toSecond),
	}
	if rot := s.Rotation; rot != nil {
		if s.UnderWay() {
			begun := begunAt(rot.Operation, events)
			v.Begun, v.Window = at(begun, now, toSecond), windowOf(rot, begun, now, toSecond)
			v.Steps = rot.Steps[:min(len(rot.Steps), mostSteps)]
			if rot.State == rotation.StateStuck {
				v.Stuck = string(rot.Resume)
			}
			if issued(rot) {
				v.NewIssued = at(rot.Issued, now, toSecond)
			}
		}
		for _, sink := range rot.Sinks[:min(len(rot.Sinks), mostSinks)] {
			one := sinkRow{Name: sink.Name, Problem: sink.Problem, Confirmed: at(sink.Confirmed, now, toSecond)}
			one.Group, one.Words = sinkWords(sink.State)
			v.SinkList = append(v.SinkList, one)
		}
		v.MoreSink = len(rot.Sinks) - len(v.SinkList)
	}
	v.MoreEvents, v.MoreRuns = len(events) > mostEvents, len(runs) > mostRuns
	for _, e := range events[:min(len(events), mostEvents)] {
		if n := len(v.Operations); n == 0 || v.Operations[n-1].ID != e.Operation {
			v.Operations = append(v.Operations, operation{ID: e.Operation})
		}
		o := &v.Operations[len(v.Operations)-1]
		o.Events = append(o.Events, eventOf(e, now))
	}
	for _, r := range runs[:min(len(runs), mostRuns)] {
		v.Runs = append(v.Runs, runOf(r, now))
	}
	toggle := v.Href
	if !paused {
		toggle += "?refresh=off"
	}
	v.frame = p.frame(clean(s.Job, lengthName)+": "+v.Words, now, v.Group == groupRunning, paused, toggle)
	return v
}

func eventOf(e store.Event, now time.Time) eventRow {
	v := eventRow{At: at(e.At, now, toSecond), Sink: e.Sink, Detail: e.Text, Group: groupHealthy}
	switch e.Kind {
	case store.KindState:
		v.What, v.Group = stateWords(e.To), stateGroup(e.To)
	case store.KindSink:
		v.Group, v.What = sinkWords(rotation.SinkState(e.To))
	case store.KindWaiting:
		v.What, v.Group, v.Unimportant = "Waits", groupDue, true
	case store.KindWindow:
		v.What, v.Group, v.Unimportant = "Left of the old token’s life", groupDue, true
	case store.KindFailed:
		v.What, v.Group = "Did not work", groupFailed
	case store.KindLost:
		v.What, v.Group = "Not all was written down", groupFailed
	default:
		v.What = e.Kind
		if e.To != "" {
			v.Detail = stateWords(e.To) + " " + v.Detail
		}
	}
	return v
}

// stateGroup is the group whose mark a state has.
func stateGroup(state string) group {
	switch state {
	case string(rotation.StateStuck):
		return groupPerson
	case jobs.StateFailed, jobs.StateRefused, string(rotation.StateRolledBack):
		return groupFailed
	}
	if rotation.State(state).Finished() {
		return groupHealthy
	}
	return groupRunning
}

func runOf(r store.Run, now time.Time) runRow {
	v := runRow{Run: r, StartedAt: at(r.Started, now, toSecond), ResumesAt: at(r.ResumeAt, now, toSecond), Words: stateWords(r.State), Group: stateGroup(r.State)}
	if took := r.Finished.Sub(r.Started); !r.Finished.IsZero() && took >= 0 {
		v.Took = short(took)
	}
	if v.Words == "" {
		v.Words, v.Group = "Not over", groupRunning
	}
	return v
}

// short is how long something took that takes seconds.
func short(d time.Duration) string {
	if d < 10*time.Second {
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return span(int64(d.Round(time.Second) / time.Second))
}
