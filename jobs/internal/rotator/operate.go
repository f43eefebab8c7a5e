package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

func (a *app) triggerCommand() *cobra.Command {
	var f sourceFlags
	c := &cobra.Command{
		Use:   "trigger JOB",
		Short: "Have a key rotated now, or a rotation go on that is stuck",
		Long: `trigger has a job run as soon as a worker is free, whatever its schedule says: a
rotation is begun, or one that waits or is stuck goes on. The workers do it: one
with the same database must run.`,
		Example: "keywright-rotator trigger billing",
		Args:    oneJob,
		RunE:    func(c *cobra.Command, args []string) error { return a.trigger(c.Context(), &f, args[0]) },
	}
	f.add(c.Flags())
	return c
}

func (a *app) rollbackCommand() *cobra.Command {
	var f sourceFlags
	c := &cobra.Command{
		Use:   "rollback JOB",
		Short: "Take a rotation back that is under way",
		Long: `rollback brings the old token back to where the new one was delivered to, and
ends the new one's life. That is possible until the old one is retired, with
ricloud-paired and acedata-swap. It does so itself, and waits for a worker that
is at the job. For a job that has an owner, --worker-id must be the owner's.

Afterwards the schedule leaves the key alone for a day. To keep it from being
rotated for longer, write schedule: never before, and have the workers read the
file again.`,
		Example: "keywright-rotator rollback billing",
		Args:    oneJob,
		RunE:    func(c *cobra.Command, args []string) error { return a.rollback(c.Context(), &f, args[0]) },
	}
	f.add(c.Flags())
	return c
}

func (a *app) forgetCommand() *cobra.Command {
	var f sourceFlags
	c := &cobra.Command{
		Use:   "forget JOB",
		Short: "Take a job out of the schedule that is in the file no more",
		Long: `forget takes a job out of the schedule, the page and the metrics that was taken
out of keywright.yaml while no worker ran. Workers that run forget such a job by
themselves when they read the file again, unless its rotation is under way: then
it must be over first. The journal and the history of the job stay.`,
		Example: "keywright-rotator forget billing",
		Args:    oneJob,
		RunE:    func(c *cobra.Command, args []string) error { return a.forget(c.Context(), &f, args[0]) },
	}
	f.add(c.Flags())
	return c
}

func (a *app) forget(ctx context.Context, f *sourceFlags, job string) error {
	ctx, end := a.untilStopped(ctx)
	defer end()
	return a.operate(ctx, f, job, false, func(r *jobs.Runner) error {
		err := r.Forget(ctx, job)
		switch {
		case errors.Is(err, jobs.ErrJob):
			return &usageError{reason: job + " is in the file", next: "take it out of the file before"}
		case errors.Is(err, rotation.ErrUnfinished):
			return &coded{&usageError{reason: oneLine(err), next: "put the job back into the file until its rotation is over"}, exitUsage}
		case err != nil:
			return err
		}
		_, err = fmt.Fprintf(a.out, "%s is forgotten\n", job)
		return err
	})
}

// oneJob wants the name of a job, and nothing else.
func oneJob(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return &usageError{reason: c.Name() + " takes the name of one job", next: "run: " + c.CommandPath() + " --help"}
}

func (a *app) trigger(ctx context.Context, f *sourceFlags, job string) error {
	ctx, end := a.untilStopped(ctx)
	defer end()
	return a.operate(ctx, f, job, true, func(r *jobs.Runner) error {
		if err := r.Trigger(ctx, job); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.out, "%s is run as soon as a worker is free\n", job)
		return err
	})
}

func (a *app) rollback(ctx context.Context, f *sourceFlags, job string) error {
	ctx, end := a.untilStopped(ctx)
	defer end()
	return a.operate(ctx, f, job, true, func(r *jobs.Runner) error {
		result, err := r.Rollback(ctx, job)
		switch {
		case errors.Is(err, rotation.ErrNoWayBack), errors.Is(err, jobs.ErrOwner):
			return &coded{err, exitUsage}
		case errors.Is(err, rotation.ErrUnfinished):
			return &coded{err, exitUnknown}
		case err != nil:
			return err
		}
		_, err = fmt.Fprintf(a.out, "%s: %s; the schedule leaves it alone for a day\n", job, result.State)
		return err
	})
}

// operate does something to a job, which may have to be in the file, beside the
// workers of the database.
func (a *app) operate(ctx context.Context, f *sourceFlags, job string, inFile bool, do func(*jobs.Runner) error) error {
	file, _, err := load(f.config)
	if err != nil {
		return err
	}
	if _, err := file.Job(job); err != nil && inFile {
		return err
	}
	d, err := a.databaseOf(f)
	if err != nil {
		return err
	}
	sealer, err := sealerOf(file, d)
	if err != nil {
		return err
	}
	if !d.there() {
		return &usageError{reason: "there is no database at " + d.path, next: "start the daemon with the same flags"}
	}
	st, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	opts := []jobs.Option{jobs.WithSealer(sealer)}
	if f.workerID != "" {
		opts = append(opts, jobs.WithWorkerID(f.workerID))
	}
	r, err := jobs.New(st, opts...)
	if err != nil {
		return err
	}
	if err := r.Register(ctx, slices.Collect(jobs.FromFile(file))...); err != nil && !ofJobs(err) {
		return err
	}
	err = do(r)
	if errors.Is(err, jobs.ErrUnknown) || errors.Is(err, store.ErrNotFound) {
		return &usageError{reason: job + " is not in the schedule of the database", next: "start the daemon with the same flags, or have it read the file again"}
	}
	return err
}
