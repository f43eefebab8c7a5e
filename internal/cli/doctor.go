package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// result is what became of a check.
type result string

const (
	resultOK      result = "ok"
	resultWarning result = "warning" // it works, and may not for long
	resultWrong   result = "wrong"
	resultSkipped result = "skipped"
)

// finding is a check that was made.
type finding struct {
	check  string
	result result
	found  string
	mend   string // what to do; empty if there is nothing to do
	code   int    // exit code of what is wrong
}

// doctor makes the checks.
type doctor struct {
	a        *app
	offline  bool
	timeout  time.Duration // of a check of the network
	noProxy  bool          // there should be a proxy, and it cannot be used
	findings []finding
}

func (d *doctor) ok(check, format string, args ...any) {
	d.add(resultOK, 0, check, fmt.Sprintf(format, args...), "")
}

func (d *doctor) skip(check, format string, args ...any) {
	d.add(resultSkipped, 0, check, fmt.Sprintf(format, args...), "")
}

func (d *doctor) warn(check, found, mend string) { d.add(resultWarning, 0, check, found, mend) }

func (d *doctor) wrong(code int, check, found, mend string) {
	d.add(resultWrong, code, check, found, mend)
}

func (d *doctor) add(r result, code int, check, found, mend string) {
	d.findings = append(d.findings, finding{check, r, found, mend, code})
}

func (a *app) doctorCommand() *cobra.Command {
	d := &doctor{a: a, timeout: networkTimeout}
	c := &cobra.Command{
		Use: "doctor [ricloud|acedata]", Short: "Look for what is wrong with settings, network and tokens",
		Long: `Look for what is wrong: with config files and their permissions, with the
settings in effect, with proxies, certificates and the network, with the tokens
and the clock, and with the job file in this directory.

A provider without a token is skipped if the other has one, unless it is named.
The exit code is 0 if nothing is wrong. Else it is that of the first thing that
is: 2 for settings, 5 for a token that is not accepted, 1 for the rest.`,
		Example:   "keywright doctor\nkeywright doctor ricloud --offline\nkeywright doctor --output json",
		Args:      providerArgument,
		ValidArgs: providerNames(),
		RunE: func(_ *cobra.Command, args []string) error {
			d.examine(args)
			return d.tell()
		},
	}
	a.configFlag(c)
	c.Flags().BoolVar(&d.offline, "offline", false, "leave the network alone")
	durationVar(c.Flags(), &d.timeout, "timeout", "give up on a check of the network after `DURATION`")
	return c
}

func providerNames() []string {
	names := make([]string, len(providers))
	for i, p := range providers {
		names[i] = p.name
	}
	return names
}

// providerArgument is a check that a command gets one provider, or nothing.
func providerArgument(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return arguments("PROVIDER")(c, args)
	}
	for _, name := range args {
		if !slices.Contains(providerNames(), name) {
			return &usageError{
				reason: fmt.Sprintf("want %s, got %s", alternatives(providerNames()), shown(name)),
				next:   "run: " + c.UseLine(),
			}
		}
	}
	return nil
}

// examine makes all checks: of what is the same for both providers, and of
// those that are named.
func (d *doctor) examine(names []string) {
	d.home()
	d.terminal()
	d.clock(time.Now())
	d.proxies()
	d.certificates()
	d.jobFile()
	var cases []*patient
	given := false // some provider has a token, or a mistake where one would be
	for _, p := range providers {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		c := &patient{doctor: d, provider: p}
		c.read()
		given = given || c.err != nil || !c.token.IsZero()
		cases = append(cases, c)
	}
	for i, c := range cases {
		c.files()
		// One complaint is enough if there is no token at all.
		c.examine(!given && (len(names) > 0 || i == 0))
	}
}

// tell prints what was found, and returns an error for what is wrong.
func (d *doctor) tell() error {
	if err := d.a.ctx.Err(); err != nil {
		return err
	}
	if err := d.print(); err != nil {
		return err
	}
	wrong, code := 0, exitDone
	for _, f := range d.findings {
		if f.result != resultWrong {
			continue
		}
		if wrong++; wrong == 1 {
			code = f.code
		}
	}
	switch wrong {
	case 0:
		return nil
	case 1:
		return &coded{errors.New("one thing is wrong"), code}
	}
	return &coded{fmt.Errorf("%d things are wrong", wrong), code}
}

func (d *doctor) print() error {
	a := d.a
	if a.format == formatTable {
		return a.write(func(w io.Writer) error {
			return writeFindings(w, d.findings, a.width(), colored(a.out))
		})
	}
	var records []record
	for _, f := range d.findings {
		records = append(records, record{{"check", f.check}, {"result", string(f.result)}, {"found", f.found}, {"mend", orNull(f.mend)}})
	}
	return a.printAll(nil, records)
}

// writeFindings writes a line for each check, and what to do below it.
func writeFindings(w io.Writer, findings []finding, width int, colors bool) error {
	results, checks := 0, 0
	for _, f := range findings {
		results = max(results, len(f.result))
		checks = max(checks, len(f.check))
	}
	indent := results + checks + 2*len(gap)
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(paint(colors, shade("result", string(f.result)), string(f.result)))
		b.WriteString(strings.Repeat(" ", results-len(f.result)) + gap)
		b.WriteString(f.check + strings.Repeat(" ", checks-len(f.check)) + gap)
		lines := fold(printable(f.found), width-indent)
		if f.mend != "" {
			lines = append(lines, fold("to mend it: "+printable(f.mend), width-indent)...)
		}
		b.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", indent)) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// within is a context for a check of the network.
func (d *doctor) within() (context.Context, context.CancelFunc) {
	if d.timeout <= 0 {
		return context.WithCancel(d.a.ctx)
	}
	return context.WithTimeout(d.a.ctx, d.timeout)
}
