package rotator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// dirSealName is the file of the sealing key in a journal's directory.
const dirSealName = "sealing.key"

// moveFlags are those of move.
type moveFlags struct {
	sourceFlags
	from     string
	fromFile string
}

func (a *app) moveCommand() *cobra.Command {
	var f moveFlags
	c := &cobra.Command{
		Use:   "move",
		Short: "Move journals from a directory or another database to the one that is worked from now on",
		Long: `move brings the journals of jobs to the database that the daemon works with the
same flags: from the directory of keywright rotate run, from a SQLite file, or
from PostgreSQL. Stop what uses them before.

What is under way goes on afterwards where it was. Tokens stay sealed: the same
sealing key is needed, and if it was a file beside the journal, and seal_key
names a file that is not there, it is copied to that. The source cannot be used
any more: a directory gets another name, a database is marked. A move that was
interrupted is finished by running it again.`,
		Example: `keywright-rotator move --config keywright.yaml --from .keywright
keywright-rotator move --config keywright.yaml --database postgres://rotator@db/keywright --from keywright.db`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.move(c.Context(), &f) },
	}
	f.add(c.Flags())
	c.Flags().StringVar(&f.from, "from", "", "move from `PLACE`: a directory, a SQLite file, or\npostgres://USER@HOST/NAME without a password")
	c.Flags().StringVar(&f.fromFile, "from-file", "", "move from the postgres://USER:PASSWORD@HOST/NAME in `FILE`")
	return c
}

// place is where journals are moved from: a directory or a database.
type place struct {
	dir string
	database
}

// placeOf returns the place that the flags name.
func (f *moveFlags) place() (place, error) {
	switch {
	case (f.from == "") == (f.fromFile == ""):
		return place{}, &usageError{reason: "want one of --from and --from-file"}
	case passwords.MatchString(f.from):
		return place{}, &usageError{reason: "--from holds a password, and others can see the command line", next: "put it into a file for --from-file, or into PGPASSWORD"}
	case f.fromFile != "":
		d, err := secretDatabase(f.fromFile, "--from-file")
		return place{database: d}, err
	}
	d, err := parseDatabase(f.from, "--from")
	if err != nil || d.path == "" {
		return place{database: d}, err
	}
	info, err := os.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return place{}, &usageError{reason: "--from: " + d.path + " is not there"}
	case err != nil:
		return place{}, fmt.Errorf("--from: %w", err)
	case info.IsDir():
		return place{dir: d.path}, nil
	case !isSQLite(d.path):
		return place{}, &usageError{reason: "--from: " + d.path + " is neither a directory nor a SQLite database"}
	}
	return place{database: d}, nil
}

// isSQLite reports whether a file begins as SQLite's do. One that cannot be read
// may be one.
func isSQLite(path string) bool {
	const magic = "SQLite format 3\x00"
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	b := make([]byte, len(magic))
	_, err = io.ReadFull(f, b)
	return err == nil && string(b) == magic
}

// sealFile is where the place has a sealing key of its own; empty: nowhere.
func (p place) sealFile() string {
	path := ""
	switch {
	case p.dir != "":
		path = filepath.Join(p.dir, dirSealName)
	case p.path != "":
		path = filepath.Join(filepath.Dir(p.path), sealName)
	}
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}

func (a *app) move(ctx context.Context, f *moveFlags) (err error) {
	ctx, end := a.untilStopped(ctx)
	defer end()
	file, _, err := load(f.config)
	if err != nil {
		return err
	}
	d, err := a.databaseOf(&f.sourceFlags)
	if err != nil {
		return err
	}
	if err := checkJournal(file, d); err != nil {
		return err
	}
	from, err := f.place()
	if err != nil {
		return err
	}
	copied, err := sameKey(ctx, file, d, from.sealFile())
	if err != nil {
		return err
	}
	to, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	moved, err := from.move(ctx, to)
	if err != nil {
		return moveError(err)
	}
	a.tellMoved(&moved, copied, &f.sourceFlags)
	return nil
}

// move moves what is in the place.
func (p place) move(ctx context.Context, to *store.Store) (store.Moved, error) {
	if p.dir != "" {
		return to.MoveFromDir(ctx, p.dir)
	}
	from, err := p.open(ctx)
	if err != nil {
		return store.Moved{}, err
	}
	moved, err := to.MoveFrom(ctx, from)
	return moved, errors.Join(err, from.Close())
}

// sameKey makes sure that what was sealed with the key in the file old can be
// opened afterwards. If the key is to be in a file that is not there, it is
// copied, and copied is where.
func sameKey(ctx context.Context, f *jobfile.File, d database, old string) (copied string, err error) {
	path := sealFile(f, d)
	if old == "" || old == path {
		_, err := sealerOf(f, d)
		return "", err
	}
	if path != "" {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := copyKey(ctx, old, path); err != nil {
				return "", err
			}
			copied = path
		}
	}
	sealer, err := sealerOf(f, d)
	if err != nil {
		return "", fmt.Errorf("%w (the sealing key so far is %s)", err, old)
	}
	text := []byte("the same key")
	sealed, err := rotation.SealKeyFile(old).Seal(ctx, text, name)
	if err != nil {
		return "", err
	}
	if opened, err := sealer.Open(ctx, sealed, name); err != nil || !bytes.Equal(opened, text) {
		return "", &usageError{
			reason: "the sealing key so far, " + old + ", is not the one from now on: tokens that are under way could not be opened",
			next:   "name that file, or a copy of it, as seal_key in " + f.Path + ", or remove the other key if it has sealed nothing",
		}
	}
	return copied, nil
}

// copyKey copies a key to a file that is not there.
func copyKey(ctx context.Context, from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil { // the whole key, or none
		err = durable.Replace(ctx, durable.OS{}, to, b, durable.Options{})
	}
	if err != nil {
		return fmt.Errorf("the sealing key: %w", err)
	}
	return nil
}

// moveError says what to do about an error of a move.
func moveError(err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return &coded{fmt.Errorf("%w; stop it, and run this again", err), exitFailed}
	case errors.Is(err, rotation.ErrBusy):
		return &coded{fmt.Errorf("%w; wait for it or stop it, and run this again", err), exitFailed}
	}
	return err
}

// tellMoved says what was moved, and what to do next.
func (a *app) tellMoved(m *store.Moved, copied string, f *sourceFlags) {
	jobs := "no journal"
	switch n := len(m.Jobs); {
	case n == 1:
		jobs = "the journal of " + m.Jobs[0]
	case n > 1:
		jobs = fmt.Sprintf("%d journals: %s", n, listOf(m.Jobs))
	}
	fmt.Fprintln(a.out, "moved", jobs)
	fmt.Fprintf(a.out, "with %d lines of audit trails, %d of the schedule, %d runs and %d events\n", m.AuditLines, m.Schedules, m.Runs, m.Events)
	if len(m.Before) > 0 {
		fmt.Fprintf(a.out, "%d of them were there already, from a move that was interrupted\n", len(m.Before))
	}
	if len(m.Unproven) > 0 {
		fmt.Fprintf(a.out, "the audit trail of %s has lines that were changed, or are missing; it was moved as it is\n", strings.Join(m.Unproven, ", "))
	}
	if m.Source != "" {
		fmt.Fprintln(a.out, "the directory is now", m.Source)
	}
	if copied != "" {
		fmt.Fprintln(a.out, "the sealing key was copied to", copied)
	}
	words := []string{name, "--config", quoted(f.config)}
	if f.database != "" {
		words = append(words, "--database", quoted(f.database))
	}
	if f.databaseFile != "" {
		words = append(words, "--database-file", quoted(f.databaseFile))
	}
	fmt.Fprintln(a.out, "next:", strings.Join(words, " "))
}
