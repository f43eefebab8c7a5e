package rotator

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/keywright/keywright/jobs"
	"github.com/keywright/keywright/rotation/jobfile"
)

// reload reads the file of the jobs again; if not asked, only if it has changed.
// If it is wrong, the jobs stay as they are.
func (d *daemon) reload(ctx context.Context, asked bool) {
	if !asked && fingerprint(d.flags.config) == d.seen {
		return
	}
	f, seen, err := load(d.flags.config)
	if err == nil {
		err = d.unchangeable(ctx, f)
	}
	if err != nil {
		d.seen = seen
		logProblems(ctx, d.log, slog.LevelError, "the file of the jobs is not taken over; the jobs stay as they are", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := slices.Collect(jobs.FromFile(f))
	if err := d.runner.Reload(ctx, slices.Values(all)); err != nil && !ofJobs(err) {
		// What was seen stays, so that it is tried again if it is looked at.
		d.log.LogAttrs(ctx, slog.LevelError, "the file of the jobs could not be taken over", slog.Any("error", err))
		return
	}
	d.file, d.seen = f, seen
	d.log.LogAttrs(ctx, slog.LevelInfo, "the file of the jobs was read again", slog.Int("jobs", len(all)))
	d.tellBlocked(ctx)
}

// unchangeable refuses what a daemon cannot change while it runs.
func (d *daemon) unchangeable(ctx context.Context, f *jobfile.File) error {
	const next = "restart " + name + " to change it"
	if f.JournalDir() != d.file.JournalDir() {
		return &usageError{reason: "journal has changed", next: next}
	}
	if old, now := d.file.SealKey, f.SealKey; (old == nil) != (now == nil) || old != nil && *old != *now {
		return &usageError{reason: "seal_key has changed", next: next}
	}
	return checkLeft(ctx, f, &d.flags.sourceFlags, d.database, d.store)
}
