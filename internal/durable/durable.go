// Package durable replaces files so that whoever reads them, after a crash
// too, finds the old content or the new one and nothing else.
//
// All of it goes through [FS], so that tests can cut the power between any two
// operations.
package durable

import (
	"context"
	"io"
	"io/fs"
)

// FS is what of a file system is needed here. Names are paths as the operating
// system takes them. No method follows a symbolic link in the last element of
// a name, except where that is said.
type FS interface {
	// Create makes a file that must not exist, with mode 0600, for reading and
	// writing.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenWrite opens an existing file for reading and writing.
	OpenWrite(name string) (File, error)
	// Lstat describes a name.
	Lstat(name string) (fs.FileInfo, error)
	// Readlink returns what a symbolic link points to.
	Readlink(name string) (string, error)
	// Mkdir makes a directory with mode 0700. It is no error if there is one.
	Mkdir(name string) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Rename replaces newName by oldName.
	Rename(oldName, newName string) error
	// Link makes newName another name of oldName. newName must not exist.
	Link(oldName, newName string) error
	// Remove removes a file.
	Remove(name string) error
	// SyncDir makes what has happened in a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a lock file, which it makes if there is
	// none, and keeps it until unlock is called or the process dies. Without
	// wait it returns ErrLocked at once if somebody has it.
	Lock(ctx context.Context, name string, wait bool) (unlock func() error, err error)
}

// File is an open file.
type File interface {
	io.Reader
	io.Writer
	// Sync makes the content durable.
	Sync() error
	// Chmod changes the mode, whatever the umask.
	Chmod(mode fs.FileMode) error
	Stat() (fs.FileInfo, error)
	Close() error
}

type contextKey struct{}

// NewContext returns a context in which [FromContext] finds fsys.
func NewContext(ctx context.Context, fsys FS) context.Context {
	return context.WithValue(ctx, contextKey{}, fsys)
}

// FromContext returns the file system of a context: the operating system's
// unless a test has chosen another.
func FromContext(ctx context.Context) FS {
	if fsys, ok := ctx.Value(contextKey{}).(FS); ok {
		return fsys
	}
	return OS{}
}
