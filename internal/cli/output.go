package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// format is what data is printed as.
type format string

const (
	formatTable format = "table" // for people
	formatJSON  format = "json"  // an object, or an array of them
	formatYAML  format = "yaml"  // the same
	formatName  format = "name"  // ids or names, one a line
)

// outputError is standard output that could not be written.
type outputError struct{ err error }

func (e *outputError) Error() string { return "standard output: " + e.err.Error() }

func (e *outputError) Unwrap() error { return e.err }

// errOutputClosed is standard output that nobody reads any more.
var errOutputClosed = &outputError{errors.New("nobody reads it any more")}

// printOne prints one record.
func (a *app) printOne(r record) error {
	switch a.format {
	case formatJSON, formatYAML:
		return a.printValue(r)
	case formatName:
		return a.printNames([]record{r})
	}
	return a.write(func(w io.Writer) error {
		return writeBlocks(w, r.columns(), []record{r}, colored(a.out))
	})
}

// printAll prints records: as a table, its columns.
func (a *app) printAll(columns []string, records []record) error {
	switch a.format {
	case formatJSON, formatYAML:
		if records == nil {
			records = []record{}
		}
		return a.printValue(records)
	case formatName:
		return a.printNames(records)
	}
	if len(records) == 0 {
		a.note("there are none")
		return nil
	}
	return a.write(func(w io.Writer) error {
		return writeTable(w, columns, records, a.width(), colored(a.out))
	})
}

// printNames prints what names each record: its first field.
func (a *app) printNames(records []record) error {
	return a.write(func(w io.Writer) error {
		var b strings.Builder
		for _, r := range records {
			if len(r) > 0 {
				b.WriteString(cell(r[0].value) + "\n")
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// printValue prints JSON or YAML.
func (a *app) printValue(v any) error {
	if a.format == formatYAML {
		text, err := toYAML(v)
		if err != nil {
			return err
		}
		return a.printText(text)
	}
	b, err := encode(v)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", "  "); err != nil {
		return err
	}
	// What is allowed in JSON and harmful on a terminal is inside of strings,
	// where an escape means the same.
	return a.printText(printableLines(indented.String()) + "\n")
}

// printText prints text for people, such as a plan.
func (a *app) printText(text string) error {
	return a.write(func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// write prints on standard output. A reader that went away is no failure to
// talk about.
func (a *app) write(print func(io.Writer) error) error {
	err := print(a.out)
	switch {
	case err == nil:
		return nil
	case isBrokenPipe(err):
		return errOutputClosed
	}
	return &outputError{err}
}

// helpWriter is standard output for what cobra prints: help and completions.
type helpWriter struct{ a *app }

func (w helpWriter) Write(b []byte) (n int, err error) {
	err = w.a.write(func(out io.Writer) error {
		n, err = out.Write(b)
		return err
	})
	return n, err
}
