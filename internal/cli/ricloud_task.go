package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

var taskColumns = []string{"id", "type", "state", "error", "key", "date_created", "date_completed"}

func (a *app) taskGroup() *cobra.Command {
	return group("task", "Look at tasks, such as tests of configs", a.taskList(), a.taskGet(), a.taskWait())
}

func (a *app) taskList() *cobra.Command {
	var (
		p keywright.TaskListParams
		l listFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List tasks",
		Long:    `List tasks. Which filters ricloud honours is not documented.`,
		Example: "keywright ricloud task list --type storage_config.test --state failed",
	}
	textVar(c.Flags(), &p.Type, "type", "only tasks of `TYPE`, such as webhook_config.test")
	choiceVar(c.Flags(), &p.State, "state", "", "only tasks in `STATE`: pending, processing, suspended, succeeded or failed",
		keywright.TaskPending, keywright.TaskProcessing, keywright.TaskSuspended, keywright.TaskSucceeded, keywright.TaskFailed)
	textVar(c.Flags(), &p.SourceType, "source-type", "only tasks for sources of `TYPE`, such as icloud.account")
	textVar(c.Flags(), &p.Session, "session", "only tasks of the session with this `ID`")
	textVar(c.Flags(), &p.Poll, "poll", "only tasks of the poll with this `ID`")
	textVar(c.Flags(), &p.AfterID, "after", "begin behind the task with this `ID`")
	textVar(c.Flags(), &p.BeforeID, "before", "stop before the task with this `ID`")
	l.define(c, "1000")
	c.RunE = onRicloud(a, func(_ *cobra.Command, rc *keywright.Ricloud) error {
		p.Limit = l.pageSize
		return runList(a, &l, taskColumns, rc.Task.All(a.ctx, p))
	})
	return c
}

func (a *app) taskGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show a task", Args: arguments("ID"),
		Example: "keywright ricloud task get 7f8d02ab-4be5-48fc-b7ae-b18e4cd34ac2",
		RunE: func(_ *cobra.Command, args []string) error {
			rc, err := a.ricloud()
			if err != nil {
				return err
			}
			return a.print(rc.Task.Retrieve(a.ctx, keywright.TaskID(args[0])))
		},
	}
}

func (a *app) taskWait() *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use: "wait ID", Short: "Wait until a task is over, and show it", Args: arguments("ID"),
		Long: `Wait until a task is over, and show it. A task that has failed is a failure of
the command; one that is not over in time exits with 3.`,
		Example: "keywright ricloud task wait 7f8d02ab-4be5-48fc-b7ae-b18e4cd34ac2 --for 5m",
	}
	durationVar(c.Flags(), &limit, "for", "wait for `DURATION` at most, such as 5m; the default is to wait until it is over")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("for") && limit == 0 {
			return usage("--for: must be more than 0s")
		}
		rc, err := a.ricloud()
		if err != nil {
			return err
		}
		return waitTask(a, rc, keywright.TaskID(args[0]), limit)
	}
	return c
}
