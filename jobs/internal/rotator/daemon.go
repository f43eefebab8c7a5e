package rotator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/jobs/metrics"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation/jobfile"
)

// daemon is the daemon as it runs.
type daemon struct {
	flags    *daemonFlags
	log      *slog.Logger
	database database
	store    *store.Store
	runner   *jobs.Runner
	server   *server // nil: it serves nothing

	file *jobfile.File // that is in force
	seen [sha256.Size]byte

	started, stopping atomic.Bool
}

// daemon runs until it is told to stop.
func (a *app) daemon(ctx context.Context, f *daemonFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	log := newLog(a.err, f.logFormat.value, slog.Level(f.logLevel))
	stop, hard, hangup, end := a.watch(ctx, log)
	defer end()
	d := &daemon{flags: f, log: log}
	err := d.open(stop, a)
	if err == nil {
		err = d.run(stop, hard, hangup)
	}
	if err = d.close(err); err == nil {
		log.LogAttrs(ctx, slog.LevelInfo, "stopped")
		return nil
	}
	if errors.Is(err, context.Canceled) && stop.Err() != nil && codeOf(err) == exitFailed {
		log.LogAttrs(ctx, slog.LevelInfo, "stopped before it had started")
		return nil
	}
	logProblems(ctx, log, slog.LevelError, name+" has ended", err)
	return &loggedError{err}
}

// watch makes the contexts that end at the first signal to stop, and at the
// second. At the third the process ends.
func (a *app) watch(ctx context.Context, log *slog.Logger) (stop, hard context.Context, hangup <-chan struct{}, end func()) {
	hard, abandon := context.WithCancel(ctx)
	stop, interrupt := context.WithCancel(hard)
	hup, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		for n := 0; ; {
			var sig os.Signal
			select {
			case sig = <-a.signals:
			case <-ended:
				return
			}
			if sig == syscall.SIGHUP {
				select {
				case hup <- struct{}{}:
				default: // one waits
				}
				continue
			}
			n++
			switch n {
			case 1:
				log.LogAttrs(ctx, slog.LevelInfo, "stopping; a second signal cancels what runs", slog.String("signal", sig.String()))
				interrupt()
			case 2:
				log.LogAttrs(ctx, slog.LevelWarn, "cancelling what runs", slog.String("signal", sig.String()))
				abandon()
			default:
				log.LogAttrs(ctx, slog.LevelError, "gave up at once; what was under way may have taken effect, and goes on at the next start")
				a.exit(exitInterrupted)
			}
		}
	}()
	return stop, hard, hup, func() { close(ended); abandon() }
}

// untilStopped makes a context that ends at the first signal to stop.
func (a *app) untilStopped(ctx context.Context) (stop context.Context, end func()) {
	stop, _, _, end = a.watch(ctx, newLog(a.err, "text", 0))
	return stop, end
}

// open gets everything ready that can be wrong.
func (d *daemon) open(ctx context.Context, a *app) error {
	f := d.flags
	var err error
	if d.file, d.seen, err = load(f.config); err != nil {
		return err
	}
	if d.database, err = a.databaseOf(&f.sourceFlags); err != nil {
		return err
	}
	if err := checkJournal(d.file, d.database); err != nil {
		return err
	}
	sealer, err := sealerOf(d.file, d.database)
	if err != nil {
		return err
	}
	door, err := doorOf(f.listen, f.tokenFile)
	if err != nil {
		return err
	}
	if !d.database.there() { // it would be made, and left behind
		if err := checkLeft(ctx, d.file, &f.sourceFlags, d.database, nil); err != nil {
			return err
		}
	}
	if d.store, err = d.database.open(ctx, store.WithLogger(d.log)); err != nil {
		return err
	}
	if err := checkLeft(ctx, d.file, &f.sourceFlags, d.database, d.store); err != nil {
		return err
	}
	if err := checkKey(ctx, d.file, d.database, d.store); err != nil {
		return err
	}
	// The key is made, or found to be no key, before it is needed.
	if _, err := sealer.Seal(ctx, []byte("start"), name); err != nil {
		return err
	}
	runs := metrics.NewRuns()
	opts := []jobs.Option{
		jobs.WithSealer(sealer), jobs.WithLogger(d.log), jobs.WithResults(runs.Observe),
		jobs.WithConcurrency(f.concurrency), jobs.WithSweep(f.sweep), jobs.WithGrace(f.grace),
	}
	if f.workerID != "" {
		opts = append(opts, jobs.WithWorkerID(f.workerID))
	}
	for provider, limit := range f.limits() {
		opts = append(opts, jobs.WithLimit(provider, limit))
	}
	if d.runner, err = jobs.New(d.store, opts...); err != nil {
		return err
	}
	if door.address == "" {
		return nil
	}
	keys := metrics.NewKeys(d.runner, keywright.Version, metrics.WithLogger(d.log))
	d.server, err = d.listen(door, []prometheus.Collector{runs, keys})
	return err
}

// run works until it is told to stop.
func (d *daemon) run(stop, hard context.Context, hangup <-chan struct{}) error {
	all := slices.Collect(jobs.FromFile(d.file))
	listen := "off"
	if d.server != nil {
		listen = d.server.address()
	}
	d.log.LogAttrs(stop, slog.LevelInfo, "starting", slog.String("version", keywright.Version), slog.String("database", d.database.kind()),
		slog.String("worker", d.runner.WorkerID()), slog.Int("jobs", len(all)), slog.String("listen", listen))
	// What is wrong with a job is told below, with what is wrong with the others.
	if err := d.runner.Register(stop, all...); err != nil && !ofJobs(err) {
		return err
	}
	var served <-chan error
	if d.server != nil {
		served = d.server.serve()
	}
	if err := d.runner.Start(stop); err != nil {
		return startError(err, d.database)
	}
	d.started.Store(true)
	// Jobs that the file had before are forgotten.
	if err := d.runner.Reload(stop, slices.Values(all)); err != nil && !ofJobs(err) {
		d.log.LogAttrs(stop, slog.LevelWarn, "jobs that are gone from the file may still be shown", slog.Any("error", err))
	}
	d.tellBlocked(stop)
	failed := d.serveSignals(stop, hangup, served)
	d.stopping.Store(true) // not ready any more
	if err := d.runner.Stop(hard); err != nil {
		failed = errors.Join(&coded{err, exitUnknown}, failed)
	}
	return failed
}

// serveSignals reads the file again when it is told to, and prunes the history,
// until stop ends.
func (d *daemon) serveSignals(stop context.Context, hangup <-chan struct{}, served <-chan error) error {
	prune := time.NewTimer(0)
	defer prune.Stop()
	var look <-chan time.Time
	if d.flags.reload > 0 {
		t := time.NewTicker(d.flags.reload)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case <-stop.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("the page cannot be served any more: %w", err)
		case <-hangup:
			d.reload(stop, true)
		case <-look:
			d.reload(stop, false)
		case <-prune.C:
			d.prune(stop)
			prune.Reset(24 * time.Hour)
		}
	}
}

// prune forgets what of the history is too old.
func (d *daemon) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	removed, err := d.store.Prune(ctx, retentionOf(d.flags.retention, time.Now()))
	if err != nil && ctx.Err() == nil {
		d.log.LogAttrs(ctx, slog.LevelWarn, "the history could not be pruned", slog.Any("error", err))
	} else if removed > 0 {
		d.log.LogAttrs(ctx, slog.LevelInfo, "history pruned", slog.Int64("removed", removed))
	}
}

// tellBlocked logs which jobs this worker does not run, and why.
func (d *daemon) tellBlocked(ctx context.Context) {
	all, err := d.runner.Snapshot(ctx)
	if err != nil {
		return // the runner will say so
	}
	others := 0
	for _, s := range all {
		switch {
		case s.Blocked == "":
		case s.Owner != "" && s.Owner != d.runner.WorkerID():
			others++
		default:
			d.log.LogAttrs(ctx, slog.LevelWarn, "the job cannot be run here", slog.String("job", s.Job), slog.String("reason", s.Blocked))
		}
	}
	if others > 0 {
		d.log.LogAttrs(ctx, slog.LevelInfo, "other workers own jobs", slog.Int("jobs", others))
	}
}

// close gives up what open has taken.
func (d *daemon) close(err error) error {
	if d.server != nil {
		err = errors.Join(err, d.server.close())
	}
	if d.store != nil {
		err = errors.Join(err, within(leastClose, d.store.Close))
	}
	return err
}

// leastClose is how long a database has to be closed.
const leastClose = 10 * time.Second

// within does not wait for longer than d: connections to a database that does
// not answer are never given back.
func within(d time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(d):
		return &coded{errors.New("the database does not answer, and was not closed"), exitUnknown}
	}
}

// load reads the file of the jobs, and returns what it was read from.
func load(path string) (*jobfile.File, [sha256.Size]byte, error) {
	seen := fingerprint(path)
	f, err := jobfile.Load(path, jobs.FileOptions()...)
	if wrong := (*jobfile.Error)(nil); err != nil && !errors.As(err, &wrong) {
		err = &usageError{reason: oneLine(err), next: "put the file of the jobs there, or name another: --config FILE"}
	}
	return f, seen, err
}

// fingerprint tells whether a file has changed. A file that cannot be read is as
// good as an empty one: it will be found out when it is loaded.
func fingerprint(path string) [sha256.Size]byte {
	info, err := os.Stat(path) // a pipe could keep us from opening it
	if err != nil || !info.Mode().IsRegular() {
		return [sha256.Size]byte{}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(bytes.TrimSpace(b))
}

// startError says what to do about an error of Start.
func startError(err error, d database) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return &coded{&usageError{
			reason: "another " + name + " works " + d.path,
			next:   "stop that one; several workers need PostgreSQL",
		}, exitFailed}
	case errors.Is(err, jobs.ErrWorkerID):
		return &coded{&usageError{reason: err.Error(), next: "give each worker an id of its own: --worker-id"}, exitFailed}
	}
	return err
}

// ofJobs reports whether an error is about jobs alone that cannot be run.
func ofJobs(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all := many.Unwrap()
		return slices.Contains(all, jobs.ErrJob) || !slices.ContainsFunc(all, func(e error) bool { return !ofJobs(e) })
	}
	return errors.Is(err, jobs.ErrJob) || errors.Is(err, jobs.ErrOwner)
}

// logProblems logs an error: a file's with each of its problems.
func logProblems(ctx context.Context, log *slog.Logger, level slog.Level, message string, err error) {
	if file := (*jobfile.Error)(nil); errors.As(err, &file) {
		for _, p := range file.Problems {
			log.LogAttrs(ctx, level, message, slog.String("file", file.Path), slog.Int("line", p.Line), slog.String("where", p.Where), slog.String("error", p.Reason))
		}
		return
	}
	attrs := []slog.Attr{slog.String("error", oneLine(err))}
	if next := nextOf(err); next != "" {
		attrs = append(attrs, slog.String("do", next))
	}
	log.LogAttrs(ctx, level, message, attrs...)
}
