//go:build unix

package cli

import (
	"errors"
	"syscall"
)

// terminalDevice is the terminal of the process, whatever its streams are.
const terminalDevice = "/dev/tty"

// isBrokenPipe reports whether a write failed because nobody reads any more.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
