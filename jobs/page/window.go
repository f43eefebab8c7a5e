package page

import (
	"time"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// window is how much of the old token's life is left.
type window struct {
	Left    string  // "4 h 12 min"; empty: it is over
	Whole   string  // "6 h"; empty: it is not known when it began, and there is no bar
	Percent float64 // that is left
	Level   string  // "ok", "low", "over"
	End     moment  // when the old token lapses by itself
}

// windowOf returns the window of a rotation that is under way; nil: it has no
// end that is known. begun is when the token was asked for; zero: it is not
// known.
func windowOf(s *rotation.Status, begun, now time.Time, layout string) *window {
	if s == nil || s.State.Finished() {
		return nil
	}
	w := &window{End: at(s.Deadline, now, layout), Level: "ok"}
	if !w.End.Known() {
		return nil
	}
	if begun.IsZero() && issued(s) {
		begun = s.Issued
	}
	left := s.Deadline.Sub(now)
	if whole := s.Deadline.Sub(begun); !begun.IsZero() && whole > 0 {
		w.Whole = span(int64(whole / time.Second))
		w.Percent = min(max(100*left.Seconds()/whole.Seconds(), 0), 100)
		if w.Percent < 25 {
			w.Level = "low"
		}
	}
	if left <= 0 {
		w.Level = "over"
	} else {
		w.Left = span(int64(left / time.Second))
	}
	return w
}

// issued reports whether a rotation that is under way has its token. Before
// that, Issued is of the token before.
func issued(s *rotation.Status) bool {
	state := s.State
	if state == rotation.StateStuck {
		state = s.Resume
	}
	switch state {
	case rotation.StatePlanned, rotation.StateIntent, rotation.StateResolving:
		return false
	}
	return true
}

// begunAt returns when the latest token of a rotation was asked for, as far as
// events that are the latest first tell.
func begunAt(operation string, events []store.Event) time.Time {
	for _, e := range events {
		if e.Operation == operation && e.Kind == store.KindState && e.To == string(rotation.StateIntent) {
			return e.At
		}
	}
	return time.Time{}
}
