package rotator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// databaseVariable is the environment variable with the database.
const databaseVariable = "KEYWRIGHT_DATABASE"

// database is where the journal is. It shows neither where nor a password.
type database struct {
	path       string // of a SQLite file, absolute; empty: PostgreSQL
	connection string // of PostgreSQL
	beside     bool   // it is the file that is beside that of the jobs
}

// Kind names the kind of database.
func (d database) kind() string {
	if d.path != "" {
		return "sqlite"
	}
	return "postgres"
}

// open opens the database. Errors name its file.
func (d database) open(ctx context.Context, opts ...store.Option) (st *store.Store, err error) {
	if d.path == "" {
		st, err = store.OpenPostgres(ctx, d.connection, opts...)
	} else if st, err = store.OpenSQLite(ctx, d.path, opts...); err != nil && !strings.Contains(err.Error(), d.path) {
		err = fmt.Errorf("%s: %w", d.path, err)
	}
	switch {
	case d.path != "" && errors.Is(err, rotation.ErrJournal):
		err = &usageError{
			reason: err.Error(),
			next:   "the directory of the database must be yours alone: chmod go-rwx " + quoted(filepath.Dir(d.path)) + ", or put it elsewhere: --database FILE",
		}
	case errors.Is(err, store.ErrMoved):
		err = &coded{&usageError{reason: err.Error(), next: "name the one that they are in: --database DATABASE or --database-file FILE"}, exitFailed}
	}
	return st, err
}

// there reports whether there is a database; PostgreSQL is, or says so itself.
func (d database) there() bool {
	return d.path == "" || isThere(d.path)
}

// isThere reports whether there is something at a path, be it of no use.
func isThere(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// databaseOf returns the database that the flags and the environment name.
func (a *app) databaseOf(f *sourceFlags) (database, error) {
	config, err := filepath.Abs(f.config)
	if err != nil {
		return database{}, fmt.Errorf("%s: %w", f.config, err)
	}
	beside := filepath.Join(filepath.Dir(config), jobfile.DatabaseName)
	text, from := f.database, "--database"
	switch {
	case f.database != "" && f.databaseFile != "":
		return database{}, &usageError{reason: "--database and --database-file exclude each other"}
	case passwords.MatchString(f.database):
		return database{}, &usageError{
			reason: "--database holds a password, and others can see the command line",
			next:   "put it into a file for --database-file, or into " + databaseVariable + ", PGPASSWORD or the file that PGPASSFILE names",
		}
	case f.databaseFile != "":
		return secretDatabase(f.databaseFile, "--database-file")
	case f.database == "":
		if text, from = strings.TrimSpace(a.env(databaseVariable)), databaseVariable; text == "" {
			return database{path: beside, beside: true}, nil
		}
	}
	d, err := parseDatabase(text, from)
	d.beside = d.path == beside
	return d, err
}

// secretDatabase returns the database that a file with a secret names. It is no
// path: a secret that is there by mistake would be the name of a file.
func secretDatabase(path, from string) (database, error) {
	text, err := readSecret(path, from)
	if err == nil && !postgres.MatchString(text) {
		err = &usageError{reason: from + ": want postgres://user:password@host:port/database in " + path}
	}
	return database{connection: text}, err
}

// parseDatabase reads what names a database. Errors do not repeat it.
func parseDatabase(text, from string) (database, error) {
	switch {
	case postgres.MatchString(text):
		return database{connection: text}, nil
	case strings.Contains(text, "://"), mistyped.MatchString(text), strings.ContainsAny(text, "\n\r\x00"):
		return database{}, &usageError{reason: from + ": want the path of a SQLite file, or postgres://user@host:port/database"}
	}
	path, err := filepath.Abs(text)
	if err != nil {
		return database{}, fmt.Errorf("%s: %w", from, err)
	}
	return database{path: path}, nil
}

var (
	// postgres is how a connection string of PostgreSQL begins: as a URL, or
	// with a word and its value.
	postgres = regexp.MustCompile(`^(postgres(ql)?://|[a-z_]+\s*=)`)
	// mistyped is what was to begin so.
	mistyped = regexp.MustCompile(`(?i)^postgres(ql)?(:|//)`)
	// passwords is what a connection string with a password has.
	passwords = regexp.MustCompile(`(?i)://[^/@?]*:[^/@?]*@|(^|[\s?&])(ssl)?password\s*=`)
)

// readSecret returns the text of a file that holds a secret, without the space
// around it.
func readSecret(path, from string) (string, error) {
	const most = 64 << 10
	fail := func(reason string) (string, error) {
		return "", &usageError{reason: fmt.Sprintf("%s: %s %s", from, path, reason)}
	}
	info, err := os.Stat(path) // a pipe could keep us from opening it
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("is not there")
	case err != nil:
		return fail("cannot be looked at: " + reasonOf(err))
	case !info.Mode().IsRegular():
		return fail("is not a regular file")
	case info.Mode().Perm()&0o007 != 0 && runtime.GOOS != "windows":
		return fail("lets everybody in; run: chmod o-rwx " + quoted(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail("cannot be opened: " + reasonOf(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return fail("cannot be read: " + reasonOf(err))
	}
	text := strings.TrimSpace(string(b))
	if text == "" || len(b) > most {
		return fail("is empty, or far too long")
	}
	return text, nil
}

// reasonOf returns why a file could not be used, without its path.
func reasonOf(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}
