//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package rotation

import "syscall"

// access returns the error with which nothing could be made in a directory.
func access(dir string) error {
	const writeAndSearch = 2 | 1 // W_OK, X_OK
	return syscall.Access(dir, writeAndSearch)
}
