package rotator

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// Exit codes; those of the program keywright that apply.
const (
	exitDone        = 0   // done, or stopped as asked
	exitFailed      = 1   // failed
	exitUsage       = 2   // the command line or a file is wrong; nothing was begun
	exitUnknown     = 3   // rotations are under way, and go on when it is started again
	exitInterrupted = 130 // told a third time to stop
)

// usageError is what cannot be begun as it is asked for.
type usageError struct {
	reason string
	next   string // what to do; may be empty
}

// Error returns one line.
func (e *usageError) Error() string { return e.reason }

// coded is an error whose exit code is settled.
type coded struct {
	error
	code int
}

// Unwrap returns the cause.
func (e *coded) Unwrap() error { return e.error }

// codeOf returns the exit code for an error.
func codeOf(err error) int {
	var (
		settled *coded
		wrong   *usageError
		config  *keywright.ConfigError
		file    *jobfile.Error
		unknown *jobfile.UnknownJobError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &settled):
		return settled.code
	case errors.As(err, &wrong), errors.As(err, &config), errors.As(err, &file), errors.As(err, &unknown), errors.Is(err, rotation.ErrJournal):
		return exitUsage
	}
	return exitFailed
}

// report says on standard error what went wrong and what to do about it, and
// returns the exit code. What the log has said is not said again.
func (a *app) report(err error) int {
	code := codeOf(err)
	var logged *loggedError
	if err == nil || errors.As(err, &logged) {
		return code
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(a.err, "%s: %s\n", name, printable(line))
		}
	}
	if next := nextOf(err); next != "" {
		fmt.Fprintf(a.err, "  %s\n", printable(next))
	}
	return code
}

// nextOf returns what to do about an error; empty: the error says it.
func nextOf(err error) string {
	var wrong *usageError
	if errors.As(err, &wrong) {
		return wrong.next
	}
	return ""
}

// loggedError is an error that the log has.
type loggedError struct{ error }

// Unwrap returns the cause.
func (e *loggedError) Unwrap() error { return e.error }

// printable replaces what a terminal would not show.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
