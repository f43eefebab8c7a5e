package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// fleetFlags are the flags of a run of many jobs.
type fleetFlags struct {
	set         *pflag.FlagSet
	campaign    string
	width       int
	canaries    int
	wave        int
	maxFailures int
	rate        float64
}

// fleetFlagNames are those of a fleet alone.
var fleetFlagNames = [...]string{"campaign", "width", "canaries", "wave", "max-failures", "rate"}

func (fl *fleetFlags) define(c *cobra.Command) {
	f := c.Flags()
	fl.set = f
	textVar(f, &fl.campaign, "campaign", "name this run of many, such as 2027-01: run again, it skips what is done")
	f.IntVar(&fl.width, "width", 8, "rotate `N` keys at a time")
	f.IntVar(&fl.canaries, "canaries", 1, "rotate `N` keys before the rest; 0: none")
	f.IntVar(&fl.wave, "wave", 0, "begin `N` keys, and the next when these are done; 0: all")
	f.IntVar(&fl.maxFailures, "max-failures", 0, "begin no more when more than `N` have failed")
	f.Float64Var(&fl.rate, "rate", 0, "begin at most `N` rotations a second for each provider; 0: not bounded")
}

// given reports whether a fleet was asked for by one of its flags.
func (fl *fleetFlags) given() bool { return slices.ContainsFunc(fleetFlagNames[:], fl.set.Changed) }

func (fl *fleetFlags) check() error {
	switch {
	case fl.width < 1:
		return usage("--width: want a number from 1")
	case fl.canaries < 0, fl.wave < 0, fl.maxFailures < 0:
		return usage("--canaries, --wave and --max-failures must not be negative")
	case fl.rate < 0 || math.IsNaN(fl.rate) || math.IsInf(fl.rate, 0):
		return usage("--rate: want a number that is not negative")
	}
	return nil
}

// words returns the flags as they were given.
func (fl *fleetFlags) words() []string {
	var words []string
	for _, name := range fleetFlagNames {
		if fl.set.Changed(name) {
			words = append(words, "--"+name, quoted(fl.set.Lookup(name).Value.String()))
		}
	}
	return words
}

// fleetRun is what becomes of the jobs of a fleet.
type fleetRun struct {
	r        *rotator
	results  []record
	problems map[string]error // by job
	underWay []string         // can be resumed

	interrupted int // of those that failed
}

// runFleet rotates many keys, and prints what came of each.
func (r *rotator) runFleet(f *jobfile.File, jobs []rotation.Job, fl *fleetFlags) error {
	if err := fl.check(); err != nil {
		return err
	}
	engine, err := f.Open(r.fleetLog()...)
	if err != nil {
		return err
	}
	show, done := r.a.progress(len(jobs))
	fr := &fleetRun{r: r, problems: make(map[string]error)}
	fleet := &rotation.Fleet{
		Engine: engine, Campaign: fl.campaign, Width: fl.width, Canaries: cmp.Or(fl.canaries, -1),
		Wave: fl.wave, MaxFailures: fl.maxFailures, PerSecond: fl.rate,
		Progress: func(p rotation.Progress) {
			fr.add(p)
			show(p)
		},
	}
	total, err := fleet.Run(r.a.ctx, slices.Values(jobs))
	done()
	r.a.changed = r.a.changed || total.Done+total.Waiting > 0
	order := make(map[string]int, len(jobs)) // they end in any
	for i, job := range jobs {
		order[job.Name] = i
	}
	byJob := func(a, b string) int { return order[a] - order[b] }
	slices.SortFunc(fr.results, func(a, b record) int { return byJob(cell(a.get("job")), cell(b.get("job"))) })
	slices.SortFunc(fr.underWay, byJob)
	interrupted := ""
	if fr.interrupted > 0 {
		interrupted = fmt.Sprintf("%d interrupted, ", fr.interrupted)
	}
	r.a.note("%d done, %d waiting, %d failed, %s%d not begun", total.Done, total.Waiting, total.Failed-fr.interrupted, interrupted,
		len(jobs)-total.Done-total.Waiting-total.Failed)
	return join(fr.failure(jobs, fl, total, err), r.a.printAll(append(slices.Clone(resultColumns), "problem"), fr.results))
}

// add takes what came of a job.
func (fr *fleetRun) add(p rotation.Progress) {
	result := rotation.Result{Job: p.Job}
	if p.Result != nil && (p.Err == nil || !p.Result.State.Finished()) { // else it is about the last rotation
		result = *p.Result
	}
	var problem any
	if p.Err != nil {
		problem = p.Err.Error()
		if errors.Is(p.Err, context.Canceled) {
			problem = "interrupted"
			fr.interrupted++
		}
		fr.problems[p.Job] = fr.r.explain(p.Job, p.Err)
	}
	if errors.Is(p.Err, rotation.ErrUnfinished) || errors.Is(p.Err, rotation.ErrStuck) || !result.ResumeAt.IsZero() {
		fr.underWay = append(fr.underWay, p.Job)
	}
	fr.results = append(fr.results, append(recordOf(&result), field{"problem", problem}))
}

// maxReported bounds how many failures are explained, and how many jobs a hint
// names; the table has all.
const maxReported = 10

// failure returns the errors of the jobs, in order, and last that of the whole:
// with a code for what has changed, and what to run next.
func (fr *fleetRun) failure(jobs []rotation.Job, fl *fleetFlags, total *rotation.FleetResult, err error) error {
	if err == nil && !total.Stopped {
		return nil
	}
	var (
		failed several
		again  []string // neither done nor under way
	)
	ran := make(map[string]bool, len(fr.results))
	for _, result := range fr.results {
		ran[cell(result.get("job"))] = true
	}
	for _, job := range jobs {
		problem := fr.problems[job.Name]
		if problem != nil && !errors.Is(problem, context.Canceled) { // the interrupt is said once
			failed = append(failed, problem)
		}
		if (problem != nil || !ran[job.Name]) && !slices.Contains(fr.underWay, job.Name) {
			again = append(again, job.Name)
		}
	}
	code := exitUnknown
	switch {
	case fr.r.a.ctx.Err() != nil:
		code = exitInterrupted
	case len(failed) > 0 && gravest(failed) == exitStuck:
		code = exitStuck
	case len(failed) > 0 && total.Done+total.Waiting == 0:
		code = gravest(failed)
	}
	text := fmt.Sprintf("%d of %d jobs have failed", total.Failed, len(jobs))
	switch {
	case code == exitInterrupted:
		text = fmt.Sprintf("%d of %d jobs are done", total.Done, len(jobs))
	case total.Failed == 0:
		text = "the first job waits, and the rest was not begun"
	}
	whole := hint(&coded{errors.New(text), code}, fr.next(fl, len(jobs), again)...)
	return append(failed[:min(len(failed), maxReported)], whole)
}

// next says what to run.
func (fr *fleetRun) next(fl *fleetFlags, jobs int, again []string) []string {
	if fl.campaign != "" { // a run of it goes on with what is under way, and with the rest
		again = append(again, fr.underWay...)
		if fr.r.all {
			again = []string{"--all"}
		}
		return []string{"go on: " + fr.r.command("run", append(again, fl.words()...)...)}
	}
	var next []string
	which := func(names []string) []string {
		if len(names) > maxReported || len(names) == jobs && fr.r.all {
			return []string{"--all"}
		}
		return names
	}
	if len(fr.underWay) > 0 {
		next = append(next, "go on with what is under way: "+fr.r.command("resume", which(fr.underWay)...))
	}
	switch {
	case len(again) == 0:
	case len(again) == len(fr.problems) && len(fr.underWay) == 0:
		next = append(next, "when that is mended: "+fr.r.command("run", append(which(again), fl.words()...)...))
	case len(again) <= maxReported:
		next = append(next, "then the rest: "+fr.r.command("run", append(again, fl.words()...)...))
	default:
		next = append(next, "run the rest by name; with --campaign it would be known what is done")
	}
	return next
}

// fleetLog is what the engine says while a fleet is rotated: with --verbose
// everything, else nothing, because the bar says how far it is.
func (r *rotator) fleetLog() []rotation.Option {
	if l := r.a.logger(); l != nil {
		return []rotation.Option{rotation.WithLogger(l)}
	}
	return nil
}

// progress shows how far a fleet is: a bar on a terminal, a line for each job
// elsewhere.
func (a *app) progress(jobs int) (show func(rotation.Progress), done func()) {
	switch {
	case a.quiet:
		return func(rotation.Progress) {}, func() {}
	case !isTerminal(a.err) || os.Getenv("TERM") == "dumb" || a.verbose:
		return func(p rotation.Progress) {
			a.note("%s: %s (%d of %d)", p.Job, outcome(p), p.Done+p.Waiting+p.Failed, jobs)
		}, func() {}
	}
	bars := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(40))
	bar := bars.AddBar(int64(jobs),
		mpb.PrependDecorators(decor.CountersNoUnit("%d of %d")),
		mpb.AppendDecorators(decor.Percentage()))
	return func(p rotation.Progress) { bar.SetCurrent(int64(p.Done + p.Waiting + p.Failed)) },
		func() { bar.Abort(false); bars.Wait() }
}

func outcome(p rotation.Progress) string {
	switch {
	case errors.Is(p.Err, context.Canceled):
		return "interrupted"
	case p.Err != nil:
		return "failed"
	case p.Result != nil && !p.Result.ResumeAt.IsZero():
		return fmt.Sprintf("waiting in %s", p.Result.State)
	}
	return "done" // now, or by an earlier run of the campaign
}
