package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// A command for a resource is built from the shape of its verb: what they have
// in common is here, what is its own is in the resource's file.

// onRicloud returns what a command does that works with ricloud.
func onRicloud(a *app, do func(*cobra.Command, *keywright.Ricloud) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		return do(c, rc)
	}
}

// ricloudWithID is onRicloud for a command whose argument is the id of something.
func ricloudWithID[T numberID](a *app, do func(*cobra.Command, *keywright.Ricloud, T) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		id, err := argID[T](args[0])
		if err != nil {
			return err
		}
		return onRicloud(a, func(c *cobra.Command, rc *keywright.Ricloud) error { return do(c, rc, id) })(c, nil)
	}
}

// onAceData returns what a command does that works with Ace Data Cloud.
func onAceData(a *app, do func(*cobra.Command, *keywright.AceData) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		ad, err := a.acedata()
		if err != nil {
			return err
		}
		return do(c, ad)
	}
}

// acedataWithID is onAceData for a command whose argument is the id of something.
func acedataWithID[T ~string](a *app, do func(*cobra.Command, *keywright.AceData, T) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		id, err := parseUUID[T](args[0])
		if err != nil {
			return err
		}
		return onAceData(a, func(c *cobra.Command, ad *keywright.AceData) error { return do(c, ad, id) })(c, nil)
	}
}

// listFlags are the flags of a list, beside its filters.
type listFlags struct {
	limit    int // in all
	pageSize int
}

func (l *listFlags) define(c *cobra.Command, largest string) {
	c.Flags().IntVar(&l.limit, "limit", 0, "stop after `N` items; 0: list all")
	c.Flags().IntVar(&l.pageSize, "page-size", 0, "ask for `N` items at a time, at most "+largest+"; 0: 100")
}

// runList prints what an iterator yields.
func runList[T any](a *app, l *listFlags, columns []string, all iter.Seq2[*T, error]) error {
	if l.limit < 0 {
		return usage("--limit: must not be negative")
	}
	rr := recorder{reveal: a.reveal}
	var records []record
	for v, err := range all {
		if err != nil {
			return err
		}
		records = append(records, rr.record(v))
		if len(records) == l.limit {
			break
		}
	}
	return a.printAll(columns, records)
}

// print prints one resource.
func (a *app) print(v any, err error) error {
	if err != nil {
		return err
	}
	return a.printOne(recorder{reveal: a.reveal}.record(v))
}

// required refuses a command line without these flags.
func required(c *cobra.Command, names ...string) error {
	for _, name := range names {
		if !c.Flags().Changed(name) {
			return &usageError{reason: "--" + name + " is missing", next: "run: " + c.UseLine()}
		}
	}
	return nil
}

// asFlag makes what the SDK says about a parameter a word about the flag that
// sets it, where the two have different names.
func asFlag(err error, flags map[string]string) error {
	var wrong *keywright.ParamError
	if errors.As(err, &wrong) && flags[wrong.Field] != "" {
		return usage("--%s: %s", flags[wrong.Field], wrong.Reason)
	}
	return err
}

// runDelete asks, deletes, and says so. The SDK looks up a delete whose answer
// was lost.
func runDelete(a *app, c *cobra.Command, what, warning, next string, remove func(context.Context) error) error {
	if err := a.confirm(c, "Delete "+what+"? "+warning); err != nil {
		return err
	}
	_, err := change(a, next, func(ctx context.Context) (*struct{}, error) { return nil, remove(ctx) })
	if err == nil {
		a.note("%s is deleted", what)
	}
	return err
}

// testFlags are the flags of a command that tests a config.
type testFlags struct {
	wait  bool
	await time.Duration
}

func (t *testFlags) define(c *cobra.Command) {
	c.Flags().BoolVar(&t.wait, "wait", false, "wait until the test is over")
	durationVar(c.Flags(), &t.await, "await", "have ricloud hold its answer until the test is over, for `DURATION` at most: whole seconds, 1s to 10s")
}

// runTest starts the test of a config and prints its task.
func runTest(a *app, t *testFlags, rc *keywright.Ricloud, start func(context.Context, ...keywright.CallOption) (*keywright.Task, error)) error {
	var opts []keywright.CallOption
	if t.await > 0 {
		opts = append(opts, keywright.WithAwait(t.await))
	}
	opts = append(opts, existing(rc.Task.List(a.ctx, keywright.TaskListParams{Limit: 1000})))
	task, err := change(a, "keywright ricloud task list", func(ctx context.Context) (*keywright.Task, error) {
		return start(ctx, opts...)
	})
	if err != nil {
		return err
	}
	if t.wait && !task.State.Terminal() {
		return waitTask(a, rc, task.ID, 0)
	}
	return a.printTask(task)
}

// waitTask waits for a task, for limit at most unless that is 0, and prints it.
func waitTask(a *app, rc *keywright.Ricloud, id keywright.TaskID, limit time.Duration) error {
	ctx := a.ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	task, err := rc.Task.Wait(ctx, id)
	switch {
	case err == nil:
		return a.printTask(task)
	case ctx.Err() == nil:
		return err
	case a.ctx.Err() != nil:
		return hint(err, "the task goes on; to wait for it: keywright ricloud task wait "+string(id))
	}
	late := hint(
		&coded{fmt.Errorf("task %s is not over after %v", id, limit), exitUnknown},
		"to go on waiting: keywright ricloud task wait "+string(id))
	if task == nil { // not even the first look was answered
		return late
	}
	return join(a.printTask(task), late)
}

// printTask prints a task, and fails if it has failed.
func (a *app) printTask(task *keywright.Task) error {
	if err := a.print(task, nil); err != nil {
		return err
	}
	if task.State == keywright.TaskFailed {
		reason := "no reason given"
		if task.Error != nil && *task.Error != "" {
			reason = *task.Error
		}
		return &coded{fmt.Errorf("task %s failed: %s", task.ID, reason), exitFailed}
	}
	return nil
}
