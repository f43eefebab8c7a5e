package jobfile

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// jsonReader makes YAML nodes of valid JSON. The parser of YAML does not know
// all that JSON has, such as "\/" and characters that are written as two \u.
type jsonReader struct {
	text         []byte
	dec          *json.Decoder // of text
	at           int           // up to where line and column were counted
	line, column int
}

func readJSON(text []byte) *yaml.Node {
	r := &jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1, column: 1}
	r.dec.UseNumber()
	return r.node()
}

// node returns the next value, or the name of a field.
func (r *jsonReader) node() *yaml.Node {
	r.advance()
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	token, _ := r.dec.Token() // there is one: the text is valid
	switch t := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for r.dec.More() { // names and values in turn
			n.Content = append(n.Content, r.node())
		}
		_, _ = r.dec.Token() // its end
	case string:
		n.Style, n.Tag, n.Value = yaml.DoubleQuotedStyle, "!!str", t
	case json.Number:
		n.Value = t.String()
	case bool:
		n.Value = "false"
		if t {
			n.Value = "true"
		}
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n
}

// advance goes to the beginning of the next token.
func (r *jsonReader) advance() {
	end := int(r.dec.InputOffset())
	for end < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[end]) >= 0 {
		end++
	}
	for _, c := range r.text[r.at:end] {
		switch {
		case c == '\n':
			r.line, r.column = r.line+1, 1
		case utf8.RuneStart(c):
			r.column++
		}
	}
	r.at = end
}
