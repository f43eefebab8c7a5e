//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// noFollow refuses a symbolic link, and does not wait at a pipe.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sysOwner returns the user id that owns a file.
func sysOwner(info fs.FileInfo) (int, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// passing reports whether a rename that failed so may succeed shortly after.
func passing(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ETXTBSY)
}

// enforced says that mode bits mean something.
const enforced = true
