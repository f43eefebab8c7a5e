//go:build !unix

package durable

import (
	"errors"
	"io/fs"
	"syscall"
)

// noFollow has no counterpart here.
const noFollow = 0

// syncDir does nothing: directories cannot be synced here.
func syncDir(string) error { return nil }

// sysOwner knows nothing: owners are not numbers here.
func sysOwner(fs.FileInfo) (int, bool) { return 0, false }

// What Windows says while somebody, a virus scanner for instance, has the file
// open.
const (
	sharingViolation = syscall.Errno(32)
	lockViolation    = syscall.Errno(33)
)

// passing reports whether a rename that failed so may succeed shortly after.
func passing(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, sharingViolation) || errors.Is(err, lockViolation)
}

// enforced says that mode bits mean something; here they do not.
const enforced = false
