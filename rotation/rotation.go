package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation/sink"
)

// Job is a key and the places that its token is delivered to.
type Job struct {
	// Name names the job's directory in the journal: letters, digits, dots,
	// hyphens and underscores, at most 100, no dot first. It must stay the
	// same, and differ from others in more than upper and lower case.
	Name string

	// Strategy is how the key is rotated.
	Strategy Strategy

	// Sinks are where the token is delivered, the most harmless first: if it
	// fails there, the others are not touched.
	Sinks []sink.Sink

	// Verify, if not nil, is a last word on whether a token works: a cheap
	// read with it where the token is used. It should return an error that
	// matches [ErrNotAccepted] or keywright.ErrUnauthorized for a token that is
	// refused, and any other error if it cannot tell.
	Verify func(ctx context.Context, token keywright.Secret) error

	// Acknowledge, if not nil, says whether all readers have the token: it
	// returns [ErrNotReady] while they do not. The old token is not retired
	// before. It is required with a sink whose readers keep the old token
	// until they are restarted.
	Acknowledge func(ctx context.Context, token keywright.Secret) error

	// Escrow, if not nil, is given the new token when the journal cannot keep
	// it.
	Escrow func(ctx context.Context, token keywright.Secret) error

	// Self, if not nil, is the token source of a client of this process that
	// authenticates with the key. It gets the new token as soon as the
	// provider accepts it, and keeps the old one beside it.
	Self *keywright.RotatingToken

	// Policy has numbers; its zero value is sound.
	Policy Policy
}

// Policy is how long to wait for what. Zero fields have the defaults given.
type Policy struct {
	Probes        int           // how often in a row the new token must be accepted; 3
	VerifyFor     time.Duration // how long the provider may lag behind its own answer; 2 minutes
	SettleTime    time.Duration // how long a lost call may still take effect: at least twice the client's time-out; 60 seconds
	ResolveFor    time.Duration // how long to look for the outcome of a lost call, beyond SettleTime; 10 minutes
	DistributeFor time.Duration // how long to try a sink that is temporarily unavailable; 10 minutes
	Attempts      int           // how often to ask for a token in one rotation, each time after proof that there is none; 3
	MinInterval   time.Duration // how long after a rotation another is refused; 0: not at all
	MaxWait       time.Duration // waits beyond this return, to be resumed; 0: wait as long as it takes, negative: never wait
}

func (p Policy) withDefaults() Policy {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&p.VerifyFor, 2*time.Minute)
	def(&p.SettleTime, time.Minute)
	def(&p.ResolveFor, 10*time.Minute)
	def(&p.DistributeFor, 10*time.Minute)
	if p.Probes == 0 {
		p.Probes = 3
	}
	if p.Attempts == 0 {
		p.Attempts = 3
	}
	return p
}

// Result is what a run came to.
type Result struct {
	Job         string    `json:"job"`                   // name of the job
	Operation   string    `json:"operation,omitempty"`   // id of the rotation
	State       State     `json:"state"`                 // DONE, unless ResumeAt is set or there was an error
	Resumed     bool      `json:"resumed,omitempty"`     // it had been begun by an earlier run
	Fingerprint string    `json:"fingerprint,omitempty"` // of the token in use, the same as in the audit trail
	ResumeAt    time.Time `json:"resume_at,omitzero"`    // the rotation waits; run Resume at this time
	Finished    time.Time `json:"finished,omitzero"`     // by the provider's clock
}

// Engine rotates keys. Make one with [Open]; it is safe for concurrent use,
// and for use beside other processes with the same journal.
type Engine struct {
	journal  Journal
	sealer   Sealer
	clock    Clock
	observer func(Event)
	fsys     durable.FS
}

// Option configures an [Engine].
type Option func(*Engine) error

// WithSealer sets what encrypts the tokens in the journal. The default is a
// key file in the journal's directory, "sealing.key": it keeps tokens out of
// what greps and backs up single files, but not out of a copy of the whole
// directory.
func WithSealer(s Sealer) Option {
	return func(e *Engine) error {
		if s == nil {
			return errors.New("rotation: sealer must not be nil")
		}
		e.sealer = s
		return nil
	}
}

// WithJournal keeps the state in j instead of the directory given to [Open].
func WithJournal(j Journal) Option {
	return func(e *Engine) error {
		if j == nil {
			return errors.New("rotation: journal must not be nil")
		}
		e.journal = j
		return nil
	}
}

// WithClock sets where the time comes from.
func WithClock(c Clock) Option {
	return func(e *Engine) error {
		if c == nil {
			return errors.New("rotation: clock must not be nil")
		}
		e.clock = c
		return nil
	}
}

// WithObserver calls f at every event, on the goroutine of the run; a [Fleet]
// has several. f must not call the engine. [LogTo] makes one that logs.
func WithObserver(f func(Event)) Option {
	return func(e *Engine) error {
		if before := e.observer; before != nil && f != nil {
			e.observer = func(v Event) { before(v); f(v) }
		} else if f != nil {
			e.observer = f
		}
		return nil
	}
}

// WithLogger logs every event to l.
func WithLogger(l *slog.Logger) Option { return WithObserver(LogTo(l)) }

// Open returns an engine whose journal is in dir, which is made with mode 0700
// when it is first needed. It does no I/O. dir may be empty if both
// [WithJournal] and [WithSealer] are given.
func Open(dir string, opts ...Option) (*Engine, error) {
	e := &Engine{clock: newSystemClock(), fsys: durable.OS{}}
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("rotation: %w", err)
		}
		e.journal, e.sealer = NewDirJournal(abs), SealKeyFile(filepath.Join(abs, keyName))
	}
	for _, opt := range opts {
		if err := opt(e); err != nil {
			return nil, err
		}
	}
	if e.journal == nil || e.sealer == nil {
		return nil, errors.New("rotation: a directory is required")
	}
	return e, nil
}

// Rotate rotates the job's key, or goes on with a rotation that is under way.
// It returns when the old token is retired, or when a wait is longer than the
// policy allows: then Result.ResumeAt says when to run Resume.
//
// Errors match [ErrRefused], [ErrBusy], [ErrNotIssued] (nothing has changed),
// [ErrUnfinished] (run it again; an [*UnsavedError] is one too), [ErrStuck] (a
// person is needed), or [ErrJournal] (nothing was sent). Whatever
// the error, the sinks hold a token that the provider accepts, unless the
// strategy has an outage or its overlap is over.
func (e *Engine) Rotate(ctx context.Context, job Job) (*Result, error) {
	return e.run(ctx, job, "", (*run).rotate)
}

// Resume goes on with a rotation that is under way. If there is none it does
// nothing, and returns the state as it is.
func (e *Engine) Resume(ctx context.Context, job Job) (*Result, error) {
	return e.run(ctx, job, "", (*run).resume)
}

// Rollback takes a rotation back that is under way: the sinks get the old
// token again, and the new one is retired. It returns [ErrNoWayBack] for a
// strategy that has no way back, after the point of no return, and if nothing
// is under way.
func (e *Engine) Rollback(ctx context.Context, job Job) (*Result, error) {
	return e.run(ctx, job, "", (*run).rollback)
}

// Status is what the journal says about a job.
type Status struct {
	Job        string            `json:"job"`                 // name of the job
	Strategy   string            `json:"strategy,omitempty"`  // name of the strategy
	State      State             `json:"state"`               // where it is
	Resume     State             `json:"resume,omitempty"`    // when stuck: where it goes on
	Operation  string            `json:"operation,omitempty"` // id of the rotation
	Generation int               `json:"generation"`          // rotations finished
	Problem    string            `json:"problem,omitempty"`   // what went wrong last
	Steps      []string          `json:"steps,omitempty"`     // when stuck: what a person does
	Sinks      []SinkStatus      `json:"sinks,omitempty"`     // in order
	Deadline   time.Time         `json:"deadline,omitzero"`   // when the old token lapses by itself
	Issued     time.Time         `json:"issued,omitzero"`     // when the token in use was issued
	Finished   time.Time         `json:"finished,omitzero"`   // when the last rotation was over
	Data       map[string]string `json:"data,omitempty"`      // the strategy's memory, such as the id of the credential in use
}

// SinkStatus is how far the delivery to one sink is.
type SinkStatus struct {
	Name      string    `json:"name"`               // of the sink
	State     SinkState `json:"state"`              // how far it is
	Confirmed time.Time `json:"confirmed,omitzero"` // by the provider's clock
	Problem   string    `json:"problem,omitempty"`  // what went wrong last
}

// Status reads the journal of a job. It takes no lock, asks nobody and needs no
// sealing key.
func (e *Engine) Status(ctx context.Context, name string) (*Status, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	b, err := e.journal.Peek(e.context(ctx), name)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return &Status{Job: name, State: StateIdle}, nil
	}
	rec, err := decodeRecord(b, name)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Job: name, Strategy: rec.Strategy, State: rec.State, Resume: rec.Resume, Operation: rec.Operation,
		Generation: rec.Generation, Problem: rec.Problem, Steps: rec.Steps, Deadline: rec.Deadline,
		Issued: rec.Issued, Finished: rec.Finished, Data: rec.Data,
	}
	for _, k := range rec.Sinks {
		s.Sinks = append(s.Sinks, SinkStatus{k.Name, k.State, k.At, k.Problem})
	}
	return s, nil
}

func (e *Engine) context(ctx context.Context) context.Context {
	return durable.NewContext(ctx, e.fsys)
}

func (e *Engine) observe(v Event) {
	if e.observer != nil {
		e.observer(v)
	}
}

// keyName is the file of the sealing key, beside the directories of the jobs.
const keyName = "sealing.key"

var validName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

func checkName(name string) error {
	if !validName.MatchString(name) || strings.HasPrefix(strings.ToLower(name), keyName) {
		return &RefusedError{Reason: ReasonJob, Message: "a job's name has 1 to 100 letters, digits, hyphens, underscores and dots, no dot first, and is not sealing.key", Instead: "rename the job"}
	}
	return nil
}

// check refuses a job that cannot be run.
func (j *Job) check() error {
	if err := checkName(j.Name); err != nil {
		return err
	}
	bad := func(message, instead string) error {
		return &RefusedError{Job: j.Name, Reason: ReasonJob, Message: message, Instead: instead}
	}
	switch {
	case j.Strategy == nil:
		return bad("it has no strategy", "give it one, such as RicloudPaired")
	case len(j.Sinks) == 0:
		return bad("it has no sink, so that nobody would get the token", "give it one, such as sink.File")
	case j.Policy.Probes < 0 || j.Policy.Attempts < 0 || j.Policy.VerifyFor < 0 || j.Policy.SettleTime < 0 ||
		j.Policy.ResolveFor < 0 || j.Policy.DistributeFor < 0 || j.Policy.MinInterval < 0:
		return bad("its policy has a negative number", "leave it zero for the default")
	}
	seen := make(map[string]bool)
	for _, s := range j.Sinks {
		if s == nil {
			return bad("it has a sink that is nil", "check the error of the sink's constructor")
		}
		if seen[s.Name()] {
			return bad("two sinks are named "+s.Name(), "deliver to it once")
		}
		seen[s.Name()] = true
	}
	return nil
}
