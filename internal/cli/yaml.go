package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// toYAML returns as YAML what encode returns as JSON. Texts are plain words, or
// in quotes as JSON has them, so that every reader reads them alike: also one of
// YAML 1.1, to which no is false and 12:30 is 750.
func toYAML(v any) (string, error) {
	inline, lines, err := yamlOf(v)
	if err != nil {
		return "", err
	}
	if lines == nil {
		lines = []string{inline}
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// maxYAMLName is how long the name of a field may be where it is not marked as
// one; a little less than the 1024 characters that YAML allows.
const maxYAMLName = 1000

// yamlOf returns a value as a text that goes into a line, or as lines of its own.
func yamlOf(v any) (inline string, lines []string, err error) {
	switch v := v.(type) {
	case record:
		if len(v) == 0 {
			return "{}", nil, nil
		}
		for _, f := range v {
			inner, below, err := yamlOf(f.value)
			if err != nil {
				return "", nil, err
			}
			name := yamlText(f.name) + ":"
			if len(name) > maxYAMLName {
				lines, name = append(lines, "? "+yamlText(f.name)), ":"
			}
			if below == nil {
				lines = append(lines, name+" "+inner)
				continue
			}
			lines = append(append(lines, name), indented("  ", "  ", below)...)
		}
		return "", lines, nil
	case []record:
		all := make([]any, len(v))
		for i, r := range v {
			all[i] = r
		}
		return yamlOf(all)
	case []any:
		if len(v) == 0 {
			return "[]", nil, nil
		}
		for _, e := range v {
			inner, below, err := yamlOf(e)
			if err != nil {
				return "", nil, err
			}
			if below == nil {
				below = []string{inner}
			}
			lines = append(lines, indented("- ", "  ", below)...)
		}
		return "", lines, nil
	case json.RawMessage:
		inner, err := fromJSON(v)
		if err != nil {
			return "", nil, err
		}
		return yamlOf(inner)
	case string:
		return yamlText(v), nil, nil
	case stamp:
		return yamlText(string(v)), nil, nil
	case nil, bool, json.Number:
		b, err := encode(v)
		return string(b), nil, err
	}
	return "", nil, fmt.Errorf("no YAML for %T", v)
}

// indented puts first before the first line and rest before the others.
func indented(first, rest string, lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = rest + l
	}
	out[0] = first + lines[0]
	return out
}

var (
	plainWords = regexp.MustCompile(`^[A-Za-z][A-Za-z_./-]*( [A-Za-z_./()-]+)*$`) // without digits: ids look alike
	otherThan  = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null)$`)   // a text
)

// yamlText returns a text as YAML.
func yamlText(s string) string {
	if plainWords.MatchString(s) && !otherThan.MatchString(s) {
		return s
	}
	b, err := encode(s)
	if err != nil { // a text can be encoded
		return `""`
	}
	return printable(string(b))
}

// fromJSON returns a JSON document as the values that records are made of.
func fromJSON(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return ordered(v), nil
}

// ordered replaces maps by records, in the order of the names.
func ordered(v any) any {
	switch v := v.(type) {
	case map[string]any:
		r := make(record, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			r = append(r, field{name, ordered(v[name])})
		}
		return r
	case []any:
		for i := range v {
			v[i] = ordered(v[i])
		}
	}
	return v
}
