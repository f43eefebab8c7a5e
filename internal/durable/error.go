package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrRefused is the cause of an [Error] for a file or directory that is not
// safe to write to, or is not what it should be.
var ErrRefused = errors.New("durable: refused")

// Error is what failed with a file. Its text holds nothing of a content.
type Error struct {
	// Op is "replace", "read", "check", "sweep" or "lock".
	Op string
	// Path is the file or the directory.
	Path string
	// Reason says in plain words what is wrong.
	Reason string
	// Err is the cause, for errors.Is.
	Err error
}

// Error returns one line.
func (e *Error) Error() string { return "durable: " + e.Op + " " + e.Path + ": " + e.Reason }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// refuse is an error about a file that is not fit for op.
func refuse(op, path, reason string) error {
	return &Error{Op: op, Path: path, Reason: reason, Err: ErrRefused}
}

// fail explains err; what is an *Error already says enough.
func fail(op, path string, err error) error {
	if e := new(Error); err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Path: path, Reason: reasonOf(err), Err: err}
}

// reasonOf says in plain words what a system's error means.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the disk is full"
	case errors.Is(err, syscall.EDQUOT):
		return "the disk quota is used up"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only"
	case errors.Is(err, syscall.EIO):
		return "the disk failed: input/output error"
	case errors.Is(err, syscall.ELOOP):
		return "is a symbolic link"
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, context.Canceled):
		return "was given up"
	case errors.Is(err, context.DeadlineExceeded):
		return "took too long"
	}
	// The names in these say what Path says already.
	if e := new(fs.PathError); errors.As(err, &e) {
		err = e.Err
	}
	if e := new(os.LinkError); errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

// fileProblem names why a file that exists is not fit to be replaced or to be
// a lock.
func fileProblem(info fs.FileInfo) string {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "is a symbolic link"
	case !info.Mode().IsRegular():
		return "is not a regular file"
	}
	return ownerProblem(info)
}

// dirProblem names why nothing should be written in a directory: somebody
// else could put a link or another file in place of ours.
func dirProblem(info fs.FileInfo) string {
	switch {
	case !info.IsDir():
		return "is not a directory"
	case info.Mode().Perm()&0o002 != 0 && enforced:
		return fmt.Sprintf("mode %04o lets everybody write to the directory", info.Mode().Perm())
	}
	return ownerProblem(info)
}

// PrivacyProblem names why a file or directory is not private to us: its mode
// lets others in, or it belongs to somebody else. It is "" for one that is.
func PrivacyProblem(info fs.FileInfo) string {
	if perm := info.Mode().Perm(); perm&0o077 != 0 && enforced {
		return fmt.Sprintf("mode %04o lets others in", perm)
	}
	return ownerProblem(info)
}

// CheckPrivate returns an error that matches [ErrRefused] for what is no
// directory of ours alone: it holds secrets.
func CheckPrivate(fsys FS, dir string) error {
	const op = "check"
	info, err := fsys.Lstat(dir)
	if err != nil {
		return fail(op, dir, err)
	}
	problem := PrivacyProblem(info)
	if !info.IsDir() {
		problem = "is not a directory"
	}
	if problem != "" {
		return refuse(op, dir, problem)
	}
	return nil
}

func ownerProblem(info fs.FileInfo) string {
	owner, ok := ownerOf(info)
	if us := os.Geteuid(); ok && owner != us && owner != 0 {
		return fmt.Sprintf("is owned by uid %d, not by you (uid %d) or root", owner, us)
	}
	return ""
}

// ownerOf returns who owns a file, if the file system knows.
func ownerOf(info fs.FileInfo) (int, bool) {
	if o, ok := info.Sys().(interface{ Owner() int }); ok { // a file system of a test
		return o.Owner(), true
	}
	return sysOwner(info)
}
