package keywright

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/keywright/keywright/internal/spell"
)

// entry is one value of a config file, or of a variable, with the place it
// came from.
type entry struct {
	value  string
	source string // file or variable
	line   int    // in the file; 0 for a variable
}

// place is where an entry came from: a variable, or a file and a line of it.
func (e entry) place() string {
	if e.line > 0 {
		return e.source + ":" + itoa(e.line)
	}
	return e.source
}

// iniKeys returns the settings that ricloud-py keeps in a section and that
// matter here. Other sections are not ours to judge.
func iniKeys(section string) (keys []string, ours bool) {
	switch section {
	case "api":
		return []string{"token", "url", "max_retries", "await_for"}, true
	case "webhooks":
		return []string{"secret", "delta"}, true
	}
	return nil, false
}

// maxConfigFile bounds a config or credentials file.
const maxConfigFile = 1 << 20

// readFile reads a whole file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	switch {
	case err != nil:
		return nil, fileError(path, err)
	case len(b) > maxConfigFile:
		return nil, &ConfigError{Source: path, Reason: "is larger than 1 MiB"}
	case len(strings.TrimSpace(string(b))) == 0:
		return nil, &ConfigError{Source: path, Reason: "is empty"}
	}
	return b, nil
}

// parseINI reads what Python's RawConfigParser reads: sections, "key = value"
// or "key: value", comments on lines of their own, continuation lines. Keys
// of the result are "section.key" in lower case.
func parseINI(source, text string) (map[string]entry, error) {
	out := make(map[string]entry)
	sections := make(map[string]bool)
	section, last := "", ""
	text = strings.TrimPrefix(text, "\ufeff")
	for n, line := range strings.Split(text, "\n") {
		n++
		line = strings.TrimSuffix(line, "\r")
		fail := func(reason string) (map[string]entry, error) {
			return nil, &ConfigError{Source: source, Line: n, Reason: reason}
		}
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
			continue
		case trimmed[0] == '[':
			name, ok := strings.CutSuffix(trimmed[1:], "]")
			if !ok {
				return fail("section header is not closed")
			}
			if sections[name] {
				return fail("section [" + name + "] given twice")
			}
			sections[name] = true
			section, last = name, ""
			continue
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				e := out[last]
				e.value += "\n" + trimmed
				out[last] = e
				continue
			}
		}
		if section == "" {
			return fail("want a [section] first")
		}
		known, ours := iniKeys(section)
		i := strings.IndexAny(trimmed, "=:")
		if i < 0 {
			if !ours {
				continue
			}
			return fail(`want "key = value"`)
		}
		key := strings.ToLower(strings.TrimSpace(trimmed[:i]))
		value := strings.TrimSpace(trimmed[i+1:])
		last = section + "." + key
		if !ours {
			last = ""
			continue
		}
		if !slices.Contains(known, key) {
			// What is no slip of the pen could be anything, a token included.
			if meant := spell.Nearest(key, known); meant != "" {
				return fail("unknown key " + strconv.Quote(key) + " in [" + section + "]; did you mean " + strconv.Quote(meant) + "?")
			}
			return fail("unknown key in [" + section + "] (not shown)")
		}
		if _, twice := out[last]; twice {
			return fail("key " + strconv.Quote(key) + " given twice")
		}
		if value, ok := unquote(value); ok {
			out[last] = entry{value, source, n}
		} else {
			return fail("quote is not closed")
		}
	}
	return out, nil
}

// unquote strips a pair of quotes and reports whether one is left open.
func unquote(v string) (string, bool) {
	if v == "" || v[0] != '"' && v[0] != '\'' {
		return v, true
	}
	if len(v) < 2 || v[len(v)-1] != v[0] {
		return "", false
	}
	return v[1 : len(v)-1], true
}
