package rotator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

func (a *app) checkCommand() *cobra.Command {
	var f sourceFlags
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what the daemon would do with the same flags",
		Long: `check reads keywright.yaml as the daemon does, and says of each job when it is
due, why then, and what keeps it from being run by this worker. It sends nothing
to any provider. It looks into the database if there is one: a SQLite file is
not made, but in PostgreSQL the tables are.

The exit code is 0 if every job can be run here, or by the worker that owns it,
and none is stuck, refused or failed; else it is 1. What a sink or a provider
would say is found out by a rotation alone.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.check(c.Context(), &f) },
	}
	f.add(c.Flags())
	return c
}

// checker is one run of check.
type checker struct {
	database database
	worker   string
	now      time.Time
	rows     map[string]store.Schedule // by job
	engine   *rotation.Engine          // nil: there is no database yet
	problems []error
}

func (a *app) check(ctx context.Context, f *sourceFlags) error {
	ctx, end := a.untilStopped(ctx)
	defer end()
	file, _, err := load(f.config)
	if err != nil {
		return err
	}
	c := &checker{worker: f.workerID, now: time.Now(), rows: make(map[string]store.Schedule)}
	if c.database, err = a.databaseOf(f); err != nil {
		return err
	}
	if c.worker == "" {
		if c.worker, err = os.Hostname(); err != nil {
			return err
		}
	}
	c.problem(checkJournal(file, c.database))
	sealer, err := sealerOf(file, c.database)
	if path := sealFile(file, c.database); err == nil && (path == "" || isThere(path)) { // else it would make one
		_, err = sealer.Seal(ctx, []byte("check"), name)
	}
	c.problem(err)
	st, err := c.open(ctx)
	c.problem(err)
	if st != nil {
		defer st.Close()
		c.problem(c.read(ctx, st, sealer))
		c.problem(checkKey(ctx, file, c.database, st))
	}
	if err == nil {
		c.problem(checkLeft(ctx, file, f, c.database, st))
	}
	if err := c.print(ctx, a, file); err != nil {
		return err
	}
	if len(c.problems) == 0 {
		return nil
	}
	for _, err := range c.problems {
		a.report(err)
	}
	return &coded{&loggedError{errors.Join(c.problems...)}, exitFailed}
}

// problem notes what keeps jobs from being run.
func (c *checker) problem(err error) {
	if err != nil {
		c.problems = append(c.problems, err)
	}
}

// open opens the database; nil: there is none yet.
func (c *checker) open(ctx context.Context) (*store.Store, error) {
	if !c.database.there() {
		return nil, nil
	}
	return c.database.open(ctx)
}

// read reads the schedule.
func (c *checker) read(ctx context.Context, st *store.Store, sealer rotation.Sealer) error {
	rows, err := st.List(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		c.rows[row.Job] = row
	}
	if sealer == nil {
		return nil
	}
	c.engine, err = rotation.Open("", rotation.WithJournal(st.Journal(name)), rotation.WithSealer(sealer))
	return err
}

// print prints a line for each job, and what keeps it from being run.
func (c *checker) print(ctx context.Context, a *app, file *jobfile.File) error {
	where := c.database.kind()
	if c.database.path != "" {
		where += ", " + c.database.path
		if !isThere(c.database.path) {
			where += ", not there yet"
		}
	}
	fmt.Fprintf(a.out, "database: %s\nworker: %s\n\n", where, printable(c.worker))
	var notes []string
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTRATEGY\tOWNER\tSTATE\tDUE\tWHY")
	i := 0
	for job := range jobs.FromFile(file) {
		strategy := file.Jobs[i].Strategy
		i++
		due, why, err := c.due(ctx, &job)
		if err != nil {
			c.problem(fmt.Errorf("%s: %w", job.Name, err))
			due, why = "-", "not known"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", job.Name, strategy, printable(cmp.Or(job.Owner, "-")), cmp.Or(c.rows[job.Name].LastState, "-"), due, why)
		switch {
		case job.Err != nil:
			c.problem(fmt.Errorf("%s cannot be run here: %s", job.Name, oneLine(job.Err)))
		case job.Owner == "" && c.database.path == "" && jobs.NeedsOwner(job.Strategy):
			c.problem(fmt.Errorf("%s cannot be run: on PostgreSQL, %s needs the worker that owns it; write owner: WORKER-ID", job.Name, strategy))
		case c.rows[job.Name].LastProblem != "" && troubled(c.rows[job.Name].LastState):
			c.problem(fmt.Errorf("%s: %s: %s", job.Name, c.rows[job.Name].LastState, c.rows[job.Name].LastProblem))
		case job.Owner != "" && job.Owner != c.worker:
			notes = append(notes, fmt.Sprintf("%s is not run here, but by its owner %s", job.Name, printable(job.Owner)))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, note := range notes {
		if i == 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintln(a.out, note)
	}
	return nil
}

// troubled reports whether a job in a state has not done what it should.
func troubled(state string) bool {
	return state == jobs.StateRefused || state == jobs.StateFailed || state == string(rotation.StateStuck)
}

// due says when a job is due, and why then.
func (c *checker) due(ctx context.Context, job *jobs.Job) (at, why string, err error) {
	if job.Schedule == nil {
		return "-", "no schedule: not by itself", nil
	}
	row, there := c.rows[job.Name]
	spec, err := json.Marshal(job.Schedule)
	if err != nil {
		return "", "", err
	}
	in := schedule.Input{Job: job.Name, FirstSeen: c.now, Now: c.now}
	if there {
		in.FirstSeen = row.Created
	}
	if c.engine != nil {
		status, err := c.engine.Status(ctx, job.Name)
		if err != nil {
			return "", "", err
		}
		in.Last = status.Finished
	}
	next, err := job.Schedule.Next(in)
	if err != nil {
		return "", "", err
	}
	switch state := rotation.State(row.LastState); {
	case troubled(row.LastState) && !row.Due.IsZero():
		return stamp(row.Due, c.now), "tried again", nil
	case row.LastState != "" && !troubled(row.LastState) && !state.Finished():
		return "-", "under way", nil
	case there && row.Spec == string(spec) && !row.Due.IsZero():
		return stamp(row.Due, c.now), next.Reason, nil
	case job.Schedule.BeforeExpiry != "":
		return "now", "to ask when the key expires", nil
	case next.At.IsZero():
		return "-", next.Reason, nil
	}
	return stamp(next.At, c.now), next.Reason, nil
}

// stamp writes a time; one that has come is now.
func stamp(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return t.UTC().Format(time.RFC3339)
}

// oneLine is an error's text without line ends.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
