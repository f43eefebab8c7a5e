package rotator

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keywright/keywright/internal/spell"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation/jobfile"
)

// Defaults of the flags.
const (
	defaultListen    = "127.0.0.1:8477"
	defaultRetention = 90 * 24 * time.Hour
	eventsPerJob     = 1000 // that the history keeps
)

// sourceFlags say where the jobs and the database are.
type sourceFlags struct {
	config       string
	database     string
	databaseFile string
	workerID     string
}

func (f *sourceFlags) add(set *pflag.FlagSet) {
	set.StringVarP(&f.config, "config", "c", jobfile.DefaultName, "read the jobs from `FILE`")
	set.StringVar(&f.database, "database", "", "keep the journal in `DATABASE`: the path of a SQLite file, or\npostgres://USER@HOST/NAME without a password (default keywright.db\nbeside the file of the jobs)")
	set.StringVar(&f.databaseFile, "database-file", "", "read postgres://USER:PASSWORD@HOST/NAME from `FILE`")
	set.StringVar(&f.workerID, "worker-id", "", "`ID` of this worker, the same after a restart (default the host's name)")
}

// daemonFlags are those of the daemon.
type daemonFlags struct {
	sourceFlags
	listen      string
	tokenFile   string
	concurrency int
	rate        limitFlag
	parallel    limitFlag
	sweep       time.Duration
	grace       time.Duration
	retention   durationFlag
	reload      time.Duration
	logFormat   choiceFlag
	logLevel    levelFlag
}

func (f *daemonFlags) add(set *pflag.FlagSet) {
	f.sourceFlags.add(set)
	f.retention = durationFlag(defaultRetention)
	f.rate = limitFlag{most: 1e6, what: "steps per second, such as 5 or 0.2"}
	f.parallel = limitFlag{whole: true, most: 1000, what: "steps at a time, such as 8"}
	f.logFormat = choiceFlag{value: "text", among: []string{"text", "json"}}
	set.StringVar(&f.listen, "listen", defaultListen, "serve page, metrics and health at `ADDRESS`;\noff: nowhere")
	set.StringVar(&f.tokenFile, "token-file", "", "read the token for page and metrics from `FILE`; required beyond\nthis machine")
	set.IntVar(&f.concurrency, "concurrency", jobs.DefaultConcurrency, "run `N` steps at a time on this worker, and as many of the jobs\nthat it owns")
	set.Var(&f.rate, "rate", fmt.Sprintf("begin at most N steps per second at a provider, on all workers\ntogether, as `PROVIDER=N`; 0: no limit (default %g)", jobs.DefaultLimit.PerSecond))
	set.Var(&f.parallel, "parallel", fmt.Sprintf("run at most N steps at a time at a provider, on all workers\ntogether, as `PROVIDER=N`; 0: no limit (default %d)", jobs.DefaultLimit.Concurrency))
	set.DurationVar(&f.sweep, "sweep", jobs.DefaultSweep, "look for what is due every `TIME`")
	set.DurationVar(&f.grace, "grace", jobs.DefaultStep, "give running steps so much `TIME` to end when told to stop")
	set.Var(&f.retention, "retention", fmt.Sprintf("keep the history for `TIME`, and of that the last %d runs and\nevents of each job", eventsPerJob))
	set.DurationVar(&f.reload, "reload", 0, "look every `TIME` whether the file of the jobs has changed;\n0: read it again at SIGHUP alone")
	set.Var(&f.logFormat, "log-format", "log as `FORMAT`: text or json")
	set.Var(&f.logLevel, "log-level", "log from `LEVEL` on: debug, info, warn or error")
}

// check returns what is wrong with the flags that the flags themselves do not
// find out.
func (f *daemonFlags) check() error {
	switch {
	case f.concurrency < 1 || f.concurrency > 1000:
		return &usageError{reason: "--concurrency: want 1 to 1000"}
	case f.sweep < time.Second || f.sweep > 24*time.Hour:
		return &usageError{reason: "--sweep: want 1s to 24h"}
	case f.grace <= 0 || f.grace > time.Hour:
		return &usageError{reason: "--grace: want more than 0s and at most 1h"}
	case f.reload < 0 || f.reload > 0 && f.reload < time.Second:
		return &usageError{reason: "--reload: want 0 or at least 1s"}
	case len(f.workerID) > 100 || printable(f.workerID) != f.workerID:
		return &usageError{reason: "--worker-id: want at most 100 bytes of text"}
	}
	return nil
}

// limits returns the limits of the providers.
func (f *daemonFlags) limits() map[string]jobs.Limit {
	limits := make(map[string]jobs.Limit)
	for _, provider := range providers {
		l := jobs.DefaultLimit
		if v, ok := f.rate.values[provider]; ok {
			l.PerSecond = v
		}
		if v, ok := f.parallel.values[provider]; ok {
			l.Concurrency = int(v)
		}
		limits[provider] = l
	}
	return limits
}

// providers are those of job files.
var providers = []string{"acedata", "ricloud"}

// limitFlag is a number for each provider.
type limitFlag struct {
	values map[string]float64
	whole  bool
	most   float64
	what   string
}

// Set implements [pflag.Value].
func (f *limitFlag) Set(text string) error {
	provider, number, ok := strings.Cut(text, "=")
	if !ok {
		return &usageError{reason: "want PROVIDER=N"}
	}
	if !slices.Contains(providers, provider) {
		reason := "want one of " + strings.Join(providers, ", ") + " before the ="
		if meant := spell.Nearest(provider, providers); meant != "" {
			reason += "; did you mean " + meant + "?"
		}
		return &usageError{reason: reason}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > f.most || f.whole && v != math.Trunc(v) {
		return &usageError{reason: "want " + f.what}
	}
	if f.values == nil {
		f.values = make(map[string]float64)
	}
	f.values[provider] = v
	return nil
}

// String implements [pflag.Value].
func (f *limitFlag) String() string {
	var words []string
	for _, provider := range slices.Sorted(maps.Keys(f.values)) {
		words = append(words, provider+"="+strconv.FormatFloat(f.values[provider], 'g', -1, 64))
	}
	return strings.Join(words, ",")
}

// Type implements [pflag.Value].
func (f *limitFlag) Type() string { return "PROVIDER=N" }

// durationFlag is a time that may be in days.
type durationFlag time.Duration

// Set implements [pflag.Value].
func (f *durationFlag) Set(text string) error {
	var d jobfile.Duration
	if err := d.UnmarshalText([]byte(text)); err != nil || d < jobfile.Duration(time.Hour) {
		return &usageError{reason: "want a time of at least 1h, such as 36h or 90d"}
	}
	*f = durationFlag(d)
	return nil
}

// String implements [pflag.Value].
func (f *durationFlag) String() string {
	const day = durationFlag(24 * time.Hour)
	if *f%day == 0 {
		return strconv.FormatInt(int64(*f/day), 10) + "d"
	}
	return time.Duration(*f).String()
}

// Type implements [pflag.Value].
func (f *durationFlag) Type() string { return "duration" }

// choiceFlag is one of a few words.
type choiceFlag struct {
	value string
	among []string
}

// Set implements [pflag.Value].
func (f *choiceFlag) Set(text string) error {
	if !slices.Contains(f.among, text) {
		return &usageError{reason: "want " + strings.Join(f.among, " or ")}
	}
	f.value = text
	return nil
}

// String implements [pflag.Value].
func (f *choiceFlag) String() string { return f.value }

// Type implements [pflag.Value].
func (f *choiceFlag) Type() string { return "string" }

// levelFlag is a level of the log.
type levelFlag slog.Level

// Set implements [pflag.Value].
func (f *levelFlag) Set(text string) error {
	level, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[text]
	if !ok {
		return &usageError{reason: "want debug, info, warn or error"}
	}
	*f = levelFlag(level)
	return nil
}

// String implements [pflag.Value].
func (f *levelFlag) String() string { return strings.ToLower(slog.Level(*f).String()) }

// Type implements [pflag.Value].
func (f *levelFlag) Type() string { return "string" }

// flagError says what is wrong with a flag, without its value: it may be a
// secret.
func flagError(c *cobra.Command, err error) error {
	next := "run: " + c.CommandPath() + " --help"
	var (
		none    *pflag.NotExistError
		invalid *pflag.InvalidValueError
		valued  *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &none):
		word := none.GetSpecifiedName()
		switch strings.ToLower(word) {
		case "token", "password", "api-key":
			return &usageError{reason: "unknown flag --" + strings.ToLower(word) + "; a secret is never taken from the command line, where others can see it", next: next}
		}
		if none.GetSpecifiedShortnames() != "" || len(word) > 16 || printable(word) != word {
			return &usageError{reason: "unknown flag", next: next}
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		reason := "unknown flag --" + word
		if meant := spell.Nearest(word, names); meant != "" {
			reason += "; did you mean --" + meant + "?"
		}
		return &usageError{reason: reason, next: next}
	case errors.As(err, &invalid):
		reason := "want a " + invalid.GetFlag().Value.Type()
		switch invalid.GetFlag().Value.Type() {
		case "int":
			reason = "want a whole number"
		case "duration":
			reason = "want a time, such as 30s or 1h"
		}
		if wrong := (*usageError)(nil); errors.As(invalid.Unwrap(), &wrong) {
			reason = wrong.reason
		}
		return &usageError{reason: "--" + invalid.GetFlag().Name + ": " + reason, next: next}
	case errors.As(err, &valued):
		return &usageError{reason: "--" + valued.GetFlag().Name + ": needs a value", next: next}
	}
	return &usageError{reason: "the flags cannot be read", next: next}
}

// noEmptyFlags refuses a flag that was given nothing, as from a variable that is
// not set: its default could be another database.
func noEmptyFlags(c *cobra.Command, _ []string) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" && f.Name != "listen" {
			err = &usageError{reason: "--" + f.Name + ": must not be empty", next: "run: " + c.CommandPath() + " --help"}
		}
	})
	return err
}

// noArguments refuses what is no flag. It is not shown: it may be a secret.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	reason := c.Name() + " takes no arguments (the extra one is not shown)"
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	if meant := spell.Nearest(args[0], names); meant != "" {
		reason += "; did you mean " + meant + "?"
	}
	return &usageError{reason: reason, next: "run: " + c.CommandPath() + " --help"}
}

// retentionOf is what the history keeps at a time.
func retentionOf(f durationFlag, now time.Time) store.Retention {
	return store.Retention{PerJob: eventsPerJob, Before: now.Add(-time.Duration(f))}
}
