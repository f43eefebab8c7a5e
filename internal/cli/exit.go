package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// Exit codes.
const (
	exitDone        = 0   // done
	exitFailed      = 1   // failed, and nothing has changed
	exitUsage       = 2   // the command line, the environment or a file is wrong; nothing was sent
	exitUnknown     = 3   // the outcome is unknown, a rotation is under way, or only a part is done
	exitNotFound    = 4   // there is no such thing
	exitDenied      = 5   // the token is not accepted, or may not do this
	exitLimited     = 6   // the provider asks to wait
	exitStuck       = 7   // a rotation needs a person
	exitInterrupted = 130 // by Ctrl-C or a signal
)

// usageError is a command line that cannot be run.
type usageError struct {
	reason string
	next   string // what to do, if that is not obvious
}

func (e *usageError) Error() string { return e.reason }

func usage(format string, args ...any) error {
	return &usageError{reason: fmt.Sprintf(format, args...)}
}

// hinted is an error with what to do next.
type hinted struct {
	err  error
	next []string
}

func (e *hinted) Error() string { return e.err.Error() }

func (e *hinted) Unwrap() error { return e.err }

// hint adds what to do next to an error.
func hint(err error, next ...string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, next}
}

// coded is an error whose exit code is settled.
type coded struct {
	err  error
	code int
}

func (e *coded) Error() string { return e.err.Error() }

func (e *coded) Unwrap() error { return e.err }

// codeOf returns the exit code for an error.
func codeOf(err error) int {
	if all, ok := err.(several); ok {
		return gravest(all)
	}
	var (
		saved   *rescued
		settled *coded
		wrong   *usageError
		param   *keywright.ParamError
		config  *keywright.ConfigError
		file    *jobfile.Error
		unknown *jobfile.UnknownJobError
		other   *jobfile.DatabaseError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &saved): // a call that issued it has changed something
		return exitUnknown
	case errors.As(err, &settled):
		return settled.code
	case errors.Is(err, rotation.ErrStuck):
		return exitStuck
	case errors.Is(err, context.Canceled) && errors.Is(err, rotation.ErrUnfinished):
		return exitInterrupted // it goes on when it is run again
	case errors.Is(err, keywright.ErrOutcomeUnknown), errors.Is(err, rotation.ErrUnfinished):
		return exitUnknown
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &wrong), errors.As(err, &config), errors.As(err, &param),
		errors.As(err, &file), errors.As(err, &unknown), errors.As(err, &other), errors.Is(err, rotation.ErrJournal):
		return exitUsage
	case errors.Is(err, keywright.ErrNotFound):
		return exitNotFound
	case errors.Is(err, keywright.ErrUnauthorized), errors.Is(err, keywright.ErrForbidden), errors.Is(err, rotation.ErrNoAccess):
		return exitDenied
	case errors.Is(err, keywright.ErrRateLimited):
		return exitLimited
	}
	return exitFailed
}

// gravest returns the code of the error that most needs somebody to look.
func gravest(all several) int {
	codes := make([]int, len(all))
	for i, err := range all {
		codes[i] = codeOf(err)
	}
	for _, code := range [...]int{exitStuck, exitInterrupted, exitUnknown} {
		if slices.Contains(codes, code) {
			return code
		}
	}
	return codes[0]
}

// several are errors that are reported one after another.
type several []error

func (e several) Error() string { return errors.Join(e...).Error() }

func (e several) Unwrap() []error { return e }

// join joins errors, of which each is reported with what to do about it.
func join(errs ...error) error {
	var all several
	for _, err := range errs {
		if more, ok := err.(several); ok {
			all = append(all, more...)
		} else if err != nil {
			all = append(all, err)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return all
}

// report says on standard error what went wrong and what to do about it, and
// returns the exit code.
func (a *app) report(err error) int {
	all, ok := err.(several)
	if !ok {
		all = several{err}
	}
	for i, e := range all {
		if failed := (*outputError)(nil); a.changed && errors.As(e, &failed) && codeOf(e) == exitFailed {
			all[i] = hint(&coded{e, exitUnknown}, "what was asked for is done; only its output has failed")
		} else if e == error(errOutputClosed) {
			continue // nobody is there to read about it
		}
		if e != nil {
			a.say(all[i])
		}
	}
	return codeOf(all)
}

// say reports one error.
func (a *app) say(err error) {
	fmt.Fprintln(a.err, a.style(red, "keywright:"), printableLines(a.textOf(err, codeOf(err))))
	for _, l := range append(details(err), hints(err)...) {
		fmt.Fprintln(a.err, " ", printable(l))
	}
}

// hints returns what to do about an error, all that was added to it on its way.
func hints(err error) []string {
	var lines []string
	for e := err; e != nil; {
		switch v := e.(type) {
		case *hinted:
			lines = append(lines, v.next...)
		case *rescued:
			lines = append(lines, v.where)
		case *jobfile.DatabaseError:
			lines = append(lines, v.Instead)
		case *usageError:
			if v.next != "" {
				lines = append(lines, v.next)
			}
		}
		switch v := e.(type) {
		case interface{ Unwrap() error }:
			e = v.Unwrap()
		case interface{ Unwrap() []error }:
			for _, inner := range v.Unwrap() {
				lines = append(lines, hints(inner)...)
			}
			return lines
		default:
			return lines
		}
	}
	return lines
}

// seeDoctor is what to do about a token that is not accepted.
const seeDoctor = "see where the token comes from: keywright doctor"

// trimmed returns the text of an error without the name that all lines begin
// with.
func trimmed(err error) string { return strings.TrimPrefix(err.Error(), "keywright: ") }

// details returns what a provider's refusal says beside its message.
func details(err error) []string {
	var (
		api   *keywright.APIError
		lines []string
	)
	if !errors.As(err, &api) {
		return nil
	}
	for _, field := range slices.Sorted(maps.Keys(api.Fields)) {
		lines = append(lines, field+": "+strings.Join(api.Fields[field], "; "))
	}
	if api.RetryAfter > 0 {
		lines = append(lines, "try again in "+api.RetryAfter.String())
	}
	if errors.Is(api, keywright.ErrUnauthorized) {
		lines = append(lines, seeDoctor)
	}
	return lines
}

// textOf returns what is said about an error.
func (a *app) textOf(err error, code int) string {
	if err == context.Canceled {
		return "interrupted"
	}
	text := trimmed(err)
	if stuck := (*rotation.StuckError)(nil); errors.As(err, &stuck) { // its steps are the hints
		text = fmt.Sprintf("%s is stuck in %s: %v", stuck.Job, stuck.State, stuck.Err)
	}
	if other := (*jobfile.DatabaseError)(nil); errors.As(err, &other) { // what to do is a hint
		text = other.Path + ": " + other.Message
	}
	if code == exitInterrupted && a.ctx.Err() != nil {
		text = "interrupted: " + text
	}
	return text
}
