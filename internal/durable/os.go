package durable

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// ErrLocked is returned for a lock that somebody else holds.
var ErrLocked = errors.New("durable: somebody else holds the lock")

// lockPoll is how often a lock that is waited for is tried.
const lockPoll = 10 * time.Millisecond

// OS is the file system of the operating system.
type OS struct{}

// Create implements [FS].
func (OS) Create(name string) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// Open implements [FS].
func (OS) Open(name string) (File, error) { return open(name, os.O_RDONLY) }

// OpenWrite implements [FS].
func (OS) OpenWrite(name string) (File, error) { return open(name, os.O_RDWR) }

// open follows no link, and does not wait for the other end of a pipe.
func open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag|noFollow, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil File
	}
	return f, nil
}

// Lstat implements [FS].
func (OS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

// Readlink implements [FS].
func (OS) Readlink(name string) (string, error) { return os.Readlink(name) }

// Mkdir implements [FS].
func (OS) Mkdir(name string) error {
	err := os.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, statErr := os.Lstat(name); statErr == nil && info.IsDir() {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return os.Chmod(name, 0o700) // the umask may have taken our own permission
}

// ReadDir implements [FS].
func (OS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Rename implements [FS].
func (OS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

// Link implements [FS].
func (OS) Link(oldName, newName string) error { return os.Link(oldName, newName) }

// Remove implements [FS].
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements [FS].
func (OS) SyncDir(name string) error { return syncDir(name) }

// Lock implements [FS]. The lock belongs to one opening of the file, so that
// it keeps out the goroutines of this process too. The file stays behind: to
// remove it would let two in at once.
func (OS) Lock(ctx context.Context, name string, wait bool) (unlock func() error, err error) {
	for {
		if err := makeLockFile(name); err != nil {
			return nil, err
		}
		l := flock.New(name, flock.SetFlag(os.O_RDWR|noFollow))
		ok := false
		if wait {
			ok, err = l.TryLockContext(ctx, lockPoll)
		} else if err = ctx.Err(); err == nil {
			ok, err = l.TryLock()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed since makeLockFile
		case err != nil:
			return nil, err
		case !ok:
			return nil, ErrLocked
		}
		// A lock on a file that was removed meanwhile keeps nobody out.
		locked, err := l.Stat()
		if err == nil {
			var named fs.FileInfo
			if named, err = os.Lstat(name); err == nil && os.SameFile(locked, named) {
				return sync.OnceValue(l.Unlock), nil
			}
		}
		if unlockErr := l.Unlock(); unlockErr != nil {
			return nil, unlockErr
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// makeLockFile makes sure that there is a lock file which is a regular file.
func makeLockFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err == nil {
		return errors.Join(f.Chmod(0o600), f.Close())
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed just now; the caller tries again
	}
	if err != nil {
		return err
	}
	if reason := fileProblem(info); reason != "" {
		return &Error{Op: "lock", Path: name, Reason: reason, Err: ErrRefused}
	}
	return nil
}
