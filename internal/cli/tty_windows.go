package cli

import (
	"errors"
	"syscall"
)

// terminalDevice is the terminal of the process, whatever its streams are.
const terminalDevice = "CONOUT$"

// errNoData is ERROR_NO_DATA: the pipe is being closed.
const errNoData = syscall.Errno(232)

// isBrokenPipe reports whether a write failed because nobody reads any more.
func isBrokenPipe(err error) bool {
	return errors.Is(err, syscall.ERROR_BROKEN_PIPE) || errors.Is(err, errNoData)
}
