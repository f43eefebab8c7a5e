package rotation

import (
	"context"
	"log/slog"
	"time"
)

// Event is something that happened in a run: a [StateChanged], [SinkChanged],
// [Waiting], [Window] or [Failed]. It holds fingerprints, and no token.
type Event interface {
	slog.LogValuer
	// About returns the name of the job.
	About() string
	event() (name string, level slog.Level)
}

// StateChanged is a job in a new state, which is durable.
type StateChanged struct {
	Job       string    // name of the job
	Operation string    // id of the rotation
	From, To  State     // states
	Old, New  string    // fingerprints of the tokens; empty if there is none
	Time      time.Time // by the provider's clock
}

// SinkChanged is a sink in a new state, which is durable.
type SinkChanged struct {
	Job       string    // name of the job
	Operation string    // id of the rotation
	Sink      string    // name of the sink
	State     SinkState // its state
	Time      time.Time // by the provider's clock
}

// Waiting is a run that waits.
type Waiting struct {
	Job       string        // name of the job
	Operation string        // id of the rotation
	State     State         // where it waits
	For       time.Duration // how long at least
	Why       string        // for what
}

// Window is how much of the overlap is left: the time until the old token
// lapses by itself. It is reported at every change of state while there is a
// limit.
type Window struct {
	Job       string        // name of the job
	Operation string        // id of the rotation
	Remaining time.Duration // negative: it is over
}

// Failed is something that did not work. The run may go on.
type Failed struct {
	Job       string // name of the job
	Operation string // id of the rotation
	State     State  // where it happened
	Err       error  // what happened; its text holds no token
}

func (e StateChanged) event() (string, slog.Level) { return "state", slog.LevelInfo }
func (e SinkChanged) event() (string, slog.Level)  { return "sink", slog.LevelInfo }
func (e Waiting) event() (string, slog.Level)      { return "waiting", slog.LevelDebug }
func (e Window) event() (string, slog.Level)       { return "window", slog.LevelDebug }
func (e Failed) event() (string, slog.Level)       { return "failed", slog.LevelWarn }

// About returns the name of the job.
func (e StateChanged) About() string { return e.Job }

// About returns the name of the job.
func (e SinkChanged) About() string { return e.Job }

// About returns the name of the job.
func (e Waiting) About() string { return e.Job }

// About returns the name of the job.
func (e Window) About() string { return e.Job }

// About returns the name of the job.
func (e Failed) About() string { return e.Job }

// LogValue returns the event's attributes.
func (e StateChanged) LogValue() slog.Value {
	return slog.GroupValue(slog.String("job", e.Job), slog.String("operation", e.Operation),
		slog.String("from", string(e.From)), slog.String("to", string(e.To)),
		slog.String("old", e.Old), slog.String("new", e.New), slog.Time("at", e.Time))
}

// LogValue returns the event's attributes.
func (e SinkChanged) LogValue() slog.Value {
	return slog.GroupValue(slog.String("job", e.Job), slog.String("operation", e.Operation),
		slog.String("sink", e.Sink), slog.String("state", string(e.State)), slog.Time("at", e.Time))
}

// LogValue returns the event's attributes.
func (e Waiting) LogValue() slog.Value {
	return slog.GroupValue(slog.String("job", e.Job), slog.String("operation", e.Operation),
		slog.String("state", string(e.State)), slog.Duration("for", e.For), slog.String("why", e.Why))
}

// LogValue returns the event's attributes.
func (e Window) LogValue() slog.Value {
	return slog.GroupValue(slog.String("job", e.Job), slog.String("operation", e.Operation), slog.Duration("remaining", e.Remaining))
}

// LogValue returns the event's attributes.
func (e Failed) LogValue() slog.Value {
	return slog.GroupValue(slog.String("job", e.Job), slog.String("operation", e.Operation),
		slog.String("state", string(e.State)), slog.String("error", e.Err.Error()))
}

// LogTo returns an observer that logs events: changes at Info, failures at
// Warn, the rest at Debug.
func LogTo(l *slog.Logger) func(Event) {
	return func(e Event) {
		name, level := e.event()
		l.LogAttrs(context.Background(), level, "rotation: "+name, e.LogValue().Group()...)
	}
}
