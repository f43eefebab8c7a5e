package rotator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// defaultJournal is where a file has its journal that says nothing of one.
const defaultJournal = ".keywright"

// checkJournal refuses a database that "keywright rotate run" would not know of:
// it would begin a second journal for the same keys.
func checkJournal(f *jobfile.File, d database) error {
	if f.InDatabase() || d.beside {
		return nil
	}
	return &usageError{
		reason: fmt.Sprintf("%s does not say that the journal is in a database, so that keywright rotate run would begin a second journal for the same keys, and retire tokens that are in use", f.Path),
		next:   "write journal: database into " + f.Path,
	}
}

// checkLeft refuses jobs whose journal is still elsewhere, in a directory or in
// the SQLite file beside that of the jobs, while the database has none; st is nil
// if there is no database yet.
func checkLeft(ctx context.Context, f *jobfile.File, flags *sourceFlags, d database, st *store.Store) error {
	dir := f.JournalDir()
	if dir == "" {
		dir = filepath.Join(dirOf(f), defaultJournal) // where it was before
	}
	if left, err := leftInDir(ctx, f, dir, st); err != nil || len(left) > 0 {
		return leftError(err, left, dir, flags)
	}
	file := filepath.Join(dirOf(f), jobfile.DatabaseName)
	if d.path == file {
		return nil
	}
	left, err := leftInFile(ctx, f, file, st)
	return leftError(err, left, file, flags)
}

// leftError says where a journal is that is to be moved.
func leftError(err error, left []string, from string, flags *sourceFlags) error {
	switch {
	case err != nil:
		return fmt.Errorf("whether a journal is in %s: %w", from, err)
	case len(left) == 0:
		return nil
	}
	return &usageError{
		reason: fmt.Sprintf("the journal of %s is in %s, and not in the database", listOf(left), from),
		next:   "stop what uses that journal, and run: " + moveLine(flags, from),
	}
}

// leftInDir returns the jobs that have a journal in a directory and none in the
// database.
func leftInDir(ctx context.Context, f *jobfile.File, dir string, st *store.Store) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	return leftIn(ctx, f, rotation.NewDirJournal(dir), func(job string) bool { return there[job] }, st)
}

// leftInFile does so for a SQLite file that the journals are not moved from.
func leftInFile(ctx context.Context, f *jobfile.File, path string, st *store.Store) ([]string, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	old, err := store.OpenSQLite(ctx, path)
	if errors.Is(err, store.ErrMoved) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	left, err := leftIn(ctx, f, old.Journal(name), func(string) bool { return true }, st)
	return left, errors.Join(err, old.Close())
}

// leftIn returns the jobs that have a record in a journal and none in the
// database. One that cannot be read is one.
func leftIn(ctx context.Context, f *jobfile.File, old rotation.Journal, may func(job string) bool, st *store.Store) (left []string, err error) {
	for i := range f.Jobs {
		job := f.Jobs[i].Name
		if !may(job) {
			continue
		}
		if record, err := old.Peek(ctx, job); err == nil && record == nil {
			continue
		}
		if st != nil {
			record, err := st.Journal(name).Peek(ctx, job)
			if err != nil && !errors.Is(err, rotation.ErrJournal) {
				return nil, err
			}
			if record != nil || err != nil {
				continue
			}
		}
		left = append(left, job)
	}
	return left, nil
}

// listOf names some of many.
func listOf(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// moveLine is the command that moves a journal. It has no password.
func moveLine(f *sourceFlags, from string) string {
	words := []string{name, "move", "--config", quoted(f.config)}
	if f.database != "" {
		words = append(words, "--database", quoted(f.database))
	}
	if f.databaseFile != "" {
		words = append(words, "--database-file", quoted(f.databaseFile))
	}
	return strings.Join(append(words, "--from", quoted(from)), " ")
}

// quoted makes a word for a shell.
func quoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@=,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
