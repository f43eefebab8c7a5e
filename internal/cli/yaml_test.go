package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestToYAML(t *testing.T) {
	t.Parallel()
	text, err := toYAML([]record{{
		{"id", json.Number("7")},
		{"name", "no"},
		{"words", "Getting started (draft)"},
		{"when", stamp("2027-01-31T09:00:00Z")},
		{"none", nil},
		{"on", true},
		{"list", []any{"a", "12:30:45", []any{"b"}, record{{"k", "v"}, {"l", json.Number("1.5")}}}},
		{"nothing", []any{}},
		{"extra", record{}},
		{"raw", json.RawMessage(`{"z":1,"a":"\ud83d\ude00","<<":null}`)},
		{"bad", "a\x1b[31m\u202e\u0085\u00ad\U000e0041b: #"},
	}})
	require.NoError(t, err)
	assert.Equal(t, `- id: 7
  name: "no"
  words: Getting started (draft)
  when: "2027-01-31T09:00:00Z"
  none: null
  "on": true
  list:
    - a
    - "12:30:45"
    - - b
    - k: v
      l: 1.5
  nothing: []
  extra: {}
  raw:
    "<<": null
    a: "😀"
    z: 1
  bad: "a\u001b[31m\u202e\u0085\u00ad\udb40\udc41b: #"
`, text)
}

// TestToYAML_reads compares what a YAML library reads with what JSON says.
func TestToYAML_reads(t *testing.T) {
	t.Parallel()
	texts := []string{
		"", " ", "a ", " a", "- a", "a: b", "a #b", "#", "~", "null", "NULL", "Yes", "off", "y", "0x1f", "1e3", "0o7", "-1", ".5", "1_000",
		"2027-01-31", "=", "<<", "!a", "&a", "*a", "%a", "@a", "`a`", "[a]", "{a}", "a,b", "'a'", `"a"`, `a\b`, "a\nb", "a\tb", "|", ">", "?", ":",
		"é", "漢字", "a/b", "a.b", "a_b", "true", "False", "\u2028", strings.Repeat("x", 2000), "a  b", "a b", "--- a", "...",
	}
	r := make(record, 0, 2*len(texts))
	want := make(map[string]any)
	for _, text := range texts {
		r = append(r, field{"k" + text, text}, field{text + "l", []any{text}})
		want["k"+text], want[text+"l"] = text, []any{text}
	}
	text, err := toYAML(r)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &got))
	assert.Equal(t, want, got)
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain 漢字 é😀":            "plain 漢字 é😀",
		"\x1b]0;x\a\r\n\t\x7f":   `\u001b]0;x\u0007\u000d\u000a\u0009\u007f`,
		"\u009b\u0085":           `\u009b\u0085`,
		"\u061c\u200b\u202e":     `\u061c\u200b\u202e`,
		"\u00ad\u180e\ufeff":     `\u00ad\u180e\ufeff`,
		"\u2028\u2029":           `\u2028\u2029`,
		"\U000e0001\U000e007f":   `\udb40\udc01\udb40\udc7f`,
		"\ufff9\ufffb\u2066\xff": `\ufff9\ufffb\u2066` + "\ufffd",
	} {
		assert.Equal(t, want, printable(text))
	}
}
