package rotation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation/sink"
)

// Plan is what a rotation would do. It prints as text and encodes as JSON.
type Plan struct {
	Job      string        `json:"job"`                // name of the job
	Strategy string        `json:"strategy"`           // name of the strategy
	Key      string        `json:"key"`                // for people
	Resumes  State         `json:"resumes,omitempty"`  // a rotation is under way, in this state
	Overlap  time.Duration `json:"overlap"`            // nanoseconds that the old token outlives the call; -1: until it is retired
	Window   time.Time     `json:"window,omitzero"`    // when the old token would lapse by itself
	Steps    []Step        `json:"steps"`              // in order
	Budget   []SinkBudget  `json:"budget"`             // for each sink
	Warnings []string      `json:"warnings,omitempty"` // what to know before
}

// Step is one line of a plan.
type Step struct {
	State   State  `json:"state"`             // that the step begins in
	Do      string `json:"do"`                // what happens
	Call    string `json:"call,omitempty"`    // the provider's call that changes something
	NoWay   bool   `json:"no_way_back"`       // the point of no return
	Durable string `json:"durable,omitempty"` // what is on disk before
	Crash   string `json:"crash"`             // what a crash here needs
}

// SinkBudget compares what a sink needs with what the overlap gives.
type SinkBudget struct {
	Sink         string        `json:"sink"`          // name of the sink
	Lag          time.Duration `json:"lag"`           // nanoseconds
	UntilRestart bool          `json:"until_restart"` // readers must restart
	Needs        time.Duration `json:"needs"`         // nanoseconds, verification included
	Has          time.Duration `json:"has"`           // nanoseconds; 0: as long as need be, or nothing
	Grade        sink.Grade    `json:"grade"`         // how well it confirms
	Guarantee    string        `json:"guarantee"`     // what a write means
}

// Plan says what [Engine.Rotate] would do. It looks at the provider and at every
// sink, tests whether they can be written, and changes nothing. It refuses what
// Rotate would refuse, and fails if the journal could not be begun, as far as
// that can be seen, or tokens not be sealed: no directory and no sealing key is
// made, but a [Sealer] that is not of this package is asked to seal something
// and to open it.
func (e *Engine) Plan(ctx context.Context, job Job) (*Plan, error) {
	if err := job.check(); err != nil {
		return nil, err
	}
	ctx = e.context(ctx)
	if err := e.journalReady(ctx, job.Name); err != nil {
		return nil, err
	}
	b, err := e.journal.Peek(ctx, job.Name)
	if err != nil {
		return nil, err
	}
	if err := e.sealerReady(ctx, job.Name); err != nil {
		return nil, err
	}
	job.Self = nil // a plan hands nothing over
	r := &run{Engine: e, job: job, policy: job.Policy.withDefaults(), traits: job.Strategy.Traits(), session: readOnly{b}}
	r.Engine = &Engine{journal: e.journal, sealer: planSealer{e.sealer}, clock: e.clock, fsys: e.fsys}
	p := &Plan{Job: job.Name, Strategy: r.traits.Name, Key: r.traits.Key, Overlap: r.traits.Overlap}
	err = r.load(ctx)
	if err == nil {
		if state := r.rec.State; !state.Finished() {
			p.Resumes = state
			p.Budget, err = r.budget()
		} else {
			r.begin()
			var found *surveyed
			if err = r.tooSoon(); err == nil {
				found, err = r.survey(ctx)
			}
			if err == nil {
				p.Budget = found.budget
			}
		}
	}
	if err != nil {
		return nil, r.named(err)
	}
	if r.traits.Overlap > 0 {
		p.Window = r.clock.now().Add(r.traits.Overlap)
	}
	p.fill(r)
	return p, nil
}

// fill writes the steps down.
func (p *Plan) fill(r *run) {
	t := r.traits
	add := func(s Step) { p.Steps = append(p.Steps, s) }
	add(Step{State: StateIdle, Do: "read the key, read and test every sink", Crash: "nothing: run it again"})
	add(Step{
		State: StatePlanned, Do: "write down what is about to be asked for, and reserve space for the answer",
		Durable: "the plan", Crash: "nothing: run it again",
	})
	add(Step{
		State: StateIntent, Do: "ask for the new token, once", Call: t.Issue, NoWay: !t.Reversible,
		Durable: "the intent, with the old token", Crash: "Resume reads back whether it happened, and never asks blindly again",
	})
	add(Step{
		State: StateIssued, Do: fmt.Sprintf("have the provider accept it %d times on fresh connections", r.policy.Probes),
		Durable: "the new token, sealed", Crash: "Resume verifies again",
	})
	if _, ok := r.job.Strategy.(Extender); ok {
		add(Step{State: StateVerified, Do: "give the new key its full life", Call: t.Extend, Durable: "the same", Crash: "Resume repeats it; left alone, the new key expires"})
	}
	for i, b := range p.Budget {
		do := "write to " + b.Sink
		if i == 0 && len(p.Budget) > 1 {
			do += " first: if that fails, the others are not touched"
		}
		add(Step{State: StateDistributing, Do: do, Durable: "what it held", Crash: "Resume reads the sink: new is confirmed, old is written, anything else is left alone"})
	}
	wait := "wait until the slowest reader has the new token"
	if r.job.Acknowledge != nil {
		wait += ", and until readers acknowledge"
	}
	if _, ok := r.job.Strategy.(Idler); ok {
		wait += ", and until the old key is idle"
	}
	add(Step{State: StateConverging, Do: wait, Durable: "when the last sink was confirmed", Crash: "Resume waits for what is left"})
	if t.Retire != "" {
		add(Step{
			State: StateRetiring, Do: "end the old token's life", Call: t.Retire, NoWay: t.Reversible,
			Durable: "that this was begun", Crash: "Resume repeats it: twice is the same as once",
		})
	}
	switch {
	case t.Outage:
		p.Warnings = append(p.Warnings, "the old token is refused from the call on: readers fail until they have the new one")
	case t.Overlap > 0:
		p.Warnings = append(p.Warnings, "after the call there is no way back: a rotation that stops must be resumed within "+t.Overlap.String())
	}
	for _, b := range p.Budget {
		if b.Grade != sink.GradeReadBack {
			p.Warnings = append(p.Warnings, b.Sink+" cannot be read back: its confirmation is "+string(b.Grade))
		}
	}
}

// String returns the plan as text of several lines.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rotate %s: %s by %s\n", p.Job, p.Key, p.Strategy)
	if p.Resumes != "" {
		fmt.Fprintf(&b, "  a rotation is under way, in %s; it would go on from there\n", p.Resumes)
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "%3d. %-12s %s\n", i+1, s.State, s.Do)
		if s.Call != "" {
			fmt.Fprintf(&b, "                  call:  %s\n", s.Call)
		}
		if s.NoWay {
			b.WriteString("                  POINT OF NO RETURN\n")
		}
		fmt.Fprintf(&b, "                  crash: %s\n", s.Crash)
	}
	switch {
	case p.Overlap == UntilRetired:
		b.WriteString("  the old token is accepted until it is retired\n")
	case p.Overlap > 0:
		fmt.Fprintf(&b, "  the old token is accepted for %s, until %s\n", p.Overlap, p.Window.Format(time.RFC3339))
	}
	for _, s := range p.Budget {
		lag := "lag " + s.Lag.String()
		if s.UntilRestart {
			lag = "until restart"
		}
		fmt.Fprintf(&b, "  %s: %s", s.Sink, lag)
		if s.Has > 0 {
			fmt.Fprintf(&b, ", needs %s of %s", s.Needs, s.Has)
		}
		fmt.Fprintf(&b, ", confirmed by: %s\n", s.Grade)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "  note: %s\n", w)
	}
	return b.String()
}

// readOnly is a session that only reads: whoever plans has no right to the job.
type readOnly struct{ record []byte }

func (s readOnly) Load(context.Context) ([]byte, bool, error) { return s.record, false, nil }
func (readOnly) Save(context.Context, []byte) error           { return nil }
func (readOnly) Reserve(context.Context) error                { return nil }
func (readOnly) Append(context.Context, []byte) error         { return nil }
func (readOnly) Last(context.Context) ([]byte, error)         { return nil, nil }
func (readOnly) Close() error                                 { return nil }

// journalReady returns the error with which the journal could not be begun. Of
// a journal that is not of this package a plan knows what Peek says.
func (e *Engine) journalReady(ctx context.Context, job string) error {
	j, ok := e.journal.(dirJournal)
	if !ok {
		return nil
	}
	err := j.ready(durable.FromContext(ctx), job)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, durable.ErrRefused):
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	return fmt.Errorf("rotation: journal: %w", err)
}

// ready returns the error that Begin would return, but that the job's lock is
// not looked at, and makes nothing.
func (j dirJournal) ready(fsys durable.FS, job string) error {
	dir := filepath.Join(j.dir, job)
	err := durable.CheckPrivate(fsys, j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return canMake(fsys, j.dir)
	}
	if err == nil {
		err = durable.CheckPrivate(fsys, dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return canMake(fsys, dir)
	}
	if err != nil {
		return err
	}
	return writable(fsys, dir)
}

// canMake returns the error with which nothing could be made at path.
func canMake(fsys durable.FS, path string) error {
	dir := filepath.Dir(path)
	info, err := fsys.Lstat(dir)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		_, err = fsys.ReadDir(dir) // follows it
		if errors.Is(err, fs.ErrPermission) {
			err = nil // need not be readable
		}
	} else if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "mkdir", Path: path, Err: errors.New(dir + " is not a directory")}
	}
	if err != nil {
		return err
	}
	return writable(fsys, dir)
}

// writable returns the error with which nothing could be made in a directory,
// where the system tells that without making anything.
func writable(fsys durable.FS, dir string) error {
	if _, ok := fsys.(durable.OS); !ok {
		return nil
	}
	if err := access(dir); err != nil {
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

// sealerReady returns the error with which the tokens of a job could not be
// sealed.
func (e *Engine) sealerReady(ctx context.Context, job string) error {
	if k, ok := e.sealer.(*keyFile); ok {
		_, err := k.key(ctx, false)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		j, ok := e.journal.(dirJournal)
		return k.canMake(durable.FromContext(ctx), ok && samePath(j.dir, filepath.Dir(k.path)))
	}
	return trySealing(ctx, e.sealer, job)
}

// canMake returns the error with which the key file could not be made. inside
// says that its directory is the journal's, which is made before.
func (k *keyFile) canMake(fsys durable.FS, inside bool) error {
	path, err := durable.Target(fsys, k.path, false)
	if inside && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = writable(fsys, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("rotation: sealing key: %w", err)
	}
	return nil
}

func samePath(a, b string) bool {
	a, erra := filepath.Abs(a)
	b, errb := filepath.Abs(b)
	return erra == nil && errb == nil && a == b
}

// planSealer opens what is sealed and keeps nothing: a plan makes no key.
type planSealer struct{ Sealer }

func (planSealer) Seal(context.Context, []byte, string) ([]byte, error) { return []byte("-"), nil }
