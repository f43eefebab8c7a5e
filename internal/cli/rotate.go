package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// envJobFile names the job file where --file does not.
const envJobFile = "KEYWRIGHT_FILE"

// rotator is what the commands for jobs have in common.
type rotator struct {
	a    *app
	path string // --file
	all  bool   // --all
}

// rotateGroup returns the commands for rotations described in a file.
func (a *app) rotateGroup() *cobra.Command {
	r := &rotator{a: a}
	c := group("rotate", "Rotate keys into files and secret stores, as a file says",
		r.initCommand(), r.planCommand(), r.runCommand(), r.resumeCommand(),
		r.statusCommand(), r.rollbackCommand(), r.schemaCommand())
	c.Long = `Rotate keys into files and secret stores, as keywright.yaml says: it names jobs,
each with a key, a strategy, and the places that the token is delivered to.

A rotation that is interrupted, killed, or loses an answer leaves a token that
works wherever it is needed, and goes on when it is run again.`
	for _, sub := range c.Commands() {
		if strings.Contains(sub.Use, "JOB") {
			sub.ValidArgsFunction = r.completeJobs
		}
	}
	textVar(c.PersistentFlags(), &r.path, "file", "read jobs from `FILE`; else from the one that "+envJobFile+" names, or ./"+jobfile.DefaultName)
	return c
}

// completeJobs offers the names of the jobs in the file.
func (r *rotator) completeJobs(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	f, err := jobfile.Load(r.file())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	left := slices.DeleteFunc(jobNames(f), func(name string) bool { return slices.Contains(args, name) })
	return left, cobra.ShellCompDirectiveNoFileComp
}

// load reads the job file.
func (r *rotator) load() (*jobfile.File, error) {
	path := r.file()
	f, err := jobfile.Load(path, jobfile.WithClientOptions(r.a.commonOptions()...))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{reason: "there is no file " + path, next: "write one with: " + r.command("init")}
	}
	return f, err
}

// file returns the path of the job file.
func (r *rotator) file() string {
	if r.path != "" {
		return r.path
	}
	if path := os.Getenv(envJobFile); path != "" {
		return path
	}
	return jobfile.DefaultName
}

// allFlag defines --all.
func (r *rotator) allFlag(c *cobra.Command) {
	c.Flags().BoolVar(&r.all, "all", false, "every job in the file")
}

// jobNames returns the names of the jobs in a file.
func jobNames(f *jobfile.File) []string {
	names := make([]string, len(f.Jobs))
	for i := range f.Jobs {
		names[i] = f.Jobs[i].Name
	}
	return names
}

// names returns the jobs that the command line selects: those named, all with
// --all, and the only one of a file that has no other.
func (r *rotator) names(f *jobfile.File, args []string) ([]string, error) {
	every := jobNames(f)
	switch {
	case r.all && len(args) > 0:
		return nil, usage("give jobs or --all, not both")
	case r.all, len(args) == 0 && len(every) == 1:
		return every, nil
	case len(args) == 0:
		return nil, &usageError{
			reason: fmt.Sprintf("which of the %d jobs in %s? nothing was sent", len(every), f.Path),
			next:   "name them, or use --all; see: " + r.command("status"),
		}
	}
	var names []string // in the order of the command line
	for _, name := range args {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// many reports whether more than one job was asked for, whatever there is: the
// shape of what is printed depends on it.
func (r *rotator) many(args []string) bool { return r.all || len(args) > 1 }

// jobs makes the jobs that are selected. Those that cannot be made, because of
// something that is missing here, have their errors joined.
func (r *rotator) jobs(f *jobfile.File, args []string) (jobs []rotation.Job, problem error, err error) {
	names, err := r.names(f, args)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		job, err := r.job(f, name)
		var unknown *jobfile.UnknownJobError
		switch {
		case err == nil:
			jobs = append(jobs, job)
		case errors.As(err, &unknown), len(names) == 1:
			return nil, nil, err
		default:
			problem = join(problem, err)
		}
	}
	return jobs, problem, nil
}

// job makes a job.
func (r *rotator) job(f *jobfile.File, name string) (rotation.Job, error) {
	job, err := f.Job(name)
	var unknown *jobfile.UnknownJobError
	if errors.As(err, &unknown) && unknown.Similar == "" { // it may be a secret
		return job, &usageError{
			reason: fmt.Sprintf("%s: no job is named %s", f.Path, shown(name)),
			next:   "see which there are: " + r.command("status"),
		}
	}
	return job, r.a.explainToken(err)
}

func (r *rotator) planCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "plan [JOB…]", Short: "Say what a rotation would do, and do nothing", Args: arguments("JOB…"),
		Long: `Say what a rotation would do: every step, the provider's calls, what a crash at
each of them needs, and whether every place for the token can be written. It
looks at the provider and at those places, and changes nothing.`,
		Example: "keywright rotate plan\nkeywright rotate plan billing --output json",
	}
	r.allFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		f, err := r.load()
		if err != nil {
			return err
		}
		jobs, problem, err := r.jobs(f, args)
		if err != nil {
			return err
		}
		engine, err := f.Open()
		if err != nil {
			return err
		}
		var plans []*rotation.Plan
		for _, job := range jobs {
			plan, err := engine.Plan(r.a.ctx, job)
			switch {
			case r.a.ctx.Err() != nil:
				return r.a.ctx.Err()
			case err != nil: // the other plans are still worth having
				problem = join(problem, r.explain(job.Name, err))
			default:
				plans = append(plans, plan)
			}
		}
		return join(problem, r.printPlans(plans, r.many(args)))
	}
	return c
}

func (r *rotator) printPlans(plans []*rotation.Plan, many bool) error {
	records := make([]record, len(plans))
	text := ""
	for i, p := range plans {
		records[i] = recorder{}.record(p)
		if i > 0 {
			text += "\n"
		}
		text += p.String()
	}
	switch {
	case r.a.format == formatTable:
		return r.a.printText(wrapped(printableLines(text), r.a.width()))
	case many:
		return r.a.printAll(nil, records)
	case len(records) == 0:
		return nil
	}
	return r.a.printOne(records[0])
}

func (r *rotator) runCommand() *cobra.Command {
	var fl fleetFlags
	c := &cobra.Command{
		Use: "run [JOB…]", Short: "Rotate, or go on with a rotation", Args: arguments("JOB…"),
		Long: `Rotate the keys of jobs. A rotation that is under way goes on where it was.

With --all, several jobs, or a flag of these, keys are rotated as a fleet: what is
under way goes on, then the first job is run, and the rest when that one is done.
A fleet that is interrupted goes on when it is run again with the same
--campaign; what is done stays done.

A rotation that waits longer than its policy allows is no failure: it is resumed
later.

It asks nothing: what the file says is what is done. See what that is with:
keywright rotate plan`,
		Example: "keywright rotate run billing\nkeywright rotate run --all --campaign 2027-01",
	}
	r.allFlag(c)
	fl.define(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		return r.run(args, &fl, false, (*rotation.Engine).Rotate)
	}
	return c
}

func (r *rotator) resumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "resume [JOB…]", Short: "Go on with a rotation that is under way", Args: arguments("JOB…"),
		Long: `Go on with rotations that are under way: interrupted, killed, waiting, or stuck
and mended by you. It begins none.`,
		Example: "keywright rotate resume billing\nkeywright rotate resume --all",
	}
	r.allFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		return r.run(args, nil, true, (*rotation.Engine).Resume)
	}
	return c
}

func (r *rotator) rollbackCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "rollback JOB", Short: "Take back a rotation that is under way", Args: arguments("JOB"),
		Long: `Take back a rotation that is under way: every place gets the old token again,
and the new one is retired. Where there is no way back it changes nothing.`,
		Example: "keywright rotate rollback billing",
	}
	r.a.confirmFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := r.load()
		if err != nil {
			return err
		}
		job, err := r.job(f, args[0])
		if err != nil {
			return err
		}
		if engine, err := f.Open(); err != nil {
			return err
		} else if status, err := engine.Status(r.a.ctx, args[0]); err == nil && status.State.Finished() {
			return hint(&coded{fmt.Errorf("%s: nothing is under way, and nothing can be taken back", args[0]), exitFailed},
				"to replace the token that is in use: "+r.command("run", args[0]))
		}
		if err := r.a.confirm(c, "Take back the rotation of "+args[0]+"? Its new token will be refused."); err != nil {
			return err
		}
		return r.each(f, []rotation.Job{job}, nil, false, false, (*rotation.Engine).Rollback)
	}
	return c
}

// oneJob is what the engine does to one job.
type oneJob func(*rotation.Engine, context.Context, rotation.Job) (*rotation.Result, error)

// run runs the jobs that are selected. goesOn says that none is begun.
func (r *rotator) run(args []string, fl *fleetFlags, goesOn bool, one oneJob) error {
	f, err := r.load()
	if err != nil {
		return err
	}
	jobs, problem, err := r.jobs(f, args)
	if err != nil {
		return err
	}
	if fl != nil && (r.many(args) || fl.given()) {
		if problem != nil { // nothing is begun while the file cannot be used
			return problem
		}
		return r.runFleet(f, jobs, fl)
	}
	return r.each(f, jobs, problem, r.many(args), goesOn, one)
}

// each runs jobs one after another. problem is what is wrong with others.
func (r *rotator) each(f *jobfile.File, jobs []rotation.Job, problem error, many, goesOn bool, one oneJob) error {
	engine, err := f.Open(rotation.WithObserver(r.a.narrate()))
	if err != nil {
		return err
	}
	var results []record
	for _, job := range jobs {
		result, err := one(engine, r.a.ctx, job)
		if err != nil {
			problem = join(problem, r.explain(job.Name, err))
		}
		if err == nil && result.State.Finished() && !result.Resumed && goesOn {
			r.a.note("%s: nothing is under way", job.Name)
		}
		if result != nil && (err == nil || !result.State.Finished()) { // else it is about the last rotation
			r.a.changed = true
			results = append(results, recordOf(result))
			if !result.ResumeAt.IsZero() {
				r.a.note("%s waits until %s; then run: %s", job.Name, result.ResumeAt.UTC().Format(time.RFC3339), r.command("resume", job.Name))
			}
		}
		if r.a.ctx.Err() != nil {
			break
		}
	}
	switch {
	case many:
		return join(problem, r.a.printAll(resultColumns, results))
	case len(results) == 0:
		return problem
	}
	return join(problem, r.a.printOne(results[0]))
}

// recordOf returns what is printed of a result. One that is under way is not
// finished, whenever the rotation before was.
func recordOf(result *rotation.Result) record {
	shown := *result
	if !shown.State.Finished() {
		shown.Finished = time.Time{}
	}
	return recorder{}.record(shown)
}

var resultColumns = []string{"job", "state", "operation", "fingerprint", "resume_at", "finished"}

// explain adds what to do to an error of a job, and its name, and saves a token
// that nothing else holds.
func (r *rotator) explain(name string, err error) error {
	if !strings.Contains(err.Error(), name) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	var unsaved *rotation.UnsavedError
	if errors.As(err, &unsaved) && unsaved.Escrow != nil {
		return r.a.rescue("job-"+name, unsaved.Token, err)
	}
	resume, again := r.command("resume", name), r.command("run", name)
	var (
		stuck   *rotation.StuckError
		refused *rotation.RefusedError
	)
	switch {
	case errors.As(err, &stuck):
		return hint(err, r.steps(name, stuck.Steps)...)
	case r.a.ctx.Err() != nil && errors.Is(err, rotation.ErrNotIssued):
		return hint(err, "the token in use has stayed; to begin again: "+again)
	case errors.Is(err, rotation.ErrUnfinished):
		return hint(err, "the rotation is under way; go on with: "+resume)
	case errors.As(err, &refused) && refused.Reason == rotation.ReasonJob:
		return &coded{err, exitUsage}
	case errors.Is(err, rotation.ErrBusy):
		return hint(err, "wait for it; how far it is: "+r.command("status", name))
	case errors.Is(err, rotation.ErrJournal):
		return hint(err, "nothing has changed")
	case errors.Is(err, rotation.ErrNoAccess):
		return hint(err, seeDoctor)
	}
	return err
}

// steps puts what a person does into the words of the command line.
func (r *rotator) steps(name string, steps []string) []string {
	words := strings.NewReplacer("run Resume", "run: "+r.command("resume", name), "run Rollback", "run: "+r.command("rollback", name))
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = words.Replace(s)
	}
	return out
}

// command returns a command line of this group, for the same file.
func (r *rotator) command(verb string, words ...string) string {
	words = append([]string{verb}, words...)
	if path := r.file(); path != jobfile.DefaultName {
		words = append(words, "--file", quoted(path))
	}
	return "keywright rotate " + strings.Join(words, " ")
}

// quoted returns a word as a shell takes it.
func quoted(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool { return strings.ContainsRune(" \t\n'\"\\$`&|;<>()*?[]{}#~!", r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// narrate returns what says on standard error how a rotation goes.
func (a *app) narrate() func(rotation.Event) {
	if l := a.logger(); l != nil {
		return rotation.LogTo(l)
	}
	failure := "" // said when the run goes on; the one that ends it is its error
	say := func(format string, args ...any) {
		if failure != "" {
			a.note("%s", failure)
			failure = ""
		}
		a.note(format, args...)
	}
	return func(e rotation.Event) {
		switch e := e.(type) {
		case rotation.StateChanged:
			say("%s: %s", e.Job, stateLine(e))
		case rotation.SinkChanged:
			say("%s: %s is %s", e.Job, e.Sink, e.State)
		case rotation.Waiting:
			wait := "less than a second"
			if e.For >= time.Second {
				wait = e.For.Round(time.Second).String()
			}
			say("%s: waiting %s: %s", e.Job, wait, e.Why)
		case rotation.Failed:
			failure = e.Job + ": " + e.Err.Error()
		}
	}
}

func stateLine(e rotation.StateChanged) string {
	s := string(e.To)
	if e.To == rotation.StateIssued && e.New != "" {
		s += ", token " + e.New + " in place of " + e.Old
	}
	return s
}

func (r *rotator) statusCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "status [JOB…]", Short: "Show how far rotations are", Args: arguments("JOB…"),
		Long: `Show what the journal says about jobs; without names, about every job in the
file. It asks no provider and waits for nobody.`,
		Example: "keywright rotate status\nkeywright rotate status --check --quiet || alert",
	}
	r.allFlag(c)
	c.Flags().BoolVar(&check, "check", false, "exit with 7 if a rotation is stuck, with 3 if one is under way")
	c.RunE = func(_ *cobra.Command, args []string) error {
		f, err := r.load()
		if err != nil {
			return err
		}
		r.all = r.all || len(args) == 0
		names, err := r.names(f, args)
		if err != nil {
			return err
		}
		engine, err := f.Open()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			names = append(names, r.renamed(f, names)...)
		}
		var (
			records []record
			worst   error
			problem error
		)
		known := jobNames(f)
		for _, name := range names {
			if len(args) > 0 && !slices.Contains(known, name) {
				_, err := r.job(f, name) // says which name may have been meant
				return err
			}
			status, err := engine.Status(r.a.ctx, name)
			if err != nil { // the others are still worth having
				problem = join(problem, r.explain(name, err))
				continue
			}
			records = append(records, recorder{}.record(status))
			worst = worse(worst, status)
		}
		if check {
			problem = join(worst, problem)
		}
		switch {
		case len(args) != 1:
			return join(problem, r.a.printAll([]string{"job", "state", "strategy", "generation", "issued", "deadline", "finished", "problem"}, records))
		case len(records) == 1:
			return join(problem, r.a.printOne(records[0]))
		}
		return problem
	}
	return c
}

// renamed returns the names in the journal that no job of the file has: those of
// jobs that were renamed or removed, maybe while a rotation was under way.
func (r *rotator) renamed(f *jobfile.File, names []string) []string {
	entries, err := os.ReadDir(f.JournalDir())
	if err != nil {
		return nil // the statuses will say what is wrong
	}
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	var others []string
	for _, e := range entries {
		if e.IsDir() && !known[e.Name()] {
			others = append(others, e.Name())
		}
	}
	return others
}

// worse returns the graver of an error and what a status says.
func worse(err error, s *rotation.Status) error {
	switch {
	case s.State == rotation.StateStuck:
		return &coded{fmt.Errorf("%s is stuck", s.Job), exitStuck}
	case err == nil && !s.State.Finished():
		return &coded{fmt.Errorf("the rotation of %s is under way, in %s", s.Job, s.State), exitUnknown}
	}
	return err
}

func (r *rotator) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON schema of keywright.yaml, for editors",
		RunE: func(*cobra.Command, []string) error { return r.a.printText(string(jobfile.Schema())) },
	}
}
