package jobfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a document.
const (
	maxDepth    = 16      // a good file has 6
	maxNodes    = 500_000 // values; 10,000 jobs have less
	maxProblems = 1000    // no more are looked for
)

// document is a job file as YAML, and what is wrong with it.
type document struct {
	root     *yaml.Node // nil if there is nothing to look at
	value    any        // what root says, for the schema
	nodes    int        // read so far
	problems []Problem
	bad      map[string]bool // parts that had problems when it was decoded: "policy", "jobs[0]"
}

// readDocument reads b as far as YAML goes.
func readDocument(b []byte) *document {
	d := new(document)
	if len(b) > maxSize {
		d.add(nil, "", "is larger than 4 MiB")
		return d
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if i := invalid(b); i >= 0 {
		line := 1 + bytes.Count(b[:i], []byte("\n"))
		d.problems = append(d.problems, Problem{Line: line, Reason: "is not UTF-8 text; save the file as UTF-8"})
		return d
	}
	root := d.parse(b)
	if root == nil {
		return d
	}
	if root.Kind == yaml.ScalarNode && plainNull(root) {
		d.add(nil, "", "is empty")
		return d
	}
	d.root = root
	if d.value = d.read(root, nil); d.nodes > maxNodes {
		d.root = nil
		d.add(nil, "", "has more than "+strconv.Itoa(maxNodes)+" values")
	}
	return d
}

// parse returns the value of the one document in b, or notes why there is none.
func (d *document) parse(b []byte) *yaml.Node {
	if json.Valid(b) {
		return readJSON(b)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		d.add(nil, "", "is empty")
		return nil
	} else if err != nil {
		d.problems = append(d.problems, yamlProblem(err))
		return nil
	}
	if err := dec.Decode(&more); err == nil {
		d.add(&more, "", "is a second document; a file has one")
		return nil
	} else if !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, yamlProblem(err))
		return nil
	}
	return doc.Content[0]
}

// invalid returns where b stops being text, or -1.
func invalid(b []byte) int {
	if i := bytes.IndexByte(b, 0); i >= 0 { // UTF-16, as a rule
		return i
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// yamlProblem tells what the YAML parser found, without anything that it
// repeats of the file.
func yamlProblem(err error) Problem {
	p := Problem{Line: 1, Reason: "is not YAML"} // the parser does not name the first line
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(said, "line "); ok {
		line, what, _ := strings.Cut(rest, ": ")
		p.Line, _ = strconv.Atoi(line)
		if said = what; grammatical(said) { // it counts these from 0
			p.Line++
		}
	}
	signs := strings.NewReplacer("','", "", "']'", "", "'}'", "", "'-'", "", "'!'", "")
	switch {
	case strings.Contains(said, "anchor"): // it does not say where
		p.Line, p.Reason = 0, noAlias
	case strings.Contains(said, "exceeded max depth"):
		p.Reason = tooDeep
	case strings.Contains(said, "cannot start any token"):
		p.Reason += ": a tab or a character that must be in quotes"
	case !strings.ContainsAny(signs.Replace(said), "'`\"%"):
		p.Reason += ": " + said
	}
	return p
}

// grammatical reports whether an error is of YAML's grammar, not of how its
// words are written.
func grammatical(said string) bool {
	what, ok := strings.CutPrefix(said, "did not find expected ")
	return ok && slices.ContainsFunc([]string{"<document start>", "node content", "key", "'-' indicator", "',' or"},
		func(s string) bool { return strings.HasPrefix(what, s) })
}

const (
	noAlias = "anchors, aliases and merge keys are not allowed; write it out"
	tooDeep = "is nested too deeply"
)

// add notes a problem.
func (d *document) add(n *yaml.Node, where, reason string) {
	p := Problem{Where: where, Reason: reason}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	d.problems = append(d.problems, p)
}

// addAt notes a problem with the value at a place.
func (d *document) addAt(reason string, at ...string) {
	where, _, n := d.locate(at)
	d.add(n, where, reason)
}

// err returns all problems.
func (d *document) err(path string) error {
	if len(d.problems) == 0 {
		return nil
	}
	return &Error{Path: path, Problems: sorted(d.problems)}
}

// locate returns the name of a place, and the nodes of its key, if it has one,
// and its value; for a place that is absent, those of what it would be in.
func (d *document) locate(at []string) (where string, key, value *yaml.Node) {
	value = d.root
	for _, token := range at {
		if value != nil && value.Kind == yaml.SequenceNode {
			where += "[" + token + "]"
			if i, err := strconv.Atoi(token); err == nil && i < len(value.Content) {
				value = value.Content[i]
			}
			continue
		}
		if where != "" {
			where += "."
		}
		where += shown(token)
		if k, v := member(value, token); v != nil {
			key, value = k, v
		}
	}
	return where, key, value
}

// member returns the key and the value of a field.
func member(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// shown is a name or a word of the file as errors may show it: what could be a
// secret is not.
func shown(s string) string {
	if plain(s) {
		return s
	}
	return "?"
}

// plain reports whether s is a word, and not something that looks random.
func plain(s string) bool {
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
		case c == '_' || c == '-':
		case '0' <= c && c <= '9':
			digits++
		default:
			return false
		}
	}
	return 0 < len(s) && len(s) <= 24 && digits <= 2
}

// read returns what a node says, as YAML 1.2 has it and JSON can: maps,
// slices, text, numbers, true, false and nil.
func (d *document) read(n *yaml.Node, at []string) any {
	switch d.nodes++; {
	case d.nodes > maxNodes:
		return ignored{}
	case len(at) > maxDepth:
		return d.refuse(n, tooDeep, at)
	case n.Kind == yaml.AliasNode, n.Anchor != "":
		return d.refuse(n, noAlias, at)
	case n.Style&yaml.TaggedStyle != 0:
		return d.refuse(n, `tags ("!") are not allowed`, at)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.readMap(n, at)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			list = append(list, d.read(c, append(at, strconv.Itoa(i))))
		}
		return list
	}
	if strings.ContainsRune(n.Value, utf8.RuneError) { // in JSON, half of a character that is written as two \u
		return d.refuse(n, "has a character that was lost (U+FFFD)", at)
	}
	v, ok := scalar(n)
	if !ok {
		return d.refuse(n, "is a number that is out of range", at)
	}
	return v
}

func (d *document) readMap(n *yaml.Node, at []string) any {
	fields := make(map[string]any, len(n.Content)/2)
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.AliasNode, k.Anchor != "", k.Tag == "!!merge":
			d.refuse(k, noAlias, at)
			continue
		case k.Kind != yaml.ScalarNode:
			d.refuse(k, "has a field whose name is not text", at)
			continue
		}
		here := append(at, k.Value)
		switch line, twice := lines[k.Value]; {
		case twice:
			d.refuse(k, "is there twice, first in line "+strconv.Itoa(line), here)
		case forbidden(k.Value):
			d.refuse(k, "a token does not belong into this file; use token_file or token_env", here)
		default:
			fields[k.Value] = d.read(v, here)
		}
		if _, twice := lines[k.Value]; !twice {
			lines[k.Value] = k.Line
		}
	}
	return fields
}

// ignored stands for a value that a problem was noted with already.
type ignored struct{}

// refuse notes a problem that the schema would not find.
func (d *document) refuse(n *yaml.Node, reason string, at []string) any {
	if len(d.problems) < maxProblems {
		where, _, _ := d.locate(at)
		d.add(n, where, reason)
	}
	return ignored{}
}

// forbidden reports whether a field of that name would hold a secret. No field
// that there is ends so.
func forbidden(name string) bool {
	name = strings.ToLower(name)
	if strings.ContainsAny(name, "-_. ") {
		name = strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(name)
	}
	for _, end := range [...]string{"token", "secret", "password", "passwd", "passphrase", "apikey", "secretkey", "privatekey", "authorization", "bearer"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// scalar returns what a scalar says. Only what is a number in JSON is one, so
// that 0600 is text. yes, no, on and off are text, as YAML 1.2 has it. It
// reports false for a number that is out of range.
func scalar(n *yaml.Node) (any, bool) {
	s := n.Value
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return s, true
	}
	switch s {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	switch {
	case plainNull(n):
		return nil, true
	case s[0] != '-' && (s[0] < '0' || s[0] > '9') || !json.Valid([]byte(s)):
		return s, true
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v, true
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

// plainNull reports whether a scalar is null or nothing at all.
func plainNull(n *yaml.Node) bool {
	return n.Style == 0 && slices.Contains([]string{"", "~", "null", "Null", "NULL"}, n.Value)
}

// decode fills f with what there are no problems with.
func (d *document) decode(f *File) {
	root := d.root
	if len(d.problems) > 0 {
		root = d.pruned()
	}
	if root.Kind != yaml.MappingNode {
		return
	}
	if err := root.Decode(f); err != nil && len(d.problems) == 0 { // the schema and the types of File disagree
		d.add(d.root, "", "cannot be read")
	}
}

// pruned returns the document without the parts that have problems: fields of
// the file, and single jobs, whose places stay.
func (d *document) pruned() *yaml.Node {
	root := *d.root
	root.Content = nil
	if root.Kind != yaml.MappingNode {
		return &root
	}
	d.bad = make(map[string]bool)
	for _, p := range d.problems {
		part, _, _ := strings.Cut(p.Where, ".")
		d.bad[part] = true
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		k, v := d.root.Content[i], d.root.Content[i+1]
		if d.bad[k.Value] || seen[k.Value] || !plain(k.Value) {
			continue
		}
		seen[k.Value] = true
		if k.Value == "jobs" && v.Kind == yaml.SequenceNode {
			jobs := *v
			jobs.Content = slices.Clone(v.Content)
			for i := range jobs.Content {
				if d.bad["jobs["+strconv.Itoa(i)+"]"] {
					jobs.Content[i] = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				}
			}
			v = &jobs
		}
		root.Content = append(root.Content, k, v)
	}
	return &root
}
