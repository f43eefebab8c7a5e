package rotator

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// name is the program's.
const name = "keywright-rotator"

// app is one run of the program.
type app struct {
	out, err io.Writer
	env      func(string) string
	signals  <-chan os.Signal // SIGTERM, SIGINT and SIGHUP
	exit     func(code int)   // ends the process at once
}

// Main runs the program with its arguments, without its name, and returns its
// exit code.
func Main(args []string) (code int) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	// Who read what we say may be gone: that is an error of a write, and not the
	// end of the process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a := &app{out: os.Stdout, err: os.Stderr, env: os.Getenv, signals: signals, exit: os.Exit}
	defer func() {
		if v := recover(); v != nil { // its value may be anything
			fmt.Fprintf(a.err, "%s: this is a defect of %s: %T\n%s", name, name, v, debug.Stack())
			code = exitUnknown
		}
	}()
	return a.run(context.Background(), args)
}

// run runs a command line.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	return a.report(root.ExecuteContext(ctx))
}

// root returns the tree of commands.
func (a *app) root() *cobra.Command {
	var f daemonFlags
	root := &cobra.Command{
		Use:   name,
		Short: "Rotate the keys of keywright.yaml on schedule",
		Long: `keywright-rotator rotates the jobs of keywright.yaml when their schedules say so,
until SIGTERM or SIGINT. SIGHUP reads the file again.

It keeps its journal in a database: in the SQLite file keywright.db beside
keywright.yaml, or in PostgreSQL, where several workers share the work. Which
one is in --database, in a file that --database-file names, or in the variable
KEYWRIGHT_DATABASE. What a PostgreSQL connection string leaves out comes from
the variables PGHOST, PGUSER, PGPASSWORD, PGPASSFILE and so on. A password is
never taken from the command line, where others can see it.

The page, the metrics and the health of the daemon are at --listen: /,
/metrics, /healthz and /readyz. Beyond this machine, page and metrics want the
token of --token-file.

Exit codes: 0, done, or stopped as asked; 1, failed; 2, the command line or a
file is wrong, and nothing was begun; 3, stopped before all steps were over:
their rotations go on when it is started again; 130, told to stop a third time,
and ended at once.`,
		Example: `keywright-rotator --config keywright.yaml
keywright-rotator --config keywright.yaml --database-file database
keywright-rotator check --config keywright.yaml`,
		Version:           keywright.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              noArguments,
		PersistentPreRunE: noEmptyFlags,
		RunE:              func(c *cobra.Command, _ []string) error { return a.daemon(c.Context(), &f) },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	f.add(root.Flags())
	root.AddCommand(a.checkCommand(), a.triggerCommand(), a.rollbackCommand(), a.forgetCommand(), a.moveCommand(), a.versionCommand())
	finish(root)
	return root
}

// finish settles what is the same for every command.
func finish(c *cobra.Command) {
	c.Flags().SortFlags = false
	for _, sub := range c.Commands() {
		finish(sub)
	}
}
