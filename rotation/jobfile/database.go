package jobfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keywright/keywright/rotation"
)

// DatabaseName is the name of the database that keywright-rotator makes beside a
// job file, unless it is told of another.
const DatabaseName = "keywright.db"

// database is what a file's journal says if it is in a database. A directory of
// that name is written ./database.
const database = "database"

// InDatabase reports whether the file says that the journal is in the database
// that keywright-rotator works.
func (f *File) InDatabase() bool { return f.Journal == database }

// DatabaseError says that a file's journal is in a database, so that there must
// be none in a directory: of two journals of a key, one could retire the token
// that the other has delivered. It matches [rotation.ErrRefused].
type DatabaseError struct {
	Path     string // of the job file
	Database string // the path of a database beside it; empty: the file says so
	Message  string // what is wrong
	Instead  string // what to do instead
}

// Error returns one line: what is wrong and what to do instead.
func (e *DatabaseError) Error() string { return e.Path + ": " + e.Message + "; " + e.Instead }

// Is matches [rotation.ErrRefused].
func (e *DatabaseError) Is(target error) bool { return target == rotation.ErrRefused }

// checkDatabase returns an error if the journal is in a database, or may be.
func (f *File) checkDatabase() error {
	if f.InDatabase() {
		return &DatabaseError{
			Path:    f.Path,
			Message: "its journal is in a database; keywright-rotator works it",
			Instead: "leave its jobs to keywright-rotator, or, if you mean a directory of that name, write journal: ./" + database,
		}
	}
	for _, dir := range f.dirs() {
		path := filepath.Join(dir, DatabaseName)
		switch _, err := os.Lstat(path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("jobfile: %w", err)
		default:
			return &DatabaseError{
				Path: f.Path, Database: path,
				Message: path + " is the journal of keywright-rotator; with a second journal, a token that is in use could be retired",
				Instead: "leave the jobs to keywright-rotator, or, if it has stopped for good with no rotation under way, move that file elsewhere",
			}
		}
	}
	return nil
}

// dirs returns the directories that a database may be beside the file in: that
// of its path, and if that is a symbolic link, that of the file.
func (f *File) dirs() []string {
	dirs := []string{f.dir}
	if real, err := filepath.EvalSymlinks(filepath.Join(f.dir, filepath.Base(f.Path))); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	return dirs
}
