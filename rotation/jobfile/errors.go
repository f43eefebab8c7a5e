package jobfile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a job file.
type Problem struct {
	Line   int    // from 1; 0 if it is the whole file
	Column int    // from 1; 0 if it is the whole line
	Where  string // the field, such as "jobs[0].sinks[1].path"; may be empty
	Reason string // what is wrong, and where it helps, what to do
	Err    error  // a cause, or nil
}

// Error is all that is wrong with a job file. Its text repeats no values of
// the file but plain words where one of a few is expected.
type Error struct {
	Path     string    // of the file
	Problems []Problem // by line, at least one
}

// maxTold bounds how many problems the text of an [Error] has.
const maxTold = 50

// Error returns a line for each problem: "keywright.yaml:12: jobs[0].name: is
// missing".
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i == maxTold {
			fmt.Fprintf(&b, "\n%s: %d more problems", e.Path, len(e.Problems)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Path)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		if p.Where != "" {
			b.WriteString(": " + p.Where)
		}
		b.WriteString(": " + p.Reason)
	}
	return b.String()
}

// Unwrap returns the causes.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, p := range e.Problems {
		if p.Err != nil {
			errs = append(errs, p.Err)
		}
	}
	return errs
}

// broken is a file that cannot be used at all.
func broken(path, reason string) *Error {
	return &Error{Path: path, Problems: []Problem{{Reason: reason}}}
}

// sorted returns problems by line, each once.
func sorted(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	seen := make(map[Problem]bool)
	return slices.DeleteFunc(problems, func(p Problem) bool {
		p.Err = nil // need not be comparable
		told := seen[p]
		seen[p] = true
		return told
	})
}

// UnknownJobError says that a file has no job of a name.
type UnknownJobError struct {
	Path    string // of the file
	Name    string // what was asked for
	Similar string // a job that may have been meant, or empty
}

// Error returns one line.
func (e *UnknownJobError) Error() string {
	s := e.Path + ": no job is named " + strconv.Quote(e.Name)
	if e.Similar != "" {
		s += "; did you mean " + strconv.Quote(e.Similar) + "?"
	}
	return s
}
