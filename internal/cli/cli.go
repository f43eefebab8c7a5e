package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/spell"
)

// app is one run of the program.
type app struct {
	in, out, err *os.File
	lines        *bufio.Reader // in, once a line was read from it

	// ctx ends at the first interrupt; committed, for calls that are not to be
	// abandoned half way, at the second.
	ctx, committed context.Context

	format  format
	reveal  bool
	quiet   bool
	verbose bool
	yes     bool
	changed bool // something was changed: a failure from now on is not "nothing has changed"
	conn    connection
}

// Main runs the program with its arguments, without its name, and returns its
// exit code.
func Main(args []string) (code int) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, format: formatTable}
	defer a.watchSignals()()
	defer func() {
		if p := recover(); p != nil { // else the exit code would say that nothing was sent
			fmt.Fprintf(a.err, "keywright: this is a defect of keywright: %v\n%s", p, debug.Stack())
			code = exitUnknown
		}
	}()
	root := a.root()
	root.SetArgs(args)
	return a.report(root.ExecuteContext(a.ctx))
}

// watchSignals makes the contexts, which end when the program is interrupted.
func (a *app) watchSignals() (stop func()) {
	var abandon, interrupt context.CancelFunc
	a.committed, abandon = context.WithCancel(context.Background())
	a.ctx, interrupt = context.WithCancel(a.committed)
	// Who handles SIGPIPE gets an error from a write, and can save what could
	// not be written.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		signal.Notify(signals, syscall.SIGHUP) // the terminal is gone: a secret goes to a file
	}
	go func() {
		for n := 1; ; n++ {
			if _, ok := <-signals; !ok {
				return
			}
			switch n {
			case 1:
				interrupt()
			case 2:
				abandon()
			default:
				fmt.Fprintln(a.err, "keywright: gave up at once; what was under way may have taken effect")
				os.Exit(exitInterrupted)
			}
		}
	}()
	return func() {
		signal.Stop(pipes)
		signal.Stop(signals)
		close(signals)
		abandon()
	}
}

// root returns the whole tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keywright",
		Short: "Create, list, update and rotate API keys of ricloud and Ace Data Cloud",
		Long: `keywright works with the API keys of ricloud and Ace Data Cloud: it creates,
lists, updates and rotates them, and rotates them into files and secret stores
without ever losing one.

A token is never taken from the command line. It comes from the environment, a
file, standard input or a prompt; see "keywright doctor".`,
		Version:           keywright.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(a.in)
	root.SetOut(helpWriter{a})
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	choiceVar(f, &a.format, "output", "o", "print `FORMAT`: table, json, yaml or name", formatTable, formatJSON, formatYAML, formatName)
	f.BoolVarP(&a.quiet, "quiet", "q", false, "say nothing on standard error but errors and questions")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log every request on standard error, without tokens")
	root.AddGroup(
		&cobra.Group{ID: "providers", Title: "Providers:"},
		&cobra.Group{ID: "rotation", Title: "Rotation:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"})
	root.AddCommand(
		grouped("providers", a.ricloudGroup()), grouped("providers", a.acedataGroup()),
		grouped("rotation", a.rotateGroup()),
		grouped("setup", a.configGroup()), grouped("setup", a.doctorCommand()), grouped("setup", a.mockGroup()),
		a.manCommand(), a.schemaCommand(), a.versionCommand())
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	finish(root)
	return root
}

func grouped(id string, c *cobra.Command) *cobra.Command {
	c.GroupID = id
	return c
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	c.AddCommand(commands...)
	return c
}

// finish settles what is the same for every command: a group prints its help,
// and refuses a command that it does not have; a command that names no
// arguments takes none.
func finish(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = unknownCommand
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	switch {
	case c.Name() == "help":
		c.Args = helpTopic
	case c.Args == nil, c.HasParent() && c.Parent().Name() == "completion":
		c.Args = arguments()
	}
	c.Flags().SortFlags = false
	c.DisableFlagsInUseLine = true
	completions(c)
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

// helpTopic refuses to help with a command that there is not.
func helpTopic(c *cobra.Command, args []string) error {
	found, rest, err := c.Root().Find(args)
	if err != nil {
		return err
	}
	return unknownCommand(found, rest)
}

func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %s", shown(args[0]))
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if meant := spell.Nearest(args[0], names); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", meant)
	}
	return &usageError{reason: text, next: "run: " + c.CommandPath() + " --help"}
}

// arguments returns a check that a command gets these arguments. A name that
// ends in "…" stands for any number.
func arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "…")
		switch {
		case many:
			return nil
		case len(args) < len(names):
			return &usageError{reason: names[len(args)] + " is missing", next: "run: " + c.UseLine()}
		case len(args) > len(names):
			return &usageError{
				reason: fmt.Sprintf("%s takes %s (the extra one is not shown)", c.Name(), count(len(names), "argument")),
				next:   "run: " + c.UseLine(),
			}
		}
		return nil
	}
}

func count(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "one " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// flagError says what is wrong with a flag, without its value: it may be a
// token.
func flagError(c *cobra.Command, err error) error {
	next := "run: " + c.CommandPath() + " --help"
	var (
		none    *pflag.NotExistError
		invalid *pflag.InvalidValueError
		valued  *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &none):
		name := none.GetSpecifiedName()
		if none.GetSpecifiedShortnames() != "" {
			return &usageError{reason: "unknown flag -" + shownWord(name), next: next}
		}
		if word := strings.ToLower(name); word == "token" || word == "api-key" || word == "password" {
			return &usageError{
				reason: "unknown flag --" + word + "; a token is never taken from the command line, where others can see it",
				next:   "use the environment, a file, --auth-file or --auth-prompt; see: keywright doctor",
			}
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		reason := "unknown flag --" + shownWord(name)
		if meant := closestFlag(name, names); meant != "" {
			reason += "; did you mean --" + meant + "?"
		}
		return &usageError{reason: reason, next: next}
	case errors.As(err, &invalid):
		cause := invalid.Unwrap()
		var wrong *usageError
		if !errors.As(cause, &wrong) {
			cause = fmt.Errorf("want %s", kindOf(invalid.GetFlag()))
		}
		return &usageError{reason: "--" + invalid.GetFlag().Name + ": " + cause.Error(), next: next}
	case errors.As(err, &valued):
		return &usageError{reason: "--" + valued.GetFlag().Name + ": needs a value", next: next}
	}
	return &usageError{reason: "the flags cannot be read", next: next}
}

// kindOf says what a flag of pflag's own kinds wants.
func kindOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "int", "int64", "uint":
		return "a whole number"
	}
	return "a " + f.Value.Type()
}

// shown quotes a word from the command line, unless it may be a secret.
func shown(s string) string {
	if len(s) > 16 || printable(s) != s {
		return "(not shown)"
	}
	return fmt.Sprintf("%q", s)
}

func shownWord(s string) string {
	if len(s) > 16 || printable(s) != s {
		return "(not shown)"
	}
	return s
}

// closestFlag returns the flag that was probably meant: one or two letters away,
// or one whose first part is: "tokn" for "token-file".
func closestFlag(word string, flags []string) string {
	if near := spell.Nearest(word, flags); near != "" || len(word) < 3 {
		return near
	}
	for _, f := range flags {
		head, _, parts := strings.Cut(f, "-")
		if strings.HasPrefix(f, word) || parts && spell.Distance(word, head) <= 1 {
			return f
		}
	}
	return ""
}
