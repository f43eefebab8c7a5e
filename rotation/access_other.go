//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package rotation

// access knows nothing here: whether something can be made is seen when it is.
func access(string) error { return nil }
